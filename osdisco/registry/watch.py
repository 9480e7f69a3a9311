"""`async with registry.watch(…)`: what happens to a service, as an iterator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType

from osdisco.registry.events import Event, Pending
from osdisco.registry.view import ServiceView


class ServiceWatch(AsyncIterator[Event]):
    """An iterator, subscribed at entry, closed at exit: who is there first, as if they came now, then what happens.

    It gives ServiceEvent, and of the view ViewStale, ViewFresh, ViewProtecting and ViewProtectionOver. Lost permission
    and a closed client end it with their error. Whoever is 1,024 events behind is told the difference instead.
    """

    def __init__(self, view: ServiceView) -> None:
        self._view = view
        self._pending: Pending | None = None

    async def __aenter__(self) -> AsyncIterator[Event]:
        self._pending = self._view._hear(bridges=False)
        self._view.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._view._unhear(pending)
            pending.end(None)
        await self._view.aclose()

    async def __anext__(self) -> Event:
        event = None if self._pending is None else await self._pending.next()
        if event is None:
            raise StopAsyncIteration
        return event
