"""Owner of background tasks: whatever runs beside its caller belongs to one Supervisor, which awaits it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from osdisco.errors import OsdiscoError

T = TypeVar("T")

Spawn = Callable[[Coroutine[Any, Any, T], str], asyncio.Task[T]]

log = logging.getLogger("osdisco")


class Supervisor:
    """Runs tasks that neither cancel each other nor whoever happened to start the first.

    (An `asyncio.TaskGroup` would do both: a failing child cancels its siblings and the task that opened the group.)
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work`; its failure is logged, and raised to whoever awaits the task."""
        task = asyncio.get_running_loop().create_task(work, name=f"osdisco: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (exc := task.exception()) is None:
            return
        if isinstance(exc, OsdiscoError):  # expected; whoever awaits it is told
            log.debug("%s: %s", task.get_name(), exc)
        else:
            log.error("%s failed", task.get_name(), exc_info=exc)

    async def drain(self, timeout: float) -> None:
        """Give what still runs `timeout` seconds to end by itself, then cancel it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._tasks:  # some end by spawning others
                    await asyncio.wait(self._tasks)
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        while self._tasks:
            await cancel(*self._tasks)


class Errand(Generic[T]):
    """Work in a task of its own, which goes on when those who wait for it are cancelled.

    As with `asyncio.shield`, but the work itself wakes them, a step of the loop sooner: every lock does that twice.
    """

    def __init__(self, work: Coroutine[Any, Any, T], spawn: Spawn[T], name: str) -> None:
        self._waiters: list[asyncio.Future[None]] = []
        self.task: Final = spawn(self._run(work), name)
        self.task.add_done_callback(self._wake)  # cancelled before its first step, it never came to `_run`

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        finally:
            self._wake()

    def _wake(self, _: object = None) -> None:
        for waiter in self._waiters:
            _let_go(waiter)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is over, or for `timeout` seconds; returns whether it is."""
        if not self.task.done():
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()
            self._waiters.append(waiter)
            alarm = None if timeout is None else loop.call_later(timeout, _let_go, waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
                if alarm is not None:
                    alarm.cancel()
        return self.task.done()


def _let_go(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended, whatever they raise. The current task is left out."""
    others = [task for task in tasks if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)
