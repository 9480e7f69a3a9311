"""Errors, timeouts and the end: rules E1 to E3."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from osdisco.backend import ABSENT, Lease, Put
from osdisco.errors import ClosedError, ConfigError, IndeterminateError, UnavailableError
from osdisco.testing.conformance._harness import Harness, Peer
from osdisco.url import StoreURL

TIMEOUTS = (0.00001, 0.0001, 0.0003, 0.0006, 0.001, 0.0015, 0.002, 0.003)
SLACK = 1.0


class ConnectionRules:
    """Rules E1 to E3."""

    async def test_e1_an_option_that_the_backend_does_not_know_is_a_config_error(self, harness: Harness) -> None:
        async with harness:
            backend = (await harness.peer()).backend
            url = StoreURL.parse("store://127.0.0.1:1/?no_such_option=1")
            with pytest.raises(ConfigError):
                type(backend).from_url(url, harness.runtime)

    async def test_e2_a_read_that_times_out_is_unavailable(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            await peer.put("a", b"1")
            for timeout in TIMEOUTS:
                for read in (peer.backend.get, peer.backend.scan):
                    started = asyncio.get_running_loop().time()
                    with suppress(UnavailableError):
                        await read(peer.key("a") if read == peer.backend.get else harness.root, timeout=timeout)
                    assert asyncio.get_running_loop().time() - started < timeout + SLACK
            assert (await peer.item("a")).value == b"1"

    async def test_e2_a_write_that_times_out_never_says_no_when_it_was_applied(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            refused = []
            for n, timeout in enumerate(TIMEOUTS * 3):
                started = asyncio.get_running_loop().time()
                try:
                    await peer.backend.commit([Put(peer.key(f"a{n}"), b"")], {}, timeout=timeout)
                except UnavailableError:
                    refused.append(f"a{n}")
                except IndeterminateError:
                    pass
                else:
                    assert await peer.get(f"a{n}") is not None
                assert asyncio.get_running_loop().time() - started < timeout + SLACK
            await peer.put("end")
            await asyncio.sleep(0.1)
            applied = await peer.scan()
            assert not [name for name in refused if name in applied]

    async def test_e2_a_lease_call_that_times_out_is_unavailable_or_indeterminate(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            lease = await peer.grant(60)
            calls: list[Callable[[float], Awaitable[object]]] = [
                lambda timeout: peer.backend.grant(60, timeout=timeout),
                lambda timeout: peer.backend.renew(lease, timeout=timeout),
            ]
            for timeout in TIMEOUTS:
                for call in calls:
                    with suppress(UnavailableError, IndeterminateError):
                        await call(timeout)
            assert await peer.renew(lease) == lease.ttl

    async def test_e2_a_cancelled_call_leaves_the_backend_as_it_was(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: peer.put("a", b"1"),
                lambda: peer.get("a"),
                lambda: peer.scan(),
                lambda: peer.grant(60),
            ]
            for steps in range(12):
                for call in calls:
                    await _cancelled_after(steps, call())
            await peer.put("b", b"1")
            assert (await peer.item("b")).value == b"1"

    async def test_e2_a_cancelled_watch_leaves_the_backend_as_it_was(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            for steps in range(12):
                await _cancelled_after(steps, _watch_for_ever(peer))
            async with peer.follow() as follower:
                await peer.put("a")
                await follower.until(lambda items: "a" in items, "a change after watches were cancelled")

    async def test_e3_closing_twice_is_fine_and_what_comes_later_is_closed(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            lease = await peer.grant(60)
            await peer.put("a")
            await peer.backend.aclose()
            await peer.backend.aclose()
            for call in _calls(peer, lease):
                with pytest.raises(ClosedError):
                    await call()

    async def test_e3_a_backend_that_was_never_used_closes(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            await peer.backend.aclose()
            with pytest.raises(ClosedError):
                await peer.get("a")

    async def test_e3_closing_ends_open_watches_and_leaves_no_task(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            async with peer.follow() as prefix, peer.follow("a") as key:
                await prefix.ready()
                await key.ready()
                await peer.backend.aclose()
                for follower in (prefix, key):
                    assert isinstance(await follower.ended(), ClosedError | None)
            await harness.check_tasks()

    async def test_e3_what_one_backend_wrote_stays_when_it_closes(self, harness: Harness) -> None:
        async with harness:
            peer, other = await harness.peer(), await harness.peer()
            lease = await peer.grant(60)
            await peer.put("plain")
            await peer.create("leased", lease=lease)
            await peer.backend.aclose()
            assert (await other.scan()).keys() == {"plain", "leased"}
            await other.revoke(lease)
            assert (await other.scan()).keys() == {"plain"}

    async def test_e1_inspect_tells_that_a_good_store_is_well(self, harness: Harness) -> None:
        async with harness:
            peer = await harness.peer()
            found = await peer.backend.inspect(timeout=harness.timeout)
            assert found
            for status in found:
                assert status.error is None
                assert status.endpoint
                assert status.latency is None or 0 <= status.latency < harness.timeout


def _calls(peer: Peer, lease: Lease) -> list[Callable[[], Awaitable[object]]]:
    return [
        lambda: peer.get("a"),
        lambda: peer.scan(),
        lambda: peer.put("a"),
        lambda: peer.put("b", b"", ABSENT),
        lambda: peer.grant(60),
        lambda: peer.renew(lease),
        lambda: peer.revoke(lease),
        lambda: anext(peer.backend.watch(peer.key("a"))),
        lambda: anext(peer.backend.watch(peer.key(""), after=1)),
    ]


async def _cancelled_after(steps: int, call: Awaitable[object]) -> None:
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _watch_for_ever(peer: Peer) -> None:
    async for _ in peer.backend.watch(peer.harness.root):
        pass
