"""`async with registry.watch(…)`: what happens to a service, as an iterator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import cast

from osdisco.discovery._telling import Backlog, Reader
from osdisco.registry.events import Event, ServiceEvent
from osdisco.registry.view import ServiceView


class ServiceWatch(AsyncIterator[Event]):
    """An iterator, subscribed at entry, closed at exit: who is there first, as if they came now, then what happens.

    It gives ServiceEvent, and of the view ViewStale, ViewFresh, ViewProtecting and ViewProtectionOver. Lost permission
    and a closed client end it with their error. Whoever is 1,024 changes behind is told the difference instead.
    """

    def __init__(self, view: ServiceView) -> None:
        self._view = view
        self._reader: Reader[ServiceEvent] | None = None
        self._leave: Callable[[], None] = lambda: None

    async def __aenter__(self) -> AsyncIterator[Event]:
        self._reader = Reader(Backlog[ServiceEvent](bridges=False))
        self._leave = self._view._subscribe(self._reader.backlog)
        self._view.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader = None
        self._leave()
        await self._view.aclose()

    async def __anext__(self) -> Event:
        event = None if self._reader is None else await self._reader.next()
        if event is None:
            raise StopAsyncIteration
        return cast(Event, event)  # nothing here is ever superseded
