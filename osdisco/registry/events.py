"""What is told of a service: who came, changed and went, and how far the view can be trusted."""

from __future__ import annotations

import asyncio
import enum
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from attrs import frozen

from osdisco._protection import Pairs
from osdisco.errors import OsdiscoError
from osdisco.registry.definition import ServiceEndpoint

log = logging.getLogger("osdisco")


class ServiceEventKind(enum.Enum):
    """What happened. STALE lasts until FRESH, PROTECTING until PROTECTION_OVER."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"
    STALE = "stale"
    FRESH = "fresh"
    PROTECTING = "protecting"
    PROTECTION_OVER = "protection over"


@frozen
class ServiceEvent:
    """One thing that happened. `old` and `new` are of the endpoint that came, changed or went; else both are None."""

    kind: ServiceEventKind
    old: ServiceEndpoint | None = None
    new: ServiceEndpoint | None = None

    @property
    def endpoint(self) -> ServiceEndpoint | None:
        """The endpoint as it is, or as it last was; None when the event is about the view."""
        return self.new or self.old


def events_of(pairs: Pairs[ServiceEndpoint]) -> list[ServiceEvent]:
    """Return what changed as events: who went, then who changed, then who came."""
    found = [ServiceEvent(_kind(old, new), old, new) for old, new in pairs]
    return sorted(found, key=lambda event: _ORDER.index(event.kind))


_ORDER = (ServiceEventKind.REMOVED, ServiceEventKind.CHANGED, ServiceEventKind.ADDED)
_LASTING = (
    {ServiceEventKind.STALE, ServiceEventKind.FRESH},
    {ServiceEventKind.PROTECTING, ServiceEventKind.PROTECTION_OVER},
)


def _kind(old: ServiceEndpoint | None, new: ServiceEndpoint | None) -> ServiceEventKind:
    if old is None:
        return ServiceEventKind.ADDED
    return ServiceEventKind.REMOVED if new is None else ServiceEventKind.CHANGED


def merge(events: Iterable[ServiceEvent]) -> list[ServiceEvent]:
    """Fold events into the difference between before the first and after the last, and how the view is in the end."""
    before: dict[str, ServiceEndpoint | None] = {}
    after: dict[str, ServiceEndpoint | None] = {}
    lasting: dict[int, ServiceEvent] = {}
    for event in events:
        if (endpoint := event.endpoint) is None:
            lasting[next(n for n, kinds in enumerate(_LASTING) if event.kind in kinds)] = event
        else:
            before.setdefault(endpoint.extension_id, event.old)
            after[endpoint.extension_id] = event.new
    pairs = [(before[id_], new) for id_, new in after.items() if before[id_] != new]
    return [lasting[n] for n in sorted(lasting)] + events_of(pairs)


PENDING_MAX: Final = 1024
"""Events that a slow listener may be behind before they are merged."""


class Pending:
    """Events that one listener, or one iterator, was not told yet. `bridges`: lost permission does not end it."""

    def __init__(self, bridges: bool) -> None:
        self.bridges: Final = bridges
        self._events: deque[ServiceEvent] = deque()
        self._woken = asyncio.Event()
        self._error: OsdiscoError | None = None
        self._over = False

    def put(self, events: list[ServiceEvent]) -> None:
        """Queue events; fold them when there are too many."""
        self._events.extend(events)
        if len(self._events) > PENDING_MAX:
            merged = merge(self._events)
            self._events = deque(merged)
        self._woken.set()

    def end(self, error: OsdiscoError | None) -> None:
        """Let what was queued be the last, and then raise `error` if it is given."""
        self._over, self._error = True, error
        self._woken.set()

    async def next(self) -> ServiceEvent | None:
        """Return the next event; None at the end. Raises the error that it ended with."""
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._over:
                return None
            self._woken.clear()
            await self._woken.wait()
        return self._events.popleft()

    async def hand_to(self, listener: Callable[[ServiceEvent], Any]) -> None:
        """Call a listener for each event, and wait for it if it is a coroutine function."""
        with suppress(OsdiscoError):
            while (event := await self.next()) is not None:
                await _call(listener, event)


async def _call(listener: Callable[[ServiceEvent], Any], event: ServiceEvent) -> None:
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
