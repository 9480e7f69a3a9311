"""One process of a simulation, and what can be done to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from osdisco.client import Client
from osdisco.runtime import Runtime
from osdisco.testing._steps import HOST, Host
from osdisco.testing._weather import Weather
from osdisco.testing.clock import VirtualClock
from osdisco.testing.faulty import FaultyBackend, NetworkFaults
from osdisco.url import ClientOptions, Duration
from osdisco_memory import MemoryBackend

if TYPE_CHECKING:
    from osdisco.testing.simulation import Simulation

P = ParamSpec("P")
T = TypeVar("T")


class SimulatedProcess(Host):
    """A process: a client of its own, a clock of its own, and tasks that all stop when it is paused or killed.

    Attributes:
        client: on a `FaultyBackend` of its own over the simulation's store.
        faults: the switches of that backend.
        clock: its time. `clock.jump` and `clock.drift` change it.
        alive: False once it was killed.
        tasks: what was started in it.
    """

    def __init__(
        self, simulation: Simulation, name: str, *, ttl: float, timeout: float, weather: Weather | None
    ) -> None:
        super().__init__(name, simulation.loop, VirtualClock(simulation.loop))
        self.alive = True
        self.tasks: Final[list[asyncio.Task[Any]]] = []
        self._simulation = simulation
        self._disturbed = -inf
        self._resume_at = 0.0
        self._context = copy_context()
        self._context.run(HOST.set, self)
        chance = simulation.random
        inner = MemoryBackend(simulation.store, Runtime(simulation.clock, random.Random(chance.random()), name))  # nosec B311 # noqa: S311
        self.backend: Final = FaultyBackend(inner, weather=weather, wire=simulation.wire, outside=simulation.outside)
        runtime = Runtime(self.clock, random.Random(chance.random()), name)  # nosec B311 # noqa: S311 - the seed's
        options = ClientOptions(ttl=Duration(ttl), timeout=Duration(timeout))
        self.client: Final = Client(self.backend, runtime, options=options, namespace=simulation.namespace)

    def __repr__(self) -> str:
        return f"<process {self.name}{'' if self.alive else ' (killed)'}>"

    @property
    def faults(self) -> NetworkFaults:
        """The switches of its way to the store."""
        return self.backend.faults

    def start(self, work: Coroutine[Any, Any, T], name: str = "") -> asyncio.Task[T]:
        """Run a coroutine in the process. What it raises fails the run, unless it is an OsdiscoError."""
        task = self._run(work, name)
        self.tasks.append(task)
        task.add_done_callback(self._ended)
        return task

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the process and return what it returns. It waits while the process is paused."""
        task = self._run(work)
        try:
            return await task
        finally:
            task.cancel()

    def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the process, paused or not: what it schedules belongs to the process."""
        return self._context.copy().run(function, *args, **kwargs)

    def pause(self, seconds: float) -> None:
        """Let nothing of it run for so long, as by SIGSTOP. Its clock goes on, and its timers are late."""
        self._halt()
        self._resume_at = max(self._resume_at, self._loop.elapsed() + seconds)
        self._simulation.later(seconds, self._resume)

    def suspend(self, seconds: float) -> None:
        """Suspend its machine: as `pause`, but its timers do not see that time passes, as CLOCK_MONOTONIC does not."""
        self.sleep_through(seconds * self.clock.rate)
        self.pause(seconds)

    def jump(self, seconds: float) -> None:
        """Put its clock forward. No decision may rest on the wall clock alone, so that jumps with it, either way."""
        self._disturb()
        self.clock.jump(seconds)

    def kill(self) -> None:
        """End it as by SIGKILL: nothing of it runs again. What it has sent still arrives."""
        self.alive = False
        self.halted = True

    def disturbed_since(self, moment: float) -> bool:
        """Return whether it was paused, suspended, killed or its clock jumped since a moment of the loop's time."""
        return self.halted or self._disturbed >= moment

    def bury(self) -> None:
        """Let what is left of it end: nothing of that reaches the store any more."""
        self.backend.sever()
        self.release()

    def _run(self, work: Coroutine[Any, Any, T], name: str = "") -> asyncio.Task[T]:
        name = f"{self.name}: {name or getattr(work, '__qualname__', work)}"
        return self._context.copy().run(self._loop.create_task, work, name=name)

    def _halt(self) -> None:
        self.halted = True
        self._disturb()

    def _disturb(self) -> None:
        self._disturbed = self._loop.elapsed()

    def _resume(self) -> None:
        if self.alive and self.halted and self._loop.elapsed() >= self._resume_at:
            self._disturb()
            self.release()

    def wake(self) -> None:
        """Resume it now, if it is paused."""
        self._resume_at = 0.0
        self._resume()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._simulation.ended_badly(task.get_name(), exc)
