"""The double barrier: exactly the members of one roster at a time, all learn who died inside, and it heals itself."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest
from strikes import STRIKES
from worlds import Suspensions, World, connect, lease_of, process_of

from osdisco.backend import Condition, Delete, Item, Op, Put
from osdisco.client import Client
from osdisco.coordination import CoordinationService
from osdisco.coordination.double_barrier import BarrierStay, DoubleBarrier
from osdisco.errors import (
    BarrierBrokenError,
    CoordinationError,
    DeniedError,
    LostError,
    OsdiscoError,
    TimedOutError,
    UnavailableError,
)
from osdisco.testing import Scenario, SimulatedProcess, Simulation, run, scenario


def barrier_of(client: Client, parties: int = 2, timeout: float | None = None, name: str = "phase") -> DoubleBarrier:
    return CoordinationService(client).double_barrier(name, parties=parties, timeout=timeout)


async def stay(client: Client, seconds: float = 1.0, parties: int = 2) -> float:
    """Be inside for a while; returns when it was left."""
    async with barrier_of(client, parties):
        await asyncio.sleep(seconds)
    return client.runtime.clock.now()


async def entered(world: World, parties: int = 2) -> list[BarrierStay]:
    """Let new processes enter."""
    return await asyncio.gather(*(barrier_of(world.process(), parties).enter() for _ in range(parties)))


async def test_they_begin_together_and_nobody_leaves_before_all_have_finished(world: World) -> None:
    clients = [world.process() for _ in range(3)]
    stays = []
    for client in clients[:2]:
        stays.append(asyncio.ensure_future(stay(client, 1, parties=3)))
        await asyncio.sleep(10)
        assert not any(task.done() for task in stays)
    began = world.clock.now()
    assert await stay(clients[2], 7, parties=3) - began == pytest.approx(7, abs=0.1)
    assert [await task - began for task in stays] == pytest.approx([7, 7], abs=0.1)
    await asyncio.sleep(1)
    assert world.keys() == []


async def test_a_third_waits_for_the_next_round(world: World) -> None:
    """By its rank it would be among the first two as soon as one of the round has left."""
    a, b = await entered(world)
    third = asyncio.ensure_future(barrier_of(world.process()).enter())
    await asyncio.sleep(1)
    leaving = asyncio.ensure_future(a.leave())
    await asyncio.sleep(30)
    assert not third.done()
    assert not leaving.done()
    await b.leave()
    await leaving
    await asyncio.sleep(30)
    assert not third.done()
    fourth = await barrier_of(world.process()).enter()
    await asyncio.gather((await third).leave(), fourth.leave())


async def test_members_of_one_process_count_each(world: World) -> None:
    client = world.process()
    await asyncio.wait_for(asyncio.gather(*(stay(client, parties=4) for _ in range(8))), 30)


async def test_one_is_enough_for_one(world: World) -> None:
    for _ in range(3):
        await stay(world.process(), parties=1)
    await asyncio.sleep(1)
    assert world.keys() == []


async def test_more_members_than_a_commit_has_room_for(world: World) -> None:
    clients = [world.process() for _ in range(3)]
    for _ in range(2):
        await asyncio.gather(*(stay(clients[n % 3], parties=140) for n in range(140)))
    await asyncio.sleep(1)
    assert world.keys() == []


# A member dies


async def test_all_learn_that_a_member_died_inside(world: World) -> None:
    a, b, victim = await entered(world, 3)
    world.kill(victim._client)
    began = world.clock.now()
    results = await asyncio.gather(a.leave(), b.leave(), return_exceptions=True)
    assert world.clock.now() - began == pytest.approx(world.ttl, abs=1)
    for result in results:
        assert isinstance(result, BarrierBrokenError)
        assert isinstance(result, CoordinationError)
        assert victim._client.runtime.name in str(result)
    await asyncio.sleep(5)
    assert world.keys() == []


async def test_who_sees_little_of_what_happened_learns_it_all_the_same(world: World) -> None:
    """Its watch shows nothing of the death, of the others that leave, and of what they tidy up."""
    a, b, victim = await entered(world, 3)
    slow = asyncio.ensure_future(a.leave())
    await asyncio.sleep(1)
    a._client.backend.faults.outage("watch")
    world.store.faults.end_lease(await lease_of(victim._client))
    quick = asyncio.ensure_future(b.leave())
    await asyncio.sleep(3)
    world.store.faults.compact()
    a._client.backend.faults.clear()
    for task in (slow, quick):
        with pytest.raises(BarrierBrokenError):
            await task


async def test_who_finished_and_died_then_has_not_died_inside(world: World) -> None:
    a, b, c = await entered(world, 3)
    finished = asyncio.ensure_future(c.leave())
    await asyncio.sleep(1)
    world.kill(c._client)
    finished.cancel()
    await asyncio.gather(a.leave(), b.leave())
    await asyncio.wait([finished])
    await asyncio.gather(stay(world.process()), stay(world.process()))  # the next round takes away what is left of it
    await asyncio.sleep(1)
    assert world.keys() == []


async def test_a_body_that_fails_counts_as_died_inside_and_does_not_wait(world: World) -> None:
    a, b = await entered(world)
    with pytest.raises(ZeroDivisionError):
        async with b:
            _ = 1 / 0
    with pytest.raises(BarrierBrokenError):
        await a.leave()
    assert world.keys() == []


async def test_who_lost_its_session_inside_is_told_and_so_are_the_others(world: World) -> None:
    a, b = world.process(), world.process()
    other = asyncio.ensure_future(barrier_of(a).enter())
    losing = asyncio.ensure_future(stay(b, 60))
    inside = await other
    began = world.clock.now()
    world.store.faults.end_lease(await lease_of(b))
    with pytest.raises(LostError):
        await losing
    assert world.clock.now() - began < 1  # the body was cancelled
    with pytest.raises(BarrierBrokenError):
        await inside.leave()


async def test_an_entry_removed_by_hand_inside_is_a_loss(world: World) -> None:
    a, b = await entered(world)
    world.store.commit([Delete(b._entry.key)], {})
    with pytest.raises(LostError):
        await b.leave()
    with pytest.raises(BarrierBrokenError):
        await a.leave()


async def test_a_round_that_somebody_removes_is_broken(world: World) -> None:
    """Who leaves cannot know any more whether the others have finished."""
    first, second = await entered(world, 2)
    leaving = asyncio.ensure_future(first.leave())
    await asyncio.sleep(1)
    world.store.commit([Delete("ns/db/phase/ready")], {})
    for left in (leaving, second.leave()):
        with pytest.raises(BarrierBrokenError, match="removed"):
            await asyncio.wait_for(left, 5)
    await asyncio.sleep(1)
    assert world.keys() == []


async def test_all_die_inside_and_the_next_round_begins_anew(world: World) -> None:
    for one in await entered(world):
        world.kill(one._client)
    await asyncio.sleep(2 * world.ttl)
    assert world.keys() == ["db/phase/ready"]
    await asyncio.gather(stay(world.process()), stay(world.process()))
    await asyncio.sleep(1)
    assert world.keys() == []


async def test_who_dies_waiting_is_not_waited_for(world: World) -> None:
    victim = world.process()
    waiting = asyncio.ensure_future(barrier_of(victim).enter())
    await asyncio.sleep(1)
    world.kill(victim)
    waiting.cancel()
    world.store.faults.end_lease(await lease_of(victim))
    alone = asyncio.ensure_future(barrier_of(world.process()).enter())
    await asyncio.sleep(30)
    assert not alone.done()
    other = await barrier_of(world.process()).enter()
    await asyncio.gather((await alone).leave(), other.leave())


# Time and trouble


async def test_a_timeout_leaves_no_member(world: World) -> None:
    client = world.process()
    began = world.clock.now()
    for entering in (barrier_of(client, timeout=3).enter(), barrier_of(client).enter(timeout=3)):
        with pytest.raises(TimedOutError):
            await entering
    with pytest.raises(TimedOutError):
        async with barrier_of(client, timeout=3):
            pytest.fail("entered alone")
    assert world.clock.now() - began == pytest.approx(9, abs=0.1)
    await asyncio.sleep(0.1)
    assert world.keys() == []


async def test_a_timeout_while_leaving_is_told_and_we_have_left(world: World) -> None:
    a, b = await entered(world)
    with pytest.raises(TimedOutError):
        await a.leave(timeout=2)
    with pytest.raises(LostError):
        a.check()
    await b.leave()  # `a` had finished
    assert world.keys() == []


@pytest.mark.parametrize("fault", ["drop", "drop_answer", "late"])
async def test_lost_answers_are_found_out(world: World, fault: str) -> None:
    clients = [world.process(), world.process()]
    for _ in range(2):
        for client in clients:
            late = {"after": 0.7} if fault == "late" else {}
            getattr(client.backend.faults, fault)("commit", times=3, key="db/", **late)
        await asyncio.wait_for(asyncio.gather(*map(stay, clients)), 30)
        await asyncio.sleep(5)
        assert world.keys("db/") == []


async def test_an_outage_is_waited_out(world: World) -> None:
    a, b = world.process(), world.process()
    first = asyncio.ensure_future(barrier_of(a).enter(timeout=60))
    await asyncio.sleep(1)
    with a.backend.faults.outage("watch", "get", "scan", "commit"):
        second = asyncio.ensure_future(barrier_of(b).enter())
        await asyncio.sleep(20)
    stays = await first, await second
    leaving = asyncio.ensure_future(stays[0].leave(timeout=60))
    with a.backend.faults.outage("watch", "get", "scan", "commit"):
        await asyncio.sleep(20)
        assert not leaving.done()
    await asyncio.gather(leaving, stays[1].leave())


async def test_a_view_that_is_behind_is_no_loss(world: World) -> None:
    client = world.process()
    async with client._view_of(barrier_of(client)._root):
        client.backend.faults.delay("watch", answer=3)
        entering = asyncio.ensure_future(barrier_of(client).enter())
        await asyncio.sleep(10)
        assert not entering.done()
        await asyncio.gather((await barrier_of(world.process()).enter()).leave(), (await entering).leave())


async def test_a_roster_that_comes_late_lets_nobody_in_alone(world: World) -> None:
    a, b = world.process(), world.process()
    for client in (a, b):
        client.backend.faults.late("commit", after=5, key="db/phase/ready")
    alone = asyncio.ensure_future(barrier_of(a).enter())
    with pytest.raises(TimedOutError):
        await barrier_of(b).enter(timeout=3)
    await asyncio.sleep(20)
    assert not alone.done()
    a.backend.faults.clear()
    await asyncio.gather((await barrier_of(world.process()).enter()).leave(), (await alone).leave())


async def test_a_store_that_is_away_to_begin_with_is_unavailable(world: World) -> None:
    client = world.process()
    client.backend.faults.outage()
    with pytest.raises(UnavailableError):
        await barrier_of(client).enter()


async def test_a_lost_permission_is_told(world: World) -> None:
    client = world.process()
    waiting = asyncio.ensure_future(barrier_of(client).enter())
    await asyncio.sleep(1)
    client.backend.faults.deny("watch")
    with pytest.raises(DeniedError):
        await asyncio.wait_for(waiting, 30)


async def test_a_waiting_member_whose_entry_is_removed_is_told(world: World) -> None:
    client = world.process()
    waiting = asyncio.ensure_future(barrier_of(client).enter())
    await asyncio.sleep(1)
    (key,) = world.keys("db/")
    world.store.commit([Delete(f"ns/{key}")], {})
    with pytest.raises(LostError):
        await asyncio.wait_for(waiting, 5)


async def test_waiting_costs_a_watch_and_no_polling(world: World) -> None:
    client = world.process()
    waiting = asyncio.ensure_future(barrier_of(client).enter())
    await asyncio.sleep(1)
    client.backend.calls.clear()
    await asyncio.sleep(600)
    assert not {"get", "scan", "commit", "watch"} & client.backend.calls.keys()
    await asyncio.gather((await barrier_of(world.process()).enter()).leave(), (await waiting).leave())


# The handle


async def test_inside_there_is_a_handle_as_of_a_lock(world: World) -> None:
    a, b = await entered(world)
    assert a.token != b.token
    a.check()
    await a.commit([Put("written", b"")])
    await asyncio.gather(a.leave(), b.leave())
    with pytest.raises(LostError):
        a.check()
    for again in (a.commit([Put("written", b"")]), a.leave()):
        with pytest.raises(LostError):
            await again
    c, d = await entered(world)
    assert min(c.token, d.token) > max(a.token, b.token)
    async with c:
        other = asyncio.ensure_future(d.leave())
        await c.leave()
        await other


async def test_one_object_serves_many_tasks(world: World) -> None:
    barrier = barrier_of(world.process(), 3)

    async def inside() -> None:
        async with barrier:
            await asyncio.sleep(1)

    await asyncio.gather(*(inside() for _ in range(6)))
    assert not barrier._entered


# Bad input, foreign keys


async def test_names_are_only_text(world: World) -> None:
    for name in ("..", "//", "a/b", "é", "m/", "\0"):
        async with barrier_of(world.process(), 1, 10, name):
            pass


# Cancellation


async def enter(world: World, client: Client) -> None:
    await stay(client)


async def enter_and_be_named(world: World, client: Client) -> None:
    other = asyncio.ensure_future(stay(world.clients[1]))
    try:
        await stay(client)
        await other
    finally:
        other.cancel()
        await asyncio.wait([other])


@pytest.mark.parametrize("fault", ["none", "drop", "drop_answer", "late"])
@pytest.mark.parametrize("operation", [enter, enter_and_be_named])
@pytest.mark.parametrize("more", [0, 2])
def test_cancelled_at_any_await_it_leaves_nothing(operation: Callable[..., object], fault: str, more: int) -> None:
    async def once(first: int) -> bool:
        world = World()
        client, _ = world.process(), world.process()
        await client.shared_session()
        if fault != "none":
            late = {"after": 0.7} if fault == "late" else {}
            getattr(client.backend.faults, fault)("commit", times=2, key="db/", **late)
        task = asyncio.ensure_future(Suspensions(first, more).of(operation(world, client)))
        await asyncio.wait([task], timeout=20)
        going = task.cancelled()
        if not task.done():
            task.cancel()
        await asyncio.sleep(10)
        assert world.keys("db/") == []
        await world.aclose()
        assert world.keys() == []
        return going

    first = 1
    while run(once(first)):
        first += 1
    assert first > 2, first


# Whatever happens


LONG = 30.0


class Rounds:
    """At most `parties` are inside by what the store says, none alone, and it goes on when the faults are over."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.random = simulation.random
        self.parties = self.random.randint(2, 3)

    async def run(self) -> None:
        self._check_rosters()
        for _ in range(self.parties + self.random.randint(0, 2)):
            self._start()
        await self.simulation.trouble(12, restart=self._start)
        for process in self.simulation.living:
            for task in process.tasks:
                process.ask(task.cancel)
        await self.simulation.finish(30)
        await asyncio.sleep(12)  # until nobody waits any more who was killed
        last = [self.simulation.process() for _ in range(self.parties)]
        turns = [process.call(self._turn(process.client, None)) for process in last]
        await asyncio.wait_for(asyncio.gather(*turns), LONG)
        assert await self.simulation.close() == []

    def _start(self, _: SimulatedProcess | None = None) -> None:
        process = self.simulation.process()
        process.start(self._work(process.client))

    async def _work(self, client: Client) -> None:
        while not self.simulation.over:
            task = asyncio.ensure_future(self._turn(client, self.random.choice([None, 2.0, 6.0])))
            if self.random.random() < 0.2:
                asyncio.get_running_loop().call_later(self.random.uniform(0, 3), task.cancel)
            try:
                await asyncio.wait([task])
            finally:
                task.cancel()
                await asyncio.wait([task])
            self._ended(task)
            await asyncio.sleep(self.random.uniform(0, 0.5))

    async def _turn(self, client: Client, timeout: float | None) -> None:
        async with barrier_of(client, self.parties, timeout):
            await asyncio.sleep(self.random.uniform(0, 1))
        self.simulation.seen["left"] += 1

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self.simulation.seen["cancelled" if task.cancelled() else type(error).__name__] += 1
        if error is not None and not isinstance(error, OsdiscoError):
            raise error

    def _check_rosters(self) -> None:
        """Look at every commit: a roster has as many as it takes, all there, while nobody of another one is inside."""
        store = self.simulation.store
        commit = store.commit

        def checking(ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
            before = dict(store.scan(PREFIX).items)
            result = commit(ops, expect)
            for op in ops:
                if op.key == f"{PREFIX}ready":
                    inside = present(before, before[op.key].value) if op.key in before else []
                    assert not inside, f"{op} while {inside} are inside"
                    assert isinstance(op, Delete) or len(present(before, op.value)) == self.parties
                    self.simulation.seen["rounds"] += isinstance(op, Put)
            return result

        store.commit = checking


PREFIX = "ns/db/phase/"


def present(items: Mapping[str, Item], roster: bytes) -> list[str]:
    """Return who of a roster is there."""
    named = [(f"{PREFIX}m/{number}", created) for number, created in json.loads(roster)["members"].items()]
    return [key for key, created in named if key in items and items[key].created == created]


OFTEN = {"rounds": 3, "left": 3, "cancelled": 0.5, "killed": 0.4, "BarrierBrokenError": 0.3}


@scenario(often={**STRIKES, **OFTEN})
async def rounds(simulation: Simulation) -> None:
    await Rounds(simulation).run()


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(rounds)


# Real stores

DIE = """
import asyncio, sys, osdisco
from osdisco.coordination import CoordinationService

async def main():
    async with osdisco.connect(sys.argv[1], name="victim") as client:
        print("ready", flush=True)
        async with CoordinationService(client).double_barrier("phase", parties=3):
            await client.put("inside", b"")
            await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_rounds_on_every_store(osdisco_url: str) -> None:
    clients = [connect(osdisco_url) for _ in range(3)]
    came, finished = Counter[int](), Counter[int]()

    async def rounds(number: int) -> None:
        for turn in range(3):
            came[turn] += 1
            async with barrier_of(clients[number], 3, 60):
                assert came[turn] == 3
                await asyncio.sleep(0.05 * number)
                finished[turn] += 1
            assert finished[turn] == 3

    await asyncio.gather(*map(rounds, range(3)))
    assert (await clients[0].scan("db/")).items == {}
    for client in clients:
        await client.aclose()


@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_a_killed_member_breaks_it_for_all_others(osdisco_url: str) -> None:
    url = f"{osdisco_url}{'&' if '?' in osdisco_url else '?'}ttl=3s"
    async with connect(osdisco_url) as a, connect(osdisco_url) as b, process_of(DIE, url) as victim:
        stays = await asyncio.wait_for(asyncio.gather(*(barrier_of(one, 3).enter() for one in (a, b))), 20)
        while await a.get("inside") is None:
            await asyncio.sleep(0.05)
        leaving = [asyncio.ensure_future(one.leave(timeout=40)) for one in stays]
        victim.kill()
        for task in leaving:
            with pytest.raises(BarrierBrokenError, match="victim"):
                await task
        assert (await a.scan("db/")).items == {}
