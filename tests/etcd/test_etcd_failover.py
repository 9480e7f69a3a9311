"""A call that turns away from an endpoint takes the watches along: silence alone would tell them much later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest
from etcd_rooms import Open, next_change

from osdisco.backend import Batch, Put, Snapshot
from osdisco.errors import IndeterminateError, OsdiscoError, UnavailableError
from osdisco.testing import ChaosProxy
from osdisco.testing._stores import EtcdServer
from osdisco_etcd import EtcdBackend


@pytest.fixture
async def proxy(etcd: EtcdServer) -> AsyncGenerator[ChaosProxy, None]:
    """Yield the way to the first endpoint of a backend whose second one is the same server, directly."""
    async with ChaosProxy(etcd.address) as proxy:
        yield proxy


async def opened(backend: EtcdBackend, target: str) -> AsyncGenerator[Snapshot | Batch, None]:
    watch = backend.watch(target)
    assert isinstance(await anext(watch), Snapshot)
    assert isinstance(await anext(watch), Batch)
    return watch


@pytest.mark.fault("F14")
async def test_a_watch_leaves_a_silent_endpoint_when_a_call_does(
    proxy: ChaosProxy, etcd: EtcdServer, open_backend: Open
) -> None:
    backend = open_backend(f"{proxy.address},{etcd.address}")
    lease = await backend.grant(10, timeout=5)
    watch = await opened(backend, "leaves/")
    proxy.hold()
    following = asyncio.ensure_future(until_seen(backend, watch))
    began = time.monotonic()
    with pytest.raises(IndeterminateError):
        await backend.renew(lease, timeout=0.3)
    await backend.commit([Put("leaves/k", b"")], {}, timeout=5)
    await asyncio.wait_for(following, 4)
    assert time.monotonic() - began < 4


async def until_seen(backend: EtcdBackend, watch: AsyncGenerator[Snapshot | Batch, None]) -> None:
    """Follow as a feed does, over as many watches as it takes."""
    after = 0
    while True:
        try:
            async for frame in watch:
                after = max(after, frame.revision)
                if isinstance(frame, Batch) and frame.puts:
                    return await watch.aclose()
        except UnavailableError:
            watch = backend.watch("leaves/", after=after or None)


async def test_a_watch_that_answers_when_it_is_asked_goes_on(
    proxy: ChaosProxy, etcd: EtcdServer, open_backend: Open
) -> None:
    """Given an endpoint at which one call failed, and nothing else."""
    backend = open_backend(f"{proxy.address},{etcd.address}")
    watch = await opened(backend, "stays/")
    proxy.to_client.hold()
    with pytest.raises(OsdiscoError):
        await backend.get("stays/k", timeout=0.2)
    frame = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.1)
    proxy.heal()
    assert isinstance(await asyncio.wait_for(frame, 2), Batch)
    await backend.commit([Put("stays/k", b"")], {}, timeout=5)
    assert (await next_change(watch)).puts
    await watch.aclose()


@pytest.mark.fault("F17")
async def test_a_dead_connection_to_the_only_endpoint_is_left(
    proxy: ChaosProxy, open_backend: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given connections whose other end is gone, and said nothing: gRPC would use them for another 15 s."""
    monkeypatch.setattr("osdisco_etcd._watch.PATIENCE", 0.3)
    monkeypatch.setattr("osdisco_etcd._watch.LAST_CALL", 0.2)
    backend = open_backend(proxy.address)
    lease = await backend.grant(30, timeout=5)
    for _ in range(3):
        following = asyncio.ensure_future(until_seen(backend, await opened(backend, "leaves/")))
        await backend.get("dead/k", timeout=5)
        await backend.renew(lease, timeout=5)
        proxy.half_open("server")
        with pytest.raises(UnavailableError):
            await backend.get("dead/k", timeout=0.3)
        with pytest.raises(IndeterminateError):
            await backend.renew(lease, timeout=0.3)
        assert await backend.get("dead/k", timeout=2) is None
        assert await backend.renew(lease, timeout=2)
        await backend.commit([Put("leaves/k", b"")], {}, timeout=2)
        await asyncio.wait_for(following, 3)
    async with asyncio.timeout(2):  # what was left is closed
        while proxy.connections > 3:
            await asyncio.sleep(0.01)
    await backend.revoke(lease, timeout=5)


async def test_what_still_waits_on_a_line_that_others_left_gets_its_answer(
    proxy: ChaosProxy, open_backend: Open
) -> None:
    backend = open_backend(proxy.address)
    await backend.get("left/k", timeout=5)
    proxy.to_client.hold()
    patient = asyncio.create_task(backend.commit([Put("left/k", b"")], {}, timeout=5))
    with pytest.raises(UnavailableError):
        await backend.get("left/k", timeout=0.3)
    proxy.heal()
    assert await backend.get("left/k", timeout=2) is not None
    assert await patient
    cut_short = asyncio.create_task(backend.commit([Put("left/k", b"")], {}, timeout=20))
    proxy.hold()
    with pytest.raises(UnavailableError):
        await backend.get("left/k", timeout=0.3)
    await asyncio.wait_for(backend.aclose(), 2)
    with pytest.raises(IndeterminateError):
        await asyncio.wait_for(cut_short, 2)
