"""`async with discovery.events()`: what happens, as an iterator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from osdisco.discovery._telling import Backlog, Reader
from osdisco.discovery.events import Event, ExtensionEvent
from osdisco.errors import ClosedError


class Events(AsyncIterator[Event]):
    """`async with discovery.events() as events`: subscribed at entry; what is there comes first, then what changes.

    It ends when the service stops. Who is slow is told differences of several changes at once, and nothing twice.
    """

    def __init__(self, subscribe: Callable[[Backlog[ExtensionEvent]], Callable[[], None]]) -> None:
        self._subscribe = subscribe
        self._reader = Reader(Backlog[ExtensionEvent]())
        self._leave: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        if self._leave is not None:
            raise ClosedError("events are entered once; ask for new ones")
        self._leave = self._subscribe(self._reader.backlog)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._leave is not None
        self._leave()

    async def __anext__(self) -> Event:
        if self._leave is None:
            raise ClosedError("enter the events first: async with discovery.events() as events")
        event = await self._reader.next()
        if event is None:
            raise StopAsyncIteration
        return event
