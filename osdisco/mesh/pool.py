"""The endpoints of one service as this process sees them, of which each attempt picks one.

All that it does is quick and waits for nothing. It has no timers either: what is due is done when somebody picks, or a
call ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set as AbstractSet
from math import inf
from types import MappingProxyType
from typing import Final
from weakref import WeakKeyDictionary

from attrs import field, frozen

from osdisco.discovery.extension import ExtensionStatus
from osdisco.mesh._choice import Choice, EndpointSubset, choose
from osdisco.mesh._listeners import Listeners
from osdisco.mesh._settings import count, number, part
from osdisco.mesh._state import VERDICTS, Candidates, EndpointState, Outcome, Tier
from osdisco.mesh.balancers import LeastRequestLoadBalancer, LoadBalancer
from osdisco.mesh.breaker import BreakerEvent, BreakerState, CircuitBreakerRegistry
from osdisco.mesh.events import EndpointEjected, EndpointReturned, PanicBegan, PanicOver, PoolEvent
from osdisco.mesh.limits import CONCURRENCY, ConcurrencyLimit
from osdisco.mesh.outliers import EjectionReason, OutlierDetector, OutlierSettings
from osdisco.mesh.refusal import Refused
from osdisco.mesh.slow_start import STEPS, SlowStart
from osdisco.mesh.slowness import Pace
from osdisco.mesh.subsets import Subsetting
from osdisco.registry.definition import ServiceEndpoint
from osdisco.runtime import Runtime

SUBSETS_MAX: Final = 64
"""Subsets for which is remembered who may be picked; with more, all is forgotten and looked at again."""

UNPICKED: Final = 30.0
"""Seconds after which the panic of a subset is over of which nobody is picked: rules may not lead to it any more."""

MANY: Final = 64
"""Endpoints of which one is picked without leaving out who may not be: of so many nearly every one may be."""

DRAWS: Final = 2
"""How often that is tried."""

NOBODY: Final[AbstractSet[str]] = frozenset()


@frozen
class PoolSettings:
    """How endpoints are chosen before the load balancer picks.

    Args:
        panic: share of those who serve that must be fit, else health and ejection do not count. 0.5, as Envoy's
            `healthy_panic_threshold` and in Finagle; 0 turns it off.
        concurrency: calls of this process to one endpoint at once; None is no limit.
        outliers: when who fares worse than others is ejected; None turns it off.
        slow_start: how who has just become healthy is spared; off.
        subsetting: when only some of very many endpoints are called; off.

    Raises:
        ConfigError: naming the field that cannot be so.
    """

    panic: float = number(0.5, "a share from 0 (off) to 1", lambda value: 0 <= value <= 1)
    concurrency: int | None = count(CONCURRENCY, optional=True)
    outliers: OutlierSettings | None = field(factory=OutlierSettings, validator=part(OutlierSettings))
    slow_start: SlowStart | None = field(default=None, validator=part(SlowStart))
    subsetting: Subsetting | None = field(default=None, validator=part(Subsetting))


class Pool:
    """All endpoints of one service. `update` says who there is; each attempt is `pick`, `begin`, `end`.

    Args:
        service: its name.
        runtime: where time, randomness and the name of this client come from.
        balancer: the pattern of what picks. Least request by default.
        breakers: where the breakers of its endpoints are. An own registry by default.
    """

    def __init__(
        self,
        service: str,
        runtime: Runtime,
        settings: PoolSettings | None = None,
        *,
        balancer: LoadBalancer | None = None,
        breakers: CircuitBreakerRegistry | None = None,
    ) -> None:
        self.service: Final = service
        self.settings: Final = settings or PoolSettings()
        self.breakers: Final = CircuitBreakerRegistry(clock=runtime.clock) if breakers is None else breakers
        self.breakers._keep_time_by(runtime.clock)
        self._runtime = runtime
        self._now = runtime.clock.now
        self._balancer = LeastRequestLoadBalancer(runtime) if balancer is None else balancer
        self._states: dict[str, EndpointState] = {}
        self._turns: dict[EndpointSubset | None, _Turn] = {}
        self._balancers: WeakKeyDictionary[LoadBalancer, dict[EndpointSubset | None, LoadBalancer]]
        self._balancers = WeakKeyDictionary()
        self._panicking: dict[EndpointSubset | None, float] = {}
        self._limit = ConcurrencyLimit(self.settings.concurrency)
        self._outliers: OutlierDetector | None = None
        if self.settings.outliers is not None:
            self._outliers = OutlierDetector(self.settings.outliers, self._now(), self._on_ejection)
        self._pace = Pace()
        self._listeners = Listeners[PoolEvent]()
        self._due = self._next_due(self._now())
        self._deaf = self.breakers.add_listener(self._on_breaker)

    def __repr__(self) -> str:
        panic = ", in a panic" if self.panicking else ""
        return f"<Pool of {self.service!a}: {len(self._states)} endpoints{panic}>"

    @property
    def states(self) -> Mapping[str, EndpointState]:
        """What is known of each endpoint, by its id. Only to be read."""
        return MappingProxyType(self._states)

    @property
    def panicking(self) -> bool:
        """Whether there was a panic at the last pick, of the service or of a subset, within `UNPICKED` seconds."""
        now = self._now()
        return any(now - looked < UNPICKED for looked in list(self._panicking.values()))

    def add_listener(self, listener: Callable[[PoolEvent], object]) -> Callable[[], None]:
        """Tell a function who is ejected and returns, and of panics, while it happens: it is to be quick.

        One that fails is logged. Returns a function that ends it. Raises ConfigError when it is no function.
        """
        return self._listeners.add(listener)

    def close(self) -> None:
        """Leave the registry of breakers, which may live longer."""
        self._deaf()
        for id_ in self._states:
            self.breakers.forget(self.service, id_)

    # Who there is

    def update(
        self, endpoints: Iterable[ServiceEndpoint], incarnation: Callable[[str], int | None] = lambda _: None
    ) -> None:
        """Take all endpoints that there are now.

        What was seen of one stays until it has another address, or starts: what failed was another process then.

        Args:
            incarnation: returns by its id which process it is, asked of every object that was not there before; with
                another number it is another process. None is not known.
        """
        now, changed = self._now(), False
        present: dict[str, EndpointState] = {}
        for endpoint in endpoints:
            state = self._states.get(endpoint.extension_id)
            if state is None or state.endpoint is not endpoint:
                state, changed = self._renewed(state, endpoint, now, incarnation(endpoint.extension_id)), True
            present[endpoint.extension_id] = state
        gone = [state for id_, state in self._states.items() if id_ not in present]
        self._states = present
        for state in gone:
            self._forget(state)
        if changed or gone:
            self._follow_change()

    def _renewed(
        self, state: EndpointState | None, endpoint: ServiceEndpoint, now: float, incarnation: int | None
    ) -> EndpointState:
        if state is not None and state._is_another(endpoint, incarnation):
            self._forget(state)
            state = None
        if state is None:
            state = EndpointState(endpoint, now, self.breakers.breaker(self.service, endpoint.extension_id))
            state.incarnation = incarnation
            return state
        state.incarnation = state.incarnation or incarnation
        if ExtensionStatus.HEALTHY is endpoint.status is not state.endpoint.status:
            state.since = now
        state.show(endpoint)
        return state

    def _forget(self, state: EndpointState) -> None:
        self.breakers.forget(self.service, state.id)
        if self._outliers is not None:
            self._outliers.forget(state)

    def _follow_change(self) -> None:
        if self._outliers is not None:
            self._outliers.size = sum(state.tier is not Tier.NEVER for state in self._states.values())
        self._turns.clear()

    # Attempts

    def pick(
        self,
        *,
        subset: EndpointSubset | None = None,
        key: str | None = None,
        tried: AbstractSet[str] = NOBODY,
        balancer: LoadBalancer | None = None,
    ) -> EndpointState | Refused:
        """Return the endpoint for one attempt, or why there is none. `begin` follows at once, with nothing awaited.

        Args:
            subset: only these.
            key: calls of one key go to one endpoint, if the balancer does so.
            tried: ids of those who were tried before; they are picked again only when all were.
            balancer: the pattern of what picks, instead of the pool's.
        """
        now = self._now()
        if now >= self._due:
            self._advance(now)
        turn = self._turns.get(subset) or self._turn(subset, now)
        if turn.first is None:
            return turn.choice.refused(now)
        policy = turn.policy if balancer is None else self._own(balancer, subset)
        if not tried:
            state = policy.pick(turn.first, key)
            if state not in self._limit.full:
                return state
        return self._pick_other(turn.choice, policy, key, tried)

    def _choice(self, subset: EndpointSubset | None = None) -> Choice:
        """Return who may be picked now, all of them or of a subset."""
        now = self._now()
        if now >= self._due:
            self._advance(now)
        return (self._turns.get(subset) or self._turn(subset, now)).choice

    def _pick_other(
        self, choice: Choice, policy: LoadBalancer, key: str | None, tried: AbstractSet[str]
    ) -> EndpointState | Refused:
        """Pick among those who have a place and were not tried, of all tiers; then among the tried ones, too."""
        full = self._limit.full
        for avoided in (tried, NOBODY) if tried else (NOBODY,):
            for tier in choice.tiers:
                for _ in range(DRAWS if len(tier) >= MANY else 0):
                    state = policy.pick(tier, key)
                    if state.id not in avoided and state not in full:
                        return state
                left = [state for state in tier if state.id not in avoided and state not in full]
                if left:
                    return policy.pick(Candidates(left, tier.members, panic=tier.panic), key)
        return choice.counts  # with circuits that are closed

    def begin(self, state: EndpointState) -> None:
        """Count an attempt that begins at an endpoint which was just picked."""
        self._limit.begin(state)
        breaker = state.breaker
        if breaker is not None and breaker.state is not BreakerState.CLOSED:
            breaker.try_acquire()
            self._turns.clear()  # it may have been the last permit

    def end(self, state: EndpointState, outcome: Outcome, seconds: float) -> None:
        """Learn how an attempt that began ended, and how many seconds it took."""
        self._limit.end(state)
        state.outcomes[outcome] += 1
        if self._states.get(state.id) is not state:
            return  # it is gone, or what came in its place is not to be judged by it
        now = self._now()
        if now >= self._due:
            self._advance(now)
        if outcome is not Outcome.REJECTED:
            state.observe(seconds, now, whole=outcome is Outcome.OK)
        if outcome is Outcome.OK or (outcome is Outcome.TIMEOUT and seconds >= state.mean):  # which it took at least
            self._pace.learn(state, seconds, now)
            self._due = min(self._due, self._pace.due)
        failed = VERDICTS.get(outcome)
        self._tell_breaker(state, failed, seconds)
        if self._outliers is None:
            return
        if failed is not None:
            self._outliers.note(state, failed, now)
        elif outcome is Outcome.REJECTED:
            self._outliers.note_rejected(state)

    def _tell_breaker(self, state: EndpointState, failed: bool | None, seconds: float) -> None:
        breaker = state.breaker
        if breaker is None:
            return
        if breaker.state is BreakerState.HALF_OPEN:
            self._turns.clear()  # a permit may be free again
        if failed is None:
            breaker.release(seconds)
        else:
            breaker.record(failed, seconds)

    # What is due

    def _advance(self, now: float) -> None:
        """Let ejected ones return, breakers be tried again, and weights grow."""
        self._turns.clear()
        if self._outliers is not None and now >= self._outliers.due:
            self._outliers.advance(self._states.values(), now)
        for state in self._states.values():
            if state.breaker is not None:
                state.breaker.advance()
        if now >= self._pace.due:
            self._pace.fade(self._states.values(), now)
        self._due = self._next_due(now)

    def _next_due(self, now: float) -> float:
        retries = (state.breaker.retry_at for state in self._states.values() if state.breaker is not None)
        due = min((at for at in retries if at is not None), default=inf)
        due = min(due, self._pace.due)
        if self._panicking:
            due = min(due, now + UNPICKED / 2)  # so that whoever is picked from is looked at again in time
        return due if self._outliers is None else min(due, self._outliers.due)

    def _on_breaker(self, event: BreakerEvent) -> None:
        if event.service == self.service and event.endpoint is not None:
            self._turns.clear()
            if event.retry_at is not None:
                self._due = min(self._due, event.retry_at)

    def _on_ejection(self, state: EndpointState, reason: EjectionReason | None) -> None:
        self._turns.clear()
        if reason is None:
            self._listeners.tell(EndpointReturned(self.service, state.id))
            return
        assert state.ejected_until is not None
        self._due = min(self._due, state.ejected_until)
        self._listeners.tell(EndpointEjected(self.service, state.id, reason, state.ejected_until - self._now()))

    # Who may be picked

    def _turn(self, subset: EndpointSubset | None, now: float) -> _Turn:
        self._warm(now)
        choice = choose(self._states.values(), subset, self.settings.panic, self._narrow)
        if len(self._turns) >= SUBSETS_MAX:
            self._turns.clear()
        turn = self._turns[subset] = _Turn(choice, self._own(self._balancer, subset))
        self._note_panic(subset, choice, now)  # the last of all: who is told may change what there is
        for left in [one for one, looked in self._panicking.items() if now - looked >= UNPICKED]:
            self._end_panic(left)
        return turn

    def _warm(self, now: float) -> None:
        slow = self.settings.slow_start
        if slow is None:
            return
        whole = [slow.warm(state, now) for state in self._states.values()]
        if not all(whole):
            self._due = min(self._due, now + slow.window / STEPS)

    def _narrow(self, states: Sequence[EndpointState], serving: int) -> Sequence[EndpointState]:
        subsetting = self.settings.subsetting
        return states if subsetting is None else subsetting.chosen(states, self._runtime.name, serving)

    def _note_panic(self, subset: EndpointSubset | None, choice: Choice, now: float) -> None:
        was = subset in self._panicking
        if not choice.panic:
            if was:
                self._end_panic(subset)
            return
        if not was and len(self._panicking) >= SUBSETS_MAX:
            self._panicking.clear()
        self._panicking[subset] = now
        self._due = min(self._due, now + UNPICKED / 2)
        if not was:
            name = None if subset is None else subset.name
            self._listeners.tell(PanicBegan(self.service, name, choice.counts.serving))

    def _end_panic(self, subset: EndpointSubset | None) -> None:
        self._panicking.pop(subset, None)
        self._listeners.tell(PanicOver(self.service, None if subset is None else subset.name))

    def _own(self, pattern: LoadBalancer, subset: EndpointSubset | None) -> LoadBalancer:
        """Return the pool's own balancer of a pattern for a subset: turns of one do not skip those of another."""
        owned = self._balancers.setdefault(pattern, {})
        found = owned.get(subset)
        if found is None:
            if len(owned) >= SUBSETS_MAX:
                owned.clear()
            found = pattern.fresh(self._runtime)
            if found is not pattern:  # else the table would keep its own key alive
                owned[subset] = found
        return found


@frozen
class _Turn:
    """Who may be picked, and by what."""

    choice: Choice
    policy: LoadBalancer
    first: Candidates | None = field(init=False)

    @first.default
    def _first(self) -> Candidates | None:
        return self.choice.tiers[0] if self.choice.tiers else None
