"""Hedging: a second attempt elsewhere when the first one takes longer than nearly all do; the sooner answer counts.

Only for idempotent calls, opt-in, and out of the budget for retries. As Finagle's backup requests: what may be sent
besides is a share of the calls, and the delay is where the slowest share of them begins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from attrs import Attribute, field, frozen

from osdisco._tasks import Spawn, cancel
from osdisco.errors import CallInterruptedError, ConfigError
from osdisco.mesh._wire import LOOK

T = TypeVar("T")

SAMPLES: Final = 500
"""Calls that the delay is reckoned from."""

LEAST: Final = 20
"""Calls before which nothing is known."""

EVERY: Final = 50
"""Calls after which it is reckoned anew."""


def _share(instance: object, attribute: Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 0.5:
        raise ConfigError(f"Hedging.{attribute.name} is a share of the calls above 0 and up to 0.5, not {value!a}")


def _seconds(instance: object, attribute: Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ConfigError(f"Hedging.{attribute.name} is a number of seconds, 0 or more, not {value!a}")


@frozen
class Hedging:
    """When a second attempt is made beside the first.

    Args:
        extra: the share of calls that may have one: the delay is the latency that all but so many stay below.
        least: seconds that the delay has at least.

    Raises:
        ConfigError: a field out of its range.
    """

    extra: float = field(default=0.01, validator=_share)
    least: float = field(default=0.005, validator=_seconds)


class Delay:
    """Learns how long calls take, and says after how long one of them is slow."""

    def __init__(self, hedging: Hedging) -> None:
        self._hedging = hedging
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._new = 0
        self._delay: float | None = None

    @property
    def seconds(self) -> float | None:
        """The delay; None as long as too little is known."""
        return self._delay

    def note(self, seconds: float) -> None:
        """Learn how long a call took that was answered."""
        self._samples.append(seconds)
        self._new += 1
        if self._new >= (EVERY if self._delay is not None else LEAST):
            self._new = 0
            ordered = sorted(self._samples)
            place = min(int(len(ordered) * (1 - self._hedging.extra)), len(ordered) - 1)
            self._delay = max(ordered[place], self._hedging.least)


async def hedged(
    attempt: Callable[[], Coroutine[Any, Any, T]],
    second: Callable[[], Coroutine[Any, Any, T]],
    delay: float,
    may: Callable[[], bool],
    final: Callable[[BaseException], bool],
    spawn: Spawn[T],
) -> T:
    """Return what the sooner of two attempts returns; the other one is cancelled.

    An attempt that fails within the delay is not hedged: whether to try again is decided by who called this.

    Args:
        second: makes the second one, as `attempt` the first.
        delay: seconds after which the second one begins, if `may()` then says so.
        final: whether a failure would be the same elsewhere: it is an answer, and is not waited with for the other one.

    Raises:
        CallInterruptedError: whoever owns the attempts ended them. Else what failed last, or was final.
    """
    tasks = {spawn(attempt(), "an attempt of a call")}
    try:
        done, _ = await asyncio.wait(tasks, timeout=delay)
        if not done and may():
            tasks.add(spawn(second(), "a second attempt of a call"))
        return await _first_good(tasks, final)
    finally:
        await cancel(*tasks)


async def _first_good(tasks: set[asyncio.Task[T]], final: Callable[[BaseException], bool]) -> T:
    """Return the first result; when all fail, raise what failed last."""
    running = set(tasks)
    while True:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        failures = {task: _failure(task) for task in done}
        for task, failure in failures.items():
            if failure is None:
                return task.result()
        for failure in failures.values():
            if failure is not None and (not running or final(failure)):
                raise failure


def _failure(task: asyncio.Task[Any]) -> BaseException | None:
    if task.cancelled():  # not by who waits for it, who must not take it for a cancellation of its own
        return CallInterruptedError(f"the mesh was closed while it was under way; {LOOK}", sent=True)
    return task.exception()
