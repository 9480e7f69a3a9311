"""A backend between a client and any other backend, that does to its calls what networks and stores do to them.

`FaultyBackend(inner)` uses nothing but the public interface of what it wraps: the store in memory, a real etcd, one of
your own. Its `faults` are switches; in a `Simulation` they are thrown by the seed. A request on its way belongs to
nobody: it arrives although its caller was cancelled, paused or killed meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from contextvars import Context, copy_context
from functools import partial
from math import inf, isinf
from typing import Any, Final, Self, TypeVar, cast

from osdisco._plugins import load_backend
from osdisco._tasks import Supervisor
from osdisco.backend import (
    WATCH_SILENCE,
    Backend,
    Batch,
    Condition,
    EndpointStatus,
    Item,
    Lease,
    LeaseStatus,
    Limits,
    Op,
    Snapshot,
)
from osdisco.client import Client
from osdisco.errors import ClosedError, OsdiscoError, UnavailableError
from osdisco.runtime import Runtime
from osdisco.testing._weather import Weather
from osdisco.url import ClientOptions, StoreURL
from osdisco_memory import Effect, Faults, Rule, refuse, unanswered

T = TypeVar("T")


class NetworkFaults(Faults):
    """The switches of a `FaultyBackend`: those of the store in memory's clients, and those of the network."""

    def __init__(self, changed: Callable[[], None], resync: Callable[[], None]) -> None:
        super().__init__(changed)
        self.resync = resync

    def cut(
        self, *calls: str, requests: bool = True, answers: bool = True, times: int | None = None, key: str = ""
    ) -> Rule:
        """Let nothing through, and tell nobody: callers wait until they give up, open watches are silent.

        With `requests=False` what is asked for is done, and its answer lost: a partition in one direction.
        """
        there, back = inf if requests else 0.0, inf if answers else 0.0
        return self.delay(*calls, request=there, answer=back, times=times, key=key)

    def end(self, rule: Rule) -> None:
        """Take one rule away. What watches were to show meanwhile arrives now, in order."""
        super().end(rule)
        self._changed()


class FaultyBackend(Backend):
    """A backend whose calls meet faults on their way to `inner`.

    What only a store can do, as to end leases late or to forget its history, is up to `inner`: the store in memory has
    switches for it, `MemoryStore.faults`.

    Args:
        inner: does the work.
        weather: how long requests and answers take; no time at all when None.
        wire: who owns the requests that are on their way. They then outlive this backend, as packets do, and `inner`
            is theirs to close. Without it both end with `aclose`.
        outside: the context that requests on their way run in: no process's own. The present one when None.
    """

    def __init__(
        self,
        inner: Backend,
        *,
        weather: Weather | None = None,
        wire: Supervisor | None = None,
        outside: Context | None = None,
    ) -> None:
        self.inner: Final = inner
        self.faults: Final = NetworkFaults(self._changed, self._resync)
        self.weather = weather
        self._own_wire = wire is None
        self._wire = wire or Supervisor()
        self._outside = outside or copy_context()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._closed = False
        self._answers: dict[asyncio.Future[Any], str] = {}
        self._streams: dict[_Stream, None] = {}

    @classmethod
    def from_url(cls, url: StoreURL, runtime: Runtime) -> Self:
        """Wrap the backend that is installed for the URL's scheme."""
        return cls(load_backend(url.scheme).from_url(url, runtime))

    @classmethod
    def connect(cls, url: str, runtime: Runtime | None = None) -> Client:
        """Return a client of the store at `url` through a new `FaultyBackend`, which is its `backend`."""
        parsed, runtime = StoreURL.parse(url), runtime or Runtime()
        options = parsed.structure(ClientOptions, known=False)
        return Client(cls.from_url(parsed, runtime), runtime, options=options, namespace=parsed.namespace, url=parsed)

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """What the store takes."""
        return self.inner.limits

    async def get(self, key: str, *, timeout: float) -> Item | None:
        """Read one key."""
        return await self._call("get", (key,), lambda: self.inner.get(key, timeout=timeout), timeout)

    async def scan(self, prefix: str, *, timeout: float) -> Snapshot:
        """Read all under a prefix."""
        return await self._call("scan", (prefix,), lambda: self.inner.scan(prefix, timeout=timeout), timeout)

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        """Apply all or nothing."""
        keys = dict.fromkeys([*(op.key for op in ops), *expect])
        return await self._call("commit", keys, lambda: self.inner.commit(ops, expect, timeout=timeout), timeout)

    async def commit_and_scan(
        self, ops: Sequence[Op], expect: Mapping[str, Condition], prefix: str, *, timeout: float
    ) -> tuple[Mapping[str, int], Mapping[str, Item] | None]:
        """Apply all or nothing, and read."""
        keys = dict.fromkeys([*(op.key for op in ops), *expect])
        commit = partial(self.inner.commit_and_scan, ops, expect, prefix, timeout=timeout)
        return await self._call("commit", keys, commit, timeout)

    async def grant(self, ttl: float, *, timeout: float) -> Lease:
        """Open a lease."""
        return await self._call("grant", (), lambda: self.inner.grant(ttl, timeout=timeout), timeout)

    async def renew(self, lease: Lease, *, timeout: float) -> float:
        """Renew a lease."""

        async def falsely() -> float:
            return lease.ttl

        return await self._call("renew", (), lambda: self.inner.renew(lease, timeout=timeout), timeout, falsely=falsely)

    async def revoke(self, lease: Lease, *, timeout: float) -> None:
        """End a lease with its keys."""
        await self._call("revoke", (), lambda: self.inner.revoke(lease, timeout=timeout), timeout)

    async def lease_status(self, lease: str, *, timeout: float) -> LeaseStatus | None:
        """Tell how long a lease lasts."""
        return await self._call("lease_status", (), lambda: self.inner.lease_status(lease, timeout=timeout), timeout)

    async def inspect(self, *, timeout: float) -> Sequence[EndpointStatus]:
        """Ask every endpoint how it is. Meets no faults: it is the way to look past them."""
        self._check_open()
        return await self.inner.inspect(timeout=timeout)

    async def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Snapshot | Batch, None]:
        """Follow a key or a prefix."""
        self._check_open()
        stream = _Stream(self, target)
        self._streams[stream] = None
        try:
            stream.open(after)
            while True:
                yield await stream.next()
        finally:
            self._streams.pop(stream, None)
            stream.close()

    async def aclose(self) -> None:
        """End watches and whatever waits for an answer."""
        if self._closed:
            return
        self._closed = True
        for answer, call in list(self._answers.items()):
            if not answer.done():
                answer.set_exception(unanswered(call, "the backend was closed before the answer came"))
        for stream in list(self._streams):
            stream.fail(ClosedError("this backend is closed"))
        if self._own_wire:
            await self._wire.aclose()
            await self.inner.aclose()

    def sever(self) -> None:
        """Let nothing through any more, for good, as after the end of a process: every call raises ClosedError."""
        self._closed = True
        for stream in list(self._streams):
            stream.fail(ClosedError("this backend is severed"))

    def check_watch(self, target: str) -> float:
        """Raise what ends a watch of a target; return by how many seconds its frames are late, infinite: silent."""
        self._check_open()
        delays = self.faults.meet("watch", (target,))
        for rule in delays:
            if rule.effect is not Effect.DELAY:
                refuse("watch", rule)
        delay = sum(rule.answer for rule in delays)
        return delay + (self.weather.one_way(WATCH_SILENCE) if self.weather else 0.0)

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run something that belongs to no process."""
        return self._outside.copy().run(self._wire.spawn, work, name)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this backend is closed")

    async def _call(
        self,
        call: str,
        keys: Collection[str],
        send: Callable[[], Coroutine[Any, Any, T]],
        timeout: float,
        *,
        falsely: Callable[[], Coroutine[Any, Any, T]] | None = None,
    ) -> T:
        self._check_open()
        rules = self.faults.meet(call, keys)
        decided = next((rule.effect for rule in rules if rule.effect is not Effect.DELAY), None)
        there, back = self.weather.delays(timeout) if self.weather else (0.0, 0.0)
        there += sum(rule.request for rule in rules)
        back += sum(rule.answer for rule in rules)
        if decided in (Effect.OUTAGE, Effect.DENY, Effect.DROP):
            await asyncio.sleep(0)
            refuse(call, rules[-1])
        if decided is Effect.LATE:
            self._send(call, send, there, inf)
            raise unanswered(call, "the answer was lost")
        if decided is Effect.FALSE_RENEW and falsely is not None:
            send = falsely
        answer = self._send(call, send, there, back)
        if decided is not Effect.DROP_ANSWER:
            return await self._receive(call, answer, timeout)
        with suppress(OsdiscoError):
            await self._receive(call, answer, timeout)
        raise unanswered(call, "the answer was lost")

    def _send(
        self, call: str, send: Callable[[], Coroutine[Any, Any, T]], there: float, back: float
    ) -> asyncio.Future[T]:
        """Put a request on its way; returns where its answer arrives, if it does."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not isinf(there):
            self.spawn(self._travel(send, there, back, answer), f"{call} on its way")
        return answer

    async def _travel(
        self, send: Callable[[], Coroutine[Any, Any, T]], there: float, back: float, answer: asyncio.Future[T]
    ) -> None:
        await self._pass(there)
        try:
            value, error = await send(), None
        except OsdiscoError as exc:
            value, error = None, exc
        if isinf(back):
            return
        await self._pass(back)
        if answer.done():
            return
        if error is None:
            answer.set_result(cast(T, value))
        else:
            answer.set_exception(error)

    async def _pass(self, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)
        await self._flowing.wait()

    async def _receive(self, call: str, answer: asyncio.Future[T], timeout: float) -> T:
        self._answers[answer] = call
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise unanswered(call, "no answer came in time") from None
        finally:
            del self._answers[answer]

    def _changed(self) -> None:
        if self.faults.frozen:
            self._flowing.clear()
        else:
            self._flowing.set()
        self._outside.copy().run(self._look)

    def _look(self) -> None:
        for stream in list(self._streams):
            stream.look()

    def _resync(self) -> None:
        """Open every watch anew, without saying where it was: it begins with a Snapshot again."""
        for stream in list(self._streams):
            stream.open(None)


class _Stream:
    """One open watch: a pump on the wire, and the queue that its frames come out of, in their order."""

    def __init__(self, backend: FaultyBackend, target: str) -> None:
        self._backend = backend
        self._target = target
        self._queue: asyncio.Queue[Snapshot | Batch | OsdiscoError] = asyncio.Queue()
        self._stuck: list[Snapshot | Batch] = []
        self._underway: deque[Snapshot | Batch] = deque()
        self._last = 0.0  # when the latest frame arrives: none overtakes another
        self._pump: asyncio.Task[None] | None = None
        self._failed = False

    def open(self, after: int | None) -> None:
        """Begin to follow, or begin again."""
        if self._failed:
            return
        if self._pump is not None:
            self._pump.cancel()
        self._pump = self._backend.spawn(self._run(after), f"watch of {self._target} on its way")

    async def next(self) -> Snapshot | Batch:
        """Return the next frame."""
        try:
            async with asyncio.timeout(WATCH_SILENCE):
                frame = await self._queue.get()
        except TimeoutError:
            raise UnavailableError(f"the watch of {self._target!a} heard nothing for {WATCH_SILENCE:.0f} s") from None
        if isinstance(frame, OsdiscoError):
            raise frame
        return frame

    def look(self) -> None:
        """A switch was thrown."""
        try:
            delay = self._delay()
        except OsdiscoError as exc:
            self.fail(exc)
            return
        if not isinf(delay):
            stuck, self._stuck = self._stuck, []
            for frame in stuck:
                self._deliver(frame, delay)

    def fail(self, error: OsdiscoError) -> None:
        """End it."""
        if not self._failed:
            self.close()
            self._queue.put_nowait(error)

    def close(self) -> None:
        """Stop following."""
        self._failed = True
        if self._pump is not None:
            self._pump.cancel()

    async def _run(self, after: int | None) -> None:
        try:
            async with aclosing(self._backend.inner.watch(self._target, after=after)) as frames:
                async for frame in frames:
                    self._take(frame)
        except OsdiscoError as exc:
            self.fail(exc)

    def _take(self, frame: Snapshot | Batch) -> None:
        try:
            delay = self._delay()
        except OsdiscoError as exc:
            self.fail(exc)
            return
        if isinf(delay):
            self._stuck.append(frame)
        else:
            self._deliver(frame, delay)

    def _delay(self) -> float:
        delay = self._backend.check_watch(self._target)
        return inf if self._backend.faults.frozen else delay

    def _deliver(self, frame: Snapshot | Batch, delay: float) -> None:
        loop = asyncio.get_running_loop()
        self._last = max(self._last, loop.time() + delay)
        if self._last > loop.time() or self._underway:
            self._underway.append(frame)
            loop.call_at(self._last, self._arrive)
        else:
            self._queue.put_nowait(frame)

    def _arrive(self) -> None:
        """The timers of one moment have no order; frames have."""
        frame = self._underway.popleft()
        if not self._failed:
            self._queue.put_nowait(frame)
