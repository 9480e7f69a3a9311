"""What must hold of each recipe on any store: short stories of a few clients, told by nothing but the public API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from locks import KINDS, rival

from osdisco.backend import ABSENT, Put
from osdisco.client import Client
from osdisco.coordination import CoordinationService, Fence, LockGuard, Membership
from osdisco.errors import BarrierBrokenError, ConfigError, LostError, TimedOutError

Connect = Callable[[], Client]
Scenario = Callable[[Connect], Awaitable[None]]

PATIENCE = 600.0
"""Seconds for anything to happen, of virtual time on the slowest store; real ones are ended earlier by the suite."""


@asynccontextmanager
async def services(connect: Connect, count: int) -> AsyncGenerator[list[CoordinationService], None]:
    """Give so many processes their coordination; all must end in time."""
    clients = [connect() for _ in range(count)]
    try:
        async with asyncio.timeout(PATIENCE):
            yield [CoordinationService(client) for client in clients]
    finally:
        for client in clients:
            await client.aclose()


async def until(done: Callable[[], Awaitable[Any]]) -> None:
    while not await done():
        await asyncio.sleep(0.02)


async def queued(service: CoordinationService, kind: str, count: int) -> None:
    lock: Any = service.lock("a") if kind == "multilock" else KINDS[kind](service)  # the first of them

    async def there() -> bool:
        return len(await lock.contenders()) >= count

    await until(there)


def taking_turns(kind: str) -> Scenario:
    async def scenario(connect: Connect) -> None:
        """A counter that is read and written under the lock loses nothing, and its tokens rise."""
        tokens: list[int] = []

        async def work(service: CoordinationService, client: Client) -> None:
            for _ in range(3):
                async with rival(kind)(service).acquire(timeout=PATIENCE) as guard:
                    before = await client.get("counter")
                    value = b"%d" % (int(before.value) + 1 if before else 1)
                    await guard.commit([Put("counter", value)], {"counter": before.unchanged if before else ABSENT})
                    tokens.append(guard.token)

        async with services(connect, 4) as all_:
            await asyncio.gather(*(work(service, service._client) for service in all_))
            counter = await all_[0]._client.get("counter")
            assert counter is not None
            assert counter.value == b"12"
            assert tokens == sorted(set(tokens))

    return scenario


def trying(kind: str) -> Scenario:
    async def scenario(connect: Connect) -> None:
        async with services(connect, 2) as (a, b):
            held = await KINDS[kind](a).try_acquire()
            assert held is not None
            assert await rival(kind)(b).try_acquire() is None
            with pytest.raises(TimedOutError):
                await rival(kind)(b).acquire(timeout=0.3)
            await held.release()
            async with rival(kind)(b).acquire(timeout=PATIENCE):
                pass

    return scenario


def losing(kind: str) -> Scenario:
    async def scenario(connect: Connect) -> None:
        """The lease is ended by an operator: the body is cancelled, the next one gets it, old writes are refused."""
        async with services(connect, 2) as (a, b):
            bodies: list[LockGuard] = []

            async def hold() -> None:
                async with KINDS[kind](a) as guard:
                    bodies.append(guard)
                    await asyncio.sleep(10 * PATIENCE)

            holding = asyncio.ensure_future(hold())
            await queued(b, kind, 1)
            while not bodies:
                await asyncio.sleep(0.02)
            waiting = asyncio.ensure_future(_acquired(rival(kind)(b)))
            await queued(b, kind, 2)
            session = await a._client.shared_session()
            await b._client.backend.revoke(session._granted, timeout=5)
            newer = await waiting
            with pytest.raises(LostError):
                await holding
            assert newer.token > bodies[0].token
            with pytest.raises(LostError):
                await bodies[0].commit([Put("late", b"")])
            await newer.release()

    return scenario


async def _acquired(lock: Any) -> LockGuard:
    guard = await lock.acquire()
    assert isinstance(guard, LockGuard)
    return guard


def revoking(kind: str) -> Scenario:
    async def scenario(connect: Connect) -> None:
        async with services(connect, 2) as (a, b):
            lock: Any = KINDS[kind](b)
            guard = await _acquired(KINDS[kind](a))
            asked = asyncio.ensure_future(lock.revoke(guard.token, grace=PATIENCE))
            await guard.revoked.wait()
            await guard.release()
            await asked
            guard = await _acquired(KINDS[kind](a))
            await lock.revoke(guard.token, grace=0.2)
            assert await lock.contenders() == []
            with pytest.raises(LostError):
                await guard.commit([Put("late", b"")])

    return scenario


async def readers_share(connect: Connect) -> None:
    async with services(connect, 3) as (a, b, c):
        first, second = await _acquired(KINDS["read"](a)), await _acquired(KINDS["read"](b))
        writing = asyncio.ensure_future(_acquired(KINDS["write"](c)))
        await queued(a, "read", 3)
        late = asyncio.ensure_future(_acquired(KINDS["read"](b)))
        await queued(a, "read", 4)
        await first.release()
        await asyncio.sleep(0.2)
        assert not writing.done()
        assert not late.done()
        await second.release()
        written = await writing
        assert not late.done()
        await written.release()
        await (await late).release()


async def permits_are_counted(connect: Connect) -> None:
    inside, most = 0, 0

    async def use(service: CoordinationService) -> None:
        nonlocal inside, most
        for _ in range(2):
            async with service.semaphore("merges", limit=2).acquire(timeout=PATIENCE):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.05)
                inside -= 1

    async with services(connect, 4) as all_:
        both = [await service.semaphore("merges", limit=2).acquire() for service in all_[:2]]
        for permit in both:
            await permit.release()
        await asyncio.gather(*(use(service) for service in all_ for _ in range(2)))
        assert 1 <= most <= 2
        with pytest.raises(ConfigError):
            await all_[0].semaphore("merges", limit=3).acquire()


async def leading(connect: Connect) -> None:
    async with services(connect, 3) as (a, b, c):
        elections = [service.election("e", candidate_id=id_) for service, id_ in ((a, "a"), (b, "b"), (c, "c"))]
        async with elections[2].observe() as leaders:
            assert await anext(leaders) is None
            term = await elections[0].campaign()
            assert (await anext(leaders)).token == term.token
            waiting = [asyncio.ensure_future(_campaign(one)) for one in elections[1:]]
            await term.proclaim({"n": 1})
            assert (await anext(leaders)).info == {"n": 1}

            async def both_stand() -> bool:
                return len((await a._client.scan("election/e/q/")).items) == 2

            await until(both_stand)
            await term.transfer("c")
            newer = await waiting[1]
            assert newer.token > term.token
            while (leader := await anext(leaders)) is None or leader.candidate_id != "c":
                pass
            await newer.commit([Put("plan", b"c")])
            await newer.resign()
            last = await waiting[0]
            assert last.token > newer.token
            await last.resign()


async def _campaign(election: Any) -> Any:
    return await election.campaign()


async def waiting_at_a_barrier(connect: Connect) -> None:
    async with services(connect, 2) as (a, b):
        await a.barrier("m").hold()
        waiting = [asyncio.ensure_future(service.barrier("m").wait()) for service in (a, b)]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in waiting)
        await b.barrier("m").release()
        await asyncio.gather(*waiting)


async def meeting_at_a_double_barrier(connect: Connect) -> None:
    async with services(connect, 3) as all_:
        came: list[int] = []

        async def stay(service: CoordinationService) -> None:
            for round_ in (1, 2):
                async with service.double_barrier("p", parties=3):
                    came.append(round_)
                assert came.count(round_) == 3

        await asyncio.gather(*(stay(service) for service in all_))


async def dying_inside_a_double_barrier(connect: Connect) -> None:
    async with services(connect, 2) as (a, b):

        async def stay() -> None:
            async with b.double_barrier("p", parties=2):
                await asyncio.sleep(0.1)

        staying = asyncio.ensure_future(stay())
        await a.double_barrier("p", parties=2).enter()
        await a._client.aclose()
        with pytest.raises(BarrierBrokenError):
            await staying


async def counting(connect: Connect) -> None:
    async with services(connect, 3) as all_:
        await asyncio.gather(
            *(service.counter("jobs").add(2, exactly_once=once) for service in all_ for once in (True, False))
        )
        assert await all_[0].counter("jobs").get() == 12


async def sharing_a_value(connect: Connect) -> None:
    async with services(connect, 2) as (a, b):
        flags = b.shared_value("flags", default=[])
        async with flags.watch() as values:
            assert await anext(values) == []
            await asyncio.gather(*(a.shared_value("flags", default=[]).update(lambda old: [*old, 1]) for _ in range(4)))
            while await anext(values) != [1, 1, 1, 1]:
                pass


async def deciding(connect: Connect) -> None:
    async with services(connect, 3) as all_:
        proposals = [service.consensus("d").propose(b"%d" % n) for n, service in enumerate(all_)]
        assert len(set(await asyncio.gather(*proposals))) == 1


async def dividing_work(connect: Connect) -> None:
    """Every partition has one owner, and tokens never fall, when a member comes and goes."""
    fence: dict[int, Fence] = {number: Fence() for number in range(8)}

    async with services(connect, 2) as (a, b):
        first: Membership
        async with a.group("w").join("a") as first, first.partition(8) as mine:
            await mine.until(lambda owned: len(owned) == 8)
            for number, token in mine.items():
                fence[number].admit(token)
            async with b.group("w").join("b") as second, second.partition(8) as theirs:
                await theirs.until(lambda owned: len(owned) > 0 and len(owned) + len(mine) == 8)
                assert not set(mine) & set(theirs)
                for number, token in theirs.items():
                    fence[number].admit(token)
            await mine.until(lambda owned: len(owned) == 8)
            for number, token in mine.items():
                fence[number].admit(token)


SCENARIOS: dict[str, Scenario] = {
    **{f"turns-{kind}": taking_turns(kind) for kind in KINDS if kind != "read"},
    **{f"trying-{kind}": trying(kind) for kind in KINDS},
    **{f"losing-{kind}": losing(kind) for kind in KINDS},
    **{f"revoking-{kind}": revoking(kind) for kind in KINDS if kind != "multilock"},
    "readers": readers_share,
    "permits": permits_are_counted,
    "election": leading,
    "barrier": waiting_at_a_barrier,
    "double-barrier": meeting_at_a_double_barrier,
    "double-barrier-death": dying_inside_a_double_barrier,
    "counter": counting,
    "shared-value": sharing_a_value,
    "consensus": deciding,
    "partitions": dividing_work,
}
