"""What one holds at a time, be it a lock, a permit or the lead: for tests of what is true of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from attrs import frozen
from worlds import NAMESPACE, World

from osdisco.client import Client
from osdisco.coordination import CoordinationService, LeaderElection
from osdisco.coordination._acquire import Acquisition
from osdisco.coordination._handle import Handle
from osdisco.errors import LostError, TimedOutError
from osdisco.session import Session


@frozen
class Recipe:
    """One of them. Its contenders, holders included, stand under `queue`; `_make` gives the object that users have."""

    name: str
    queue: str
    _make: Callable[[CoordinationService], Any]

    def of(self, client: Client, session: Session | None = None) -> Any:
        return self._make(CoordinationService(client, session=session))

    def stand(self, client: Client, timeout: float | None = None, session: Session | None = None) -> Acquisition[Any]:
        """Await it, or enter it."""
        return stand(self.of(client, session), timeout)

    def waiting(self, client: Client, session: Session | None = None) -> asyncio.Task[Any]:
        """Stand in a task."""
        return asyncio.ensure_future(_awaited(self.stand(client, session=session)))

    async def attempt(self, client: Client) -> Handle | None:
        """Take it if it is free."""
        thing = self.of(client)
        if not isinstance(thing, LeaderElection):
            return await thing.try_acquire()
        try:
            return await thing.campaign(0.5)
        except TimedOutError:
            return None

    def contenders(self, world: World) -> list[str]:
        """The keys of those who hold it and who wait."""
        return [key for key in world.keys(self.queue) if not key.endswith("/limit")]

    def left(self, world: World) -> list[str]:
        """All keys but those that stay by design."""
        return [key for key in world.keys("") if not key.endswith("/limit")]

    async def contended(self, world: World, count: int) -> None:
        """Return once so many hold it or wait."""
        while len(self.contenders(world)) != count:
            await asyncio.sleep(0.05)

    def leases(self, world: World) -> set[str | None]:
        """What its contenders hang on."""
        return {item.lease for key in self.contenders(world) if (item := world.store.get(f"{NAMESPACE}/{key}"))}


async def _awaited(acquisition: Acquisition[Any]) -> Any:
    return await acquisition


def stand(thing: Any, timeout: float | None = None) -> Acquisition[Any]:
    """Acquire it, or campaign for it."""
    return thing.campaign(timeout) if isinstance(thing, LeaderElection) else thing.acquire(timeout)


async def give_up(handle: Handle) -> None:
    """Release it, or resign."""
    await handle._give_up()


async def settled(result: Any) -> Any:
    """Return what comes of a call, be it made here or when it is awaited."""
    return await result if isawaitable(result) else result


def believes(handle: Handle | None) -> bool:
    """Whether its owner would act on it."""
    try:
        if handle is not None:
            handle.check()
    except LostError:
        return False
    return handle is not None


RECIPES = [
    Recipe("lock", "lock/job/", lambda coordination: coordination.lock("job")),
    Recipe("write lock", "rw/job/", lambda coordination: coordination.rwlock("job").write()),
    Recipe("permit", "sem/job/", lambda coordination: coordination.semaphore("job", limit=1)),
    Recipe("locks", "lock/a/", lambda coordination: coordination.multilock(["job", "a"])),
    Recipe("election", "election/job/", lambda coordination: coordination.election("job")),
]
