"""The ways to get a handle: await it and give it back yourself, or enter it with `async with`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

from osdisco.coordination._calls import checked_timeout, within
from osdisco.coordination._handle import Handle
from osdisco.errors import CoordinationError

H = TypeVar("H", bound=Handle)


class Acquisition(Generic[H]):
    """An acquire, or a campaign, that was not begun: await it for a handle that you give back, or enter it."""

    def __init__(self, acquire: Callable[[], Awaitable[H]]) -> None:
        self._acquire = acquire
        self._begun = False
        self._handle: H | None = None

    def __await__(self) -> Generator[Any, None, H]:
        return self._begin().__await__()

    def _begin(self) -> Awaitable[H]:
        if self._begun:
            raise CoordinationError("an acquisition is awaited or entered once; call again for another")
        self._begun = True
        return self._acquire()

    async def __aenter__(self) -> H:
        self._handle = await self._begin()
        return await self._handle.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._handle is not None
        await self._handle.__aexit__(kind, exc, trace)


class Enterable(ABC, Generic[H]):
    """What is entered with `async with` as often as one likes, by many tasks at once, each time for a fresh handle."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = checked_timeout(timeout)
        self._entered: dict[asyncio.Task[Any] | None, list[H]] = {}

    @abstractmethod
    async def _acquire(self, timeout: float | None) -> H:
        """Return a handle, or raise TimedOutError after `timeout` seconds."""

    async def __aenter__(self) -> H:
        handle = await (await self._acquire(self._timeout)).__aenter__()
        self._entered.setdefault(asyncio.current_task(), []).append(handle)
        return handle

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._task_inside()
        handle = self._entered[task].pop()
        if not self._entered[task]:
            del self._entered[task]
        await handle.__aexit__(kind, exc, trace)

    def _task_inside(self) -> asyncio.Task[Any] | None:
        """Return the task that entered: ours, or one that has ended, as with fixtures of tests."""
        task = asyncio.current_task()
        if task in self._entered:
            return task
        ended = [other for other in self._entered if other is None or other.done()]
        if not ended:
            raise CoordinationError("what is left was not entered by this task")
        return ended[-1]


class Acquirable(Enterable[H]):
    """What is acquired, for a fresh handle each time. `what` says in errors which one it is."""

    def __init__(self, what: str, timeout: float | None) -> None:
        super().__init__(timeout)
        self._what = what

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._what}>"

    def acquire(self, timeout: float | None = None) -> Acquisition[H]:
        """Wait for it; await it, or enter it with `async with`.

        Raises:
            TimedOutError: not acquired within `timeout` seconds.
            ConfigError: a timeout that is not above zero.
            LostError: the session, or the place in the queue, was lost while waiting.
            UnavailableError: the store could not be reached to begin with. Later outages are waited out.
        """
        timeout = self._timeout if timeout is None else checked_timeout(timeout)
        return Acquisition(lambda: self._acquire(timeout))

    async def _acquire(self, timeout: float | None) -> H:
        if timeout is None:
            return await self._wait()
        async with within(timeout, f"{self._what} was not acquired"):
            return await self._wait()

    @abstractmethod
    async def _wait(self) -> H:
        """Wait for it, for ever."""

    @abstractmethod
    async def try_acquire(self) -> H | None:
        """Acquire it if nobody is in the way; None otherwise, without waiting and without a trace."""
