"""Outlier detection: who fares worse than the others is ejected, that is, not picked for a while.

The rules are those of Envoy's `outlier_detection_impl.cc`, for one process and one service:

1. So many failures one after the other eject at once.
2. At the end of each interval, who had enough calls in it is judged. If enough were, those are ejected whose success
   rate is below the mean of all less `success_rate_stdev` standard deviations, and those whose failure rate reaches
   `failure_rate`.
3. An ejection lasts `base_ejection` times how often it was ejected, at most `max_ejection`; that number falls by one at
   the end of every interval in which all was well.
4. At most `max_share` of all are ejected together, but one always may be (Envoy's `always_eject_one_host`).

Three things differ. An ejection ends when it is over, not at the end of an interval. An interval in which nobody called
ends without a judgement on what was before it. And who says that it is overloaded, which Envoy takes for a failure, has
failed only for the success rate: that compares it with the others, while to eject whoever is overloaded would overload
the rest. It has no timer: whoever drives it looks at `due`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from math import sqrt
from statistics import fmean
from typing import Final

from attrs import frozen

from osdisco.errors import ConfigError
from osdisco.mesh._settings import count, number, seconds, share
from osdisco.mesh._state import EndpointState

EXACT: Final = 1e-9
"""By how much a success rate must be below what is allowed, so that those who are all the same never are."""


class EjectionReason(enum.Enum):
    """Why an endpoint was ejected."""

    CONSECUTIVE_FAILURES = "it failed several times in a row"
    SUCCESS_RATE = "it succeeded less often than the others"
    FAILURE_RATE = "it failed too often"


@frozen
class OutlierSettings:
    """Who is ejected and for how long. The defaults are Envoy's, but for `max_share`.

    Args:
        consecutive_failures: in a row that eject. 5.
        interval: seconds. 10.
        base_ejection: seconds of the first ejection. 30.
        max_ejection: seconds of the longest. 300.
        max_share: of all that may be ejected together. 0.3, where Envoy has 0.1: services here have fewer instances.
        success_rate_hosts: that must have had enough calls, for the success rate. 5.
        success_rate_volume: calls in an interval that are enough, for the success rate. 100.
        success_rate_stdev: standard deviations below the mean. 1.9.
        failure_rate: share of failures. 0.85. Envoy has the same, and detects it without ejecting by default.
        failure_rate_hosts: that must have had enough calls, for the failure rate. 5.
        failure_rate_volume: calls in an interval that are enough, for the failure rate. 50.

    Raises:
        ConfigError: naming the field that cannot be so.
    """

    consecutive_failures: int = count(5)
    interval: float = seconds(10.0)
    base_ejection: float = seconds(30.0)
    max_ejection: float = seconds(300.0)
    max_share: float = share(0.3)
    success_rate_hosts: int = count(5)
    success_rate_volume: int = count(100)
    success_rate_stdev: float = number(1.9, "a number of 0 or more", lambda value: 0 <= value < float("inf"))
    failure_rate: float = share(0.85)
    failure_rate_hosts: int = count(5)
    failure_rate_volume: int = count(50)

    def __attrs_post_init__(self) -> None:
        if self.max_ejection < self.base_ejection:
            raise ConfigError(
                f"max_ejection is {self.max_ejection:g} s, less than base_ejection, {self.base_ejection:g} s"
            )


class OutlierDetector:
    """Ejects endpoints of one service, and lets them return.

    Args:
        now: when it begins, in seconds of the clock.
        tell: told of every endpoint that is ejected, with the reason, or returns, with None.
    """

    def __init__(
        self,
        settings: OutlierSettings,
        now: float,
        tell: Callable[[EndpointState, EjectionReason | None], object] = lambda *_: None,
    ) -> None:
        self.settings: Final = settings
        self.size = 0
        """How many endpoints there are, of which a share may be ejected."""
        self.due = now + settings.interval
        """When `advance` is to be called."""
        self._tell = tell
        self._ends = now + settings.interval
        self._ejected: set[EndpointState] = set()

    @property
    def ejected(self) -> Collection[EndpointState]:
        """Who is ejected now."""
        return frozenset(self._ejected)

    def note(self, state: EndpointState, failed: bool, now: float) -> None:
        """Learn how an attempt ended. `advance` is called before, when it is due."""
        state.calls += 1
        if not failed:
            state.consecutive = 0
            return
        state.failures += 1
        state.consecutive += 1
        if state.consecutive >= self.settings.consecutive_failures and state.ejected_until is None:
            state.consecutive = 0
            self._eject(state, EjectionReason.CONSECUTIVE_FAILURES, now)

    def note_rejected(self, state: EndpointState) -> None:
        """Learn that an endpoint said it is overloaded."""
        state.calls += 1
        state.rejections += 1

    def forget(self, state: EndpointState) -> None:
        """Forget an endpoint that is gone."""
        self._ejected.discard(state)
        self._set_due()

    def advance(self, states: Collection[EndpointState], now: float) -> None:
        """Let those return whose time is over, and judge all when an interval has ended."""
        for state in [one for one in self._ejected if one.ejected_until is not None and now >= one.ejected_until]:
            self._let_return(state, now)
        if now >= self._ends:
            over = int((now - self._ends) // self.settings.interval) + 1
            if over == 1:  # else the last interval was one without a call
                self._judge(states, now)
            self._end_interval(states, now, over)
        self._set_due()

    def _end_interval(self, states: Collection[EndpointState], now: float, over: int) -> None:
        interval = self.settings.interval
        self._ends += over * interval
        for state in states:
            state.calls = state.failures = state.rejections = 0
            well = state.ejected_until is None and state.returned_at is not None
            if well and state.ejections and now - (state.returned_at or 0.0) >= interval:
                state.ejections = max(0, state.ejections - over)

    def _judge(self, states: Collection[EndpointState], now: float) -> None:
        settings = self.settings
        present = [state for state in states if state.ejected_until is None]
        rated = [state for state in present if state.calls >= settings.success_rate_volume]
        failing = [state for state in present if state.calls >= settings.failure_rate_volume]
        if len(rated) >= settings.success_rate_hosts:
            least = success_threshold([_success(state) for state in rated], settings.success_rate_stdev)
            for state in rated:
                if _success(state) < least - EXACT:
                    self._eject(state, EjectionReason.SUCCESS_RATE, now)
        if len(failing) >= settings.failure_rate_hosts:
            for state in failing:
                if state.failures / state.calls >= settings.failure_rate:
                    self._eject(state, EjectionReason.FAILURE_RATE, now)

    def _eject(self, state: EndpointState, reason: EjectionReason, now: float) -> None:
        if state.ejected_until is not None or not self._has_room():
            return
        settings = self.settings
        if state.ejections * settings.base_ejection < settings.max_ejection + settings.base_ejection:
            state.ejections += 1
        state.ejected_until = now + min(state.ejections * settings.base_ejection, settings.max_ejection)
        self._ejected.add(state)
        self._set_due()
        self._tell(state, reason)

    def _has_room(self) -> bool:
        return not self._ejected or (len(self._ejected) + 1) / max(1, self.size) <= self.settings.max_share

    def _let_return(self, state: EndpointState, now: float) -> None:
        self._ejected.discard(state)
        state.ejected_until = None
        state.returned_at = now
        state.consecutive = 0  # else the next failure would eject it again
        self._tell(state, None)

    def _set_due(self) -> None:
        ends = (state.ejected_until for state in self._ejected if state.ejected_until is not None)
        self.due = min([self._ends, *ends])


def _success(state: EndpointState) -> float:
    return 1 - (state.failures + state.rejections) / state.calls


def success_threshold(rates: Collection[float], stdev: float) -> float:
    """Return what a success rate must reach: of 0.5, 1, 1, 1, 1 and 1.9 it is 0.52, as in Envoy's test."""
    mean = fmean(rates)
    return mean - stdev * sqrt(fmean((rate - mean) ** 2 for rate in rates))
