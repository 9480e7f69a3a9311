"""Load balancers: each picks one of those that may be picked. Who may be is decided before, in the pool.

A balancer that is given to a mesh is a pattern: every pool, and every subset of it, has one of its own (`fresh`), so
that turns of one do not skip those of another.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from osdisco.errors import ConfigError, NoHealthyEndpointsError
from osdisco.mesh._state import Candidates, EndpointState
from osdisco.mesh.refusal import Refused, RefusedReason
from osdisco.registry.definition import ServiceEndpoint
from osdisco.runtime import Runtime


class LoadBalancer(ABC):
    """Picks one of several endpoints. One of your own needs `select` alone.

    `pick` is what the mesh calls: it tells what is known of each endpoint, and the key of the call. Neither waits.
    """

    @abstractmethod
    def select(self, endpoints: Sequence[ServiceEndpoint]) -> ServiceEndpoint:
        """Return one of the endpoints, of which there is at least one."""

    def pick(self, states: Sequence[EndpointState], key: str | None = None) -> EndpointState:
        """Return one of the states; without another way, that of the endpoint which `select` returns.

        Raises:
            ConfigError: `select` returned what it was not given.
        """
        selected = self.select([state.endpoint for state in states])
        for state in states:
            if state.endpoint is selected:
                return state
        raise ConfigError(f"{type(self).__name__}.select returned {selected!a}, which is none of what it was given")

    def fresh(self, runtime: Runtime) -> LoadBalancer:
        """Return one of the same settings for the use of one pool; the same when it remembers nothing of its picks."""
        return self


class StateBalancer(LoadBalancer):
    """Base of balancers that look at the states. `select` knows of none, and so takes all to be idle.

    Args:
        runtime: where time and randomness come from.
    """

    def __init__(self, runtime: Runtime | None = None) -> None:
        runtime = Runtime() if runtime is None else runtime
        self._random: Final = quick_random(runtime.random)
        self._now: Final = runtime.clock.now
        self._selected: tuple[object, Candidates] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def pick(self, states: Sequence[EndpointState], key: str | None = None) -> EndpointState:
        """Return one of the states. Raises NoHealthyEndpointsError without any, ConfigError for a weight below 0."""

    def select(self, endpoints: Sequence[ServiceEndpoint], key: str | None = None) -> ServiceEndpoint:
        """Return one of the endpoints. A tuple is remembered, for `view.endpoints` is the same one until it changes.

        Raises:
            NoHealthyEndpointsError: there is none, or all have the weight 0.
        """
        return self.pick(self._candidates(endpoints), key).endpoint

    def _candidates(self, endpoints: Sequence[ServiceEndpoint]) -> Candidates:
        if self._selected is not None and self._selected[0] is endpoints:
            return self._selected[1]
        weighty = [EndpointState(endpoint) for endpoint in endpoints if endpoint.weight > 0]
        if endpoints and not weighty:
            raise NoHealthyEndpointsError(Refused(RefusedReason.NOT_SERVING, known=len(endpoints)))
        candidates = Candidates(weighty)
        self._selected = (endpoints, candidates) if isinstance(endpoints, tuple) else None
        return candidates

    def fresh(self, runtime: Runtime) -> Self:
        """Return one of the same settings that begins anew."""
        return type(self)(runtime=runtime, **self._settings())

    def _settings(self) -> dict[str, Any]:
        """Return what it was made with, but for the runtime."""
        return {}


def quick_random(source: random.Random) -> Callable[[], float]:
    """Return a function that draws from 0 to 1, seeded by a source that may ask the kernel for every number (1 us)."""
    return random.Random(source.getrandbits(64)).random  # nosec B311 # noqa: S311 - nothing is kept secret by a pick


def drawn(states: Candidates, number: float) -> EndpointState:
    """Return one by a number from 0 to 1, each as often as its weight says."""
    if states.bounds is None:
        return states[int(number * len(states))]
    return states[bisect(states.bounds, number * states.total)]


def two_drawn(states: Candidates, draw: Callable[[], float]) -> tuple[EndpointState, EndpointState]:
    """Return two different ones of at least two, by their weights.

    The second is drawn from what the first one left, with a hole where that was: Finagle's `P2CPick`, with weights.
    One number is enough for both when all weights are the same.
    """
    bounds = states.bounds
    if bounds is None:
        others = len(states) - 1
        one, other = divmod(int(draw() * (others * (others + 1))), others)
        return states[one], states[other + (other >= one)]
    total = states.total
    one = bisect(bounds, draw() * total)
    first = states[one]
    place = draw() * (total - first.weight)
    if not one or place >= bounds[one - 1]:
        place += first.weight
    return first, states[bisect(bounds, place)]


TURNS_MAX: Final = 64
"""Numbers of endpoints for which round robin remembers whose turn it is; with more it begins anew."""


class RoundRobinLoadBalancer(StateBalancer):
    """One after the other, whatever their weights; from a random one on, so that not all clients begin with the first.

    Fewer are picked from when some were tried or are full. They take turns of their own: else whoever comes after such
    a one would always take its place.

    Args:
        runtime: where time and randomness come from.
    """

    def __init__(self, runtime: Runtime | None = None) -> None:
        super().__init__(runtime)
        self._first = int(self._random() * 2**32)
        self._turns: dict[int, int] = {}

    def pick(self, states: Sequence[EndpointState], key: str | None = None) -> EndpointState:
        """Return the next one."""
        if not states:
            raise NoHealthyEndpointsError(Refused(RefusedReason.NO_ENDPOINTS))
        count = len(states)
        turn = self._turns.get(count, self._first)
        if turn == self._first and len(self._turns) >= TURNS_MAX:
            self._turns.clear()
        self._turns[count] = turn + 1
        return states[turn % count]


class RandomLoadBalancer(StateBalancer):
    """Any, each as often as its weight says."""

    def pick(self, states: Sequence[EndpointState], key: str | None = None) -> EndpointState:
        """Return any."""
        return drawn(Candidates.of(states), self._random())


class WeightedRoundRobinLoadBalancer(StateBalancer):
    """In turns by weight, and those of the heavy ones spread out: of weights 5, 1, 1 it is a a b a c a a.

    The smooth one of nginx (`ngx_http_upstream_get_peer`): all gain their weight, the greatest is picked and loses what
    all gained. A pick looks at all of them.
    """

    def __init__(self, runtime: Runtime | None = None) -> None:
        super().__init__(runtime)
        self._gained: dict[str, float] = {}

    def pick(self, states: Sequence[EndpointState], key: str | None = None) -> EndpointState:
        """Return whose turn it is."""
        states = Candidates.of(states)
        gained, best, most, total = self._gained, states[0], float("-inf"), 0.0
        for state in states:
            now = gained[state.id] = gained.get(state.id, 0.0) + state.weight
            total += state.weight
            if now > most:
                best, most = state, now
        gained[best.id] = most - total
        if len(gained) > 2 * len(states):
            self._gained = {state.id: gained[state.id] for state in states}
        return best


class LeastRequestLoadBalancer(StateBalancer):
    """Of two any ones the less loaded, mostly that with fewer calls under way (see `slowness`): the default. What it
    costs hardly grows with their number.

    Two choices suffice to keep the longest queue short (Mitzenmacher, 2001), and unlike the least loaded of all they do
    not send all clients to whoever has just come back. They are drawn by weight, and calls under way count by weight,
    so that who takes half the calls is full with half of them. Envoy and Finagle have two choices, too; Envoy only
    for equal weights.
    """

    def pick(self, states: Sequence[EndpointState], key: str | None = None) -> EndpointState:
        """Return the less loaded of two; of two that are equally loaded the first drawn."""
        if type(states) is not Candidates:
            states = Candidates.of(states)
        if len(states) == 1:
            return states[0]
        one, other = two_drawn(states, self._random)
        if states.bounds is None:  # of 10,000 each look at one more field is a wait for memory
            return one if one.load <= other.load else other
        return one if one.load * other.weight <= other.load * one.weight else other


class PeakEwmaLoadBalancer(StateBalancer):
    """Of two any ones that which costs less: how long it takes to answer, times the calls that wait for it.

    Slow answers count at once, their end slowly (Finagle's `PeakEwma`, tower's `PeakEwma` of Linkerd): it leaves who
    slows down before calls pile up there. Who never answered is asked once before it is asked more often.
    """

    def pick(self, states: Sequence[EndpointState], key: str | None = None) -> EndpointState:
        """Return the cheaper of two."""
        states = Candidates.of(states)
        if len(states) == 1:
            return states[0]
        one, other = two_drawn(states, self._random)
        now = self._now()
        return one if one.cost(now) <= other.cost(now) else other
