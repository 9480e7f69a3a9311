"""Rendezvous hashing: calls of one key go to one endpoint, and stay there while others come and go."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log
from typing import Any

from osdisco.errors import ConfigError
from osdisco.mesh._settings import is_factor
from osdisco.mesh._state import Candidates, EndpointState, seed_of
from osdisco.mesh.balancers import StateBalancer, drawn
from osdisco.runtime import Runtime

_MASK = 2**64 - 1


def mixed(seed: int, other: int) -> int:
    """Return 64 bits that depend on all bits of both: the finalizer of MurmurHash3. The same in every process."""
    bits = seed ^ other
    bits = (bits ^ bits >> 33) * 0xFF51AFD7ED558CCD & _MASK
    bits = (bits ^ bits >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return bits ^ bits >> 33


def _score(state: EndpointState, seed: int) -> float:
    """Return what an endpoint draws for a key; who has twice the weight has the highest twice as often.

    Of 52 bits: half a step beside 53 is rounded, so that the last number would be 1, whose logarithm is 0.
    """
    return -state.weight / log(((mixed(seed, state.seed) >> 12) + 0.5) / 2**52)


class RendezvousLoadBalancer(StateBalancer):
    """The endpoint that draws highest for the key, and so the same in every client.

    It is weighted after Schindelhauer and Schomaker. When one goes, only its keys move; when one comes, only those that
    it wins. A call without a key goes to any, by weight. A pick looks at all endpoints.

    Args:
        bounded_load: how many times its share of the calls under way one may have before further ones go to the next
            in order (Mirrokni, Thorup and Zadimoghaddam, 2016; Envoy's `hash_balance_factor`, 1.2 to 2 there). 1 or
            more; None, the default, is no bound.

    Raises:
        ConfigError: a bound below 1.
    """

    def __init__(self, bounded_load: float | None = None, *, runtime: Runtime | None = None) -> None:
        super().__init__(runtime)
        if bounded_load is not None and not is_factor(bounded_load):
            raise ConfigError(f"bounded_load is 1 or more, or None for no bound, not {bounded_load!a}")
        self.bounded_load = bounded_load

    def _settings(self) -> dict[str, Any]:
        return {"bounded_load": self.bounded_load}

    def pick(self, states: Sequence[EndpointState], key: str | None = None) -> EndpointState:
        """Return that of the key."""
        candidates = Candidates.of(states)
        if key is None:
            return drawn(candidates, self._random())
        seed = seed_of(key)
        best = max(candidates, key=lambda state: _score(state, seed))
        if self.bounded_load is None:
            return best
        return self._bounded(candidates, seed, self.bounded_load)

    def _bounded(self, states: Candidates, seed: int, factor: float) -> EndpointState:
        each = factor * (sum(state.in_flight for state in states) + 1) / states.total
        free = [state for state in states if state.in_flight < ceil(each * state.weight)]
        return max(free or states, key=lambda state: _score(state, seed))
