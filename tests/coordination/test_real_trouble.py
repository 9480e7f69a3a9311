"""Lock and election on real stores: answers that are lost, callers that are cancelled, a server that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from elections import election_of
from locks import lock_of
from worlds import Suspensions, connect

from osdisco.backend import ABSENT, Put
from osdisco.client import Client
from osdisco.errors import IndeterminateError, LostError, OsdiscoError
from osdisco.session import SessionState
from osdisco.testing import ChaosProxy, Servers
from osdisco.testing._stores import in_namespace

REAL = pytest.mark.osdisco("etcd", "etcd+http", "consul")


@pytest.fixture
async def proxy(osdisco_url: str) -> AsyncIterator[ChaosProxy]:
    """Yield the way to the server, whose answers can be held back."""
    async with ChaosProxy(osdisco_url.partition("://")[2].partition("/")[0]) as proxy:
        yield proxy


async def without_answer(proxy: ChaosProxy, operation: Awaitable[Any]) -> Any:
    """Do something whose first answers are lost."""
    proxy.to_client.hold()
    try:
        return await operation
    finally:
        proxy.cut()
        proxy.heal()


@pytest.fixture
async def client(osdisco_url: str, proxy: ChaosProxy) -> AsyncIterator[Client]:
    """Yield a client whose first way to the server is the proxy, and whose second one is always well."""
    scheme, _, rest = osdisco_url.partition("://")
    async with connect(f"{scheme}://{proxy.address},{rest}", timeout="2s") as client:
        await client.shared_session()
        yield client


@pytest.fixture
async def other(osdisco_url: str) -> AsyncIterator[Client]:
    """Yield a client that has no trouble."""
    async with connect(osdisco_url) as other:
        yield other


@REAL
@pytest.mark.fault("F16")
async def test_a_lock_is_acquired_once_when_the_answer_is_lost(
    client: Client, other: Client, proxy: ChaosProxy
) -> None:
    guard = await without_answer(proxy, lock_of(client).acquire())
    (contender,) = await lock_of(other).contenders()
    assert contender.token == guard.token
    await guard.release()


@REAL
@pytest.mark.fault("F16")
async def test_a_guarded_commit_whose_answer_is_lost_is_applied_once_and_told_as_unknown(
    client: Client, other: Client, proxy: ChaosProxy
) -> None:
    async with lock_of(client) as guard:
        with pytest.raises(IndeterminateError):
            await without_answer(proxy, guard.commit([Put("written", b"1")], {"written": ABSENT}))
        item = await other.get("written")
        assert item is not None
        assert item.created == item.revision


@REAL
@pytest.mark.fault("F16")
async def test_a_release_whose_answer_is_lost_is_no_loss_and_frees_the_lock(
    client: Client, other: Client, proxy: ChaosProxy
) -> None:
    guard = await lock_of(client).acquire()
    await without_answer(proxy, guard.release())
    assert await lock_of(other).contenders() == []
    async with lock_of(other).acquire(timeout=1):
        pass


@REAL
@pytest.mark.fault("F16")
async def test_an_election_whose_answers_are_lost_is_won_and_resigned_once(
    client: Client, other: Client, proxy: ChaosProxy
) -> None:
    term = await without_answer(proxy, election_of(client, candidate_id="c").campaign())
    leader = await election_of(other).leader()
    assert (leader.candidate_id, leader.token) == ("c", term.token)
    await without_answer(proxy, term.resign())
    assert await election_of(other).leader() is None
    async with election_of(other).campaign(1):
        pass
    assert not (await other.scan("election/")).items


async def take_turn(client: Client) -> None:
    async with lock_of(client) as guard:
        await guard.commit([Put("written", b"")])


async def wait_for_turn(client: Client) -> None:
    """Be second in the queue of one's own process."""
    first = await lock_of(client).acquire()
    asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(first.release()))
    async with lock_of(client):
        pass


async def try_in_vain(client: Client) -> None:
    if (guard := await lock_of(client).try_acquire()) is not None:
        await guard.release()


async def lead(client: Client) -> None:
    async with election_of(client).campaign() as term:
        await term.commit([Put("written", b"")])


@pytest.mark.parametrize("operation", [take_turn, wait_for_turn, try_in_vain, lead], ids=lambda each: each.__name__)
@REAL
async def test_whoever_is_cancelled_at_any_await_leaves_nothing_and_blocks_nobody(
    osdisco_url: str, operation: Callable[[Client], Awaitable[None]]
) -> None:
    """Case 41, once and doubly, where the store takes its own time."""
    async with connect(osdisco_url) as client, connect(osdisco_url) as next_one:
        await client.shared_session()
        await next_one.shared_session()
        for more in (0, 1):
            for first in count(1):
                suspensions = Suspensions(first, more)
                task = asyncio.ensure_future(suspensions.of(operation(client)))
                await asyncio.wait([task], timeout=10)
                assert task.done(), f"cancelled at await {first}, and it never ends"
                async with lock_of(next_one).acquire(timeout=2), election_of(next_one).campaign(2):
                    pass
                if suspensions.count < first:
                    break
            assert first > 2
        async with asyncio.timeout(5):
            while (await next_one.scan("lock/")).items or (await next_one.scan("election/")).items:
                await asyncio.sleep(0.02)


TTL = 3


@pytest.fixture(params=["etcd", "etcd+http", "consul"])
def victim(request: pytest.FixtureRequest, osdisco_servers: Servers) -> Iterator[tuple[Any, str]]:
    """Yield a server to freeze, and its URL."""
    fresh = osdisco_servers.fresh_consul if request.param == "consul" else osdisco_servers.fresh_etcd
    with fresh() as server:
        url = server.gateway_url if request.param == "etcd+http" else server.url
        yield server, f"{in_namespace(url, 'frozen')}?ttl={TTL}s&timeout=2s"


@pytest.mark.fault("F2")
async def test_a_holder_whose_store_stands_still_is_suspended_then_lost_at_its_own_deadline(
    victim: tuple[Any, str],
) -> None:
    """Case 28. Nobody tells it; and when the store goes on, everybody can have the lock again."""
    server, url = victim
    async with connect(url) as client, connect(url) as next_one:
        await next_one.shared_session()
        session = await client.shared_session()
        now = client.runtime.clock.now
        with suppress(LostError):
            async with lock_of(client) as guard:
                await guard.commit([Put("written", b"")])
                await asyncio.to_thread(server.pause)
                frozen = now()
                async with asyncio.timeout(TTL):
                    while session.state is not SessionState.SUSPENDED:
                        await asyncio.sleep(0.05)
                guard.check()
                await asyncio.sleep(2 * TTL)
        assert guard.lost.is_set()
        assert now() - frozen < TTL + 0.5, "the body was not cancelled at the deadline"
        with pytest.raises(LostError):
            await guard.commit([Put("written", b"late")])
        await asyncio.to_thread(server.unpause)
        expiry = TTL * client.limits.expiry_factor + 0.5
        async with asyncio.timeout(expiry + 10):
            await until_acquired(next_one)
            await until_acquired(client)


async def until_acquired(client: Client) -> None:
    while True:
        with suppress(OsdiscoError):
            async with lock_of(client):
                return
        await asyncio.sleep(0.1)
