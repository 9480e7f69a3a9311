"""What stands in a namespace, as operators see it: all of it, at one moment, whatever others wrote there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from worlds import World, connect

import osdisco
from osdisco._keys import Keyspace
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.coordination import (
    BarrierStatus,
    CandidateStatus,
    CoordinationService,
    DoubleBarrierStatus,
    ElectionStatus,
    NamespaceStatus,
    QueueStatus,
    RevocationRequest,
)
from osdisco.coordination._survey import survey
from osdisco.errors import ClosedError, DeniedError
from osdisco.testing import VirtualClock, VirtualLoop
from osdisco_memory import LIMITS

ALL = pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")


def named(url: str, name: str) -> Client:
    clock = VirtualClock() if isinstance(asyncio.get_running_loop(), VirtualLoop) else None
    return osdisco.connect(url, name=name, clock=clock)


async def shown(client: Client, when: Callable[[NamespaceStatus], object]) -> NamespaceStatus:
    """Return the status as soon as it is as wanted."""
    async with asyncio.timeout(20):
        while not when(status := await CoordinationService(client).status()):
            await asyncio.sleep(0.05)
    return status


def who(queue: QueueStatus) -> list[tuple[str, bool]]:
    return [(one.owner, one.holds) for one in queue.contenders]


@asynccontextmanager
async def in_background(*acquisitions: object) -> AsyncGenerator[None, None]:
    tasks = [asyncio.ensure_future(one) for one in acquisitions]  # type: ignore[call-overload]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@ALL
async def test_queues_are_shown_with_who_holds_who_waits_and_who_is_asked_to_go(osdisco_url: str) -> None:
    async with named(osdisco_url, "a") as a, named(osdisco_url, "b") as b, named(osdisco_url, "c") as c:
        at_a, at_b, at_c = map(CoordinationService, (a, b, c))
        guard = await at_a.lock("job", info={"host": "x"}).acquire()
        reading = [await one.rwlock("catalog").read().acquire() for one in (at_a, at_b)]
        permits = [await one.semaphore("merges", limit=2).acquire() for one in (at_a, at_b)]
        writing, merging = at_c.rwlock("catalog").write().acquire(), at_c.semaphore("merges", limit=2).acquire()
        revoking = at_c.lock("job").revoke(guard.token, grace=60)
        async with in_background(at_b.lock("job").acquire(), writing, merging, revoking):
            status = await shown(
                c, lambda s: len(s.locks[0].contenders) + len(s.rwlocks[0].contenders) == 5 and s.semaphores[0].waiting
            )
            status = await shown(c, lambda s: s.locks[0].revocations)
        (lock,), (rwlock,), (semaphore,) = status.locks, status.rwlocks, status.semaphores
        assert (lock.name, who(lock)) == ("job", [("a", True), ("b", False)])
        assert (lock.holders[0].token, lock.holders[0].info) == (guard.token, {"host": "x"})
        (request,) = lock.revocations
        assert request == RevocationRequest("c", guard.token, 60, request.since)
        assert (rwlock.name, who(rwlock)) == ("catalog", [("a", True), ("b", True), ("c", False)])
        assert [one.shared for one in rwlock.contenders] == [True, True, False]
        assert (semaphore.name, semaphore.limit) == ("merges", 2)
        assert who(semaphore) == [("a", True), ("b", True), ("c", False)]
        assert {one.owner: one.token for one in semaphore.holders} == {
            "a": permits[0].token,
            "b": permits[1].token,
        }
        for held in (guard, *reading, *permits):
            await held.release()
        assert not status.strange
        status = await shown(c, lambda s: not (s.locks or s.rwlocks or s.semaphores))
        assert status.locks == status.rwlocks == status.semaphores == ()


@ALL
async def test_elections_groups_and_barriers_are_shown(osdisco_url: str) -> None:
    async with named(osdisco_url, "a") as a, named(osdisco_url, "b") as b, AsyncExitStack() as stack:
        at_a, at_b = CoordinationService(a), CoordinationService(b)
        term = await at_a.election("jobs", candidate_id="node-a", info={"url": "x"}).campaign()
        low, high = (at_b.election("jobs", candidate_id=f"node-{n}", priority=n).campaign() for n in (1, 5))
        await at_a.barrier("maintenance").hold()
        first = await stack.enter_async_context(at_a.group("workers").join("w1", weight=2))
        second = await stack.enter_async_context(at_b.group("workers").join("w2", info={"zone": "b"}))
        await stack.enter_async_context(first.partition(8))
        await stack.enter_async_context(second.partition(8))
        await stack.enter_async_context(
            in_background(low, high, *(one.double_barrier("p", parties=3).enter() for one in (at_a, at_b)))
        )
        status = await shown(
            a,
            lambda s: (
                len(s.elections[0].candidates) == 2
                and s.double_barriers
                and len(s.double_barriers[0].waiting) == 2
                and sum(s.groups[0].partitions.values()) == 8
            ),
        )
        (election,), (group,) = status.elections, status.groups
        assert election.leader is not None
        assert (election.leader.candidate_id, election.leader.token) == ("node-a", term.token)
        candidates = (CandidateStatus("node-5", 5, "b"), CandidateStatus("node-1", 1, "b"))
        assert election == ElectionStatus("jobs", election.leader, candidates)
        assert [(one.id, one.weight, one.info) for one in group.members] == [("w1", 2, {}), ("w2", 1, {"zone": "b"})]
        assert all(group.partitions[id_] > 0 for id_ in ("w1", "w2"))
        assert status.barriers == (BarrierStatus("maintenance", "a", status.barriers[0].since),)
        assert status.double_barriers[0].parties == 3
        assert sorted(status.double_barriers[0].waiting) == ["a", "b"]
        await term.resign()
        await at_a.barrier("maintenance").release()


async def test_a_double_barrier_shows_who_is_inside(world: World) -> None:
    a, b = world.process("a"), world.process("b")
    async with asyncio.TaskGroup() as group:
        entering = [
            group.create_task(CoordinationService(one).double_barrier("p", parties=2).enter()) for one in (a, b)
        ]
    (found,) = (await CoordinationService(a).status()).double_barriers
    assert found == DoubleBarrierStatus("p", 2, found.inside, ())
    assert sorted(found.inside) == ["a", "b"]
    await asyncio.gather(*(task.result().leave() for task in entering))


@ALL
async def test_sessions_are_shown_with_what_is_left_of_their_leases(osdisco_url: str) -> None:
    async with named(osdisco_url, "a") as a, named(osdisco_url, "b") as b:
        session = await a.shared_session()
        await a.shared_session()
        async with b.session(ttl=20) as other:
            await other.put("presence/b", b"")
            status = await shown(b, lambda s: len(s.sessions) == 2 and s.sessions[1].keys == 2)
            assert [(one.owner, one.id, one.lease, one.keys) for one in status.sessions] == [
                ("a", session.uid, session.id, 1),
                ("b", other.uid, other.id, 2),
            ]
            assert [one.ttl for one in status.sessions] == [session.ttl, other.ttl]
            for one in status.sessions:
                if osdisco_url.startswith("consul"):
                    assert one.left is None
                else:
                    assert one.ttl is not None
                    assert one.left is not None
                    assert one.ttl / 2 < one.left <= one.ttl
        await shown(b, lambda s: len(s.sessions) == 1)


async def test_a_paused_process_is_seen_to_run_out_of_time(world: World) -> None:
    paused, client = world.process("paused"), world.process("p")
    await CoordinationService(paused).lock("job").acquire()
    await asyncio.sleep(0.1)
    world.kill(paused)
    left = []
    while sessions := (await CoordinationService(client).status()).sessions:
        left.append(sessions[0].left)
        await asyncio.sleep(1)
    assert len(left) > 5
    assert left == sorted(left, reverse=True)


async def test_it_is_one_scan_whatever_stands_there(world: World) -> None:
    client = world.process("a")
    coordination = CoordinationService(client)
    await coordination.status()
    guards = [await coordination.lock(f"job-{n}").acquire() for n in range(5)]
    client.backend.calls.clear()
    assert len((await coordination.status()).locks) == 5
    assert (client.backend.calls["scan"], client.backend.calls["get"]) == (1, 0)
    for guard in guards:
        await guard.release()


FOREIGN = {
    "lock/by-hand": "strange",
    "lock/job/by-hand": "contender",
    "lock/job/deeper/than/ours": "contender",
    "lock/%41/x": "strange",
    "lock//x": "strange",
    "lock/a=zz/x": "strange",
    "lock/" + "=C3=A9" * 120 + "/x": "strange",
    "rw/job": "strange",
    "rw/job/by-hand": "contender",
    "sem/job/limit": "strange",
    "sem/job/h/by-hand": "contender",
    "sem/job/else": "strange",
    "election/job/leader": "strange",
    "election/job/q/by-hand": "strange",
    "election/job/else": "strange",
    "election/" + "=C3=A9" * 80 + "/leader": "strange",
    "grp/job/x/1": "strange",
    "grp/job": "strange",
    "part/job/0": "strange",
    "barrier/job": "barrier",
    "barrier/job/deeper": "strange",
    "db/job/m/by-hand": "strange",
    "db/job/else": "strange",
    "db/job": "strange",
    "sess/by-hand/live": "strange",
    "sess/by-hand": "strange",
    "revoke/lock/job/by-hand/x": "request",
    "revoke": "nothing",
    "revoke/x": "nothing",
    "lock": "strange",
    "elsewhere/x": "nothing",
    "\udcff\udcfe": "nothing",
    "lock/\udcff/x": "strange",
}


def status_of(keys: dict[str, bytes]) -> NamespaceStatus:
    items = {f"ns/{key}": Item(f"ns/{key}", value, n, n) for n, (key, value) in enumerate(keys.items(), 1)}
    return survey(Keyspace("ns/", LIMITS), items, len(keys))


@pytest.mark.parametrize("value", [b"", b"\xff", b"{}", b"[]", b"null", b'{"owner": 7}', b'{"id": "x"}'])
def test_what_others_wrote_is_shown_as_theirs(value: bytes) -> None:
    status = status_of(dict.fromkeys(FOREIGN, value))
    assert set(status.strange) == {key for key, shown in FOREIGN.items() if shown == "strange"}
    assert [one.owner for one in status.locks[0].contenders] == ["by-hand", "ours"]
    assert [one.since for one in status.locks[0].contenders] == [None, None]
    assert [one.owner for one in status.rwlocks[0].contenders] == ["by-hand"]
    assert [one.owner for one in status.semaphores[0].holders] == ["by-hand"]
    assert status.semaphores[0].limit is None
    assert [one.leader.candidate_id for one in status.elections if one.leader] == [""]
    assert status.barriers == (BarrierStatus("job", None, None),)
    assert status.locks[0].revocations == (RevocationRequest("x", status.locks[0].contenders[0].token),)
    assert status.groups == status.double_barriers == status.sessions == ()


def test_nothing_that_stands_there_makes_it_fail() -> None:
    chance = random.Random(7)
    segments = ["lock", "rw", "sem", "election", "grp", "part", "barrier", "db", "sess", "revoke", "x", "once"]
    segments += ["q", "h", "m", "limit", "leader", "heir", "said", "ready", "done", "live", "r-1", "w-1", "7", "a", ""]
    segments += ["=2E", "=zz", "%", "é", "\udcff", "n" * 300]
    values = [b"", b"7", b"-1", b"{", b"[]", b'"x"', b"\xff", b"9" * 5000, b"[" * 5000]
    values += [b'{"owner":"o","since":1e400}', b'{"members":{"a":1},"owners":{}}', b'{"member":{"id":"a"}}']
    values += [b'{"entry":"1","id":"i","epoch":99999999999999999999}', b'{"owner":"o","parties":2,"epoch":-1}']
    for _ in range(500):
        keys = ["/".join(chance.choices(segments, k=chance.randint(1, 5))) for _ in range(20)]
        status_of({key: chance.choice(values) for key in keys})


async def test_names_of_any_text_come_out_as_they_went_in(world: World) -> None:
    client = world.process("a")
    coordination = CoordinationService(client)
    for name in ("a/b", "..", "é x", "%2F"):
        guard = await coordination.lock(name).acquire()
        async with coordination.group(name).join(name):
            status = await coordination.status()
            assert ([one.name for one in status.locks], [one.name for one in status.groups]) == ([name], [name])
            assert [member.id for member in status.groups[0].members] == [name]
            assert not status.strange
        await guard.release()


@ALL
async def test_a_watch_shows_what_stands_and_then_every_change(osdisco_url: str) -> None:
    async with (
        connect(osdisco_url) as client,
        connect(osdisco_url) as other,
        CoordinationService(other).watch_status() as states,
        asyncio.timeout(20),
    ):
        assert (await anext(states)).locks == ()
        guard = await CoordinationService(client).lock("job").acquire()
        while not (status := await anext(states)).locks:
            pass
        assert status.locks[0].holders[0].token == guard.token
        await guard.release()
        while (status := await anext(states)).locks:
            pass
        assert len(status.sessions) == 1


async def test_what_changes_faster_than_anybody_looks_is_shown_together(world: World) -> None:
    client, other = world.process(), world.process()
    async with CoordinationService(other).watch_status() as states:
        await anext(states)
        for _ in range(200):
            async with CoordinationService(client).lock("job"):
                pass
        seen = 0
        while True:
            try:
                async with asyncio.timeout(1):
                    await anext(states)
            except TimeoutError:
                break
            seen += 1
    assert 1 <= seen <= 3


async def test_an_outage_is_bridged_and_said(world: World) -> None:
    client, other = world.process(), world.process()
    async with CoordinationService(other).watch_status() as states:
        await anext(states)
        assert states.error is None
        outage = other.backend.faults.outage()
        await CoordinationService(client).barrier("b").hold()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await anext(states)
        assert states.error is not None
        outage.end()
        async with asyncio.timeout(10):
            while not (await anext(states)).barriers:
                pass
        assert states.error is None
    await CoordinationService(client).barrier("b").release()


async def test_a_lease_that_cannot_be_asked_for_is_asked_for_again(world: World) -> None:
    client, other = world.process(), world.process()
    async with CoordinationService(other).watch_status() as states:
        await anext(states)
        outage = other.backend.faults.outage("lease_status")
        guard = await CoordinationService(client).lock("job").acquire()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(8):
                await anext(states)
        outage.end()
        async with asyncio.timeout(10):
            assert (await anext(states)).sessions[0].left is not None
        await guard.release()


async def test_a_watch_ends_with_its_block_its_client_and_its_permission(world: World) -> None:
    client, denied = world.process(), world.process()
    async with CoordinationService(client).watch_status() as states:
        await anext(states)
    with pytest.raises(StopAsyncIteration):
        await anext(states)
    async with CoordinationService(client).watch_status() as states:
        await anext(states)
        await client.aclose()
        with pytest.raises(ClosedError):
            await anext(states)
    with pytest.raises(ClosedError):
        await CoordinationService(client).status()
    denied.backend.faults.deny("watch", "scan")
    async with CoordinationService(denied).watch_status() as states:
        with pytest.raises(DeniedError):
            await anext(states)
    with pytest.raises(DeniedError):
        await CoordinationService(denied).status()


async def test_a_lease_that_ends_before_it_is_asked_for_has_nothing_left(world: World) -> None:
    client, other = world.process("a"), world.process()
    await client.shared_session()
    await asyncio.sleep(0.1)
    with other.backend.faults.delay("lease_status", request=1):
        asking = asyncio.ensure_future(CoordinationService(other).status())
        await asyncio.sleep(0.5)
        await client.aclose()
        (session,) = (await asking).sessions
    assert (session.owner, session.ttl, session.left) == ("a", None, None)
