"""How calls fared of late: the last so many, or those of the last so many seconds."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

BUCKETS: Final = 10
"""Parts of a window of time that are forgotten as a whole."""


class Window(Protocol):
    """Counts of the calls within."""

    calls: int
    failed: int
    slow: int

    def record(self, failed: bool, slow: bool, now: float) -> None:
        """Take one more call, and forget those that are outside."""


class CountWindow:
    """The last `size` calls (resilience4j's FixedSizeSlidingWindowMetrics)."""

    __slots__ = ("_kept", "_size", "calls", "failed", "slow")

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: deque[tuple[bool, bool]] = deque()
        self.calls = self.failed = self.slow = 0

    def record(self, failed: bool, slow: bool, now: float) -> None:
        """Take one more call; with it the first one goes once there are enough."""
        self._kept.append((failed, slow))
        self.failed += failed
        self.slow += slow
        if self.calls < self._size:
            self.calls += 1
        else:
            was_failed, was_slow = self._kept.popleft()
            self.failed -= was_failed
            self.slow -= was_slow


class TimeWindow:
    """The calls of the last `seconds`, to a tenth of it (resilience4j's SlidingTimeWindowMetrics has whole seconds)."""

    __slots__ = ("_kept", "_width", "calls", "failed", "slow")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self._kept: deque[list[int]] = deque()
        self.calls = self.failed = self.slow = 0

    def record(self, failed: bool, slow: bool, now: float) -> None:
        """Take one more call, and forget those parts that are over."""
        number = int(now / self._width)
        while self._kept and self._kept[0][0] <= number - BUCKETS:
            _, calls, were_failed, were_slow = self._kept.popleft()
            self.calls -= calls
            self.failed -= were_failed
            self.slow -= were_slow
        if not self._kept or self._kept[-1][0] != number:
            self._kept.append([number, 0, 0, 0])
        part = self._kept[-1]
        part[1] += 1
        part[2] += failed
        part[3] += slow
        self.calls += 1
        self.failed += failed
        self.slow += slow
