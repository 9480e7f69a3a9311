"""An event loop in virtual time: when nothing is ready it jumps to the next timer instead of sleeping.

A test of an hour takes milliseconds, is the same at each run, and with a seed tries another legal order of the tasks.
Nothing here reaches outside of the process: sockets, threads and subprocesses are refused.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio.base_events import BaseEventLoop
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

from osdisco.testing._steps import HOST, Host, Step, Timer, label, task_of

if TYPE_CHECKING:
    from osdisco.testing.clock import VirtualClock

T = TypeVar("T")

LIMIT = 2 * 86_400.0
"""Seconds of virtual time after which a run counts as hung: watches and leases keep timers going for ever."""

_TICK = 1e-6
"""Seconds that any wait takes at least."""

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
        context = options.get("context")
        self.host = HOST.get() if context is None else context.get(HOST)
        if options.get("name") is None:
            options["name"] = f"task-{number}"  # asyncio counts through the whole process, over all loops
        super().__init__(coro, loop=loop, **options)

    def set_name(self, value: object) -> None:
        """Give it a name; no name, as some versions of asyncio do, is the one that it has."""
        if value is not None:
            super().set_name(value)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(BaseEventLoop):
    """The loop. Several simulated processes may run in it (`osdisco.testing.Simulation`), each by its own clock.

    Args:
        seed: shuffles the order of task steps that are ready together. Plain callbacks keep their order, which
            asyncio promises. The same seed gives the same run, per minor version of Python.
        limit: seconds of virtual time after which the run counts as hung.
        turns: turns of the loop within one moment after which the run counts as hung.

    Attributes:
        steps: how many steps of tasks and callbacks have run.
        virtual: what tells it apart; the library does here what it would do in a thread elsewhere.
    """

    virtual: Final = True
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int | None = None, *, limit: float = LIMIT, turns: int | None = None) -> None:
        super().__init__()
        self.steps = 0
        self._now = 0.0
        self._limit = limit
        self._turns = turns
        self._turn = 0
        self._digest = None if seed is None else blake2b(digest_size=8)
        self._random = None if seed is None else random.Random(seed)  # nosec B311 # noqa: S311 - the same order again is the point
        self._numbers = count()
        self._selector = self  # BaseEventLoop sleeps in its selector: `select` below
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Return the virtual seconds since the loop was made; in a simulated process, as its own clock counts them."""
        host = HOST.get()
        return self._now if host is None else host.time()

    def elapsed(self) -> float:
        """Return the virtual seconds since the loop was made, whoever asks."""
        return self._now

    def digest(self) -> str:
        """Return what stands for all steps so far: when each ran, in which process, and of what. Empty without a seed.

        Two runs of a seed with one digest did the same.
        """
        return "" if self._digest is None else self._digest.hexdigest()

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
            self._turn = 0
        if self._now > self._limit:
            said = f"still running after {self._limit:.0f} s of virtual time{self._waiting()}"
            self._limit += self._now  # what is cancelled now needs time to end
            raise HangError(said)
        return []

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule a callback. `when` is in the time of the process that it belongs to."""
        self._check_closed()  # type: ignore[attr-defined]
        timer = Timer(when, callback, args, self, context)
        self.schedule(timer)
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule a callback in `delay` seconds: who waits for ever less, as rounding left it over, must get there."""
        delay = max(delay, _TICK) if delay > 0 else delay
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def later(self, when: float, host: Host | None) -> float:
        """Return the loop's time for a moment in the time of a simulated process, or of none."""
        if host is None:
            return max(when, self._now + _TICK) if when > self._now else when
        moment = host.moment(when)  # rounding may let it be now though it is not
        return max(moment, self._now + _TICK) if when > host.time() else moment

    def schedule(self, timer: Timer) -> None:
        """Let a timer run at its time."""
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]

    def again(self, handle: asyncio.Handle) -> None:
        """Let something run that was withheld."""
        self._ready.append(handle)

    def note(self, handle: asyncio.Handle, host: Host | None) -> None:
        """Count a step that runs now."""
        self.steps += 1
        if self._digest is not None:
            self._digest.update(f"{self._now} {host.name if host else ''} {label(handle)}\n".encode())

    def _call_soon(self, callback: Callable[..., object], args: Any, context: Context | None) -> asyncio.Handle:
        step = Step(callback, args, self, context)
        self._ready.append(step)
        return step

    def _make_task(self, _: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return _Task(next(self._numbers), coro, self, **options)

    def _run_once(self) -> None:
        if self._random is not None and len(self._ready) > 1:
            self._shuffle(self._random)
        self._turn += 1
        if self._turns is not None and self._turn > self._turns:
            self._turn = 0
            raise HangError(f"it spins: {self._turns} turns and no time passed{self._waiting()}")
        super()._run_once()  # type: ignore[misc]

    def _shuffle(self, chance: random.Random) -> None:
        places = [n for n, handle in enumerate(self._ready) if task_of(handle) is not None]
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
