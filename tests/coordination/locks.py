"""What tests of the mutex share."""

from __future__ import annotations

import asyncio

from osdisco.client import Client
from osdisco.coordination import CoordinationService, DistributedLock, LockGuard
from osdisco.session import Session


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
