"""Cycles of all that a client does, a third of them cancelled at a random await, and what they leave behind.

What is promised (docs/guarantees.md): a client that is closed leaves no task, socket, lease or key, also when whatever
it did was cancelled. Only a lease whose grant was never answered may stay, without keys, until its ttl.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from attrs import define, field
from footprint import COUNTED, Sample
from worlds import Suspensions

import osdisco
from osdisco.client import Client
from osdisco.coordination import CoordinationService
from osdisco.discovery import DiscoveryService, ExtensionInfo
from osdisco.errors import OsdiscoError
from osdisco.testing import Servers
from osdisco.testing._stores import in_namespace
from osdisco_memory import MemoryStore

TTL = 15
"""Seconds; what is left at the end shows whether it goes by itself."""
AT_ONCE = 16
"""Cycles under way together."""
SETTLING = 5.0
"""Seconds in which what was begun ends."""
AGAIN = 0.05
"""Seconds until it is looked at again."""

TRANSPORTS = ("memory", "etcd", "etcd+http", "consul")


@define
class Place:
    """A namespace of a store that nothing else uses, and how to see what is left there.

    `leases` returns the ids of all leases or sessions of the store's; those of others may go meanwhile, but none comes.
    """

    url: str
    leases: Callable[[], set[str]]
    forget: Callable[[], None] = lambda: None
    """Lets a store that is part of this process forget what it keeps for watches that are behind."""

    @classmethod
    def of(cls, transport: str, servers: Servers, name: str) -> Place:
        if transport == "memory":
            store = MemoryStore.named(name)
            return cls(f"memory://{name}/leaks?ttl={TTL}", lambda: _of_memory(store), store.compact)
        server = servers.consul() if transport == "consul" else servers.etcd()
        url = server.gateway_url if transport == "etcd+http" else server.url  # type: ignore[union-attr]
        return cls(
            f"{in_namespace(url, name)}?ttl={TTL}",
            (lambda: {one["ID"] for one in server.admin("GET", "/v1/session/list")})
            if transport == "consul"
            else (lambda: {one["ID"] for one in server.admin("POST", "/v3/lease/leases", {}).get("leases", ())}),
        )

    async def keys(self) -> list[str]:
        """Return all keys in it, also those that osdisco keeps for itself."""
        async with osdisco.connect(self.url) as client:
            return sorted((await client.scan()).items)


def _of_memory(store: MemoryStore) -> set[str]:
    store.tick()
    return set(store._leases)


async def hold(client: Client, number: int) -> None:
    """Put a key that hangs on a session, and see it."""
    async with client.session() as session:
        await session.put(f"held/{number}", b"1")
        async with client.watch(f"held/{number}/") as changes:
            await anext(changes)
            await session.put(f"held/{number}/below", b"2")
            await anext(changes)


async def lock(client: Client, number: int) -> None:
    """Take a lock, and look at what it holds."""
    async with CoordinationService(client).lock(f"job-{number}", timeout=10) as guard, client.view("jobs/"):
        name, lease = f"jobs/{number}", (await client.shared_session()).id
        await guard.commit([osdisco.Put(name, b"1", lease)], {name: osdisco.ABSENT})


async def register(client: Client, number: int) -> None:
    """Register an extension, and find it."""
    me = ExtensionInfo(f"geo-{number}", "geo", "1.0.0", "10.0.0.7", 9700)
    async with DiscoveryService(client, me) as discovery:
        await discovery.wait_registered(10)
        await discovery.discover_extensions()


Work = Callable[[Client, int], Awaitable[None]]
WORKS: tuple[Work, ...] = (hold, hold, lock, register)
"""Half of them are the bare parts."""


async def cycle(url: str, work: Work, number: int) -> None:
    """Open, do something and close."""
    async with osdisco.connect(url) as client:
        await work(client, number)


@define
class Counts:
    """What cycles did."""

    whole: int = 0
    cut: int = 0
    missed: int = 0
    """Meant to be cut, but over before."""
    failed: int = 0
    """Ended in an error, as on a machine that has too much to do."""


@define
class Cycles:
    """Cycles at a place, decided by a seed. `run` may be called again for more."""

    place: Place
    seed: int
    run_one: Callable[[str, Work, int], Awaitable[None]] = cycle
    counts: Counts = field(factory=Counts)
    _number: int = 0
    _cutting: int = 0
    _chance: random.Random = field(init=False)
    _lengths: dict[object, int] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    async def run(self, count: int) -> None:
        """Run so many cycles, some of them at once."""
        end = self._number + count

        async def some() -> None:
            while self._number < end:
                self._number += 1
                await self._one(self._number)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(some())

    async def _one(self, number: int) -> None:
        work = self._chance.choice(WORKS)
        length = self._lengths.get(work)
        cut = length is not None and (self.counts.cut + self._cutting) * 3 <= number + 2 * AT_ONCE
        steps = Suspensions(self._chance.randint(1, length) if cut and length else 0)
        self._cutting += cut
        task = asyncio.create_task(steps.of(self.run_one(self.place.url, work, number)), name=f"cycle {number}")
        await asyncio.wait((task,))
        self._cutting -= cut
        if task.cancelled():
            self.counts.cut += 1
        elif isinstance(task.exception(), OsdiscoError):
            self.counts.failed += 1
        elif cut:
            self.counts.missed += 1
            task.result()
        else:
            task.result()
            self.counts.whole += 1
            self._lengths[work] = steps.count


@define
class Left:
    """What is there now that was not there before: by what, how many; and by name what can be named."""

    counts: Counter[str]
    names: list[str]

    def __bool__(self) -> bool:
        return bool(+self.counts)

    def __str__(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in (+self.counts).items()) + f": {self.names[:10]}"


@define
class Before:
    """What the process and the store hold, to compare with later."""

    place: Place
    sample: Sample
    leases: set[str]
    tasks: set[asyncio.Task[object]]

    @classmethod
    async def now(cls, place: Place) -> Before:
        """Return what is held when it does not become less any more: gRPC ends its threads a moment later."""
        sample = Sample.taken(time.monotonic())
        while True:
            await asyncio.sleep(10 * AGAIN)
            earlier, sample = sample, Sample.taken(time.monotonic())
            if all(getattr(sample, what) >= getattr(earlier, what) for what in COUNTED):
                return cls(place, sample, place.leases(), asyncio.all_tasks())

    async def left(self, within: float = SETTLING) -> Left:
        """Return what is still left after `within` seconds; sooner when there is nothing.

        The store is looked at last, for that opens a client, which takes a moment to end, too.
        """
        deadline = time.monotonic() + within
        while (here := self._here()) and time.monotonic() < deadline:
            await asyncio.sleep(AGAIN)
        while (there := await self._there()) and time.monotonic() < deadline:
            await asyncio.sleep(AGAIN)
        return Left(here.counts | there.counts, [*here.names, *there.names])

    def _here(self) -> Left:
        """Return what is left in the process."""
        tasks = [task.get_name() for task in asyncio.all_tasks() - self.tasks - {asyncio.current_task()}]
        now = Sample.taken(0)
        counts = Counter({what: getattr(now, what) - getattr(self.sample, what) for what in COUNTED})
        counts["tasks"] = len(tasks)
        return Left(counts, tasks)

    async def _there(self) -> Left:
        """Return what is left in the store."""
        keys, leases = await self.place.keys(), self.place.leases() - self.leases
        return Left(Counter({"keys": len(keys), "leases": len(leases)}), [*keys, *leases])


def enough(counts: Counts) -> bool:
    """Return whether a third was cut, and nearly all of the others did what they should."""
    done = counts.whole + counts.missed
    return counts.cut * 3 >= counts.cut + done + counts.failed and counts.failed * 20 <= done
