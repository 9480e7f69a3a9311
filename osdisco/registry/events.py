"""What is told of a service: who came, changed and went, and how far the view can be trusted."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from attrs import frozen

from osdisco._protection import Pairs
from osdisco.discovery.events import ViewFresh, ViewStale
from osdisco.errors import OsdiscoError
from osdisco.registry.definition import ServiceEndpoint

log = logging.getLogger("osdisco")


@frozen
class ServiceEvent:
    """One endpoint of a service came (`old` is None), went (`new` is None) or changed."""

    old: ServiceEndpoint | None
    new: ServiceEndpoint | None

    @property
    def endpoint(self) -> ServiceEndpoint:
        """The endpoint as it is, or as it last was."""
        known = self.new or self.old
        assert known is not None
        return known


@frozen
class ViewProtecting:
    """Too many vanished at once: some are shown on from now on, although their records are gone."""


@frozen
class ViewProtectionOver:
    """What was shown on has returned, or was let go.

    Args:
        lasted: seconds for which some were shown on.
    """

    lasted: float


ViewEvent = ViewStale | ViewFresh | ViewProtecting | ViewProtectionOver
"""How far the view can be trusted."""

Event = ServiceEvent | ViewEvent


def events_of(pairs: Pairs[ServiceEndpoint]) -> list[ServiceEvent]:
    """Return what changed as events: who went, then who changed, then who came."""
    events = [ServiceEvent(old, new) for old, new in pairs]
    return sorted(events, key=lambda event: (event.old is None) - (event.new is None))


def _aspect(event: ViewEvent) -> tuple[type[ViewEvent], bool]:
    """Return what of the view it is about, and whether that is so from now on."""
    if isinstance(event, ViewStale | ViewFresh):
        return ViewStale, isinstance(event, ViewStale)
    return ViewProtecting, isinstance(event, ViewProtecting)


def merge(events: Iterable[Event]) -> list[Event]:
    """Fold events into how the view is in the end, and the difference between before the first and after the last."""
    before: dict[str, ServiceEndpoint | None] = {}
    after: dict[str, ServiceEndpoint | None] = {}
    last: dict[type[ViewEvent], ViewEvent] = {}
    for event in events:
        if isinstance(event, ServiceEvent):
            before.setdefault(event.endpoint.extension_id, event.old)
            after[event.endpoint.extension_id] = event.new
        else:
            last[_aspect(event)[0]] = event
    return [*last.values(), *events_of([(before[id_], new) for id_, new in after.items() if before[id_] != new])]


PENDING_MAX: Final = 1024
"""Events that a slow listener may be behind before they are merged."""


class Pending:
    """Events that one listener, or one iterator, was not told yet. `bridges`: lost permission does not end it."""

    def __init__(self, bridges: bool) -> None:
        self.bridges: Final = bridges
        self._events: deque[Event] = deque()
        self._told: set[type[ViewEvent]] = set()  # which aspects of the view are known to hold
        self._woken = asyncio.Event()
        self._error: OsdiscoError | None = None
        self._over = False

    def put(self, events: Iterable[Event]) -> None:
        """Queue events; fold them when there are too many."""
        self._events.extend(events)
        if len(self._events) > PENDING_MAX:
            self._events = deque(merge(self._events))
        self._woken.set()

    def end(self, error: OsdiscoError | None) -> None:
        """Let what was queued be the last, and then raise `error` if it is given."""
        self._over, self._error = True, error
        self._woken.set()

    async def next(self) -> Event | None:
        """Return the next event; None at the end. Raises the error that it ended with."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, ServiceEvent) or self._is_news(event):
                    return event
            if self._error is not None:
                raise self._error
            if self._over:
                return None
            self._woken.clear()
            await self._woken.wait()

    def _is_news(self, event: ViewEvent) -> bool:
        """Note how the view is, and return whether its reader did not know: what was between may have been merged."""
        aspect, holds = _aspect(event)
        if holds is (aspect in self._told):
            return False
        (self._told.add if holds else self._told.discard)(aspect)
        return True

    async def hand_to(self, listener: Callable[[Event], Any]) -> None:
        """Call a listener for each event, and wait for it if it is a coroutine function."""
        with suppress(OsdiscoError):
            while (event := await self.next()) is not None:
                await _call(listener, event)


async def _call(listener: Callable[[Event], Any], event: Event) -> None:
    task = asyncio.current_task()
    assert task is not None
    try:
        result = listener(event)
        if inspect.isawaitable(result):
            await result
    except (Exception, asyncio.CancelledError) as exc:
        if isinstance(exc, asyncio.CancelledError) and task.cancelling():
            raise
        log.exception("the listener %r failed; it is told of the next event all the same", listener)
