"""The limit of concurrency: at most so many calls at once to each endpoint; one more goes elsewhere, or is refused.

Nobody waits in line (as a bulkhead of resilience4j, whose `maxWaitDuration` is 0): a queue before an endpoint that is
too slow only makes callers wait for what they no longer need.
"""

from __future__ import annotations

from typing import Final

from osdisco.mesh._state import EndpointState

CONCURRENCY: Final = 100
"""Of this process, to one endpoint. Envoy allows 1,024 to a whole cluster, a bulkhead of resilience4j 25."""


class ConcurrencyLimit:
    """Counts the calls under way. Args: `most` at one endpoint; None is no limit."""

    def __init__(self, most: int | None = CONCURRENCY) -> None:
        self.most: Final = most
        self.full: Final[set[EndpointState]] = set()
        """Who has no place for one more call. Only to be read."""

    def begin(self, state: EndpointState) -> None:
        """Count a call that begins."""
        state.in_flight += 1
        state._weigh()
        if self.most is not None and state.in_flight >= self.most:
            self.full.add(state)

    def end(self, state: EndpointState) -> None:
        """Count a call that ends; it has begun."""
        assert state.in_flight > 0, f"a call of {state!r} ended that never began"
        state.in_flight -= 1
        state._weigh()
        if self.most is not None and state.in_flight < self.most:
            self.full.discard(state)
