"""Timeouts of very many short pieces of work: `asyncio.timeout`, for a third of what it costs.

That makes a timer of the loop for each, which nearly always is cancelled; here all that are to end within one tick
share one. So work may go on for one tick longer than it was given.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

TICK: Final = 0.005
"""Seconds."""

LONGEST: Final = 1e6
"""Seconds, eleven days, that are counted at most."""


class Alarms:
    """The timers of one event loop."""

    def __init__(self) -> None:
        self._ticks: dict[int, tuple[set[Within], asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._ticks)

    def within(self, seconds: float) -> Within:
        """Return `with`: cancels what runs in it after so many seconds, and then raises TimeoutError.

        As with `asyncio.timeout`: who is cancelled from outside is not said to be late.
        """
        return Within(self, seconds)

    def _set(self, work: Within, seconds: float) -> int:
        loop = asyncio.get_running_loop()
        tick = int((loop.time() + min(seconds, LONGEST)) / TICK) + 1
        entry = self._ticks.get(tick)
        if entry is None:
            entry = self._ticks[tick] = set(), loop.call_at(tick * TICK, self._ring, tick)
        entry[0].add(work)
        return tick

    def _unset(self, work: Within, tick: int) -> None:
        entry = self._ticks.get(tick)
        if entry is None:
            return  # it rang
        entry[0].discard(work)
        if not entry[0]:
            entry[1].cancel()
            del self._ticks[tick]

    def _ring(self, tick: int) -> None:
        for work in self._ticks.pop(tick)[0]:
            work._expire()


class Within:
    """One piece of work. `expired` tells whether its time ran out."""

    __slots__ = ("_alarms", "_cancelling", "_seconds", "_task", "_tick", "expired")

    def __init__(self, alarms: Alarms, seconds: float) -> None:
        self._alarms = alarms
        self._seconds = seconds
        self.expired = False

    def __enter__(self) -> Within:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._tick = self._alarms._set(self, self._seconds)
        return self

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarms._unset(self, self._tick)
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from exc
