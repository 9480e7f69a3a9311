"""The circuit breaker of a whole service, for those services that have one: it judges calls, not attempts.

Once an endpoint was picked, a call takes one permit of the breaker of the service that it goes to; with none, that way
is refused like one without endpoints, so that what rules fail over to is asked next. The permit is good for all of the
call's attempts there, unless the breaker opens meanwhile. When the call has ended, the breaker learns how its last
attempt there ended (of hedged ones that which was answered) and how long it took with all retries. Nothing is learned
from a call that its caller gave up, that was turned away as too much, or for which no endpoint was asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from attrs import define

from osdisco.errors import ServiceMeshError
from osdisco.mesh._state import VERDICTS, Outcome
from osdisco.mesh.breaker import BreakerState, CircuitBreaker
from osdisco.mesh.refusal import Refused, RefusedReason

if TYPE_CHECKING:
    from osdisco.mesh._calls import Call
    from osdisco.mesh._services import Service


@define(eq=False)
class Permit:
    """What lets one call go to a service, from `began` on; and how the last of its attempts there ended."""

    breaker: CircuitBreaker
    began: float
    outcome: Outcome = Outcome.CANCELLED

    def note(self, outcome: Outcome) -> None:
        """Learn how an attempt ended. What was answered stays so, whatever becomes of a hedge beside it."""
        if outcome is not Outcome.CANCELLED and self.outcome is not Outcome.OK:
            self.outcome = outcome

    def end(self, now: float, *, counted: bool) -> None:
        """Tell the breaker how the call fared, if that is to count."""
        failed = VERDICTS.get(self.outcome) if counted else None
        if failed is None:
            self.breaker.release(now - self.began)
        else:
            self.breaker.record(failed, now - self.began)


def turned_away(call: Call, service: Service, now: float) -> Refused | None:
    """Let a call go to a service of which an endpoint was picked; returns why it may not."""
    breaker = service.breaker
    if breaker is None or call.is_copy:
        return None
    held = next((permit for permit in call.permits if permit.breaker is breaker), None)
    if held is not None and breaker.state is not BreakerState.OPEN and not breaker._is_of_before(held.began):
        return None
    if breaker.try_acquire():
        call.permits = (*(permit for permit in call.permits if permit is not held), Permit(breaker, now))
        return None
    return Refused(RefusedReason.SERVICE_CIRCUIT_OPEN, retry_after=breaker.retry_after)


def note(call: Call, service: Service, outcome: Outcome) -> None:
    """Learn how an attempt of a call ended."""
    for permit in call.permits:
        if permit.breaker is service.breaker:
            permit.note(outcome)


async def judged(call: Call, made: Awaitable[Any], clock: Callable[[], float]) -> Any:
    """Make a call, and tell the breakers of the services that it went to how it ended."""
    counted = False
    try:
        result = await made
        counted = True
        return result
    except ServiceMeshError:
        counted = True
        raise
    finally:
        for permit in call.permits:
            permit.end(clock(), counted=counted)
