"""Slow start: who has just become healthy takes few calls at first, while its caches are cold."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from osdisco.mesh._settings import number, seconds, share
from osdisco.mesh._state import EndpointState

STEPS: Final = 20
"""In how many steps a weight grows: each costs a new look at all endpoints."""


@frozen
class SlowStart:
    """How weights grow: `weight * max(minimum, t ** (1 / aggression))`, where t goes from 0 to 1 (Envoy's
    `applySlowStartFactor`). Off unless it is given to `PoolSettings`.

    Args:
        window: seconds until the whole weight counts. 30.
        aggression: above 1 it grows faster at first. 1, as in Envoy.
        minimum: share of the weight that counts from the start. 0.1, as in Envoy.

    Raises:
        ConfigError: naming the field that cannot be so.
    """

    window: float = seconds(30.0)
    aggression: float = number(1.0, "a number above 0", lambda value: 0 < value < float("inf"))
    minimum: float = share(0.1)

    def warm(self, state: EndpointState, now: float) -> bool:
        """Set the weight of an endpoint as it is now; returns whether it is whole."""
        age = (now - state.since) / self.window
        if age >= 1:
            state.weight = float(state.endpoint.weight)
            return True
        state.weight = state.endpoint.weight * max(self.minimum, max(0.0, age) ** (1 / self.aggression))
        return False
