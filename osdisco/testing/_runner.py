"""Runs one test and its async fixtures in one event loop. Only the pytest plugin uses it.

Apart from the plugin, which every pytest run of whoever installed osdisco loads: asyncio is heavy.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import contextmanager
from selectors import DefaultSelector
from types import CodeType, FrameType
from typing import Any, Final, TypeVar

import pytest

from osdisco.testing.loop import VirtualLoop

T = TypeVar("T")

GRACE: Final = 0.25
"""Seconds (of the loop's own time) within which what was told to end must have ended."""


class TestRunner:
    """The event loop of one test: its fixtures, its body and their end run in it."""

    __test__ = False

    def __init__(self, *, virtual: bool, seed: int | None = None) -> None:
        self._selector = None if virtual else DefaultSelector()
        self._runner = asyncio.Runner(loop_factory=lambda: self._make_loop(seed))
        self.loop = self._runner.get_loop()
        self.failed = False
        self._holding = 0
        self._broken_off = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run until done. A failure is remembered, so that the leaks that it causes are not told on top of it."""
        if self._broken_off:
            coroutine.close()
            pytest.fail("the time for this test is over, and its event loop does not stop", pytrace=False)
        try:
            with _alarms_stop_loops():
                return self._runner.run(coroutine)
        except _AlarmError as exc:
            self.failed = self._broken_off = True
            raise exc.said from None
        except BaseException:
            self.failed = True
            raise

    def run_body(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a test's body. Fails for what it left behind, unless a fixture may still own that."""
        self.run(coroutine)
        if not self._holding:
            self.check_clean()

    def hold(self, generator: AsyncGenerator[T, None]) -> Iterator[T]:
        """Keep an async generator fixture open between two steps of this iterator.

        It lives in one task, so that a task group, a timeout or a scope may span its `yield`.
        """
        held = _Held(generator)
        value = self.run(held.open())
        self._holding += 1
        yield value
        self._holding -= 1
        self.run(held.close())

    def check_clean(self) -> None:
        """Fail with the names of the tasks and connections that are left after `GRACE`."""
        if self.failed:
            return
        left = self.run(self._left())
        if left:
            self.failed = True
            names = "\n".join(f"  {name}" for name in left)
            pytest.fail(f"{len(left)} task(s) or connection(s) left behind by the test:\n{names}", pytrace=False)

    def close(self) -> None:
        """Cancel what is left and close the loop."""
        if self._broken_off:  # to cancel means to run the loop once more, and what spins there may swallow that too
            self.loop.close()
        else:
            self._runner.close()

    def _make_loop(self, seed: int | None) -> asyncio.AbstractEventLoop:
        return VirtualLoop(seed) if self._selector is None else asyncio.SelectorEventLoop(self._selector)

    async def _left(self) -> list[str]:
        deadline = self.loop.time() + GRACE
        while True:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            left = sorted(_describe(task) for task in tasks) + self._connections()
            if not left or self.loop.time() >= deadline:
                return left
            await asyncio.sleep(GRACE / 25)

    def _connections(self) -> list[str]:
        """Return what the loop waits for on the network. Its own wake-up pipe and grpc's are no TCP."""
        watched = [key.fd for key in self._selector.get_map().values()] if self._selector else []
        return [name for number in watched if (name := _describe_socket(number))]


class _AlarmError(KeyboardInterrupt):
    """What the alarm's handler raised, in the shape that asyncio lets through: the rest ends in whichever task ran."""

    def __init__(self, said: BaseException) -> None:
        self.said = said


@contextmanager
def _alarms_stop_loops() -> Iterator[None]:
    """Let pytest-timeout end a test in which a task spins: it raises from a signal's handler, into that task."""
    handler = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    said: list[BaseException] = []

    def ring(number: int, frame: FrameType | None) -> None:
        try:
            if not said:
                handler(number, frame)
        except BaseException as exc:
            said.append(exc)
        if said:  # again and again: the task may catch whatever comes
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            raise _AlarmError(said[0])

    signal.signal(signal.SIGALRM, ring)
    try:
        yield
    finally:
        if said:
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


class _Held:
    def __init__(self, generator: AsyncGenerator[T, None]) -> None:
        self._generator = generator

    async def open(self) -> Any:
        self._leave = asyncio.Event()
        self._ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(), name=f"fixture {getattr(self._generator, '__qualname__', '')}")
        await asyncio.wait({self._task, self._ready}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            await self._task
        return self._ready.result()

    async def close(self) -> None:
        self._leave.set()
        await self._task

    async def _live(self) -> None:
        try:
            self._ready.set_result(await anext(self._generator))
        except StopAsyncIteration:
            raise RuntimeError("the fixture does not yield") from None
        await self._leave.wait()
        async for _ in self._generator:
            raise RuntimeError("the fixture yields more than once")


def _describe(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    code: CodeType | None = getattr(coroutine, "cr_code", None)
    frames = task.get_stack(limit=1)
    place = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else code.co_filename if code else "?"
    return f"{task.get_name()}: {getattr(coroutine, '__qualname__', coroutine)} at {place}"


def _describe_socket(number: int) -> str | None:
    copy = os.dup(number)
    try:
        connection = socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return None
    with connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        try:
            return f"connection {connection.getsockname()} to {connection.getpeername()}"
        except OSError:
            return f"socket at {connection.getsockname()}"
