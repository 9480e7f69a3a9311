"""Deadlines: until when a call may take, and what it leaves to the calls that are made for it.

The deadline is a moment on this process's own clock, kept in a context variable; what crosses the network is the time
that remains, because clocks differ. A call within another one never has more time than that one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from math import inf
from typing import Final

from osdisco.errors import ConfigError
from osdisco.runtime import Clock

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds for a call that says nothing else."""

_DEADLINE: ContextVar[float] = ContextVar("osdisco mesh deadline", default=inf)


def checked_timeout(name: str, seconds: object) -> float:
    """Return seconds of a duration. Raises ConfigError unless it is a number above zero and finite."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= sys.float_info.max:
        return float(seconds)
    raise ConfigError(f"{name} is a number of seconds above 0, not {seconds!a}")


def deadline() -> float:
    """Return the moment, on the clock of the running call, at which its time is over; infinite outside of any."""
    return _DEADLINE.get()


def remaining(clock: Clock) -> float:
    """Return the seconds that the running call has left: negative when it is too late, infinite outside of any."""
    return _DEADLINE.get() - clock.now()


def begin(until: float) -> Token[float]:
    """Let the running task, and what it starts, have time until a moment; returns what `end` takes."""
    return _DEADLINE.set(min(until, _DEADLINE.get()))


def end(token: Token[float]) -> None:
    """Let there be the time again that there was before `begin`."""
    _DEADLINE.reset(token)


@contextmanager
def deadline_scope(clock: Clock, seconds: float) -> Iterator[None]:
    """Let all calls in the block share so many seconds; they never have more than what is around it.

    It ends calls, not the block itself: `asyncio.timeout` does that.

    Raises:
        ConfigError: no number above zero.
    """
    token = begin(clock.now() + checked_timeout("a deadline", seconds))
    try:
        yield
    finally:
        end(token)
