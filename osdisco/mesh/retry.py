"""When a failed call is tried again: what may be repeated, how often, after which pause, and how much of it in all.

Nothing whose outcome is unknown is repeated unless the call is idempotent. What was surely not done (`sent` is False)
is tried elsewhere in any case. The loop itself is tenacity's, in `_repeating`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from attrs import Attribute, field, frozen

from osdisco.errors import (
    ConfigError,
    NoHealthyEndpointsError,
    RemoteError,
    RequestError,
    RulesError,
    ServiceMeshError,
    ServiceNotFoundError,
)
from osdisco.mesh._state import Outcome
from osdisco.mesh._wire import is_method
from osdisco.mesh.deadline import checked_timeout
from osdisco.mesh.hedging import Hedging

_FINAL: Final = (RequestError, ServiceNotFoundError, NoHealthyEndpointsError, RulesError)
"""What would be the same again."""


def repeatable(error: ServiceMeshError, *, idempotent: bool) -> bool:
    """Return whether a call may be tried again after an error."""
    if isinstance(error, _FINAL) or error.reason is not None:  # nobody was picked: there is no line to wait in
        return False
    if isinstance(error, RemoteError) and error.status < 500:
        return False
    after = getattr(error, "retry_after", None)
    if after is not None and after < 0:
        return False
    return idempotent or not error.sent


def _number(least: float, what: str) -> Any:
    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        name = f"{type(instance).__name__}.{attribute.name}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
            raise ConfigError(f"{name} is {what}, {least:g} or more, not {value!a}")

    return check


@frozen
class RetryBudget:
    """How many retries a service gets from one process, so that a service that fails is not called more for it.

    Args:
        share: retries for each call, on average over the window. Finagle's and Linkerd's 20 %.
        per_second: retries that there are besides, so that a service that is seldom called has some, too.
        window: seconds after which calls and retries are forgotten.
        failures: attempts one after the other, at whichever endpoint, over at least a second: when so many failed,
            nothing is tried again until one succeeds. Else each of a hundred callers had the retries of `per_second`
            for a service of which nothing answers.

    Raises:
        ConfigError: a field out of its range.
    """

    share: float = field(default=0.2, validator=_number(0, "a share of the calls"))
    per_second: float = field(default=10.0, validator=_number(0, "a number of retries"))
    window: float = field(default=10.0, validator=_number(0.1, "a number of seconds"))
    failures: float = field(default=20, validator=_number(1, "a number of attempts"))


class Balance:
    """What is left of a budget now: in no window are there more retries than it has."""

    SLOTS: Final = 10
    HOPELESS: Final = 1.0
    """Seconds that nothing succeeds for: less may be one host whose connections all end at once."""

    def __init__(self, budget: RetryBudget) -> None:
        self._share = budget.share
        self._reserve = budget.per_second * budget.window
        self._slot = budget.window / self.SLOTS
        self._slots = [0.0] * self.SLOTS
        self._turn = 0
        self._sum = 0.0
        self._most = budget.failures
        self._failures = 0
        self._since = 0.0

    def __repr__(self) -> str:
        return f"<Balance of {self._reserve + self._sum:.1f} retries>"

    def left(self, now: float) -> float:
        """Return how many retries there are."""
        self._forget(now)
        return self._reserve + self._sum

    def seen(self, now: float) -> float:
        """Return about the same without forgetting anything: for who looks on from another thread."""
        oldest = int(now / self._slot) - self.SLOTS + 1
        turns = range(max(oldest, self._turn - self.SLOTS + 1), self._turn + 1)
        return self._reserve + sum(self._slots[turn % self.SLOTS] for turn in turns)

    def deposit(self, now: float) -> None:
        """Count a call."""
        self._add(now, self._share)

    def withdraw(self, now: float) -> bool:
        """Take a retry; returns whether there was one."""
        if self.hopeless(now) or self.left(now) < 1.0:
            return False
        self._add(now, -1.0)
        return True

    def give_back(self, now: float) -> None:
        """Put a retry back that was just taken, and then not made."""
        self._add(now, 1.0)

    def learn(self, outcome: Outcome, now: float) -> None:
        """Learn how an attempt ended."""
        if outcome is Outcome.OK:
            self._failures = 0
        elif outcome is not Outcome.CANCELLED:
            if not self._failures:
                self._since = now
            self._failures += 1

    def hopeless(self, now: float) -> bool:
        """Return whether nothing succeeds, so that to try again would only be one call more."""
        return self._failures >= self._most and now - self._since >= self.HOPELESS

    def _add(self, now: float, amount: float) -> None:
        self._forget(now)
        self._slots[self._turn % self.SLOTS] += amount
        self._sum += amount

    def _forget(self, now: float) -> None:
        turn = int(now / self._slot)
        if turn == self._turn:
            return
        for past in range(max(self._turn + 1, turn - self.SLOTS + 1), turn + 1):
            self._slots[past % self.SLOTS] = 0.0
        self._turn = turn
        self._sum = sum(self._slots)  # anew, so that rounding does not add up


def _methods(names: Iterable[str]) -> frozenset[str]:
    if isinstance(names, str) or not isinstance(names, Iterable) or not all(map(is_method, names := list(names))):
        raise ConfigError(f"RetryPolicy.idempotent is a list of methods, such as ['search'], not {names!a}")
    return frozenset(names)


def _attempts(instance: object, attribute: object, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10:
        raise ConfigError(f"RetryPolicy.attempts is a whole number from 1 (never again) to 10, not {value!a}")


def _seconds(value: float | None) -> float | None:
    return None if value is None else checked_timeout("RetryPolicy.attempt_timeout", value)


@frozen
class RetryPolicy:
    """How calls of a service are tried again.

    Args:
        attempts: in all, the first one included.
        pause: seconds before the first retry at most; how long is by chance, from 0 on ("full jitter").
        factor: by which that grows with each.
        pause_max: beyond which it does not.
        attempt_timeout: seconds for each attempt. When None, an idempotent call that may still go to another endpoint
            gets half of what is left of its time, so that a silent endpoint does not use up all of it; else all of it.
        idempotent: the methods that may be called again when it is unknown whether they ran; `call` can say so, too.
        budget: of all retries of the service.
        hedging: a second attempt before the first one failed, for idempotent calls; off when None.

    Raises:
        ConfigError: a field out of its range.
    """

    attempts: int = field(default=3, validator=_attempts)
    pause: float = field(default=0.05, validator=_number(0, "a number of seconds"))
    factor: float = field(default=2.0, validator=_number(1, "a factor"))
    pause_max: float = field(default=1.0, validator=_number(0, "a number of seconds"))
    attempt_timeout: float | None = field(default=None, converter=_seconds)
    idempotent: frozenset[str] = field(default=frozenset(), converter=_methods)
    budget: RetryBudget = field(factory=RetryBudget)
    hedging: Hedging | None = None

    def pause_before(self, retry: int) -> float:
        """Return the longest pause before a retry, in seconds; the first one is 1."""
        return min(self.pause * self.factor ** (retry - 1), self.pause_max)


NEVER: Final = RetryPolicy(attempts=1)
"""Each call is sent once."""
