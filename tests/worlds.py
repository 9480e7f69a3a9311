"""A store in memory with processes on it that can be cut off and killed, for tests of recipes in virtual time.

At the end, what the same recipes need for tests on real stores.
"""

from __future__ import annotations

import asyncio
import random
import sys
import types
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import osdisco
from osdisco.backend import Batch, Item, Limits, Snapshot
from osdisco.client import Client
from osdisco.runtime import Runtime
from osdisco.testing import VirtualClock, VirtualLoop
from osdisco.url import ClientOptions, Duration
from osdisco_memory import LIMITS, MemoryBackend, MemoryStore

T = TypeVar("T")

NAMESPACE = "ns"


class CountingBackend(MemoryBackend):
    """Counts the calls by name, and the `frames` of watches that hold something."""

    def __init__(self, store: MemoryStore, runtime: Runtime) -> None:
        super().__init__(store, runtime)
        self.calls: Counter[str] = Counter()
        self.watching: Counter[str] = Counter()
        self.shown = 0  # keys that commits have shown
        self.falls_back = ""  # part of targets whose snapshots have the revision of what they hold, as Consul's may

    async def _call(self, call: str, *args: Any, **kwargs: Any) -> Any:
        self.calls[call] += 1
        return await super()._call(call, *args, **kwargs)

    async def commit_and_scan(self, *args: Any, **kwargs: Any) -> tuple[Mapping[str, int], Mapping[str, Item] | None]:
        revisions, seen = await super().commit_and_scan(*args, **kwargs)
        self.shown += len(seen or ())
        return revisions, seen

    async def watch(self, target: str, *, after: int | None = None) -> AsyncGenerator[Snapshot | Batch, None]:
        self.calls["watch"] += 1
        self.watching[target] += 1
        try:
            async for frame in super().watch(target, after=None if self.falls_back else after):
                self.calls["frames"] += isinstance(frame, Snapshot) or bool(frame.puts or frame.deletes)
                if self.falls_back and self.falls_back in target and isinstance(frame, Snapshot):
                    frame = Snapshot(frame.items, max([item.revision for item in frame.items.values()], default=1))
                yield frame
        finally:
            self.watching[target] -= 1


class World:
    """`process()` gives a client of its own: its own connection, sessions and faults."""

    def __init__(self, *, seed: int = 0, limits: Limits = LIMITS, ttl: float = 10.0) -> None:
        self.clock = VirtualClock()
        self.random = random.Random(seed)
        self.store = MemoryStore(clock=self.clock, limits=limits)
        self.ttl = ttl
        self.clients: list[Client] = []

    def process(self, name: str = "", *, timeout: float = 5.0) -> Client:
        runtime = Runtime(self.clock, random.Random(self.random.random()), name or f"p{len(self.clients)}")
        options = ClientOptions(ttl=Duration(self.ttl), timeout=Duration(timeout))
        client = Client(CountingBackend(self.store, runtime), runtime, options=options, namespace=NAMESPACE)
        self.clients.append(client)
        return client

    def kill(self, client: Client) -> None:
        """Let nothing of it reach the store any more, as after SIGKILL."""
        client.backend.faults.outage()

    def keys(self, prefix: str = "") -> list[str]:
        """Everything in the store below a prefix but what sessions keep for themselves."""
        keys = [key.removeprefix(f"{NAMESPACE}/") for key in self.store.scan(f"{NAMESPACE}/{prefix}").items]
        return [key for key in keys if not key.startswith("sess/")]

    def left(self) -> list[str]:
        """What should have been taken away, when all its users are gone. A semaphore's limit stays."""
        places = "lock rw sem revoke election ext probe svc svcprobe calls mesh x"
        prefixes = tuple(f"{place}/" for place in places.split())
        return [key for key in self.keys() if key.startswith(prefixes) and not key.endswith("/limit")]

    async def aclose(self) -> None:
        for client in self.clients:
            await client.aclose()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something holds; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def lease_of(client: Client) -> str:
    """Return the lease that everything of a client hangs on."""
    return (await client.shared_session()).id


class Suspensions:
    """Counts how often an awaitable suspends, and cancels its task at the `first` of them and `more` after that."""

    def __init__(self, first: int = 0, more: int = 0) -> None:
        self.count = 0
        self._cancel = range(first, first + 1 + more)

    def of(self, awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
        """Return a coroutine of the awaitable."""
        return self._watched(self._drive(awaitable.__await__()))

    async def _watched(self, driven: Awaitable[T]) -> T:
        return await driven

    @types.coroutine
    def _drive(self, inner: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        step: Callable[[], Any] = partial(inner.send, None)
        while True:
            try:
                future = step()
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            self.count += 1
            if self.count in self._cancel:
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
            try:
                step = partial(inner.send, (yield future))
            except BaseException as exc:
                step = partial(inner.throw, exc)


def connect(url: str, **options: str) -> Client:
    """Connect to a store of any kind; on memory, in the virtual time that such tests run in."""
    clock = VirtualClock() if isinstance(asyncio.get_running_loop(), VirtualLoop) else None
    extra = "&".join(f"{name}={value}" for name, value in options.items())
    return osdisco.connect(f"{url}{'&' if '?' in url else '?'}{extra}" if extra else url, clock=clock)


@asynccontextmanager
async def process_of(code: str, *arguments: str) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """Run Python code as a process of its own, whose first line of output says that it is ready; SIGKILL at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline(), "the process ended before it was ready"
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
