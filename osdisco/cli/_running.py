"""Running a command's coroutine: with a client, and ended by signals in a way that gives back what it holds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import osdisco
from osdisco.cli._errors import InterruptedBySignal
from osdisco.cli._settings import Settings

T = TypeVar("T")

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PASSED_ON: Final = (*SIGNALS, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""Also what a command may understand, and what would end this process but not its command."""


class Interrupts:
    """The signals of one run. The first one cancels the work, which then cleans up; a second one ends it at once."""

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()

    async def guard(self, work: Awaitable[T]) -> T:
        """Await `work`. Raises InterruptedBySignal when a signal ended it."""
        self._handle(self._interrupt)
        try:
            return await work
        except asyncio.CancelledError:
            if self._received is None:
                raise
            raise InterruptedBySignal(self._received) from None
        finally:
            self._unhandle()

    @contextmanager
    def passed_to(self, receiver: Callable[[signal.Signals], None]) -> Iterator[None]:
        """Give signals to somebody else for the time of a block."""
        self._handle(receiver, PASSED_ON)
        try:
            yield
        finally:
            self._handle(self._interrupt)
            self._unhandle(set(PASSED_ON) - set(SIGNALS))

    def _interrupt(self, number: signal.Signals) -> None:
        self._received = number
        self._unhandle()
        if self._task is not None:
            self._task.cancel()

    def _handle(self, receiver: Callable[[signal.Signals], None], numbers: Iterable[signal.Signals] = SIGNALS) -> None:
        for number in numbers:
            self._loop.add_signal_handler(number, receiver, number)

    def _unhandle(self, numbers: Iterable[signal.Signals] = SIGNALS) -> None:
        for number in numbers:
            self._loop.remove_signal_handler(number)


def run(work: Callable[[Interrupts], Coroutine[Any, Any, T]]) -> T:
    """Run `work` in an event loop of its own. Raises InterruptedBySignal."""
    begun = False

    async def guarded() -> T:
        nonlocal begun
        begun, interrupts = True, Interrupts()
        return await interrupts.guard(work(interrupts))

    try:
        return asyncio.run(guarded())
    except (asyncio.CancelledError, KeyboardInterrupt):
        if begun:
            raise
        raise InterruptedBySignal(signal.SIGINT) from None  # sent before anything of ours could hear it


def run_with_client(
    settings: Settings,
    work: Callable[[osdisco.Client, Interrupts], Coroutine[Any, Any, T]],
    *,
    metrics: osdisco.Metrics | None = None,
) -> T:
    """Run `work` with a client of the settings' store, which is closed at the end whatever happens."""

    async def connected(interrupts: Interrupts) -> T:
        async with osdisco.connect(settings.url, metrics=metrics) as client:
            return await work(client, interrupts)

    return run(connected)
