"""The loop of attempts, by tenacity. It is entered after a first failure: a call that succeeds pays nothing for it.

tenacity keeps the count and the order (may it be repeated, after which pause, is it over); what each of these means is
decided here, by our clock, our randomness and the service's budget.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from attrs import define
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from osdisco.errors import ServiceMeshError
from osdisco.mesh.retry import Balance, RetryPolicy, repeatable
from osdisco.runtime import Clock

T = TypeVar("T")

_NO_TIME: Final = "no time is left for it"
_NO_HOPE: Final = "of this service nothing succeeds"
_NO_BUDGET: Final = "the budget for retries is used up: the service fails too often"


@define
class Plan:
    """What one call may do after its first failure.

    Args:
        attempts: how many more there may be, and the one that failed.
        tell: told of each retry, `made`, or what is wanting for it.
    """

    policy: RetryPolicy
    attempts: int
    balance: Balance
    clock: Clock
    random: random.Random
    deadline: float
    idempotent: bool
    tell: Callable[[str], object] = lambda _: None

    def may(self, error: BaseException) -> bool:
        """Return whether an error lets it be tried again at all."""
        return isinstance(error, ServiceMeshError) and repeatable(error, idempotent=self.idempotent)


async def repeat(attempt: Callable[[], Awaitable[T]], failure: ServiceMeshError, plan: Plan) -> T:
    """Go on after a failed attempt, until one succeeds or no other may be made.

    Raises:
        ServiceMeshError: what failed last; it says why there was no other attempt.
    """
    failures = [failure]

    async def again() -> T:
        if failures:
            raise failures.pop()  # the attempt that was made already
        return await attempt()

    stop = _Stop(plan)
    loop = AsyncRetrying(
        retry=retry_if_exception(plan.may),
        stop=stop_after_attempt(plan.attempts) | stop,
        wait=_Pause(plan),
        sleep=asyncio.sleep,
        reraise=True,
    )
    try:
        return await loop(again)
    except ServiceMeshError as exc:
        if stop.why:
            exc.message += f" (not tried again: {stop.why})"
        raise


class _Pause(wait_base):
    """Full jitter. What the endpoint asked for comes first; a first one that was surely not sent costs no pause."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __call__(self, retry_state: RetryCallState) -> float:
        error = _error(retry_state)
        after: float | None = getattr(error, "retry_after", None)
        if after is not None:
            return after
        retry = retry_state.attempt_number
        if retry == 1 and not error.sent:
            return 0.0
        return self._plan.random.random() * self._plan.policy.pause_before(retry)


class _Stop(stop_base):
    """No time, no hope, or no budget. Asked last of all, because it takes from the budget."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.why = ""

    def __call__(self, retry_state: RetryCallState) -> bool:
        plan, now = self._plan, self._plan.clock.now()
        if now + retry_state.upcoming_sleep >= plan.deadline:
            self.why, result = _NO_TIME, "no_time"
        elif plan.balance.hopeless(now):
            self.why, result = _NO_HOPE, "no_hope"
        elif not plan.balance.withdraw(now):
            self.why, result = _NO_BUDGET, "no_budget"
        else:
            result = "made"
        plan.tell(result)
        return bool(self.why)


def _error(state: RetryCallState) -> ServiceMeshError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, ServiceMeshError)
    return error
