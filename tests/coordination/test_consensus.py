"""The consensus register: one decision, whoever proposes what and whatever becomes of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from strikes import STRIKES, trouble_among
from worlds import Suspensions, World, connect

from osdisco.client import Client
from osdisco.coordination import ConsensusRegister, CoordinationService
from osdisco.errors import (
    IndeterminateError,
    LimitError,
    OsdiscoError,
    UnavailableError,
)
from osdisco.testing import Scenario, SimulatedProcess, Simulation, scenario


def register_of(client: Client, name: str = "schema") -> ConsensusRegister:
    return CoordinationService(client).consensus(name)


async def test_the_first_proposal_stands_for_everybody_and_for_good(world: World) -> None:
    a, b = world.process(), world.process()
    assert await register_of(a).decided() is None
    assert await register_of(a).propose(b"a") == b"a"
    assert await register_of(b).propose(b"b") == b"a"
    assert await register_of(a).propose(b"c") == b"a"
    await a.aclose()
    assert await register_of(b).decided() == b"a"


async def test_proposals_at_once_get_one_answer(world: World) -> None:
    answers = await asyncio.gather(*(register_of(world.process()).propose(b"%d" % n) for n in range(10)))
    assert len(set(answers)) == 1


async def test_an_empty_value_is_a_decision(world: World) -> None:
    client = world.process()
    assert await register_of(client).propose(b"") == b""
    assert await register_of(client).propose(b"a") == b""
    assert await register_of(client).decided() == b""


@pytest.mark.parametrize("fault", ["drop", "drop_answer", "late"])
async def test_a_lost_answer_is_found_out(world: World, fault: str) -> None:
    client = world.process()
    getattr(client.backend.faults, fault)("commit", times=2, **({"after": 0.7} if fault == "late" else {}))
    assert await register_of(client).propose(b"a") == b"a"
    assert await register_of(world.process()).propose(b"b") == b"a"
    await asyncio.sleep(3)
    assert await register_of(client).decided() == b"a"


async def test_a_proposal_that_comes_late_is_no_second_decision(world: World) -> None:
    late, other = world.process(), world.process()
    late.backend.faults.late("commit", after=2, times=1)
    late.backend.faults.delay("get", request=1)
    proposing = asyncio.ensure_future(register_of(late).propose(b"late"))
    await asyncio.sleep(0.5)
    assert await register_of(other).propose(b"other") == b"other"
    assert await proposing == b"other"
    await asyncio.sleep(3)
    assert await register_of(other).decided() == b"other"


async def test_an_outage_tells_whether_a_proposal_was_made(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    with pytest.raises(UnavailableError):
        await register_of(client).propose(b"a")
    client.backend.faults.clear()
    client.backend.faults.drop("commit", times=1)
    client.backend.faults.outage("get")
    with pytest.raises(IndeterminateError):
        await register_of(client).propose(b"a")
    client.backend.faults.clear()
    client.backend.faults.drop("commit")
    with pytest.raises(IndeterminateError):
        await register_of(client).propose(b"a")
    assert await register_of(world.process()).decided() is None


async def test_cancelled_at_any_await_it_is_decided_once_at_most(world: World) -> None:
    client = world.process()
    for first in (1, 2, 3):
        client.backend.faults.late("commit", after=0.1, times=1)
        proposing = Suspensions(first).of(register_of(client, f"{first}").propose(b"cancelled"))
        await asyncio.wait([asyncio.ensure_future(proposing)])
        await asyncio.sleep(5)
        stands = await register_of(world.process(), f"{first}").propose(b"next")
        assert stands == await register_of(client, f"{first}").decided()


async def test_a_proposal_that_is_too_large_is_refused_before_it_is_sent(world: World) -> None:
    client = world.process()
    with pytest.raises(LimitError):
        await register_of(client).propose(bytes(client.limits.value_max + 1))
    assert not client.backend.calls["commit"]


@scenario(often={**STRIKES, "killed": 0.4, "answers": 20})
async def agreement(simulation: Simulation) -> None:
    """All answers of a round are the same, and are what stands."""
    answers: dict[str, set[bytes]] = {}

    async def work(process: SimulatedProcess) -> None:
        number = 0
        while not simulation.over:
            name = f"r{number}"
            try:
                decided = await register_of(process.client, name).propose(process.name.encode())
                answers.setdefault(name, set()).add(decided)
                simulation.seen["answers"] += 1
                number += 1
            except OsdiscoError as exc:
                simulation.seen[type(exc).__name__] += 1
            await asyncio.sleep(simulation.random.uniform(0, 0.5))

    await trouble_among(simulation, work, simulation.random.randint(2, 4))
    await simulation.finish(30)
    left = await simulation.close()
    for name, given in answers.items():
        item = simulation.store.get(f"ns/dec/{name}")
        assert item is not None
        assert given == {item.value}, name
    assert {f"dec/{name}" for name in answers} <= set(left)
    assert all(key.startswith("dec/") for key in left)


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(agreement)


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_on_every_store(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        answers = await asyncio.gather(
            *(register_of(one).propose(b"\xff%d" % n) for n, one in enumerate([client, other]))
        )
        assert answers[0] == answers[1] == await register_of(client).decided()
        assert await register_of(other).propose(b"later") == answers[0]
