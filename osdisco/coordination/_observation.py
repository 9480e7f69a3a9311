"""Observers of an election."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final

from osdisco._feed import Change, Feed
from osdisco.client import Client
from osdisco.coordination._board import Board, Leader
from osdisco.errors import ClosedError, DeniedError, OsdiscoError

OBSERVED_MAX: Final = 1024
"""Leaders that a slow observer may be behind before the oldest are left out."""


class Observation(AsyncIterator["Leader | None"]):
    """`async with election.observe() as leaders`: who leads now, then whoever leads next; None while nobody does.

    An outage of the store shows nothing. Lost permission and a closed client end it with their error.
    """

    def __init__(self, client: Client, board: Board) -> None:
        self._feeds = client._feeds
        self._board = board
        self._leaders: deque[Leader | None] = deque(maxlen=OBSERVED_MAX)
        self._seen: tuple[Leader | None, ...] = ()  # the newest one, once anything was seen
        self._wake = asyncio.Event()
        self._error: OsdiscoError | None = None
        self._feed: Feed | None = None

    async def __aenter__(self) -> AsyncIterator[Leader | None]:
        self._feed = self._feeds.subscribe(self._board.prefix, self)
        self._look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        feed, self._feed = self._feed, None
        self._wake.set()
        if feed is not None:
            await self._feeds.unsubscribe(feed, self)

    async def __anext__(self) -> Leader | None:
        while not self._leaders or self._feed is None:
            if self._feed is None:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        return self._leaders.popleft()

    def on_change(self, change: Change) -> None:
        """Take a difference from the feed."""
        self._look()

    def on_trouble(self, error: OsdiscoError) -> None:
        """Outages are bridged."""
        if isinstance(error, DeniedError | ClosedError):
            self._error = error
            self._wake.set()

    def _look(self) -> None:
        if self._feed is None or self._feed.revision is None:
            return
        leader = self._board.shown(self._feed.items)
        if self._seen != (leader,):
            self._seen = (leader,)
            self._leaders.append(leader)
            self._wake.set()
