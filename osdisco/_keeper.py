"""Keeps a record of this process in the store: the latest, and once, under whatever session lives.

Every version of the record is an entry of its own that removes the one before in the same commit. A commit whose answer
was lost can therefore never bring old data back: what it replaces is gone by then.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from itertools import count
from typing import Final, Generic, NamedTuple, Self, TypeVar

from osdisco._connection import backoff
from osdisco._entries import Entry
from osdisco._epoch import EPOCH_SHIFT
from osdisco._follower import Follower
from osdisco._returns import Returns
from osdisco._signal import Signal
from osdisco._tasks import cancel
from osdisco.backend import WATCH_SILENCE
from osdisco.client import Client
from osdisco.errors import LostError, OsdiscoError, UnavailableError
from osdisco.metrics._catalog import REGISTRATIONS
from osdisco.session import Session

T = TypeVar("T")

log = logging.getLogger("osdisco")

SEEN: Final = 1.0
"""Seconds that leaving waits at most until it sees itself as it says that it leaves."""

OLDER_MAX: Final = 8
"""Older processes' records that are removed with the own one."""

UNDECIDED_MAX: Final = 8
"""Records that may still come in sessions that were lost; what is left of older sessions is over by then."""


class Rival(NamedTuple):
    """Another process's record at a place. It is `confirmed` when that process has outlived its first one."""

    key: str
    incarnation: int
    confirmed: bool

    @classmethod
    def of(cls, key: str, mark: int, created: int) -> Self:
        """Return it by its key in the store, its mark and its creation."""
        return cls(key, incarnation_of(mark, created), is_confirmed(mark))


class Keeper(ABC, Generic[T]):
    """The record of one process at `place`, which are segments; below it every process has entries of its own.

    Args:
        view: of all records.
        changed: rung when something here may be different from before, and to be rung when the view changes.
        session: to hang on instead of the client's shared one, which is opened anew when it is lost.
    """

    desired: T

    def __init__(
        self, client: Client, view: Follower, changed: Signal, *place: str, session: Session | None = None
    ) -> None:
        self.superseded = False
        self.on_superseded: Callable[[], None] = lambda: None
        self.error: OsdiscoError | None = None
        self.incarnation = 0
        self._rivals: Sequence[Rival] = ()
        self._confirmed = False
        self._epoch = 0
        self.process: Final = client.runtime.unique()
        self._returns = Returns.of(client._connection)
        self._returned_on: Session | None = None
        self._client = client
        self._view = view
        self._changed = changed
        self._place = place
        self._session = session
        self._numbers = count(1)
        self._entry: Entry | None = None
        self._undecided: deque[Entry] = deque(maxlen=UNDECIDED_MAX)
        self._published: T | None = None
        self._leaving = False
        self._task: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] = lambda: None

    @abstractmethod
    def _record(self, desired: T) -> bytes:
        """Return what stands in the store, with `mark`."""

    @property
    def mark(self) -> int:
        """What a record tells of its process's incarnation, which is not known yet when the first is written."""
        return self.incarnation or self._epoch << EPOCH_SHIFT

    @property
    def registered(self) -> bool:
        """Whether the latest record stands in the store and counts, as far as this process can know. No I/O.

        Also while a newer process that has not confirmed itself is shown instead: it may be dead.
        """
        return self._stands and not self.superseded and self._published == self.desired

    @property
    def _up_to_date(self) -> bool:
        """Whether nothing is left to write: the record is registered, and older processes can tell that we live.

        A first record may have been sent by a process that was killed meanwhile, or in an attempt that was given up. So
        nobody withdraws for one, and who meets older ones says once more that he is there.
        """
        return self.registered and (self._confirmed or not self._older)

    @property
    def _older(self) -> list[str]:
        """The keys of older processes' records."""
        return [rival.key for rival in self._rivals if rival.incarnation < self.incarnation]

    @property
    def session(self) -> Session | None:
        """The session that the record hangs on; None while it does not stand."""
        return self._entry.session if self._entry is not None and self._stands else None

    @property
    def _stands(self) -> bool:
        return self._entry is not None and not self._entry.gone.is_set() and self._entry.session.valid

    @property
    def session_is_lost(self) -> bool:
        """Whether the session of one's own is lost that it was to hang on, and it with it, for good."""
        return self._session is not None and self._session.lost.is_set()

    def check_not_lost(self, what: str) -> None:
        """Raise LostError when the place in `what` is lost for good."""
        if self.superseded:
            raise LostError(f"another process joined {what}")
        if self.session_is_lost:
            raise LostError(f"the session that was to hold {what} is lost; join again on another")

    @property
    def _over(self) -> bool:
        """Whether nothing is left to publish: the place is lost for good, or we said that we go."""
        return self.superseded or self.session_is_lost or (self._leaving and (self.registered or not self._stands))

    def meet(self, rivals: Sequence[Rival]) -> None:
        """Withdraw if one of the other processes at this place is newer, and confirmed.

        While our incarnation is unknown they are remembered: the view may show them before the store's answer tells us
        ours.
        """
        self._rivals = rivals
        newest = max((rival.incarnation for rival in rivals if rival.confirmed), default=0)
        if 0 < self.incarnation < newest and not self.superseded:
            self.superseded = True
            self.on_superseded()

    def start(self) -> None:
        """Begin; does not wait for the store."""
        self._task = self._client._connection.supervisor.spawn(self._run(), f"register {'/'.join(self._place)}")

    async def leave(self) -> None:
        """Publish what is desired last, then remove it. Waits as long as one operation may."""
        assert self._task is not None
        self._leaving = True
        self._changed.fire()
        try:
            if self._stands:
                await asyncio.wait([self._task], timeout=self._client.options.timeout)
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Keep it no longer, and let it be removed behind one's back."""
        assert self._task is not None
        if self._entry is not None:
            self._entry.abandon()
        self._forget()
        await cancel(self._task)

    async def _run(self) -> None:
        self._returns.records += 1
        try:
            await self._keep_on()
        finally:
            self._returns.records -= 1

    async def _keep_on(self) -> None:
        failures = 0
        while not self._over:
            try:
                await self._keep()
                failures = 0
            except OsdiscoError as exc:
                self.error = exc
                log.info("%s is not registered as it should be, trying again: %s", self._place[-1], exc)
            except Exception as exc:
                self.error = UnavailableError(f"the store's backend failed: {type(exc).__name__}")
                log.exception("%s could not be registered in a way that its backend does not know", self._place[-1])
            if self.error is not None:
                await self._returns.pause(backoff(self._client.runtime, failures))
                failures += 1
        if self.superseded:
            log.warning("%s was registered anew by another process; this one withdraws", self._place[-1])
        if self._entry is not None:
            await self._until_seen()
            # not before: who does not know yet that its first record came would make it anew, and be the newest then
            await self._entry.end(() if self.superseded else self._older[:OLDER_MAX])
        self._changed.fire()

    async def _until_seen(self) -> None:
        """Wait until the own watch shows what was published last, so that others can have seen it, too.

        A store that shows no states in between (Consul) would show them the removal alone, as of a crash.
        """

        def seen() -> bool:
            gone = self.superseded or self._view.stale or not self.registered
            return gone or (self._entry is not None and self._view.shows(self._entry.key))

        with suppress(TimeoutError):
            await self._changed.wait_for(seen, SEEN)

    async def _keep(self) -> None:
        """Publish what is new, then wait until there is more to do."""
        if not self._up_to_date:
            await self._publish_in_turn()
        self.error = None
        self._changed.fire()
        await self._until_needed()

    async def _until_needed(self) -> None:
        """Wait until there is something to do, be it that somebody deleted the record.

        While the view does not show it the store is asked now and then: it may be gone before the view ever saw it. A
        view that is stale shows nothing new, and is left time to come back.
        """

        def needed() -> bool:
            return self._over or not self._up_to_date

        def shown() -> bool:
            return self._entry is not None and self._view.shows(self._entry.key)

        def turned() -> bool:
            return needed() or shown() or self._view.stale is not stale

        asked, stale, runtime = 4, False, self._client.runtime
        due = runtime.clock.now() + WATCH_SILENCE
        while self._entry is not None and not needed():
            stale = self._view.stale
            pause = runtime.jittered(WATCH_SILENCE) if stale else backoff(runtime, asked)
            with suppress(TimeoutError):
                await self._changed.wait_for(turned, pause)
            if shown():
                await self._changed.wait_for(lambda: needed() or not shown())
                if not self._view.stale and not shown():
                    self._entry.depart()
            elif self._view.stale is not stale and runtime.clock.now() < due:
                continue
            if not needed():
                await self._entry.stands()
            asked += 1
            due = runtime.clock.now() + WATCH_SILENCE

    async def _publish_in_turn(self) -> None:
        async with nullcontext() if self.incarnation else self._returns.first:
            await self._publish()

    async def _publish(self) -> None:
        session = self._session or await self._client.shared_session()
        if self.incarnation and (session is not self._returned_on or not self._stands):
            await asyncio.sleep(self._returns.wait(session))
        self._returned_on = session
        if self._over:
            return
        old, stood = self._entry, self._stands
        desired, keys, self._epoch = self.desired, self._client._keys, session.epoch
        entry = Entry(self._client._connection, keys, session, *self._place, f"{self.process}.{next(self._numbers)}")
        await self._replace([*self._undecided, *([old] if old else ())], entry, self._record(desired))
        self._entry, self._published, self._confirmed = entry, desired, self.incarnation > 0
        how = "update" if stood and old and old.session is session else "again" if self.incarnation else "first"
        self._client.runtime.metrics.count(REGISTRATIONS, self._place[0], how)
        self.incarnation = incarnation_of(self.mark, entry.created)
        self.meet(self._rivals)
        self._forget()
        self._forget = session.lost.call(lambda _: self._changed.fire())

    async def _replace(self, before: Sequence[Entry], entry: Entry, record: bytes) -> None:
        """Create an entry, and let none of those before come or stay: the store may keep lost sessions' for long."""
        try:
            await entry.create(record, instead_of=before)
        except OsdiscoError:
            if entry.may_still_come:
                self._undecided.append(entry)
            raise
        self._undecided.clear()


def incarnation_of(mark: int, created: int) -> int:
    """Return a process's incarnation: the token of its first record.

    That record tells only the epoch, since its own creation is what counts; each later one tells all. So whoever comes
    after a restore that raised the epoch is newer than all before, though the store's revisions fell.
    """
    return mark if is_confirmed(mark) else mark + created


def is_confirmed(mark: int) -> bool:
    """Return whether a record was written by a process that knew of its first one, and so outlived it."""
    return bool(mark & ((1 << EPOCH_SHIFT) - 1))


def process_of(name: str) -> str:
    """Return the process that a record's name tells of."""
    return name.rpartition("/")[2].partition(".")[0]
