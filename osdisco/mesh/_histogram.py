"""How long calls took: counts between fixed bounds, which can be added up and taken from each other."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import inf
from typing import Final

BOUNDS: Final = (
    *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    *(0.6, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0),
)
"""Seconds. What took longer than the last is counted behind it."""

SIZE: Final = len(BOUNDS) + 1


def bucket_of(seconds: float) -> int:
    """Return which count a call belongs to."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Return the seconds within which a share of the calls was answered, as Prometheus reckons it from a histogram.

    None when there were no calls; infinite when it is more than the last bound.
    """
    rank, below = share * sum(counts), 0
    if rank <= 0:
        return None
    for number, count in enumerate(counts[: len(BOUNDS)]):
        if count and below + count >= rank:
            lower = BOUNDS[number - 1] if number else 0.0
            return lower + (BOUNDS[number] - lower) * (rank - below) / count
        below += count
    return inf
