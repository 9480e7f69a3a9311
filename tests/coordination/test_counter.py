"""The counter: exact under contention, lost answers, late writes and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from strikes import STRIKES, trouble_among
from worlds import Suspensions, World, connect

from osdisco.backend import Put
from osdisco.client import Client
from osdisco.coordination import CoordinationService, DistributedCounter
from osdisco.errors import (
    ConflictError,
    IndeterminateError,
    LimitError,
    OsdiscoError,
    UnavailableError,
)
from osdisco.testing import Scenario, SimulatedProcess, Simulation, scenario


def counter_of(client: Client, name: str = "jobs") -> DistributedCounter:
    return CoordinationService(client).counter(name)


async def test_it_begins_at_zero_and_adds_either_way(world: World) -> None:
    counter = counter_of(world.process())
    assert await counter.get() == 0
    assert [await counter.add(), await counter.add(41), await counter.add(-50), await counter.add(0)] == [1, 42, -8, -8]
    assert await counter_of(world.process()).get() == -8


@pytest.mark.parametrize("exactly_once", [False, True])
async def test_many_processes_lose_no_addition(world: World, exactly_once: bool) -> None:
    counters = [counter_of(world.process()) for _ in range(8)]
    sums = await asyncio.gather(*(counter.add(exactly_once=exactly_once) for counter in counters * 5))
    assert sorted(sums) == list(range(1, 41))
    await asyncio.sleep(0.1)
    assert world.keys() == ["ctr/jobs"]


async def test_an_addition_whose_answer_was_lost_is_of_unknown_outcome_and_not_repeated(world: World) -> None:
    client = world.process()
    client.backend.faults.drop_answer("commit", times=1)
    with pytest.raises(IndeterminateError):
        await counter_of(client).add()
    assert await counter_of(client).get() == 1


FAULTS = ["drop", "drop_answer", "late"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_exactly_once_counts_once_whatever_becomes_of_the_answers(world: World, fault: str, times: int) -> None:
    client, other = world.process(), world.process()
    await client.shared_session()
    await asyncio.sleep(1)  # its own key is written by now
    late = {"after": 0.7} if fault == "late" else {}
    rule = getattr(client.backend.faults, fault)("commit", times=times, key="ctr/", **late)
    total = await counter_of(client).add(exactly_once=True)
    assert rule.hits == (1 if fault == "drop_answer" else times)
    assert total == await counter_of(other).get() == 1
    await counter_of(other).add(10)
    await asyncio.sleep(5)  # what is late arrives
    assert await counter_of(other).get() == 11


async def test_exactly_once_does_not_take_anothers_addition_for_its_own(world: World) -> None:
    """The number is what it would be if the lost addition had counted."""
    client, other = world.process(), world.process()
    client.backend.faults.drop("commit", times=1, key="ctr/")
    _, _ = await asyncio.gather(counter_of(client).add(exactly_once=True), counter_of(other).add())
    assert await counter_of(other).get() == 2


async def test_exactly_once_gives_up_as_unknown_after_one_operations_time(world: World) -> None:
    client = world.process()
    await client.shared_session()
    client.backend.faults.drop("commit", key="ctr/")
    began = world.clock.now()
    with pytest.raises(IndeterminateError):
        await counter_of(client).add(exactly_once=True)
    assert world.clock.now() - began <= client.options.timeout + 1
    client.backend.faults.clear()


async def test_an_attempt_that_arrives_after_a_later_one_and_a_removal_does_not_count(world: World) -> None:
    client = world.process()
    counter = CoordinationService(client).counter("jobs")
    client.backend.faults.late("commit", after=3, times=1, key="ctr/")
    assert await counter.add(exactly_once=True) == 1
    await asyncio.sleep(1)
    await client.delete("ctr/jobs")
    await asyncio.sleep(5)
    assert await counter.get() == 0


async def test_an_addition_under_a_session_that_ended_can_not_count_later(world: World) -> None:
    client = world.process()
    session = await client.shared_session()
    client.backend.faults.late("commit", after=2, times=1, key="ctr/")
    adding = asyncio.ensure_future(counter_of(client).add(exactly_once=True))
    await asyncio.sleep(0)
    world.store.faults.end_lease(session.id)
    with pytest.raises(IndeterminateError):
        await adding
    await asyncio.sleep(5)
    assert await counter_of(client).get() == 0


async def test_an_outage_is_not_counted(world: World) -> None:
    client = world.process()
    client.backend.faults.outage("commit")
    with pytest.raises(UnavailableError):
        await counter_of(client).add()
    client.backend.faults.clear()
    assert await counter_of(client).get() == 0


async def test_others_that_always_win_are_a_conflict(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.process()
    commit = world.store.commit

    def beaten(ops: object, expect: object) -> object:
        commit([Put("ns/ctr/jobs", b"%d" % world.random.getrandbits(30))], {})
        return commit(ops, expect)

    monkeypatch.setattr(world.store, "commit", beaten)
    with pytest.raises(ConflictError):
        await counter_of(client).add()


@pytest.mark.parametrize("exactly_once", [False, True])
@pytest.mark.parametrize("fault", ["none", *FAULTS])
async def test_cancelled_at_any_await_it_counts_once_or_not_at_all(
    world: World, exactly_once: bool, fault: str
) -> None:
    first, going = 0, True
    while going:
        first += 1
        client = world.process()
        name = f"jobs{first}"
        await client.shared_session()
        await asyncio.sleep(1)
        if fault != "none":
            late = {"after": 0.7} if fault == "late" else {}
            getattr(client.backend.faults, fault)("commit", times=1, key="ctr/", **late)
        suspensions = Suspensions(first)
        task = asyncio.ensure_future(suspensions.of(counter_of(client, name).add(exactly_once=exactly_once)))
        await asyncio.wait([task])
        going = task.cancelled()
        client.backend.faults.clear()
        await asyncio.sleep(3)
        assert await counter_of(client, name).get() <= 1
        await client.aclose()
    assert first > 1
    assert world.keys() == world.keys("ctr/")


async def test_it_ends_at_64_bits(world: World) -> None:
    counter = counter_of(world.process())
    await counter.add(2**63 - 1)
    with pytest.raises(LimitError):
        await counter.add(1)
    with pytest.raises(LimitError):
        await counter.add(-(10**5000))
    assert await counter.add(-1) == 2**63 - 2


@scenario(often={**STRIKES, "killed": 0.4, "added": 15, "unknown": 0.2})
async def additions(simulation: Simulation) -> None:
    """Additions that were confirmed count; those of unknown outcome may; nothing counts twice."""
    confirmed = doubtful = 0

    async def add(process: SimulatedProcess, delta: int) -> None:
        nonlocal confirmed, doubtful
        doubtful += delta  # also when it is killed
        try:
            await counter_of(process.client).add(delta, exactly_once=True)
            confirmed += delta
            simulation.seen["added"] += 1
        except IndeterminateError:
            simulation.seen["unknown"] += 1
            return
        except OsdiscoError:
            simulation.seen["refused by the counter"] += 1
        doubtful -= delta

    async def work(process: SimulatedProcess) -> None:
        last = False
        while not last:
            last = simulation.over
            await add(process, simulation.random.randint(1, 5))
            await asyncio.sleep(simulation.random.uniform(0, 1))

    await trouble_among(simulation, work, simulation.random.randint(2, 4))
    await simulation.finish(30)
    left = await simulation.close()
    item = simulation.store.get("ns/ctr/jobs")
    assert item is not None
    total = int(item.value)
    assert confirmed <= total <= confirmed + doubtful, f"{total}, confirmed {confirmed}, unknown {doubtful}"
    assert left == ["ctr/jobs"]


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(additions)


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_on_every_store(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        adding = [counter_of(one).add(2, exactly_once=once) for one in (client, other) for once in (False, True)]
        assert sorted(await asyncio.gather(*adding)) == [2, 4, 6, 8]
        assert await counter_of(client).add(-3) == 5
        assert await counter_of(other).get() == 5
