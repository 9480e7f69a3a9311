"""Drives the protection of a view: gives it the time, which stands still while the store is away, and wakes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from osdisco._protection import Pairs, Protection, Traits
from osdisco.errors import ConfigError
from osdisco.runtime import Clock

R = TypeVar("R")

log = logging.getLogger("osdisco")

WINDOW_TTLS: Final = 2
WINDOW_MAX: Final = 3600.0
"""Seconds."""


class Guard(Generic[R]):
    """Protects one view.

    Args:
        what: the view, for the log.
        share: of the recent size, from 0 (off) to 1.
        window: seconds for which what vanished may be shown.
        show: takes what changes in what is shown.
    """

    def __init__(
        self,
        what: object,
        traits: Traits[R],
        share: float,
        window: float,
        clock: Clock,
        show: Callable[[Pairs[R]], None],
    ) -> None:
        self._what = what
        self._new = partial(Protection, traits, share, window)
        self._protection = self._new()
        self._time = _Stopwatch(clock.now)
        self._show = show
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def held(self) -> Mapping[str, R]:
        """What is shown although its record is gone, by id, as it last was."""
        return self._protection.held

    @property
    def protected(self) -> Mapping[str, R]:
        """The same, for users, who change nothing."""
        return MappingProxyType(self._protection.held)

    def begin(self) -> None:
        """Forget all, because what comes next is everything."""
        self._protection, self._closed = self._new(), False
        self._time.go()
        self._set_alarm()

    def take(self, pairs: Pairs[R]) -> None:
        """Take what changed in the table."""
        protecting = bool(self.held)
        self._follow(self._protection.apply(pairs, self._time.now()), protecting)

    def set_stale(self, stale: bool) -> None:
        """Let the time stand still, for nobody can see what returns; or go on."""
        if stale:
            self._time.stop()
        else:
            self._time.go()
        self._set_alarm()

    def close(self) -> None:
        """Let what is shown stay as it is."""
        self._closed = True
        self._set_alarm()

    def _advance(self) -> None:
        self._alarm = None
        self._follow(self._protection.advance(self._time.now()), True)

    def _follow(self, changes: Pairs[R], protecting: bool) -> None:
        self._show(changes)
        self._set_alarm()
        if self.held and not protecting:
            log.warning("%r: too many vanished at once, and some of them are shown on", self._what)
        elif protecting and not self.held:
            log.info("%r: the protection is over", self._what)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        at = self._protection.next_at
        if at is not None and self._time.running and not self._closed:
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, at - self._time.now()), self._advance)


class _Stopwatch:
    """Seconds that do not count while it stands."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lost = 0.0
        self._stopped_at: float | None = None

    @property
    def running(self) -> bool:
        return self._stopped_at is None

    def now(self) -> float:
        return (self._now() if self._stopped_at is None else self._stopped_at) - self._lost

    def stop(self) -> None:
        if self._stopped_at is None:
            self._stopped_at = self._now()

    def go(self) -> None:
        if self._stopped_at is not None:
            self._lost += self._now() - self._stopped_at
            self._stopped_at = None


def checked_share(share: float) -> float:
    """Return a share. Raises ConfigError unless it is from 0 to 1."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ConfigError(f"protection is a share from 0 (off) to 1, not {share!a}")
    return share


def checked_window(seconds: float | None, ttl: float) -> float:
    """Return a window; of None two ttls, in which whoever lives has registered again. Raises ConfigError."""
    if seconds is None:
        return min(WINDOW_TTLS * ttl, WINDOW_MAX)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= WINDOW_MAX:
        raise ConfigError(f"protection_window is above 0 and at most {WINDOW_MAX:.0f} seconds, not {seconds!a}")
    return seconds
