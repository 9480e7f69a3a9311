"""The memory store beyond the contract: names, URLs, event loops, costs, and nothing left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from threading import Thread

import pytest

from osdisco.backend import ABSENT, Batch, Put, Snapshot
from osdisco.errors import ConfigError
from osdisco.runtime import Runtime, SystemClock
from osdisco.testing import VirtualClock, VirtualLoop, run
from osdisco.url import StoreURL
from osdisco_memory import MemoryBackend, MemoryStore
from osdisco_memory._watching import Subscription

T = 2.0
Connect = Callable[[], MemoryBackend]


def opened(url: str, clock: VirtualClock | None = None) -> MemoryBackend:
    return MemoryBackend.from_url(StoreURL.parse(url), Runtime(clock=clock or VirtualClock()))


def test_a_name_is_one_store_and_no_name_is_a_store_of_its_own() -> None:
    assert opened("memory://one/ns").store is opened("memory://one").store is MemoryStore.named("one")
    assert opened("memory://two").store is not opened("memory://one").store
    assert opened("memory://").store is not opened("memory://").store
    assert opened("memory:///ns").store is not opened("memory:///ns").store


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://user@name", "no user or password"),
        ("memory://user:secret@name", "no user or password"),
        ("memory://name:2379", "one name"),
        ("memory://one,two", "one name"),
        ("memory://name?tls_ca=/ca.pem", "tls_ca"),
        ("memory://name?tt=5s", "did you mean 'ttl'"),
        ("memory://name?ttl=never", "ttl"),
    ],
)
def test_what_a_memory_url_cannot_say_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        opened(url)
    assert "secret" not in str(refused.value)


def test_a_store_outlives_event_loops_and_its_time_goes_on() -> None:
    async def grant() -> None:
        backend = opened("memory://loops")
        lease = await backend.grant(10, timeout=T)
        await backend.commit([Put("a", b"", lease.id)], {"a": ABSENT}, timeout=T)
        await asyncio.sleep(6)
        await backend.aclose()

    async def find(seconds: float) -> bool:
        backend = opened("memory://loops")
        await asyncio.sleep(seconds)
        found = await backend.get("a", timeout=T)
        await backend.aclose()
        return found is not None

    run(grant())
    assert run(find(3.9))
    assert not run(find(0.2))


def test_other_loops_and_threads_see_changes() -> None:
    store = MemoryStore()

    async def write() -> None:
        backend = MemoryBackend(store, Runtime(clock=SystemClock()))
        for n in range(50):
            await backend.commit([Put("a", b"%d" % n)], {}, timeout=T)
        await backend.aclose()

    async def follow() -> None:
        backend = MemoryBackend(store, Runtime(clock=SystemClock()))
        async with asyncio.timeout(5), aclosing(backend.watch("a")) as frames:
            assert (await anext(frames)).revision == 0
            writer = Thread(target=lambda: asyncio.run(write()))
            writer.start()
            async for frame in frames:
                if isinstance(frame, Batch) and frame.puts and frame.puts[0].value == b"49":
                    break
            writer.join()
        await backend.aclose()

    asyncio.run(follow())


async def test_plain_calls_need_neither_task_nor_timer(backend: MemoryBackend) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    tasks, timers = asyncio.all_tasks(), len(loop._scheduled)
    lease = await backend.grant(5, timeout=T)
    await backend.commit([Put("a", b"", lease.id)], {"a": ABSENT}, timeout=T)
    await backend.get("a", timeout=T)
    await backend.scan("", timeout=T)
    await backend.renew(lease, timeout=T)
    assert (asyncio.all_tasks(), len(loop._scheduled)) == (tasks, timers)


async def test_closing_leaves_no_timer(connect: Connect, store: MemoryStore, osdisco_clock: VirtualClock) -> None:
    backend = connect()
    await backend.grant(3600, timeout=T)
    frames = backend.watch("a")
    await anext(frames)
    coming = asyncio.ensure_future(anext(frames, None))
    await asyncio.sleep(1)
    await backend.aclose()
    await asyncio.wait([coming])
    assert coming.exception() is not None
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


async def test_a_watch_is_told_of_the_end_of_a_lease_when_it_ends(
    backend: MemoryBackend, osdisco_clock: VirtualClock
) -> None:
    short = await backend.grant(3, timeout=T)
    async with aclosing(backend.watch("")) as frames:
        await anext(frames)
        for key, lease in (("short", short), ("long", await backend.grant(7, timeout=T))):
            await backend.commit([Put(key, b"", lease.id)], {key: ABSENT}, timeout=T)
            await anext(frames)
        await osdisco_clock.advance(2)
        await backend.renew(short, timeout=T)
        ends = []
        async for frame in frames:
            assert isinstance(frame, Batch)
            ends += [(osdisco_clock.now(), key) for key in frame.deletes]
            if len(ends) == 2:
                break
    assert ends == [(pytest.approx(5, abs=0.01), "short"), (pytest.approx(7, abs=0.01), "long")]


async def test_a_lease_granted_later_that_ends_sooner_wakes_the_watch_in_time(
    backend: MemoryBackend, osdisco_clock: VirtualClock
) -> None:
    await backend.grant(3600, timeout=T)
    async with aclosing(backend.watch("a")) as frames:
        await anext(frames)
        coming = asyncio.ensure_future(anext(frames))
        await asyncio.sleep(1)
        lease = await backend.grant(2, timeout=T)
        await backend.commit([Put("a", b"", lease.id)], {"a": ABSENT}, timeout=T)
        await coming
        assert (await anext(frames)).deletes == ("a",)  # type: ignore[union-attr]
        assert osdisco_clock.now() == pytest.approx(3, abs=0.01)


async def test_a_suspended_machine_finds_its_leases_ended(backend: MemoryBackend, osdisco_clock: VirtualClock) -> None:
    lease = await backend.grant(10, timeout=T)
    await backend.commit([Put("a", b"", lease.id)], {"a": ABSENT}, timeout=T)
    osdisco_clock.jump_wall(-3600)
    assert await backend.get("a", timeout=T) is not None
    osdisco_clock.jump(10)
    assert await backend.get("a", timeout=T) is None


async def test_idle_watches_hear_from_the_store_every_ten_seconds(
    backend: MemoryBackend, osdisco_clock: VirtualClock
) -> None:
    async with aclosing(backend.watch("a")) as frames:
        await anext(frames)
        for n in range(1, 4):
            assert await anext(frames) == Batch((), (), 0)
            assert osdisco_clock.now() == 10 * n


async def test_a_change_wakes_those_whom_it_concerns_and_no_others(
    backend: MemoryBackend, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []
    wake = Subscription.wake

    def count(sub: Subscription) -> None:
        woken.append(sub.target)
        wake(sub)

    monkeypatch.setattr(Subscription, "wake", count)
    watches = [backend.watch(f"queue/{n}") for n in range(100)] + [backend.watch("queue/"), backend.watch("other/")]
    for frames in watches:
        await anext(frames)
    await backend.commit([Put("queue/7", b""), Put("queue/70", b"")], {}, timeout=T)
    assert sorted(woken) == ["queue/", "queue/7", "queue/70"]
    for frames in watches:
        await frames.aclose()


async def test_a_slow_consumer_of_many_changes_costs_bounded_memory_and_gets_the_latest_state(
    connect: Connect,
) -> None:
    store = MemoryStore(history_max=100_000)
    backend = MemoryBackend(store, connect()._runtime)
    async with aclosing(backend.watch("a")) as frames:
        await anext(frames)
        for n in range(100_000):
            store.commit([Put("a", b"%d" % n)], {})
        assert store._history._size <= 100_000
        assert len(store._history._changes) < 1000
        latest = await anext(frames)
        assert isinstance(latest, Snapshot)
        assert latest.items["a"].value == b"99999"
        coming = asyncio.ensure_future(anext(frames))
        await backend.commit([Put("a", b"")], {}, timeout=T)
        assert isinstance(await coming, Batch)


def test_a_scan_costs_by_what_it_finds() -> None:
    def fastest(store: MemoryStore) -> float:
        times = []
        for _ in range(50):
            started = time.perf_counter()
            assert len(store.scan("m/").items) == 20
            times.append(time.perf_counter() - started)
        return min(times)

    small, large = MemoryStore(), MemoryStore()
    for store, others in ((small, 20), (large, 50_000)):
        store.commit([Put(f"m/{n}", b"") for n in range(20)], {})
        store.commit([Put(f"{'az'[n % 2]}/{n}", b"") for n in range(others)], {})
    assert fastest(large) < 5 * fastest(small)
