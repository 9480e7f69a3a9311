"""When what a follower shows becomes stale, and when it is fresh again: told once each time, without any I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from osdisco._follower import Follower
from osdisco.backend import WATCH_SILENCE

LOOK_EVERY: Final = 0.5
"""Seconds between looks while it is stale: a watch that works again tells of changes, not of itself."""


class Staleness:
    """Looks when it is told to (at a change, at trouble), and by itself for silence and its end.

    Before the store was ever heard, or asked in vain, it is not stale but unknown, and nothing is told.

    Args:
        tell: called with whether it is stale now, each time that this is another answer.
    """

    def __init__(self, follower: Follower, tell: Callable[[bool], None]) -> None:
        self.stale = False
        self._follower = follower
        self._tell = tell
        self._alarm: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """See how it is now, and look again by oneself when it may be different."""
        if not self._follower.known and self._follower.error is None:
            return
        stale = self._follower.stale
        if stale is not self.stale:
            self.stop()
            self.stale = stale
            self._tell(stale)
        if self._alarm is None:
            again = LOOK_EVERY if stale else max(WATCH_SILENCE - self._follower.age, 0.0) + LOOK_EVERY / 10
            self._alarm = asyncio.get_running_loop().call_later(again, self._look_again)

    def stop(self) -> None:
        """Look no more by oneself."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def forget(self) -> None:
        """Stop, and know nothing: whoever looks anew begins anew."""
        self.stop()
        self.stale = False

    def _look_again(self) -> None:
        self._alarm = None
        self.look()
