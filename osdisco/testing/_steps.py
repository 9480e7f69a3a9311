"""What the virtual loop runs: steps and timers, each of which knows the simulated process that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from osdisco.testing.clock import VirtualClock
    from osdisco.testing.loop import VirtualLoop

_EPSILON: Final = 1e-9
"""Seconds within which a timer counts as due: a process's time and the loop's are converted into each other."""


class Host:
    """A simulated process as the loop sees it: whether it runs, and what time its timers go by.

    Everything that is begun in its context belongs to it (`HOST`). While it is halted, none of that runs.
    """

    def __init__(self, name: str, loop: VirtualLoop, clock: VirtualClock) -> None:
        self.name: Final = name
        self.clock: Final = clock
        self.halted = False
        self._loop = loop
        self._withheld: list[asyncio.Handle] = []
        self._slept = 0.0

    def time(self) -> float:
        """Return what `loop.time()` is inside of it: its clock without jumps and suspends, as CLOCK_MONOTONIC."""
        return self.clock.elapsed() - self._slept

    def moment(self, when: float) -> float:
        """Return the loop's time at which `time()` will be `when`, if nothing changes until then."""
        return self._loop.elapsed() + (when - self.time()) / self.clock.rate

    def sleep_through(self, seconds: float) -> None:
        """Take seconds of its own clock out of what its timers see."""
        self._slept += seconds

    def withhold(self, handle: asyncio.Handle) -> None:
        """Keep what would run now."""
        self._withheld.append(handle)

    def release(self) -> None:
        """Let it run; whatever was withheld is ready now, in its order."""
        self.halted = False
        withheld, self._withheld = self._withheld, []
        for handle in withheld:
            self._loop.again(handle)


HOST: Final[ContextVar[Host | None]] = ContextVar("osdisco_simulated_process", default=None)


class Step(asyncio.Handle):
    """Something that is ready."""

    def __init__(
        self, callback: Callable[..., Any], args: Any, loop: VirtualLoop, context: Context | None = None
    ) -> None:
        super().__init__(callback, args, loop, context)
        self._virtual = loop
        self._host = _host_of(self)

    def _run(self) -> None:
        if self._host is not None and self._host.halted:
            self._host.withhold(self)
            return
        self._virtual.note(self, self._host)
        super()._run()


class Timer(asyncio.TimerHandle):
    """Something for later. `when` is in the time of the process that it belongs to."""

    def __init__(
        self, when: float, callback: Callable[..., Any], args: Any, loop: VirtualLoop, context: Context | None = None
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._virtual = loop
        self._host = _host_of(self)
        self._due = when
        self._when = loop.later(when, self._host)

    def _run(self) -> None:
        host = self._host
        if host is not None and host.halted:
            host.withhold(self)
        elif host is not None and host.time() < self._due - _EPSILON:  # it was suspended, or its clock is slower now
            self._when = self._virtual.later(self._due, host)
            self._virtual.schedule(self)
        else:
            self._virtual.note(self, host)
            super()._run()


def _host_of(handle: Any) -> Host | None:
    host: Host | None = handle._context.get(HOST)
    return host


def task_of(handle: Any) -> asyncio.Task[Any] | None:
    """Return the task whose step a handle is; None for a plain callback."""
    owner = getattr(handle._callback, "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None


def label(handle: Any) -> str:
    """Return what a handle is called, the same in every run."""
    callback = handle._callback
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return owner.get_name()
    return str(getattr(callback, "__qualname__", type(callback).__name__))
