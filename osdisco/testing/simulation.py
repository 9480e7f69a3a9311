"""Simulation: several processes on one store, in virtual time, with faults, all of it decided by a seed.

    @scenario(often={"entered": 5})
    async def one_at_a_time(simulation: Simulation) -> None:
        async def work(process: SimulatedProcess) -> None:
            ...
        for name in "abc":
            process = simulation.process(name)
            process.start(work(process))
        await simulation.trouble(10)
        ...

`run_seed(scenario, seed)` runs it once; the same seed gives the same digest in any process, on one minor of Python.
The fixture `osdisco_simulate` runs many seeds in a test, `python -m osdisco.testing.simulate FILE:NAME` does outside.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import random
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from osdisco._tasks import Supervisor
from osdisco.backend import Condition, Op, Put
from osdisco.errors import OsdiscoError
from osdisco.testing._simulated import SimulatedProcess
from osdisco.testing._trouble import DRIFT, Restart, Trouble, Victims
from osdisco.testing._weather import Weather
from osdisco.testing.clock import VirtualClock
from osdisco.testing.loop import VirtualLoop
from osdisco_memory import MemoryStore

__all__ = ["Outcome", "Scenario", "SimulatedProcess", "Simulation", "outcome_of", "run_seed", "scenario"]

LIMIT: Final = 10_000.0
"""Seconds of virtual time after which a run counts as hung."""

TURNS: Final = 100_000
"""Turns of the loop without any time passing after which a run counts as hung."""


class _Recording(MemoryStore):
    """Keeps all values that were written."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock=clock)
        self.written: Final[dict[str, list[bytes]]] = {}

    def commit(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
        revisions = super().commit(ops, expect)
        for op in ops:
            if isinstance(op, Put):
                self.written.setdefault(op.key, []).append(op.value)
        return revisions


class Simulation:
    """One run of a scenario.

    Attributes:
        seed: decides everything.
        random: the seed's, for the choices of the scenario.
        store: the one store; `store.faults` are its own switches, and `store.scan` looks past all faults.
        clock: the time of the world, and of the store.
        processes: all that were ever started; `living` those that were not killed.
        seen: counts what happened; `scenario(often=…)` says how often it must have.
        over: whether `trouble` has ended: workers take their last turn then.
    """

    def __init__(self, seed: int, *, namespace: str = "ns") -> None:
        self.seed: Final = seed
        self.namespace: Final = namespace
        self.random: Final = random.Random(seed)  # nosec B311 # noqa: S311 - the same again is the point
        self.seen: Final[Counter[str]] = Counter()
        self.over = False
        self.processes: Final[list[SimulatedProcess]] = []
        self.wire: Final = Supervisor()
        self.outside: Final = copy_context()
        self.loop: Final = _running()
        self.clock: Final = VirtualClock(self.loop)
        self.store: Final = _Recording(self.clock)
        self._ttl = 4.0
        self._weather = self.random.choice([0.0, 0.0, 0.02, 0.1, 0.3])
        self._violation: BaseException | None = None
        self._main = asyncio.current_task()
        self._closed = False
        self._vary_store()

    def _vary_store(self) -> None:
        faults = self.store.faults
        faults.conflate = self.random.random() < 0.5
        faults.noop_identical = faults.bare_put_keeps_lease = self.random.random() < 0.3
        faults.expiry_factor = self.random.choice([None, None, 1.5, 2.0])
        self.seen["late expiry"] += faults.expiry_factor is not None

    @property
    def living(self) -> list[SimulatedProcess]:
        """The processes that were not killed."""
        return [process for process in self.processes if process.alive]

    def process(self, name: str = "", *, ttl: float = 4.0, timeout: float = 2.0) -> SimulatedProcess:
        """Start a process. Its clock runs at a rate of its own, up to 5 % off, in half of the runs.

        Args:
            name: shown as the owner of locks; p0, p1 and so on if empty.
            ttl: seconds that its sessions live without renewal.
            timeout: seconds for each of its operations.
        """
        weather = None if self.over else Weather(self.random, long=self._weather)
        process = SimulatedProcess(self, name or f"p{len(self.processes)}", ttl=ttl, timeout=timeout, weather=weather)
        if self.seed % 2:
            process.clock.drift(self.random.uniform(1 - DRIFT, 1 + DRIFT))
        self.processes.append(process)
        self._ttl = max(ttl, self._ttl) if len(self.processes) > 1 else ttl
        return process

    async def trouble(
        self,
        seconds: float,
        *,
        rate: float = 4.0,
        restart: Restart | None = None,
        also: Mapping[str, Callable[[], object]] | None = None,
        victims: Victims = tuple,
        lying: bool = False,
    ) -> None:
        """Make trouble for so many seconds, then let everything be well again and set `over`.

        Args:
            seconds: of virtual time.
            rate: faults a second, on average.
            restart: called after a process was killed, with that process. None is killed without it.
            also: kinds of trouble of the scenario's own, by the names that they are counted by; a fifth of all. One
                returns False if there was nothing to do.
            victims: called for those who are struck in half of all cases, as holders of a lock are worth it.
            lying: whether the store may answer renewals as good that it did not do, as stores were seen to. A session
                then believes in a dead lease until the watch of its own key tells, so two may believe at a time.
        """
        trouble = Trouble(self, self._ttl, restart=restart, also=also or {}, victims=victims, lying=lying)
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            await asyncio.sleep(self.random.expovariate(rate))
            trouble.strike()
        self.calm()

    def calm(self) -> None:
        """End all faults, resume who is paused, and set `over`. Clocks stay as they are."""
        self.over = True
        for process in self.living:
            process.faults.clear()
            process.backend.weather = None
            process.wake()

    async def finish(self, seconds: float) -> None:
        """Wait until all that was started in living processes has ended; fails if that takes longer than `seconds`."""
        tasks = [task for process in self.living for task in process.tasks]
        waiting = (await asyncio.wait(tasks, timeout=seconds))[1] if tasks else set()
        names = ", ".join(sorted(task.get_name() for task in waiting))
        assert not waiting, f"{len(waiting)} of {len(tasks)} go on: {names}; in the store: {self.keys()}"

    def keys(self, prefix: str = "") -> list[str]:
        """Return all that is in the store under a prefix, but what sessions keep there for themselves."""
        start = f"{self.namespace}/"
        keys = [key.removeprefix(start) for key in self.store.scan(start + prefix).items]
        return [key for key in keys if not key.startswith("sess/")]

    def written(self, name: str) -> list[bytes]:
        """Return all values that a key ever got, in their order, by whomever."""
        return self.store.written.get(f"{self.namespace}/{name}", [])

    async def close(self) -> list[str]:
        """Close all clients and wait until all leases have ended; returns the keys that are left."""
        self.calm()
        self._closed = True
        await asyncio.gather(*(process.call(process.client.aclose()) for process in self.living))
        await self.wire.drain(3 * self._ttl)
        await asyncio.sleep(3 * self._ttl)
        for process in self.processes:
            await process.backend.inner.aclose()
        self._check_tasks()
        return self.keys()

    def fail(self, said: str | BaseException) -> None:
        """End the run: it has failed. The first failure counts."""
        if self._violation is None and self._main is not None:
            self._violation = AssertionError(said) if isinstance(said, str) else said
            self._main.cancel()

    def later(self, seconds: float, what: Callable[[], object]) -> None:
        """Call something in so many seconds, whatever becomes of the process that asks for it."""
        self.outside.copy().run(self.loop.call_later, seconds, what)

    def ended_badly(self, name: str, exc: BaseException) -> None:
        """Take note of a process's task that raised."""
        if self._main is None:
            return
        if isinstance(exc, OsdiscoError):
            self.seen[type(exc).__name__] += 1
        else:
            exc.add_note(f"in {name}")
            self.fail(exc)

    def _check_tasks(self) -> None:
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not _dead(task)]
        if left:
            raise AssertionError("tasks were left behind: " + ", ".join(sorted(task.get_name() for task in left)))

    async def play(self, scenario: Callable[[Simulation], Awaitable[None]]) -> None:
        """Run a scenario; raises what it or any process failed with."""
        try:
            await scenario(self)
            if not self._closed:
                await self.close()
        except asyncio.CancelledError:
            if self._violation is None:
                raise
        finally:
            self._main = None
            await self._bury()
        if self._violation is not None:
            raise self._violation

    def bury(self) -> None:
        """Let what is left in the processes end, in those that were killed, too."""
        for process in self.processes:
            process.bury()

    async def _bury(self) -> None:
        """Wait until everything has ended: the loop cannot close before."""
        self.bury()
        while left := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1)


Play = Callable[[Simulation], Awaitable[None]]


@frozen
class Scenario:
    """A coroutine function of a Simulation, with what must have been seen on average in a run to mean something."""

    play: Play
    often: Mapping[str, float] = field(factory=dict)

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.play, "__name__", "scenario")

    @property
    def address(self) -> str:
        """FILE:NAME, as `python -m osdisco.testing.simulate` takes it; relative to the working directory if below."""
        path = Path(inspect.getfile(self.play)).resolve()
        if path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        return f"{path}:{self.name}"

    def replay(self, seed: int) -> str:
        """Return the line that runs a seed again; what a function makes, only that one can run."""
        if "<locals>" in getattr(self.play, "__qualname__", ""):
            return f"run_seed({self.name}, {seed}), where {self.address.replace(':', ' makes ')}"
        return f"python -m osdisco.testing.simulate {self.address} --seed {seed}"


def scenario(*, often: Mapping[str, float] | None = None) -> Callable[[Play], Scenario]:
    """Make a Scenario of the coroutine function below. `often`: what `seen` must count on average in each seed."""
    return lambda play: Scenario(play, dict(often or {}))


@frozen
class Outcome:
    """What became of one seed. `seconds` are virtual; `error` is None when all was well."""

    seed: int
    digest: str
    steps: int
    seconds: float
    seen: Mapping[str, int]
    error: str | None = None


def run_seed(scenario: Scenario | Play, seed: int) -> None:
    """Run one seed and raise what it fails with; its notes tell the line that runs it again, and the digest."""
    run = _Run(scenario if isinstance(scenario, Scenario) else Scenario(scenario), seed)
    if run.error is not None:
        run.error.add_note(f"run it again: {run.scenario.replay(seed)}")
        run.error.add_note(f"digest {run.outcome.digest}, Python {sys.version_info.major}.{sys.version_info.minor}")
        raise run.error


def outcome_of(scenario: Scenario | Play, seed: int) -> Outcome:
    """Run one seed and return what became of it, whatever that is."""
    return _Run(scenario if isinstance(scenario, Scenario) else Scenario(scenario), seed).outcome


class _Run:
    """One seed in a loop of its own. What the library logs as an error, or leaves to the loop, fails it."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.error: BaseException | None = None
        self._simulation: Simulation | None = None
        self._loop = VirtualLoop(seed, limit=LIMIT, turns=TURNS)
        collecting = gc.isenabled()
        gc.disable()  # when it ends generators that nobody holds depends on all that the process did before
        try:
            self._run()
        finally:
            if collecting:
                gc.enable()

    def _run(self) -> None:
        try:
            with _Errors(self._failed), asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                self._loop.set_exception_handler(lambda _, context: self._failed(_told(context)))
                self._main(runner)
        except Exception as exc:  # not even what was left could be ended
            self.error = self.error or exc
        seen = self._simulation.seen if self._simulation else {}
        error = None if self.error is None else "".join(traceback.format_exception(self.error))
        self.outcome = Outcome(
            self.seed, self._loop.digest(), self._loop.steps, self._loop.elapsed(), dict(seen), error
        )

    def _main(self, runner: asyncio.Runner) -> None:
        try:
            runner.run(self._play())
        except Exception as exc:
            self.error = exc
            if self._simulation is not None:
                self._simulation.bury()

    async def _play(self) -> None:
        self._simulation = Simulation(self.seed)
        await self._simulation.play(self.scenario.play)

    def _failed(self, said: str | BaseException) -> None:
        if self._simulation is not None:
            self._simulation.fail(said)


class _Errors(logging.Handler):
    """Takes what the library logs as an error for a failure, and keeps the rest of its logs quiet."""

    def __init__(self, failed: Callable[[str | BaseException], None]) -> None:
        super().__init__(logging.ERROR)
        self._failed = failed
        self._log = logging.getLogger("osdisco")

    def emit(self, record: logging.LogRecord) -> None:
        exc = record.exc_info[1] if record.exc_info else None
        self._failed(exc or record.getMessage())

    def __enter__(self) -> None:
        self._before = self._log.level, self._log.propagate
        self._log.setLevel(logging.ERROR)
        self._log.propagate = False
        self._log.addHandler(self)

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)
        self._log.level, self._log.propagate = self._before


def _told(context: Mapping[str, Any]) -> str | BaseException:
    exc = context.get("exception")
    return exc if isinstance(exc, BaseException) else str(context.get("message"))


def _running() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise RuntimeError("a Simulation lives in a VirtualLoop: use run_seed, or the fixture osdisco_simulate")
    return loop


def _dead(task: asyncio.Task[Any]) -> bool:
    host = getattr(task, "host", None)
    return host is not None and host.halted
