"""What the tests of the core share: a memory store that is watched and disturbed, and cancellation at any await."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

from osdisco import Client, Runtime
from osdisco.backend import Backend, Batch, Condition, EndpointStatus, Item, Lease, LeaseStatus, Limits, Op, Snapshot
from osdisco.runtime import Clock
from osdisco.url import ClientOptions, StoreURL
from osdisco_memory import MemoryBackend, MemoryStore

NOWHERE = Limits(ttl_min=1, ttl_max=3600, expiry_factor=1)


class Spy(MemoryBackend):
    """A memory backend that notes what is asked of it.

    `sent` has the name and time of every call, `opened` the targets of all watches, `following` those that are open.
    `meanwhile[call]` runs when the store has answered and the answer is on its way.
    """

    def __init__(self, store: MemoryStore, runtime: Runtime) -> None:
        super().__init__(store, runtime)
        self.sent: list[tuple[str, float]] = []
        self.opened: list[str] = []
        self.following: Counter[str] = Counter()
        self.timeouts: list[float] = []
        self.meanwhile: dict[str, Callable[[], None]] = {}

    def count(self, call: str) -> int:
        """Return how often something was called."""
        return sum(name == call for name, _ in self.sent)

    def times(self, call: str) -> list[float]:
        """Return when something was called."""
        return [time for name, time in self.sent if name == call]

    async def _call(self, call: str, keys: Any, apply: Any, timeout: float, **kwargs: Any) -> Any:
        self.sent.append((call, self._runtime.clock.now()))
        self.timeouts.append(timeout)
        answer = await super()._call(call, keys, apply, timeout, **kwargs)
        self.meanwhile.get(call, lambda: None)()
        return answer

    async def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Snapshot | Batch, None]:
        self.opened.append(target)
        self.following[target] += 1
        try:
            async for frame in super().watch(target, after=after):
                yield frame
        finally:
            self.following[target] -= 1
            self.following += Counter()


class Scripted(Backend):
    """A backend of which only `watch` works: each opening plays the next script and waits when all are played.

    An exception in a script is raised; the script's end ends the watch.
    """

    limits = NOWHERE

    def __init__(self, *scripts: Sequence[Snapshot | Batch | BaseException]) -> None:
        self.scripts = list(scripts)
        self.resumed: list[int | None] = []

    async def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Snapshot | Batch, None]:
        self.resumed.append(after)
        if not self.scripts:
            await asyncio.Event().wait()
        for frame in self.scripts.pop(0):
            if isinstance(frame, BaseException):
                raise frame
            yield frame

    @classmethod
    def from_url(cls, url: StoreURL, runtime: Runtime) -> Scripted:
        raise NotImplementedError

    async def get(self, key: str, *, timeout: float) -> Item | None:
        raise NotImplementedError

    async def scan(self, prefix: str, *, timeout: float) -> Snapshot:
        raise NotImplementedError

    async def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition], *, timeout: float) -> Mapping[str, int]:
        raise NotImplementedError

    async def grant(self, ttl: float, *, timeout: float) -> Lease:
        raise NotImplementedError

    async def renew(self, lease: Lease, *, timeout: float) -> float:
        raise NotImplementedError

    async def revoke(self, lease: Lease, *, timeout: float) -> None:
        raise NotImplementedError

    async def lease_status(self, lease: str, *, timeout: float) -> LeaseStatus | None:
        raise NotImplementedError

    async def inspect(self, *, timeout: float) -> Sequence[EndpointStatus]:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


def client_of(backend: Backend, clock: Clock, **options: Any) -> Client:
    """Return a client of a backend, with randomness of its own."""
    runtime = Runtime(clock=clock, random=Random(1), name="me")
    return Client(backend, runtime, options=ClientOptions(**options), namespace="ns")


def spied(store: MemoryStore, clock: Clock, **options: Any) -> tuple[Client, Spy]:
    """Return a client and its spy."""
    spy = Spy(store, Runtime(clock=clock, random=Random(2)))
    return client_of(spy, clock, **options), spy


def leases(store: MemoryStore) -> list[str]:
    """Return the ids of the leases that a store holds now."""
    store.tick()
    return list(store._leases)


def keys(store: MemoryStore) -> list[str]:
    """Return the keys that a store holds now."""
    return list(store.scan("").items)


class CancelledAt:
    """Await it: the work is cancelled when it waits for the `step`-th time.

    Args:
        work: what to run.
        step: counted from 1; `reached` tells afterwards whether the work waited so often.
        answered: cancel only when what the step waits for has come, but before the work knows.
        again: cancel at every wait after that one, too.
    """

    def __init__(self, work: Awaitable[Any], step: int, *, answered: bool = False, again: bool = False) -> None:
        self._work = work
        self._step = step
        self._answered = answered
        self._again = again
        self._steps = 0
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        go = partial(next, steps)
        while True:
            try:
                waited = go()
            except StopIteration as end:
                return end.value
            self._note(waited)
            try:
                got = yield waited
            except BaseException as exc:
                go = partial(steps.throw, exc)
            else:
                go = partial(steps.send, got)

    def _note(self, waited: asyncio.Future[Any] | None) -> None:
        self._steps += 1
        if self._steps != self._step and not (self.reached and self._again):
            return
        self.reached = True
        task = asyncio.current_task()
        assert task is not None
        if self._answered and waited is not None:
            waited.add_done_callback(lambda _: task.cancel() and None)
        else:
            task.get_loop().call_soon(task.cancel)
