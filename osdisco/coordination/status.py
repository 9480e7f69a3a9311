"""What stands in a namespace: who holds what, who waits for it, and how long their sessions last.

For operators. It is read in one atomic scan of the whole namespace; only what is left of leases is asked for after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Final

from attrs import evolve, field, frozen

from osdisco._connection import Connection
from osdisco._feed import Change, Feed
from osdisco.client import Client
from osdisco.coordination._board import Leader
from osdisco.coordination._contend import Contender, bridged
from osdisco.coordination.group import Member
from osdisco.errors import ClosedError, DeniedError, OsdiscoError

AT_ONCE: Final = 16
"""Leases that are asked for at a time."""

PAUSE: Final = 0.2
"""Seconds between states that a `StatusWatch` shows: a busy namespace changes more often than anybody can look."""


@frozen
class RevocationRequest:
    """Somebody wants back what the contender with `token` has, and takes it away after `grace` seconds.

    `since` is seconds since the epoch, by the clock of who asks. Both are None when the request is not osdisco's.
    """

    owner: str
    token: int
    grace: float | None = None
    since: float | None = None


@frozen
class QueueStatus:
    """A lock, a read/write lock or a semaphore. `limit` is a semaphore's, None when what stands there is no number."""

    name: str
    contenders: tuple[Contender, ...]
    revocations: tuple[RevocationRequest, ...] = ()
    limit: int | None = None

    @property
    def holders(self) -> list[Contender]:
        """Who has it."""
        return [one for one in self.contenders if one.holds]

    @property
    def waiting(self) -> list[Contender]:
        """Who waits for it, in order."""
        return [one for one in self.contenders if not one.holds]


@frozen
class CandidateStatus:
    """Who stands for an election; `owner` is the client's name."""

    candidate_id: str
    priority: int
    owner: str


@frozen
class ElectionStatus:
    """An election: who leads, and who stands, in the order in which they would lead next."""

    name: str
    leader: Leader | None
    candidates: tuple[CandidateStatus, ...]


@frozen
class GroupStatus:
    """A group: its members by id, and how many partitions each of them owns."""

    name: str
    members: tuple[Member, ...]
    partitions: Mapping[str, int] = field(factory=dict)


@frozen
class BarrierStatus:
    """A barrier that is held. Who held it, and since when by its clock, is None when the key is not osdisco's."""

    name: str
    owner: str | None
    since: float | None


@frozen
class DoubleBarrierStatus:
    """A double barrier: the owners that are in the round under way, and those that wait for `parties` to be there."""

    name: str
    parties: int | None
    inside: tuple[str, ...]
    waiting: tuple[str, ...]


@frozen
class SessionStatus:
    """A session: who has it, its lease and how many keys hang on that.

    `ttl` and `left` are seconds; None where the store does not tell (Consul: `left`), or knows the lease no more.
    """

    id: str
    owner: str
    lease: str
    keys: int
    ttl: float | None = None
    left: float | None = None


@frozen
class NamespaceStatus:
    """Everything that is held or waited for, by name.

    `strange` are keys, escaped as in the store, that stand where osdisco's do and that it cannot have written; those in
    queues are contenders all the same.
    """

    revision: int
    locks: tuple[QueueStatus, ...] = ()
    rwlocks: tuple[QueueStatus, ...] = ()
    semaphores: tuple[QueueStatus, ...] = ()
    elections: tuple[ElectionStatus, ...] = ()
    groups: tuple[GroupStatus, ...] = ()
    barriers: tuple[BarrierStatus, ...] = ()
    double_barriers: tuple[DoubleBarrierStatus, ...] = ()
    sessions: tuple[SessionStatus, ...] = ()
    strange: tuple[str, ...] = ()


async def read_status(client: Client) -> NamespaceStatus:
    """Return what stands in the client's namespace. See `CoordinationService.status`."""
    from osdisco.coordination._survey import survey

    client._connection.check_open()
    snapshot = await client._connection.scan(client._keys.root)
    return await with_leases(client, survey(client._keys, snapshot.items, snapshot.revision))


async def with_leases(client: Client, status: NamespaceStatus) -> NamespaceStatus:
    """Ask the store anew what is left of the sessions' leases."""
    gate = asyncio.Semaphore(AT_ONCE)
    asked = [_with_lease(client._connection, session, gate) for session in status.sessions]
    return evolve(status, sessions=tuple(await asyncio.gather(*asked)))


async def _with_lease(connection: Connection, session: SessionStatus, gate: asyncio.Semaphore) -> SessionStatus:
    async with gate:
        found = await connection.patiently(lambda left: connection.backend.lease_status(session.lease, timeout=left))
    if found is None:
        return evolve(session, ttl=None, left=None)
    return evolve(session, ttl=found.ttl, left=found.left)


class StatusWatch(AsyncIterator[NamespaceStatus]):
    """`async with coordination.watch_status() as states`: what stands now, then again after every change.

    Changes that come faster than anybody can look are shown together. An outage of the store shows nothing, see
    `error`. Lost permission and a closed client end it with their error.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._feed: Feed | None = None
        self._changed = asyncio.Event()
        self._error: OsdiscoError | None = None
        self._next_look = 0.0

    @property
    def error(self) -> OsdiscoError | None:
        """What interrupted the watch last; None while it runs."""
        return self._feed.error if self._feed else None

    async def __aenter__(self) -> StatusWatch:
        self._feed = self._client._feeds.subscribe(self._client._keys.root, self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        feed, self._feed = self._feed, None
        self._changed.set()
        if feed is not None:
            await self._client._feeds.unsubscribe(feed, self)

    async def __anext__(self) -> NamespaceStatus:
        await self._changed.wait()
        now = self._client.runtime.clock.now
        await asyncio.sleep(max(0.0, self._next_look - now()))
        feed = self._feed
        if feed is None:
            raise StopAsyncIteration
        if self._error is not None:
            raise self._error
        self._changed.clear()
        self._next_look = now() + PAUSE
        try:
            return await bridged(self._client, lambda: self._look(feed))
        except BaseException:  # whoever is cancelled may ask again
            self._changed.set()
            raise

    async def _look(self, feed: Feed) -> NamespaceStatus:
        from osdisco.coordination._survey import survey

        return await with_leases(self._client, survey(self._client._keys, feed.items, feed.revision or 0))

    def on_change(self, change: Change) -> None:
        """Take a difference from the feed."""
        self._changed.set()

    def on_trouble(self, error: OsdiscoError) -> None:
        """Outages are bridged."""
        if isinstance(error, DeniedError | ClosedError):
            self._error = error
            self._changed.set()
