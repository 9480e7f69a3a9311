"""Runs one test and its async fixtures in one event loop. Only the pytest plugin uses it.

Apart from the plugin, which every pytest run of whoever installed osdisco loads: asyncio is heavy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from types import CodeType
from typing import Any, Final, TypeVar

import pytest

T = TypeVar("T")

GRACE: Final = 0.25
"""Seconds (of the loop's own time) within which tasks that were told to end must have ended."""


class TestRunner:
    """The event loop of one test: its fixtures, its body and their end run in it."""

    __test__ = False

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory)
        self.loop = self._runner.get_loop()
        self.failed = False
        self._holding = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run until done. A failure is remembered, so that the leaks that it causes are not told on top of it."""
        try:
            return self._runner.run(coroutine)
        except BaseException:
            self.failed = True
            raise

    def run_body(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a test's body. Fails for tasks left behind, unless a fixture may still own them."""
        self.run(coroutine)
        if not self._holding:
            self.check_tasks()

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

    def check_tasks(self) -> None:
        """Fail with the names of the tasks that are left after `GRACE`."""
        if self.failed:
            return
        left = self.run(_tasks_left())
        if left:
            self.failed = True
            names = "\n".join(f"  {_describe(task)}" for task in left)
            pytest.fail(f"{len(left)} task(s) left behind at the end of the test:\n{names}", pytrace=False)

    def close(self) -> None:
        """Cancel what is left and close the loop."""
        self._runner.close()


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


async def _tasks_left() -> list[asyncio.Task[Any]]:
    def others() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - {asyncio.current_task()}

    if others():
        await asyncio.wait(others(), timeout=GRACE)
    return sorted((task for task in others() if not task.done()), key=lambda task: task.get_name())


def _describe(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    code: CodeType | None = getattr(coroutine, "cr_code", None)
    frames = task.get_stack(limit=1)
    place = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else code.co_filename if code else "?"
    return f"{task.get_name()}: {getattr(coroutine, '__qualname__', coroutine)} at {place}"
