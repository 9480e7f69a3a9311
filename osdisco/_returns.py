"""How many records of one process come, and return after its session was lost: not all at once.

A store that was away is met by everybody at the moment when it is back. A process with many records therefore spreads
them over a third of the ttl and a little more, each at a random moment of its own share. One with few is done at once.

First records are not spread over time, but only a few of a process are under way at once: each takes a connection to a
Consul agent, which takes 200 from one address and keeps what is idle.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from osdisco._connection import Connection
from osdisco._signal import Signal
from osdisco.session import Session

MARGIN: Final = 0.4
"""Seconds beyond a third of the ttl: the store shall see 200 requests a second at most from 1,000 records."""
MANY: Final = 50
"""Records of a process that take all of the time; fewer take as much less."""
FIRST: Final = 16
"""First records of a process that are under way at once."""

APART: Final = 1 / 195
"""Seconds between two at least, should many have come late to their turns."""


class Returns:
    """The turns of one connection's records."""

    def __init__(self, connection: Connection) -> None:
        self.records = 0
        self.first: Final = asyncio.Semaphore(FIRST)
        self._runtime = connection.runtime
        self._session: Session | None = None
        self._opened = Signal()
        self._begun = self._last = 0.0
        self._given = 0

    @staticmethod
    def of(connection: Connection) -> Returns:
        """Return those of a connection."""
        return connection.companion(Returns, lambda: Returns(connection))

    def wait(self, session: Session) -> float:
        """Return the seconds that the next record waits before it is put under a new session."""
        now = self._runtime.clock.now()
        if session is not self._session:
            self._session, self._begun, self._last, self._given = session, now, now - APART, 0
            self._opened.fire()
        share = (self._given + self._runtime.random.random()) / max(self.records, 1)
        self._given += 1
        window = (session.ttl / 3 + MARGIN) * min(1.0, self.records / MANY)
        self._last = max(self._begun + share * window, self._last + APART, now)
        return self._last - now

    async def pause(self, seconds: float) -> None:
        """Wait before trying again; a record that others found a new session for takes its turn at once."""
        before = self._session
        with suppress(TimeoutError):
            await self._opened.wait_for(lambda: self._session is not before, seconds)
