"""Subsetting: of very many endpoints each client calls only some, so that not everybody is connected to everybody.

Random subsetting as of gRPC (proposal A68) and Netflix: every client ranks the endpoints by a hash of its own name and
theirs and takes the first; no client has to know of another, and when an endpoint goes, only one takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest

from attrs import frozen

from osdisco.mesh._settings import count
from osdisco.mesh._state import EndpointState, seed_of
from osdisco.mesh.rendezvous import mixed


@frozen
class Subsetting:
    """How many endpoints a client calls. Off unless it is given to `PoolSettings`.

    Args:
        size: how many. 20.
        above: only if more than so many serve, whether they are fit or not: else all clients called all others, too,
            as soon as some are ill. 100.

    Raises:
        ConfigError: a number below 1.
    """

    size: int = count(20)
    above: int = count(100)

    def chosen(
        self, states: Sequence[EndpointState], client: str, serving: int | None = None
    ) -> Sequence[EndpointState]:
        """Return those of the endpoints that a client of this name calls; `serving` is of how many these are fit."""
        if (len(states) if serving is None else serving) <= self.above:
            return states
        seed = seed_of(client)
        return nsmallest(self.size, states, key=lambda state: mixed(seed, state.seed))
