"""How long requests and answers take in a simulation."""

from __future__ import annotations

import random
from typing import Final

_QUICK: Final = 0.003
"""Seconds that a request or answer takes at most when nothing is wrong."""


class Weather:
    """How long requests and answers take, by the seed.

    Half of them take no time, most others up to 3 ms. Some take long, and then not just anything: an answer that comes
    just before, or just after, its caller gives up finds mistakes that evenly spread delays do not.

    Args:
        chance: decides.
        long: the share of requests and answers that take long.
        longest: seconds that one takes at most.
    """

    def __init__(self, chance: random.Random, *, long: float = 0.0, longest: float = 2.0) -> None:
        self.long = long
        self.longest = longest
        self._chance = chance

    def delays(self, timeout: float) -> tuple[float, float]:
        """Return the seconds that a request takes, and its answer, when its caller waits for `timeout`."""
        return self.one_way(timeout), self.one_way(timeout)

    def one_way(self, timeout: float) -> float:
        """Return the seconds for one direction."""
        chance = self._chance
        if chance.random() >= self.long:
            return max(0.0, chance.uniform(-_QUICK, _QUICK))
        if chance.random() < 0.5:
            return min(self.longest, timeout * chance.uniform(0.6, 1.1))
        return chance.uniform(0, self.longest)
