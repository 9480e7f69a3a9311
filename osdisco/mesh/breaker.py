"""Circuit breakers: who fails too often, or is too slow, is left alone for a while, and then tried with a few calls.

The pool feeds one for each endpoint with every attempt. That of a whole service is fed with every call, if the registry
is told so (see `_whole`), else by whoever asks for it. The rules are those of resilience4j's
`CircuitBreakerStateMachine`: rates of a window once it holds enough calls, and in HALF_OPEN as many calls as there are
permits decide. But for one: a call that began before the breaker last moved says nothing of how things are since, so
it is not counted.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import Final

from attrs import frozen

from osdisco.errors import ConfigError
from osdisco.mesh._listeners import Listeners
from osdisco.mesh._settings import ANY, checked, count, seconds, share
from osdisco.mesh._windows import CountWindow, TimeWindow, Window
from osdisco.runtime import Clock, SystemClock


class BreakerState(enum.Enum):
    """How a breaker stands."""

    CLOSED = "closed"
    """Calls go through, and are counted."""
    OPEN = "open"
    """No call goes through, until `open_for` is over."""
    HALF_OPEN = "half-open"
    """So many calls go through as there are permits; they decide."""


class BreakerReason(enum.Enum):
    """Why a breaker moved."""

    FAILURE_RATE = "too many calls failed"
    SLOW_RATE = "too many calls were slow"
    WAITED = "it was open for long enough"
    RECOVERED = "the calls that were let through fared well"


TRANSITIONS: Final[Mapping[tuple[BreakerState, BreakerReason], BreakerState]] = MappingProxyType(
    {
        (BreakerState.CLOSED, BreakerReason.FAILURE_RATE): BreakerState.OPEN,
        (BreakerState.CLOSED, BreakerReason.SLOW_RATE): BreakerState.OPEN,
        (BreakerState.OPEN, BreakerReason.WAITED): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, BreakerReason.FAILURE_RATE): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerReason.SLOW_RATE): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerReason.RECOVERED): BreakerState.CLOSED,
    }
)
"""All ways from one state to another; there are no others."""


@frozen
class BreakerSettings:
    """When a breaker opens, and how it closes again. Rates and permits are resilience4j's but for what is said below.

    Args:
        failure_rate: share of failed calls at which it opens. 0.5, as there.
        slow_rate: share of slow calls at which it opens. 1.0, as there.
        slow_after: seconds after which a call is slow. 60, as there.
        window: calls that are looked at. 20, not 100: a process sends one endpoint only some of all calls.
        window_seconds: look at the calls of so many seconds instead.
        minimum: calls that the window must hold before a rate is believed. 10, not 100, for the same reason.
        open_for: seconds. 10, not 60: endpoints of a service restart faster than remote systems.
        permits: calls that decide in HALF_OPEN. 3, not 10, of which each may fail a caller.

    Raises:
        ConfigError: naming the field that cannot be so.
    """

    failure_rate: float = share(0.5)
    slow_rate: float = share(1.0)
    slow_after: float = seconds(60.0)
    window: int = count(20)
    window_seconds: float | None = seconds(None, optional=True)
    minimum: int = count(10)
    open_for: float = seconds(10.0)
    permits: int = count(3)


@frozen
class BreakerEvent:
    """A breaker moved.

    Args:
        endpoint: its id; None when the breaker is that of the whole service.
        calls: what its window held.
        failed: of these.
        slow: of these.
        retry_at: when it lets calls through again, in seconds of the clock; None unless it opened.
    """

    service: str
    endpoint: str | None
    old: BreakerState
    new: BreakerState
    reason: BreakerReason
    calls: int
    failed: int
    slow: int
    retry_at: float | None = None

    def __str__(self) -> str:
        whose = self.service if self.endpoint is None else f"{self.service} at {self.endpoint}"
        counted = f"of {self.calls} calls {self.failed} failed and {self.slow} were slow"
        return f"the circuit breaker of {whose} is {self.new.value}: {self.reason.value} ({counted})"


Tell = Callable[[BreakerEvent], object]


class CircuitBreaker:
    """One breaker. It has no timer: that `open_for` is over it sees when somebody asks.

    Whoever was let through by `try_acquire` says how it fared, once: `record`, or `release` if that says nothing.
    """

    __slots__ = (
        "_free", "_now", "_since", "_tell", "_window", "endpoint", "last", "retry_at", "service", "settings", "state",
    )  # fmt: skip

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        clock: Clock | None = None,
        *,
        service: str = "",
        endpoint: str | None = None,
        tell: Tell = lambda _: None,
    ) -> None:
        self.settings: Final[BreakerSettings] = checked("settings", settings, BreakerSettings) or BreakerSettings()
        self.service: Final = service
        self.endpoint: Final = endpoint
        self.state = BreakerState.CLOSED
        self.last: BreakerEvent | None = None
        """How it came to stand as it does; None when it never moved."""
        self.retry_at: float | None = None
        """When it lets calls through again, in seconds of the clock; None unless it is open."""
        self._now = (clock or SystemClock()).now
        self._tell = tell
        self._since = -inf
        self._free = 0
        self._window = self._new_window()

    def __repr__(self) -> str:
        whose = self.service if self.endpoint is None else f"{self.service} at {self.endpoint}"
        return f"<CircuitBreaker of {whose}: {self.state.value}>"

    def _new_window(self) -> Window:
        settings = self.settings
        return TimeWindow(settings.window_seconds) if settings.window_seconds else CountWindow(settings.window)

    @property
    def admits(self) -> bool:
        """Whether `try_acquire` would let a call through now."""
        if self.state is BreakerState.OPEN:
            return self.retry_at is not None and self._now() >= self.retry_at
        return self.state is BreakerState.CLOSED or self._free > 0

    @property
    def retry_after(self) -> float | None:
        """Seconds until it lets a call through again; None unless it is open."""
        return None if self.retry_at is None else max(0.0, self.retry_at - self._now())

    def advance(self) -> None:
        """See whether it was open for long enough."""
        if self.retry_at is not None and self._now() >= self.retry_at:
            self._move(BreakerReason.WAITED)

    def try_acquire(self) -> bool:
        """Return whether a call may go through now; in HALF_OPEN this takes a permit."""
        if self.state is BreakerState.CLOSED:
            return True
        self.advance()
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def record(self, failed: bool, seconds: float) -> None:
        """Say how a call fared that was let through, and how many seconds it took."""
        now = self._now()
        if self.state is BreakerState.OPEN or self._is_of_before(now - seconds):
            return
        self._window.record(failed, seconds > self.settings.slow_after, now)
        reason = self._judged()
        if reason is not None:
            self._move(reason)

    def release(self, seconds: float) -> None:
        """Say that a call which was let through, for so many seconds, says nothing: its permit is free again."""
        if self.state is BreakerState.HALF_OPEN and not self._is_of_before(self._now() - seconds):
            self._free += 1

    def _is_of_before(self, began: float) -> bool:
        """Return whether a call began before the breaker moved to where it is.

        All such began before it opened, at least `open_for` ago, so that half of it tells them from later ones however
        `seconds` was rounded.
        """
        return began < self._since - self.settings.open_for / 2

    def _judged(self) -> BreakerReason | None:
        window, settings = self._window, self.settings
        trying = self.state is BreakerState.HALF_OPEN
        least = settings.permits if trying else settings.minimum
        if settings.window_seconds is None and not trying:
            least = min(least, settings.window)
        if window.calls < least:
            return None
        if window.failed / window.calls >= settings.failure_rate:  # divided: 0.55 * 20 is more than 11
            return BreakerReason.FAILURE_RATE
        if window.slow / window.calls >= settings.slow_rate:
            return BreakerReason.SLOW_RATE
        return BreakerReason.RECOVERED if trying else None

    def _move(self, reason: BreakerReason) -> None:
        """The one place where it changes its state."""
        now, window, old = self._now(), self._window, self.state
        self.state = TRANSITIONS[old, reason]
        self.retry_at = now + self.settings.open_for if self.state is BreakerState.OPEN else None
        self._since = now
        self._free = self.settings.permits if self.state is BreakerState.HALF_OPEN else 0
        trying = self.state is BreakerState.HALF_OPEN
        self._window = CountWindow(self.settings.permits) if trying else self._new_window()
        counts = window.calls, window.failed, window.slow
        self.last = BreakerEvent(self.service, self.endpoint, old, self.state, reason, *counts, self.retry_at)
        self._tell(self.last)


class CircuitBreakerRegistry:
    """All breakers of a process: one for each service, and one for each of its endpoints. Iterates over them.

    Args:
        settings: of all for whom there are no others.
        services: settings of single services.
        whole: of the breakers of whole services: by the name of the service, `"*"` for all others; or of all. A mesh
            asks them with each call, and tells them how it ended. None, the default: there are none, for where half
            of the endpoints fail, it would keep calls from the other half.
        clock: where time comes from; that of the mesh or the pool that it is given to when None.

    Raises:
        ConfigError: settings that are none.
    """

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        *,
        services: Mapping[str, BreakerSettings] | None = None,
        whole: Mapping[str, BreakerSettings] | BreakerSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings: Final[BreakerSettings] = checked("settings", settings, BreakerSettings) or BreakerSettings()
        self._services = _by_name("services", services)
        self._whole = _by_name("whole", {ANY: whole} if isinstance(whole, BreakerSettings) else whole)
        self._clock = clock
        self._breakers: dict[tuple[str, str | None], CircuitBreaker] = {}
        self._listeners = Listeners[BreakerEvent]()

    def __repr__(self) -> str:
        return f"<CircuitBreakerRegistry: {len(self)} breakers>"

    def __iter__(self) -> Iterator[CircuitBreaker]:
        return iter(list(self._breakers.values()))

    def __len__(self) -> int:
        return len(self._breakers)

    def breaker(self, service: str, endpoint: str | None = None) -> CircuitBreaker:
        """Return the breaker of an endpoint by its id, or that of the whole service; there always is one."""
        found = self._breakers.get((service, endpoint))
        if found is None:
            settings = self._settings_of(service, whole=endpoint is None)
            found = CircuitBreaker(settings, self._clock, service=service, endpoint=endpoint, tell=self._listeners.tell)
            self._breakers[service, endpoint] = found
        return found

    def _keep_time_by(self, clock: Clock) -> None:
        """Take the clock of who uses it, unless it was given one. What it has made goes by it from now on."""
        if self._clock is None:
            self._clock = clock
            for one in self:
                one._now = clock.now

    def _settings_of(self, service: str, *, whole: bool) -> BreakerSettings:
        found = self._whole.get(service) or self._whole.get(ANY) if whole else None
        return found or self._services.get(service, self.settings)

    @property
    def judges_services(self) -> bool:
        """Whether there are breakers of whole services which calls ask."""
        return bool(self._whole)

    def of_service(self, service: str) -> CircuitBreaker | None:
        """Return the breaker of a whole service, if calls of it ask one."""
        return self.breaker(service) if service in self._whole or ANY in self._whole else None

    def forget(self, service: str, endpoint: str | None = None) -> None:
        """Forget the breaker of an endpoint that is gone, or that of the whole service."""
        self._breakers.pop((service, endpoint), None)

    def add_listener(self, listener: Tell) -> Callable[[], None]:
        """Tell a function of every breaker that moves, while it does: it is to be quick.

        One that fails is logged. Returns a function that ends it. Raises ConfigError when it is no function.
        """
        return self._listeners.add(listener)


def _by_name(name: str, given: Mapping[str, BreakerSettings] | None) -> dict[str, BreakerSettings]:
    given = {} if given is None else given
    if not isinstance(given, Mapping) or not all(isinstance(one, BreakerSettings) for one in given.values()):
        raise ConfigError(f"{name} are BreakerSettings by the name of the service, not {given!a}")
    return dict(given)
