"""The barrier: up while it is held, whatever becomes of the answers, and never up again by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

import pytest
from strikes import STRIKES
from worlds import Suspensions, World, connect

from osdisco.client import Client
from osdisco.coordination import CoordinationService, DistributedBarrier
from osdisco.errors import (
    ClosedError,
    DeniedError,
    IndeterminateError,
    OsdiscoError,
    TimedOutError,
    UnavailableError,
)
from osdisco.testing import Scenario, SimulatedProcess, Simulation, scenario


def barrier_of(client: Client, name: str = "maintenance") -> DistributedBarrier:
    return CoordinationService(client).barrier(name)


async def test_who_waits_passes_when_it_is_released(world: World) -> None:
    holder, others = world.process(), [world.process() for _ in range(3)]
    await barrier_of(others[0]).wait(timeout=1)  # not held
    await barrier_of(holder).hold()
    waiting = [asyncio.ensure_future(barrier_of(client).wait()) for client in others]
    await asyncio.sleep(60)
    assert not any(task.done() for task in waiting)
    assert await barrier_of(others[1]).held()
    await barrier_of(others[0]).release()  # whoever held it
    assert not await barrier_of(others[1]).held()
    await asyncio.wait_for(asyncio.gather(*waiting), 1)
    assert world.keys() == []


async def test_it_outlives_who_held_it_and_may_be_held_and_released_again(world: World) -> None:
    holder, other = world.process(), world.process()
    await barrier_of(holder).hold()
    await barrier_of(holder).hold()
    await holder.aclose()
    await barrier_of(other).hold()
    with pytest.raises(TimedOutError):
        await barrier_of(other).wait(timeout=30)
    await barrier_of(other).release()
    await barrier_of(other).release()
    await barrier_of(other).wait(timeout=1)


async def test_a_waiter_costs_a_watch_and_no_polling(world: World) -> None:
    client = world.process()
    await barrier_of(world.process()).hold()
    tasks = [asyncio.ensure_future(barrier_of(client).wait()) for _ in range(10)]
    await asyncio.sleep(600)
    assert (client.backend.calls["get"], client.backend.calls["watch"]) == (10, 1)
    await barrier_of(client).release()
    await asyncio.gather(*tasks)


async def test_released_and_held_anew_before_anybody_looks_lets_who_waited_pass(world: World) -> None:
    holder, waiter = world.process(), world.process()
    await barrier_of(holder).hold()
    waiting = asyncio.ensure_future(barrier_of(waiter).wait())
    await asyncio.sleep(1)
    with waiter.backend.faults.outage():
        await barrier_of(holder).release()
        await barrier_of(holder).hold()
        await asyncio.sleep(1)
    await asyncio.wait_for(waiting, 10)
    await barrier_of(holder).release()


async def test_who_comes_while_a_watch_is_behind_waits_all_the_same(world: World) -> None:
    """Its process still believes that the barrier is down."""
    client, holder = world.process(), world.process()
    async with client._view_of(barrier_of(client)._key):
        client.backend.faults.delay("watch", answer=5)
        await barrier_of(holder).hold()
        waiting = asyncio.ensure_future(barrier_of(client).wait())
        await asyncio.sleep(4)
        assert not waiting.done()
        await asyncio.sleep(20)
        assert not waiting.done()
        await barrier_of(holder).release()
        await asyncio.wait_for(waiting, 10)


async def test_an_outage_is_waited_out_within_the_timeout(world: World) -> None:
    client, holder = world.process(), world.process()
    await barrier_of(holder).hold()
    client.backend.faults.outage()
    began = world.clock.now()
    with pytest.raises(TimedOutError):
        await barrier_of(client).wait(timeout=20)
    assert world.clock.now() - began == pytest.approx(20, abs=0.01)
    waiting = asyncio.ensure_future(barrier_of(client).wait(timeout=60))
    await asyncio.sleep(20)
    await barrier_of(holder).release()
    client.backend.faults.clear()
    await waiting


async def test_a_lost_permission_is_told(world: World) -> None:
    client = world.process()
    await barrier_of(client).hold()
    waiting = asyncio.ensure_future(barrier_of(client).wait())
    await asyncio.sleep(1)
    client.backend.faults.deny("watch")
    with pytest.raises(DeniedError):
        await asyncio.wait_for(waiting, 30)


async def test_who_waits_when_the_client_is_closed_is_told(world: World) -> None:
    client, holder = world.process(), world.process()
    await barrier_of(holder).hold()
    waiting = asyncio.ensure_future(barrier_of(client).wait())
    await asyncio.sleep(1)
    await client.aclose()
    with pytest.raises(ClosedError):
        await asyncio.wait_for(waiting, 1)


async def test_a_release_that_may_still_apply_is_of_unknown_outcome(world: World) -> None:
    """Although the last attempt was refused for certain."""
    client = world.process()
    await barrier_of(client).hold()
    await asyncio.sleep(1)
    client.backend.faults.late("commit", after=30, times=1)
    client.backend.faults.outage("commit")
    with pytest.raises(IndeterminateError):
        await barrier_of(client).release()


@pytest.mark.parametrize("fault", ["drop", "drop_answer", "late"])
@pytest.mark.parametrize("times", [1, 2])
async def test_lost_answers_are_found_out_and_what_is_late_never_comes_up(world: World, fault: str, times: int) -> None:
    client, other = world.process(), world.process()
    await client.shared_session()
    await asyncio.sleep(1)
    faults = client.backend.faults
    getattr(faults, fault)("commit", times=times, key="barrier/", **({"after": 3} if fault == "late" else {}))
    await barrier_of(client).hold()
    with pytest.raises(TimedOutError):
        await barrier_of(other).wait(timeout=0.1)
    faults.clear()
    getattr(faults, fault)("commit", times=times, key="barrier/", **({"after": 3} if fault == "late" else {}))
    await barrier_of(client).release()
    await barrier_of(other).wait(timeout=1)
    await asyncio.sleep(10)
    await barrier_of(other).wait(timeout=0.1)


async def test_a_hold_takes_over_from_one_whose_release_is_late(world: World) -> None:
    client, other = world.process(timeout=1), world.process()
    await barrier_of(client).hold()
    client.backend.faults.late("commit", after=3, key="barrier/")
    with pytest.raises(IndeterminateError):
        await barrier_of(client).release()
    client.backend.faults.clear()
    await barrier_of(other).hold()
    await asyncio.sleep(10)
    with pytest.raises(TimedOutError):
        await barrier_of(client).wait(timeout=0.1)


async def test_a_cancelled_hold_leaves_up_what_another_holds(world: World) -> None:
    client, other = world.process(), world.process()
    await client.shared_session()
    await barrier_of(other).hold()
    client.backend.faults.delay("commit", answer=1)
    for seconds in (0.3, 0.6, 0.9):
        holding = asyncio.ensure_future(barrier_of(client).hold())
        await asyncio.sleep(seconds)
        holding.cancel()
        await asyncio.sleep(10)
        assert holding.cancelled()
        assert world.keys("barrier/") == ["barrier/maintenance"]


async def test_a_hold_that_comes_late_is_refused_when_another_held_it_meanwhile(world: World) -> None:
    client, other = world.process(), world.process()
    client.backend.faults.late("commit", after=3, times=1, key="barrier/")
    holding = asyncio.ensure_future(barrier_of(client).hold())
    await barrier_of(other).hold()
    await holding
    await barrier_of(other).release()
    await asyncio.sleep(10)
    await barrier_of(other).wait(timeout=0.1)


async def test_a_release_that_comes_late_spares_what_is_held_since(world: World) -> None:
    client, other = world.process(), world.process()
    await barrier_of(client).hold()
    client.backend.faults.late("commit", after=3, times=1, key="barrier/")
    await barrier_of(client).release()
    await barrier_of(other).hold()
    await asyncio.sleep(5)
    with pytest.raises(TimedOutError):
        await barrier_of(other).wait(timeout=0.1)


async def test_what_the_store_does_not_answer_ends_in_time(world: World) -> None:
    client = world.process()
    await barrier_of(client).hold()
    began = world.clock.now()
    with client.backend.faults.drop("commit"), pytest.raises(IndeterminateError):
        await barrier_of(client).release()
    with client.backend.faults.outage(), pytest.raises(UnavailableError):
        await barrier_of(client).release()
    with client.backend.faults.outage("commit"), pytest.raises(UnavailableError):
        await barrier_of(client).hold()
    assert world.clock.now() - began <= 3 * client.options.timeout + 1
    await barrier_of(client).release()
    with client.backend.faults.drop("commit"), pytest.raises(IndeterminateError):
        await barrier_of(client).hold()
    await asyncio.sleep(10)
    await barrier_of(client).wait(timeout=1)


@pytest.mark.parametrize("fault", ["none", "drop", "drop_answer", "late"])
@pytest.mark.parametrize("more", [0, 2])
async def test_a_cancelled_hold_leaves_no_barrier(world: World, fault: str, more: int) -> None:
    first, going = 0, True
    while going:
        first += 1
        client, name = world.process(), f"b{first}"
        await client.shared_session()
        await asyncio.sleep(1)
        if fault != "none":
            late = {"after": 0.7} if fault == "late" else {}
            getattr(client.backend.faults, fault)("commit", times=2, key="barrier/", **late)
        task = asyncio.ensure_future(Suspensions(first, more).of(barrier_of(client, name).hold()))
        await asyncio.wait([task])
        going = task.cancelled()
        client.backend.faults.clear()
        await asyncio.sleep(5)
        assert world.keys("barrier/") == ([] if going else [f"barrier/{name}"])
        await client.aclose()
        assert world.keys() == world.keys("barrier/")
    assert first > 1


async def test_the_specifications_manager(world: World) -> None:
    barriers = CoordinationService(world.process()).barriers
    await barriers.hold("a")
    with pytest.raises(TimedOutError):
        await barriers.wait("a", timeout=1)
    await barriers.release("a")
    await barriers.wait("a", timeout=1)


async def test_names_are_only_text_and_what_others_wrote_holds(world: World) -> None:
    client = world.process()
    for name in ("..", "//", "a/b", "\0"):
        await barrier_of(client, name).hold()
    assert len(world.keys("barrier/")) == 4
    await client.put("barrier/foreign", b"\xff")
    with pytest.raises(TimedOutError):
        await barrier_of(client, "foreign").wait(timeout=1)
    await barrier_of(client, "foreign").release()
    await barrier_of(client, "foreign").wait(timeout=1)


Work = Callable[[SimulatedProcess], Coroutine[Any, Any, None]]


@scenario(often={**STRIKES, "killed": 0.4, "held": 3, "passed": 3})
async def holding_and_passing(simulation: Simulation) -> None:
    """Nobody comes and passes while it is held for certain; everybody passes at the end, and nothing stays."""
    held_since = inf

    def now() -> int:
        return simulation.loop.steps  # not the time: one comes before the other in the same moment, too

    async def hold(process: SimulatedProcess) -> None:
        nonlocal held_since
        barrier = barrier_of(process.client)
        while not simulation.over:
            try:
                await barrier.hold()
                simulation.seen["held"] += 1
                held_since = min(held_since, now())
                await asyncio.sleep(0.5)
                held_since = inf
                await barrier.release()
            except OsdiscoError as exc:
                simulation.seen[type(exc).__name__] += 1
            await asyncio.sleep(simulation.random.uniform(0, 1))

    async def pass_by(process: SimulatedProcess) -> None:
        while not simulation.over:
            came = now()
            await barrier_of(process.client).wait()
            assert came < held_since, f"came in step {came} and passed, held since step {held_since}"
            simulation.seen["passed"] += 1
            await asyncio.sleep(simulation.random.uniform(0, 0.2))

    def start(work: Work) -> None:
        process = simulation.process()
        works[process] = work
        process.start(work(process))

    works: dict[SimulatedProcess, Work] = {}
    for work in [hold, *[pass_by] * simulation.random.randint(1, 3)]:
        start(work)
    await simulation.trouble(12, restart=lambda dead: start(works[dead]))
    holders = [process for process in simulation.living if works[process] is hold]
    await asyncio.wait([task for process in holders for task in process.tasks])
    await asyncio.sleep(12)  # until no hold can arrive any more that a killed holder has sent: nobody would undo it
    held_since = inf  # a holder that was killed has left it up
    await holders[0].call(barrier_of(holders[0].client).release())
    await simulation.finish(60)
    assert await simulation.close() == []


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(holding_and_passing)


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_on_every_store(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        await barrier_of(client).hold()
        with pytest.raises(TimedOutError):
            await barrier_of(other).wait(timeout=0.5)
        waiting = asyncio.ensure_future(barrier_of(other).wait())
        await asyncio.sleep(0.2)
        await barrier_of(client).release()
        await asyncio.wait_for(waiting, 5)
