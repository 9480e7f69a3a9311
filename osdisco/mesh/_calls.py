"""One call: its attempts, each at an endpoint that is picked anew.

The order of each attempt: rules (once for a call), then health, subset and zone, then ejection and panic, then who was
tried before is left out, then the policy picks. What the endpoint is judged by is one attempt, not the call.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping
from functools import partial
from typing import Any, Final

from attrs import define

from osdisco._tasks import Supervisor
from osdisco.errors import (
    CircuitOpenError,
    DeadlineExceededError,
    EndpointUnreachableError,
    NoHealthyEndpointsError,
    OverloadedError,
    RemoteError,
    RequestError,
    ResponseError,
    ServiceMeshError,
    ServiceNotFoundError,
)
from osdisco.mesh._alarms import Alarms
from osdisco.mesh._seeing import Seeing
from osdisco.mesh._services import Service, Way
from osdisco.mesh._state import EndpointState, Outcome
from osdisco.mesh._whole import Permit, judged, note, turned_away
from osdisco.mesh._wire import LOOK, error_of
from osdisco.mesh.balancers import LoadBalancer
from osdisco.mesh.codec import CodecError, decode
from osdisco.mesh.hedging import Delay, hedged
from osdisco.mesh.refusal import Refused, RefusedReason
from osdisco.mesh.retry import RetryPolicy, repeatable
from osdisco.mesh.transport import MeshRequest, Transport
from osdisco.runtime import Runtime

NOTHING: Final[Mapping[str, str]] = {}


@define(eq=False)
class Call:
    """One call, and how far it has come.

    Args:
        kind: what its result is to be.
        deadline: when its time is over, on this process's clock.
        ways: where it may go, in order.
        policy: how it is tried again; `attempts` and `attempt_timeout` may be those of a rule.
        balancer: which picks, instead of that of the pool, because rules say so.
        near: which picks, whatever rules say.
        sent: whether a handler may have run for one of its attempts.
        went: which of the ways the last attempt took, or that which was answered.
        is_copy: whether it mirrors another call, and so neither asks nor tells the breakers of whole services, nor the
            balance of retries: it would give real calls more of them, and hide that nothing else succeeds.
        permits: of the breakers of whole services.
    """

    service: str
    method: str
    body: bytes
    kind: Any
    deadline: float
    ways: tuple[Way, ...]
    policy: RetryPolicy
    attempts: int
    attempt_timeout: float | None
    idempotent: bool
    key: str | None = None
    metadata: Mapping[str, str] = NOTHING
    headers: Mapping[str, str] = NOTHING
    balancer: LoadBalancer | None = None
    near: LoadBalancer | None = None
    attempt: int = 0
    tried: frozenset[str] = frozenset()
    sent: bool = False
    went: Way | None = None
    is_copy: bool = False
    permits: tuple[Permit, ...] = ()

    @property
    def target(self) -> str:
        """The service whose endpoint was asked last; rules may lead to another one than was called."""
        return self.service if self.went is None else self.went.service.name

    @property
    def left(self) -> int:
        """How many attempts it may still have after the first ones, hedges among them."""
        return self.attempts - max(self.attempt, 1)

    def share(self, left: float, way: Way) -> float:
        """Return how long the next attempt may take of the seconds that are left."""
        if self.attempt_timeout is not None:
            return min(left, self.attempt_timeout)
        again = self.idempotent and self.attempt + 1 < self.attempts
        elsewhere = again and (len(self.ways) > 1 or way.service.pool._choice(way.subset).counts.serving > 1)
        return left / 2 if elsewhere else left


class Caller:
    """Makes calls by a transport. Args: `judging`, whether there are breakers of whole services."""

    def __init__(self, runtime: Runtime, transport: Transport, seeing: Seeing, *, judging: bool) -> None:
        self._runtime = runtime
        self._judging = judging
        self._now = runtime.clock.now
        self._transport = transport
        self._seeing = seeing
        self._alarms = Alarms()
        self._hedging = Supervisor()
        self._delays: dict[tuple[str, str], Delay] = {}
        self._closed = False

    def call(self, call: Call) -> Coroutine[Any, Any, Any]:
        """Return what is to be awaited for the result. It raises ServiceMeshError."""
        made = self._made(call)
        return judged(call, made, self._now) if self._judging else made

    async def _made(self, call: Call) -> Any:
        service = call.ways[0].service
        if not call.is_copy:
            service.balance.deposit(self._now())
        hedging = call.policy.hedging
        attempt = self._attempt if hedging is None or not call.idempotent else self._hedged
        try:
            return await attempt(call)
        except ServiceMeshError as exc:
            if self._closed or call.left <= 0 or not repeatable(exc, idempotent=call.idempotent):
                raise
            failure = exc
        return await self._repeat(call, service, failure)

    async def _repeat(self, call: Call, service: Service, failure: ServiceMeshError) -> Any:
        from osdisco.mesh._repeating import Plan, repeat

        runtime = self._runtime
        plan = Plan(
            policy=call.policy,
            attempts=call.left + 1,
            balance=service.balance,
            clock=runtime.clock,
            random=runtime.random,
            deadline=call.deadline,
            idempotent=call.idempotent,
            tell=partial(self._seeing.retried, call),
        )
        return await repeat(partial(self._attempt, call), failure, plan)

    async def _attempt(self, call: Call) -> Any:
        """Pick an endpoint and ask it once. Raises ServiceMeshError, with its place."""
        began = self._now()
        left = call.deadline - began
        if left <= 0:
            raise _placed(DeadlineExceededError("its time was over before it was sent; give it more"), call, None)
        way, state = self._pick(call)
        service, pool = way.service, way.service.pool
        seconds = call.share(left, way)
        call.attempt += 1
        call.tried |= {state.id}
        request = MeshRequest(service.name, call.method, call.body, seconds, call.attempt, call.metadata, call.headers)
        outcome, seeing = Outcome.CANCELLED, self._seeing
        span = seeing.attempting(request, state.endpoint.address) if seeing.active else None
        pool.begin(state)  # after all else that may fail: what has begun must end
        try:
            with self._alarms.within(seconds):
                response = await self._transport.send(state.endpoint, request, seconds)
            if response.status != 200:
                raise error_of(response)
            result = _decoded(call, response.body)
            outcome = Outcome.OK
            return result
        except ServiceMeshError as exc:
            outcome = outcome_of(exc)
            seeing.failed(call, outcome, _placed(exc, call, state, request.attempt), span)
            raise
        except TimeoutError:
            outcome = Outcome.TIMEOUT
            late = DeadlineExceededError(f"no answer within {seconds:.3g} s; {LOOK}, or give it more time", sent=True)
            raise seeing.failed(call, outcome, _placed(late, call, state, request.attempt), span) from None
        finally:
            now = self._now()
            took = now - began
            pool.end(state, outcome, took)
            if call.permits:
                note(call, service, outcome)
            if not call.is_copy:
                call.ways[0].service.balance.learn(outcome, now)
            if outcome is Outcome.OK:
                call.went = way  # a hedge beside it may have taken another one since
            if seeing.active:
                seeing.attempted(service.name, outcome, took, span)

    def _pick(self, call: Call) -> tuple[Way, EndpointState]:
        """Return who is asked next, and on which way: the first that has somebody. Raises ServiceMeshError."""
        first: Refused | None = None
        for way, picked in self._picks(call):
            if self._judging and not isinstance(picked, Refused):
                picked = turned_away(call, way.service, self._now()) or picked
            if not isinstance(picked, Refused):
                call.went = way
                return way, picked
            self._seeing.refused(call, way.service.name, picked)
            first = first or picked
        assert first is not None
        raise _placed(error_of_refusal(first), call, None)

    def _picks(self, call: Call) -> Iterator[tuple[Way, EndpointState | Refused]]:
        """Yield who is picked of each way; those that have only endpoints which were asked already come last."""
        asked: list[tuple[Way, EndpointState]] = []
        for way in call.ways:
            pool = way.service.pool
            picked = pool.pick(subset=way.subset, key=call.key, tried=call.tried, balancer=call.near or call.balancer)
            if isinstance(picked, Refused) or picked.id not in call.tried:
                yield way, picked
            else:
                asked.append((way, picked))
        yield from asked

    async def _hedged(self, call: Call) -> Any:
        """Ask a second endpoint, too, when the first one is slower than nearly all calls were."""
        assert call.policy.hedging is not None
        delay = self._delays.get((call.service, call.method)) or Delay(call.policy.hedging)
        service, began = call.ways[0].service, self._now()
        if delay.seconds is None:
            result = await self._attempt(call)
        else:
            result = await hedged(
                partial(self._attempt, call),
                partial(self._beside, call, service),
                delay.seconds,
                lambda: self._may_hedge(call, service),
                _is_final,
                self._hedging.spawn,
            )
        # kept now that there surely is such a method
        self._delays.setdefault((call.service, call.method), delay).note(self._now() - began)
        return result

    async def _beside(self, call: Call, service: Service) -> Any:
        """Make the second attempt; a retry is given back when nobody is picked for it. Raises ServiceMeshError."""
        try:
            return await self._attempt(call)
        except ServiceMeshError as exc:
            if exc.reason is not None:
                service.balance.give_back(self._now())
            raise

    def _may_hedge(self, call: Call, service: Service) -> bool:
        may = call.attempt < call.attempts and service.balance.withdraw(self._now())
        if may:
            self._seeing.hedged(call)
        return may

    async def aclose(self) -> None:
        """Leave no task behind, and try nothing again."""
        self._closed = True
        await self._hedging.aclose()


def error_of_refusal(refused: Refused) -> ServiceMeshError:
    """Return what the caller is told when nobody was picked."""
    error: ServiceMeshError
    if refused.reason is RefusedReason.NO_ENDPOINTS:
        error = ServiceNotFoundError(str(refused))
    elif refused.reason in (RefusedReason.CIRCUIT_OPEN, RefusedReason.SERVICE_CIRCUIT_OPEN):
        error = CircuitOpenError(refused)
    elif refused.reason is RefusedReason.OVERLOADED:
        error = OverloadedError(str(refused))
    else:
        error = NoHealthyEndpointsError(refused)
    error.reason = refused
    return error


def outcome_of(error: ServiceMeshError) -> Outcome:
    """Return what the endpoint is judged by."""
    if isinstance(error, EndpointUnreachableError):
        return Outcome.UNSENT
    if isinstance(error, OverloadedError):
        return Outcome.REJECTED
    if isinstance(error, RequestError) or (isinstance(error, DeadlineExceededError) and not error.sent):
        return Outcome.CANCELLED
    if isinstance(error, RemoteError) and error.status < 500:
        return Outcome.OK
    return Outcome.TIMEOUT if isinstance(error, DeadlineExceededError) else Outcome.FAILED


def _is_final(failure: BaseException) -> bool:
    """Return whether a failure is an answer. That a hedge found no place says nothing of the attempt beside it."""
    if not isinstance(failure, ServiceMeshError):
        return True
    return failure.reason is None and not repeatable(failure, idempotent=True)


def _decoded(call: Call, body: bytes) -> Any:
    try:
        return decode(body, call.kind)
    except CodecError as exc:
        advice = "is the address right, and `response_type` what that version returns?"
        raise ResponseError(f"the answer cannot be read: {exc}; {advice}", sent=True) from None


def _placed(error: ServiceMeshError, call: Call, state: EndpointState | None, attempt: int = 0) -> ServiceMeshError:
    error.service, error.method = call.service, call.method
    error.endpoint = None if state is None else state.endpoint.address
    error.attempt = attempt or call.attempt
    error.sent = call.sent = call.sent or error.sent  # of the last attempt alone it would hide what an earlier one did
    return error
