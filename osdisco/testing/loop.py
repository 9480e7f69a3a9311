"""An event loop in virtual time: when nothing is ready it jumps to the next timer instead of sleeping.

A test of an hour takes milliseconds, is the same at each run, and with a seed tries another legal order of the tasks.
Nothing here reaches outside of the process: sockets, threads and subprocesses are refused.
"""

from __future__ import annotations

import asyncio
import random
from asyncio.base_events import BaseEventLoop
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

if TYPE_CHECKING:
    from osdisco.testing.clock import VirtualClock

T = TypeVar("T")

LIMIT = 2 * 86_400.0
"""Seconds of virtual time after which a run counts as hung: watches and leases keep timers going for ever."""

_OUTSIDE = """add_reader add_writer add_signal_handler connect_accepted_socket connect_read_pipe connect_write_pipe
    create_connection create_datagram_endpoint create_server create_unix_connection create_unix_server getaddrinfo
    getnameinfo run_in_executor sendfile sock_accept sock_connect sock_recv sock_recv_into sock_recvfrom sock_sendall
    sock_sendfile sock_sendto start_tls subprocess_exec subprocess_shell"""


_ASYNCIO = str(Path(asyncio.__file__).parent)


class HangError(RuntimeError):
    """What the loop ran waits for something that can never come."""


class _Future(asyncio.Future[Any]):
    """Hashes by its number: by address, sets of futures would be iterated differently in each process."""

    def __init__(self, number: int, loop: VirtualLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[Any]):
    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], loop: VirtualLoop, **options: Any) -> None:
        self._number = number
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(BaseEventLoop):
    """The loop.

    Args:
        seed: shuffles the order of task steps that are ready together. Plain callbacks keep their order, which
            asyncio promises. The same seed gives the same run, per minor version of Python.
        limit: seconds of virtual time after which the run counts as hung.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int | None = None, *, limit: float = LIMIT) -> None:
        super().__init__()
        self._now = 0.0
        self._limit = limit
        self._random = None if seed is None else random.Random(seed)  # noqa: S311 - the same order again is the point
        self._numbers = count()
        self._selector = self  # BaseEventLoop sleeps in its selector: `select` below
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._now

    def busy(self) -> bool:
        """Return whether anything besides the running step is ready now."""
        return bool(self._ready)

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future that hashes the same in every run."""
        return _Future(next(self._numbers), self)

    def select(self, timeout: float | None) -> list[Any]:
        """Jump to the next timer; called by the loop itself, when nothing is ready.

        Raises:
            HangError: there is no timer, or it lies beyond the limit.
        """
        if timeout is None:
            raise HangError(f"nothing is ready and nothing is scheduled{self._waiting()}")
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0].when())
        if self._now > self._limit:
            said = f"still running after {self._limit:.0f} s of virtual time{self._waiting()}"
            self._limit += self._now  # what is cancelled now needs time to end
            raise HangError(said)
        return []

    def _make_task(self, _: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return _Task(next(self._numbers), coro, self, **options)

    def _run_once(self) -> None:
        if self._random is not None and len(self._ready) > 1:
            self._shuffle(self._random)
        super()._run_once()  # type: ignore[misc]

    def _shuffle(self, chance: random.Random) -> None:
        places = [n for n, handle in enumerate(self._ready) if _is_step(handle)]
        steps = [self._ready[n] for n in places]
        chance.shuffle(steps)
        for n, step in zip(places, steps, strict=True):
            self._ready[n] = step

    def _waiting(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=hash)
        return "".join(f"\n  {task.get_name()} waits in {_place(task)}" for task in tasks)

    def _process_events(self, _: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        """Nothing to wake: this loop never sleeps."""


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refused(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(
            f"loop.{name}() has no place in virtual time: nothing outside of the process keeps to it; "
            "use the memory store here, or run this test on a real event loop"
        )

    return refused


for _name in _OUTSIDE.split():
    setattr(VirtualLoop, _name, _refuse(_name))


def _is_step(handle: asyncio.Handle) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)  # type: ignore[attr-defined]


def _place(task: asyncio.Task[Any]) -> str:
    """Return the innermost line that is not asyncio's own."""
    place, awaited = repr(task), cast(Any, task.get_coro())
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_ASYNCIO):
            place = f"{code.co_qualname}, {code.co_filename}:{frame.f_lineno}"
        awaited = getattr(awaited, "cr_await", None)
    return place


def run(
    main: Coroutine[Any, Any, T], *, seed: int | None = None, clock: VirtualClock | None = None, limit: float = LIMIT
) -> T:
    """Run a coroutine in virtual time and return its result.

    Args:
        main: what to run.
        seed: order of ready task steps; see `VirtualLoop`. A failure carries it as a note.
        clock: a clock that follows this loop from its start; one made inside of it does so anyway.
        limit: seconds of virtual time.

    Raises:
        AssertionError: `main` returned but left tasks behind.
        HangError: it waits for what can never come.
    """
    loop = VirtualLoop(seed, limit=limit)
    if clock is not None:
        clock.follow(loop)
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(_leaving_nothing(main))
    except BaseException as exc:
        if seed is not None:
            exc.add_note(f"in virtual time with seed={seed}")
        raise


async def _leaving_nothing(main: Coroutine[Any, Any, T]) -> T:
    result = await main
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if left:
        raise AssertionError(
            "tasks were left behind:" + "".join(f"\n  {task.get_name()} in {_place(task)}" for task in left)
        )
    return result
