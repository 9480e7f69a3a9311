"""SIGTERM and SIGINT begin leaving; what they did before is done when the process has left."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from osdisco._tasks import Supervisor
from osdisco.errors import ConfigError

log = logging.getLogger("osdisco")

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

Then = Callable[[signal.Signals], object]


class Stops(Protocol):
    """What leaves, such as a DiscoveryService."""

    async def stop(self, *, now: bool = False) -> None:
        """Leave; with `now` without waiting for anything."""


class Deregisters(Protocol):
    """What leaves, such as a service's Registration."""

    async def deregister(self, *, now: bool = False) -> None:
        """Leave; with `now` without waiting for anything."""


Leaver = Stops | Deregisters


def _leave(leaver: Leaver, *, now: bool = False) -> Coroutine[Any, Any, None]:
    leave: Any = getattr(leaver, "stop", None) or leaver.deregister  # type: ignore[union-attr]
    work: Coroutine[Any, Any, None] = leave(now=now)
    return work


@asynccontextmanager
async def leave_on_signals(
    *leavers: Leaver, then: Then | None = None, signals: Sequence[signal.Signals] = SIGNALS
) -> AsyncGenerator[None, None]:
    """For the time of a block, let the first signal begin to leave, and a second one end the wait.

    The block goes on meanwhile: that is what serves the work that is still in flight. When all have left `then` is
    called with the signal; without one the signal is raised again, for whoever handled it before, or to end the
    process. A block that ends while they leave waits for them.

    Args:
        leavers: whose `stop`, or `deregister`, is called: a DiscoveryService, a service's Registration.

    Raises:
        ConfigError: outside of the main thread; or a signal has a handler of the event loop, which nobody can look up:
            give `then` to do what it would.
    """
    exit_ = _Exit(leavers, then, signals)
    exit_.install()
    try:
        yield
    finally:
        await exit_.close()


async def run_until_terminated(*leavers: Leaver, signals: Sequence[signal.Signals] = SIGNALS) -> signal.Signals:
    """Wait for SIGTERM or SIGINT, then until all leavers have left; returns the signal. A second one ends the wait."""
    left = asyncio.get_running_loop().create_future()
    async with leave_on_signals(*leavers, then=left.set_result, signals=signals):
        number: signal.Signals = await left
        return number


def is_of_loop(handler: object) -> bool:
    """Whether a signal's handler only wakes an event loop, which then calls one that nobody can look up."""
    module = getattr(handler, "__module__", None) or ""
    return module.partition(".")[0] in ("asyncio", "uvloop")


class _Exit:
    """Hears the signals of one block."""

    def __init__(self, leavers: Sequence[Leaver], then: Then | None, signals: Sequence[signal.Signals]) -> None:
        self._loop = asyncio.get_running_loop()
        self._supervisor = Supervisor()
        self._leavers = leavers
        self._then = then or signal.raise_signal
        self._needs_before = then is None
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self._leaving: asyncio.Task[None] | None = None
        self._closed = False

    def install(self) -> None:
        for number in self._signals:
            if self._needs_before and is_of_loop(signal.getsignal(number)):
                raise ConfigError(f"{number.name} has a handler of the event loop: give `then`, to do what it would")
        try:
            for number in self._signals:
                before = signal.getsignal(number)
                self._loop.add_signal_handler(number, self._on_signal, number)
                self._before[number] = before
        except (ValueError, RuntimeError) as exc:
            self._restore()
            raise ConfigError(f"signals reach only an event loop in the main thread: {exc}") from exc

    def _restore(self) -> None:
        while self._before:
            number, before = self._before.popitem()
            self._loop.remove_signal_handler(number)
            if before is not None and not is_of_loop(before):
                signal.signal(number, before)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._leaving is None:
            log.info("leaving on %s", number.name)
            self._leaving = self._supervisor.spawn(self._leave(number), f"leave on {number.name}")
            return
        log.info("leaving at once on another %s", number.name)
        self._restore()
        for leaver in self._leavers:
            self._supervisor.spawn(_leave(leaver, now=True), "leave at once")

    async def _leave(self, number: signal.Signals) -> None:
        for failure in await asyncio.gather(*map(_leave, self._leavers), return_exceptions=True):
            if failure is not None:
                log.error("leaving on %s failed", number.name, exc_info=failure)
        self._restore()
        if not self._closed:
            self._loop.call_soon(self._then, number)

    async def close(self) -> None:
        self._closed = True
        try:
            if self._leaving is not None:
                await self._leaving
        finally:
            self._restore()
            await self._supervisor.aclose()
