"""Slowness: who takes much longer than calls of the service usually do counts as more loaded than calls under way show.

Two choices by calls under way keep queues short, but an endpoint that is 20 times slower than all others keeps as many
calls waiting as they have, and of few callers each waits there now and then: of 100 calls more than one is slow. So its
load is multiplied by how much slower it is. Peak EWMA looks at each answer, and so at what was asked; this looks at the
mean of several, and overlooks less than `SLOW` times. What was found fades, so that who is well again is called again.
"""

from __future__ import annotations

from collections.abc import Collection
from math import exp, inf
from typing import Final

from osdisco.mesh._state import DECAY, EndpointState

SLOW: Final = 3.0
"""Times as long as usual that count; below is noise."""

SLOWEST: Final = 10.0
"""Times that count at most, of one answer and of all: who is that slow gets a call when the others have as many."""

OWN: Final = 0.1
"""What one answer counts in the mean of its endpoint."""

ALL: Final = 0.01
"""What one answer counts in what is usual."""


class Pace:
    """How long calls of one service usually take, and who takes much longer."""

    def __init__(self) -> None:
        self.usual = 0.0
        """Seconds."""
        self.due = inf
        """When `fade` is to be called."""

    def learn(self, state: EndpointState, seconds: float, now: float) -> None:
        """Learn how long an answer took."""
        usual = self.usual or seconds
        seconds = min(seconds, SLOWEST * usual)  # one answer, such as the first by a new connection, is not yet slow
        mean = state.mean or usual
        self.usual = usual + (seconds - usual) * ALL
        state.mean = mean + (seconds - mean) * OWN
        state._heard = now
        if state.mean > SLOW * self.usual or state.slowness > 1:
            self._judge(state, now)

    def fade(self, states: Collection[EndpointState], now: float) -> None:
        """Let what was found count for less of who was not heard of since: it could never show that it is well."""
        self.due = inf
        for state in states:
            if state.slowness > 1 and now - state._heard >= DECAY:
                state.mean = self.usual + (state.mean - self.usual) * exp(-1)
                self._judge(state, now)
            elif state.slowness > 1:
                self.due = min(self.due, state._heard + DECAY)

    def _judge(self, state: EndpointState, now: float) -> None:
        ratio = state.mean / self.usual
        state.slowness = min(ratio, SLOWEST) if ratio > SLOW else 1.0
        state._weigh()
        if state.slowness > 1:
            self.due = min(self.due, now + DECAY)
