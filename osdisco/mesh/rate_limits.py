"""Rate limits: so many calls in a second from this process, and no more."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from osdisco.errors import ConfigError


class TokenBucket:
    """Holds at most `burst` tokens, and gets `per_second` new ones. It is full at the beginning.

    Args:
        now: tells the time in seconds, as `Clock.now` does.

    Raises:
        ConfigError: no tokens would ever come, or one would not fit in.
    """

    def __init__(self, now: Callable[[], float], per_second: float, burst: float) -> None:
        if not 0 < per_second < inf or not 1 <= burst < inf:
            raise ConfigError(
                f"a bucket gets more than 0 tokens a second and holds 1 or more, not {per_second}, {burst}"
            )
        self._now = now
        self._per_second = per_second
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = now()

    def take(self) -> float:
        """Take a token; returns 0. When there is none, returns the seconds until there is one, and takes none."""
        now = self._now()
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._per_second
        self._tokens -= 1.0
        return 0.0
