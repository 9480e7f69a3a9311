"""`FaultyBackend` around any backend: the contract without faults, and each fault as it says."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest

from osdisco.backend import ABSENT, WATCH_SILENCE, Backend, Batch, Put, Snapshot
from osdisco.errors import ClosedError, DeniedError, IndeterminateError, UnavailableError
from osdisco.runtime import Runtime
from osdisco.testing import BackendSuite, FaultyBackend, Harness, VirtualClock, Weather
from osdisco_memory import MemoryBackend, MemoryStore


class Wrapped(Harness):
    """The store in memory, through a FaultyBackend with nothing wrong, or with weather."""

    def __init__(self, clock: VirtualClock, weather: Weather | None) -> None:
        super().__init__(Runtime(clock=clock))
        self._store = MemoryStore()
        self._weather = weather

    def make_backend(self) -> Backend:
        return FaultyBackend(MemoryBackend(self._store, self.runtime), weather=self._weather)


class TestCalm(BackendSuite):
    @pytest.fixture
    def harness(self, osdisco_clock: VirtualClock) -> Harness:
        return Wrapped(osdisco_clock, None)


class TestInBadWeather(BackendSuite):
    """Answers take their time, and the contract holds."""

    @pytest.fixture
    def harness(self, osdisco_clock: VirtualClock) -> Harness:
        return Wrapped(osdisco_clock, Weather(random.Random(1), long=0.3, longest=0.02))


@pytest.fixture
def store(osdisco_clock: VirtualClock) -> MemoryStore:
    return MemoryStore(clock=osdisco_clock)


@pytest.fixture
def backend(store: MemoryStore, osdisco_clock: VirtualClock) -> FaultyBackend:
    return FaultyBackend(MemoryBackend(store, Runtime(clock=osdisco_clock)))


async def put(backend: Backend, timeout: float = 2.0) -> None:
    await backend.commit([Put("k", b"v")], {}, timeout=timeout)


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_request_that_is_lost_is_never_applied(backend: FaultyBackend, store: MemoryStore) -> None:
    backend.faults.drop("commit", times=1)
    with pytest.raises(IndeterminateError):
        await put(backend)
    await asyncio.sleep(10)
    assert store.get("k") is None
    await put(backend)
    await backend.aclose()


async def test_an_answer_that_is_lost_is_applied_whatever_it_was(backend: FaultyBackend, store: MemoryStore) -> None:
    backend.faults.drop_answer("commit", times=2)
    with pytest.raises(IndeterminateError):
        await put(backend)
    assert store.get("k") is not None
    with pytest.raises(IndeterminateError):  # it was a conflict, and nobody knows
        await backend.commit([Put("k", b"w")], {"k": ABSENT}, timeout=2)
    await backend.aclose()


async def test_what_comes_late_is_applied_when_it_comes(backend: FaultyBackend, store: MemoryStore) -> None:
    backend.faults.late("commit", after=5, times=1)
    with pytest.raises(IndeterminateError):
        await put(backend)
    await asyncio.sleep(4.9)
    assert store.get("k") is None
    await asyncio.sleep(0.2)
    assert store.get("k") is not None
    await backend.aclose()


async def test_a_call_longer_than_its_timeout_is_unknown_and_applied_all_the_same(
    backend: FaultyBackend, store: MemoryStore
) -> None:
    backend.faults.delay("commit", request=3, times=1)
    with pytest.raises(IndeterminateError):
        await put(backend, timeout=1)
    assert now() == 1
    await asyncio.sleep(2.1)
    assert store.get("k") is not None
    backend.faults.delay("get", answer=3)
    with pytest.raises(UnavailableError):
        await backend.get("k", timeout=1)
    assert now() == pytest.approx(4.1)
    await backend.aclose()


async def test_a_caller_that_is_cancelled_takes_nothing_off_the_wire(
    backend: FaultyBackend, store: MemoryStore
) -> None:
    backend.faults.delay("commit", request=1)
    task = asyncio.ensure_future(put(backend))
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await asyncio.sleep(1)
    assert store.get("k") is not None
    await backend.aclose()


@pytest.mark.parametrize(("requests", "applied"), [(True, False), (False, True)])
async def test_a_cut_is_silent_in_either_direction(
    backend: FaultyBackend, store: MemoryStore, requests: bool, applied: bool
) -> None:
    with backend.faults.cut("commit", requests=requests):
        with pytest.raises(IndeterminateError):
            await put(backend)
        assert now() == 2
        assert await backend.get("else", timeout=1) is None
    assert (store.get("k") is not None) == applied
    await put(backend)
    await backend.aclose()


async def test_what_is_frozen_arrives_when_it_thaws(backend: FaultyBackend, store: MemoryStore) -> None:
    backend.faults.freeze()
    with pytest.raises(IndeterminateError):
        await put(backend)
    assert store.get("k") is None
    backend.faults.thaw()
    await asyncio.sleep(0.1)
    assert store.get("k") is not None
    await backend.aclose()


async def test_refusals_apply_nothing(backend: FaultyBackend, store: MemoryStore) -> None:
    with backend.faults.outage(), pytest.raises(UnavailableError):
        await put(backend)
    with backend.faults.deny("commit"), pytest.raises(DeniedError):
        await put(backend)
    assert store.get("k") is None
    await backend.aclose()


async def test_a_false_renewal_is_answered_well_and_renews_nothing(backend: FaultyBackend, store: MemoryStore) -> None:
    lease = await backend.grant(3, timeout=1)
    backend.faults.false_renew()
    for _ in range(4):
        await asyncio.sleep(1)
        assert await backend.renew(lease, timeout=1) == 3
    assert not store.revoke(lease.id)
    await backend.aclose()


async def frames(backend: FaultyBackend, seen: list[Snapshot | Batch]) -> None:
    async with aclosing(backend.watch("k")) as watched:
        async for frame in watched:
            seen.append(frame)


async def test_a_watch_that_is_cut_raises_and_one_that_is_silent_does_in_time(backend: FaultyBackend) -> None:
    seen: list[Snapshot | Batch] = []
    task = asyncio.ensure_future(frames(backend, seen))
    await asyncio.sleep(1)
    with backend.faults.outage("watch"), pytest.raises(UnavailableError):
        await task
    task = asyncio.ensure_future(frames(backend, seen))
    await asyncio.sleep(1)
    with backend.faults.cut("watch"), pytest.raises(UnavailableError, match="heard nothing"):
        await task
    assert now() == pytest.approx(2 + WATCH_SILENCE, abs=1)
    await backend.aclose()


async def test_frames_of_a_cut_watch_arrive_in_order_when_it_heals(backend: FaultyBackend, store: MemoryStore) -> None:
    seen: list[Snapshot | Batch] = []
    task = asyncio.ensure_future(frames(backend, seen))
    await asyncio.sleep(1)
    with backend.faults.cut("watch"):
        for value in (b"1", b"2", b"3"):
            store.commit([Put("k", value)], {})
            await asyncio.sleep(1)
        assert len(seen) == 1
    await asyncio.sleep(0.1)
    assert [frame.puts[0].value for frame in seen[1:] if isinstance(frame, Batch)] == [b"1", b"2", b"3"]
    task.cancel()
    await asyncio.wait([task])
    await backend.aclose()


async def test_frames_never_overtake_each_other(backend: FaultyBackend, store: MemoryStore) -> None:
    seen: list[Snapshot | Batch] = []
    task = asyncio.ensure_future(frames(backend, seen))
    await asyncio.sleep(1)
    backend.faults.delay("watch", answer=2, times=1)
    for number in range(20):
        store.commit([Put("k", b"%d" % number)], {})
        await asyncio.sleep(0.01)
    await asyncio.sleep(3)
    revisions = [frame.revision for frame in seen]
    assert revisions == sorted(revisions)
    assert len(revisions) == 21
    task.cancel()
    await asyncio.wait([task])
    await backend.aclose()


async def test_a_resync_begins_open_watches_anew(backend: FaultyBackend) -> None:
    seen: list[Snapshot | Batch] = []
    task = asyncio.ensure_future(frames(backend, seen))
    await asyncio.sleep(1)
    backend.faults.resync()
    await asyncio.sleep(1)
    assert [type(frame) for frame in seen] == [Snapshot, Snapshot]
    task.cancel()
    await asyncio.wait([task])
    await backend.aclose()


async def test_closing_answers_who_waits(backend: FaultyBackend) -> None:
    backend.faults.freeze()
    waiting = asyncio.ensure_future(put(backend, timeout=60))
    watching = asyncio.ensure_future(frames(backend, []))
    await asyncio.sleep(1)
    await backend.aclose()
    with pytest.raises(IndeterminateError):
        await waiting
    with pytest.raises(ClosedError):
        await watching
    with pytest.raises(ClosedError):
        await put(backend)


def test_weather_is_biased_towards_what_is_nearly_too_late() -> None:
    weather = Weather(random.Random(3), long=0.2, longest=2.0)
    delays = [weather.one_way(0.5) for _ in range(5000)]
    assert sum(delay > 0.01 for delay in delays) / 5000 == pytest.approx(0.2, abs=0.03)
    assert sum(0.3 <= delay <= 0.55 for delay in delays) / 5000 > 0.1
    assert max(delays) <= 2.0


@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_it_wraps_every_store(osdisco_url: str) -> None:
    async with FaultyBackend.connect(osdisco_url) as client:
        assert isinstance(client.backend, FaultyBackend)
        await client.put("a", b"1")
        client.backend.faults.drop_answer("commit", times=1)
        with pytest.raises(IndeterminateError):
            await client.put("a", b"2")
        item = await client.get("a")
        assert item is not None
        assert item.value == b"2"
        async with client.view("") as view:
            client.backend.faults.resync()
            await client.put("b", b"3")
            await view.until(lambda items: "b" in items, timeout=5)
