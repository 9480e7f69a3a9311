"""What happens to extensions and to the view of them, and how it waits for whoever is slow to be told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import chain
from types import TracebackType
from typing import Final, Self

from attrs import frozen

from osdisco.discovery.extension import ExtensionInfo
from osdisco.errors import ClosedError

PENDING_MAX: Final = 1024
"""Changes that somebody slow may be behind before they are merged into one."""


@frozen
class ExtensionEvent:
    """One extension appeared (`old` is None), went (`new` is None) or changed."""

    old: ExtensionInfo | None
    new: ExtensionInfo | None

    @property
    def extension(self) -> ExtensionInfo:
        """The extension as it is, or as it last was."""
        known = self.new or self.old
        assert known is not None
        return known


@frozen
class ViewStale:
    """The store may know better than the view from now on: the watch is interrupted, or silent for too long.

    Args:
        age: seconds since the store last spoke.
        reason: what interrupted it.
    """

    age: float
    reason: str


@frozen
class ViewFresh:
    """The view is again what the store has; what was missed is told next.

    Args:
        lasted: seconds for which it was stale.
    """

    lasted: float


@frozen
class Superseded:
    """Another process registered the own id later. This one withdraws, for good: it may as well end.

    Args:
        by: what the other one says of itself.
    """

    by: ExtensionInfo


ViewEvent = ViewStale | ViewFresh
Single = ViewEvent | Superseded
Event = ExtensionEvent | Single


class Backlog:
    """What somebody was not told yet, in order: changes of extensions, and between them what happened to the view."""

    def __init__(self) -> None:
        self.closed = False
        self._pending: deque[Sequence[ExtensionEvent] | Single] = deque()
        self._stale = False
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, told: Sequence[ExtensionEvent] | Single) -> None:
        """Queue changes that came at once, or one of the view."""
        self._pending.append(told)
        if len(self._pending) > PENDING_MAX:
            self._pending = deque(_merged(self._pending))
        self._woken.set()

    def close(self) -> None:
        """Let there come no more."""
        self.closed = True
        self._woken.set()

    async def wait(self) -> bool:
        """Wait until there is something; returns whether there is, and not the end."""
        while not self._pending and not self.closed:
            self._woken.clear()
            await self._woken.wait()
        return bool(self._pending)

    def take(self) -> Sequence[ExtensionEvent] | Single:
        """Take what came first; nothing when it is what its reader knows of the view already."""
        told = self._pending.popleft()
        if isinstance(told, ViewEvent):
            stale = isinstance(told, ViewStale)
            if stale is self._stale:
                return ()
            self._stale = stale
        return told


def _merged(pending: Iterable[Sequence[ExtensionEvent] | Single]) -> list[Sequence[ExtensionEvent] | Single]:
    """Fold all changes of extensions into one, and keep the last of the view."""
    changes: list[Sequence[ExtensionEvent]] = []
    singles: dict[bool, Single] = {}  # by whether it is about the view
    for told in pending:
        if isinstance(told, Single):
            singles[isinstance(told, ViewEvent)] = told
        else:
            changes.append(told)
    return [merge(changes), *singles.values()]


def merge(batches: Iterable[Sequence[ExtensionEvent]]) -> list[ExtensionEvent]:
    """Fold events into one for each extension: what was before the first, against what is after the last."""
    before: dict[str, ExtensionInfo | None] = {}
    after: dict[str, ExtensionInfo | None] = {}
    for event in chain.from_iterable(batches):
        before.setdefault(event.extension.id, event.old)
        after[event.extension.id] = event.new
    return [ExtensionEvent(before[id_], new) for id_, new in after.items() if before[id_] != new]


class Events(AsyncIterator[Event]):
    """`async with discovery.events() as events`: subscribed at entry; what is there comes first, then what changes.

    It ends when the service stops. Who is slow is told differences of several changes at once, and nothing twice.
    """

    def __init__(self, subscribe: Callable[[Backlog], Callable[[], None]]) -> None:
        self._subscribe = subscribe
        self._backlog = Backlog()
        self._now: deque[Event] = deque()
        self._leave: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        if self._leave is not None:
            raise ClosedError("events are entered once; ask for new ones")
        self._leave = self._subscribe(self._backlog)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._leave is not None
        self._leave()

    async def __anext__(self) -> Event:
        if self._leave is None:
            raise ClosedError("enter the events first: async with discovery.events() as events")
        while not self._now:
            if not await self._backlog.wait():
                raise StopAsyncIteration
            told = self._backlog.take()
            self._now.extend([told] if isinstance(told, Single) else told)
        return self._now.popleft()
