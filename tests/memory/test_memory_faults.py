"""Each switch of the memory store does to a call what its name says, and nothing else."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from osdisco.backend import ABSENT, Lease, Put
from osdisco.errors import (
    DeniedError,
    IndeterminateError,
    LeaseExpiredError,
    OsdiscoError,
    UnavailableError,
)
from osdisco.testing import VirtualClock
from osdisco_memory import MemoryBackend, MemoryStore

T = 2.0
Connect = Callable[[], MemoryBackend]
DEAD = Lease("never", 10.0)

CALLS: dict[str, Callable[[MemoryBackend], Awaitable[object]]] = {
    "get": lambda backend: backend.get("a", timeout=T),
    "scan": lambda backend: backend.scan("a/", timeout=T),
    "commit": lambda backend: put(backend, "a"),
    "grant": lambda backend: backend.grant(5, timeout=T),
    "renew": lambda backend: backend.renew(DEAD, timeout=T),
    "revoke": lambda backend: backend.revoke(DEAD, timeout=T),
    "watch": lambda backend: anext(backend.watch("a")),
}
UNKNOWN = {name: UnavailableError if name in ("get", "scan", "watch") else IndeterminateError for name in CALLS}


async def put(backend: MemoryBackend, key: str, value: bytes = b"") -> object:
    return await backend.commit([Put(key, value)], {}, timeout=T)


async def error_of(call: Awaitable[object]) -> type[BaseException]:
    try:
        await call
    except OsdiscoError as exc:
        return type(exc)
    raise AssertionError("no error")


@pytest.mark.parametrize("call", CALLS)
async def test_an_outage_refuses_every_call_and_applies_nothing(
    backend: MemoryBackend, store: MemoryStore, call: str
) -> None:
    with store.faults.outage(call) as rule:
        assert await error_of(CALLS[call](backend)) is UnavailableError
    assert (rule.hits, store.revision) == (1, 0)
    await put(backend, "a")


@pytest.mark.parametrize("call", CALLS)
async def test_a_denied_call_is_denied(backend: MemoryBackend, store: MemoryStore, call: str) -> None:
    store.faults.deny(call)
    assert await error_of(CALLS[call](backend)) is DeniedError
    assert store.revision == 0


@pytest.mark.parametrize("call", CALLS)
async def test_a_lost_request_is_unknown_for_writes_and_unavailable_for_reads(
    backend: MemoryBackend, store: MemoryStore, call: str
) -> None:
    store.faults.drop(call)
    assert await error_of(CALLS[call](backend)) is UNKNOWN[call]
    assert store.revision == 0


async def test_a_lost_answer_is_unknown_and_applied_once(backend: MemoryBackend, store: MemoryStore) -> None:
    store.faults.drop_answer("commit", "grant", times=2)
    assert await error_of(put(backend, "a")) is IndeterminateError
    assert (store.get("a") is not None, store.revision) == (True, 1)
    assert await error_of(backend.grant(5, timeout=T)) is IndeterminateError
    await put(backend, "b")


async def test_a_late_request_applies_after_its_caller_was_told_that_nobody_knows(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    store.faults.late("commit", after=3, times=1)
    assert await error_of(put(backend, "a", b"old")) is IndeterminateError
    await put(backend, "a", b"new")
    await osdisco_clock.advance(2.9)
    assert (await backend.get("a", timeout=T)).value == b"new"  # type: ignore[union-attr]
    await osdisco_clock.advance(0.1)
    assert (await backend.get("a", timeout=T)).value == b"old"  # type: ignore[union-attr]


async def test_a_late_create_under_a_revoked_lease_is_refused_when_it_arrives(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    lease = await backend.grant(30, timeout=T)
    store.faults.late("commit", after=3)
    create = backend.commit([Put("a", b"", lease.id)], {"a": ABSENT}, timeout=T)
    assert await error_of(create) is IndeterminateError
    await backend.revoke(lease, timeout=T)
    await osdisco_clock.advance(5)
    assert await backend.get("a", timeout=T) is None
    await osdisco_clock.advance(1)
    gc.collect()
    assert said == [], "an error that nobody waits for was told"


async def test_a_late_request_wakes_who_watches(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    frames = backend.watch("a")
    await anext(frames)
    store.faults.late("commit", after=3)
    assert await error_of(put(backend, "a")) is IndeterminateError
    batch = await anext(frames)
    assert (osdisco_clock.now(), len(batch.puts)) == (3.0, 1)  # type: ignore[union-attr]
    await frames.aclose()


async def test_delays_add_up_and_apply_in_between(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    store.faults.delay("commit", request=0.5, answer=0.75)
    backend.faults.delay("commit", request=0.25)
    writing = asyncio.create_task(put(backend, "a"))
    await osdisco_clock.advance(0.74)
    assert store.get("a") is None
    await osdisco_clock.advance(0.02)
    assert store.get("a") is not None
    await writing
    assert osdisco_clock.now() == 1.5


async def test_a_delay_beyond_the_timeout_is_unknown_and_still_arrives(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    store.faults.delay(request=3)
    assert await error_of(put(backend, "a")) is IndeterminateError
    assert osdisco_clock.now() == T
    assert await error_of(backend.get("a", timeout=T)) is UnavailableError
    store.faults.clear()
    assert await backend.get("a", timeout=T) is not None


async def test_a_delayed_answer_beyond_the_timeout_is_unknown_and_applied(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    store.faults.delay("commit", answer=3)
    assert await error_of(put(backend, "a")) is IndeterminateError
    assert (osdisco_clock.now(), store.revision) == (T, 1)


async def test_a_cancelled_call_was_sent_all_the_same(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    store.faults.delay("commit", request=1)
    writing = asyncio.create_task(put(backend, "a"))
    await asyncio.sleep(0.5)
    writing.cancel()
    await asyncio.wait([writing])
    assert await backend.get("a", timeout=T) is None
    await osdisco_clock.advance(1)
    assert await backend.get("a", timeout=T) is not None


async def test_a_frozen_store_answers_nothing_and_applies_what_was_sent_when_it_thaws(
    connect: Connect, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    first, second = connect(), connect()
    store.faults.freeze()
    assert await error_of(first.get("a", timeout=T)) is UnavailableError
    assert await error_of(put(first, "a", b"1")) is IndeterminateError
    waiting = asyncio.create_task(put(second, "a", b"2"))
    await osdisco_clock.advance(1)
    assert (store.revision, osdisco_clock.now()) == (0, 2 * T + 1)
    store.faults.thaw()
    await waiting
    assert (await first.get("a", timeout=T)).value == b"2"  # type: ignore[union-attr]
    assert store.revision == 2


async def test_a_store_frozen_past_a_ttl_refuses_the_renewal_that_waited(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    lease = await backend.grant(3, timeout=T)
    await backend.commit([Put("a", b"", lease.id)], {"a": ABSENT}, timeout=T)
    store.faults.freeze()
    renewing = asyncio.create_task(backend.renew(lease, timeout=60))
    await osdisco_clock.advance(4)
    assert len(store.scan("").items) == 1
    store.faults.thaw()
    assert await error_of(renewing) is LeaseExpiredError
    assert store.scan("").items == {}


async def test_a_frozen_watch_is_silent_and_then_raises(backend: MemoryBackend, osdisco_clock: VirtualClock) -> None:
    frames = backend.watch("a")
    await anext(frames)
    backend.faults.freeze()
    assert await error_of(anext(frames)) is UnavailableError
    assert osdisco_clock.now() == 15.0


async def test_a_watch_goes_on_after_a_short_freeze(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    frames = backend.watch("a")
    await anext(frames)
    store.faults.freeze()
    coming = asyncio.ensure_future(anext(frames))
    writing = asyncio.create_task(backend.commit([Put("a", b"")], {}, timeout=60))
    await osdisco_clock.advance(14)
    assert not coming.done()
    store.faults.thaw()
    assert [item.key for item in (await coming).puts] == ["a"]  # type: ignore[union-attr]
    await writing
    await frames.aclose()


async def test_a_renewal_may_lie(backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock) -> None:
    lease = await backend.grant(3, timeout=T)
    store.faults.false_renew(times=2)
    await osdisco_clock.advance(2)
    assert await backend.renew(lease, timeout=T) == 3
    await osdisco_clock.advance(1)
    assert await backend.renew(lease, timeout=T) == 3
    assert await error_of(backend.renew(lease, timeout=T)) is LeaseExpiredError


@pytest.mark.parametrize(("fault", "error"), [("outage", UnavailableError), ("deny", DeniedError)])
async def test_s6_5_trouble_ends_an_open_watch_and_makes_up_no_deletes(
    backend: MemoryBackend, store: MemoryStore, fault: str, error: type[Exception]
) -> None:
    await put(backend, "a")
    frames = backend.watch("a")
    await anext(frames)
    coming = asyncio.ensure_future(anext(frames))
    await asyncio.sleep(1)
    getattr(store.faults, fault)("watch")
    assert await error_of(coming) is error


async def test_s6_5_neither_compaction_nor_resync_makes_up_deletes(backend: MemoryBackend, store: MemoryStore) -> None:
    await put(backend, "a")
    frames = backend.watch("a")
    first = await anext(frames)
    store.faults.compact()
    store.faults.resync()
    assert await anext(frames) == first
    await frames.aclose()


async def test_a_watch_that_resumes_behind_a_compaction_begins_with_a_snapshot(
    backend: MemoryBackend, store: MemoryStore
) -> None:
    for n in range(5):
        await put(backend, f"a/{n}")
    store.faults.compact()
    await put(backend, "a/5")
    resumed, compacted = backend.watch("a/", after=5), backend.watch("a/", after=4)
    assert [item.key for item in (await anext(resumed)).puts] == ["a/5"]  # type: ignore[union-attr]
    assert len((await anext(compacted)).items) == 6  # type: ignore[union-attr]
    await resumed.aclose()
    await compacted.aclose()


async def test_delayed_frames_come_later(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    frames = backend.watch("a")
    await anext(frames)
    store.faults.delay("watch", answer=2)
    await put(backend, "a")
    await anext(frames)
    assert osdisco_clock.now() == 2
    await frames.aclose()


async def test_what_a_store_does_to_leases_can_be_chosen(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    lease = await backend.grant(30, timeout=T)
    for key in ("detached", "kept"):
        await backend.commit([Put(key, b"1", lease.id)], {key: ABSENT}, timeout=T)
    await put(backend, "detached", b"2")
    store.faults.bare_put_keeps_lease = True
    await put(backend, "kept", b"2")
    assert {key: item.lease for key, item in store.scan("").items.items()} == {"detached": None, "kept": lease.id}
    assert store.faults.end_lease(lease.id)
    assert not store.faults.end_lease(lease.id)
    assert list(store.scan("").items) == ["detached"]


@pytest.mark.parametrize("factor", [1.0, 2.0, 2.5])
async def test_leases_may_end_late(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock, factor: float
) -> None:
    store.faults.expiry_factor = factor
    lease = await backend.grant(10, timeout=T)
    await osdisco_clock.advance(10 * factor - 0.1)
    await backend.renew(lease, timeout=T)
    await osdisco_clock.advance(10 * factor)
    assert await error_of(backend.renew(lease, timeout=T)) is LeaseExpiredError


async def test_an_identical_put_may_write_nothing(backend: MemoryBackend, store: MemoryStore) -> None:
    store.faults.noop_identical = True
    assert [await put(backend, "a", b"1"), await put(backend, "a", b"1")] == [{"a": 1}, {"a": 1}]
    store.faults.clear()
    assert await put(backend, "a", b"1") == {"a": 2}


async def test_a_conflating_watch_shows_the_latest_state_only(backend: MemoryBackend, store: MemoryStore) -> None:
    store.faults.conflate = True
    frames = backend.watch("a")
    await anext(frames)
    for n in range(3):
        await put(backend, "a", b"%d" % n)
    latest = await anext(frames)
    assert latest.items["a"].value == b"2"  # type: ignore[union-attr]
    await frames.aclose()


async def test_a_rule_is_for_the_calls_keys_and_times_that_it_names(
    connect: Connect, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    first, second = connect(), connect()
    rule = store.faults.drop_answer("commit", times=2, key="lock/")
    await put(first, "other")
    for _ in range(2):
        assert await error_of(put(first, "ns/lock/x")) is IndeterminateError
    await put(first, "ns/lock/x")
    assert rule.hits == 2
    first.faults.outage()
    assert await error_of(put(first, "a")) is UnavailableError
    await put(second, "a")
    first.faults.clear()
    await put(first, "a")
    with pytest.raises(ValueError, match="no such call: put"):
        store.faults.outage("put")


async def test_inspect_tells_of_an_outage(backend: MemoryBackend, store: MemoryStore) -> None:
    assert [status.error for status in await backend.inspect(timeout=T)] == [None]
    store.faults.outage()
    assert (await backend.inspect(timeout=T))[0].error == "get: the store is not available"


async def test_closing_answers_who_waits(
    backend: MemoryBackend, store: MemoryStore, osdisco_clock: VirtualClock
) -> None:
    store.faults.freeze()
    reading = asyncio.ensure_future(backend.get("a", timeout=60))
    writing = asyncio.ensure_future(put(backend, "a"))
    await asyncio.sleep(1)
    await backend.aclose()
    assert await error_of(reading) is UnavailableError
    assert await error_of(writing) is IndeterminateError
    assert osdisco_clock.now() == 1
    store.faults.thaw()
    assert store.get("a") is not None
