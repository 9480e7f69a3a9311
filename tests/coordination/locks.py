"""What tests of the mutex share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from osdisco.client import Client
from osdisco.coordination import CoordinationService, DistributedLock, LockGuard
from osdisco.coordination._acquire import Acquirable
from osdisco.session import Session

Kind = Callable[[CoordinationService], Acquirable[LockGuard]]

KINDS: dict[str, Kind] = {
    "lock": lambda coordination: coordination.lock("job"),
    "read": lambda coordination: coordination.rwlock("job").read(),
    "write": lambda coordination: coordination.rwlock("job").write(),
    "semaphore": lambda coordination: coordination.semaphore("job", limit=1),
    "multilock": lambda coordination: coordination.multilock(["job", "a", "z"]),
}
"""Everything that is acquired: the same must hold of all of them."""


def rival(kind: str) -> Kind:
    """Return what excludes a lock of that kind."""
    return KINDS["write" if kind == "read" else kind]


def lock_of(client: Client, name: str = "job") -> DistributedLock:
    return CoordinationService(client).lock(name)


def waiting(client: Client, name: str = "job", session: Session | None = None) -> asyncio.Task[LockGuard]:
    """Begin to wait in a task."""
    return asyncio.ensure_future(acquire(client, name, session))


async def acquire(client: Client, name: str = "job", session: Session | None = None) -> LockGuard:
    return await CoordinationService(client, session=session).lock(name).acquire()


async def queued(client: Client, count: int, name: str = "job") -> None:
    """Return once so many stand in the queue."""
    while len(await lock_of(client, name).contenders()) < count:
        await asyncio.sleep(0.1)
