"""Many simulated processes that call each other, and what must hold for every single call, whatever happens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from attrs import define, field
from mesh_wire import CLOCKS, Site, Wire, WireTransport, work_at

from osdisco.discovery import Drain
from osdisco.errors import RemoteError, ServiceMeshError
from osdisco.mesh import BreakerState, ExtensionServiceMesh, Pool, incoming
from osdisco.registry import Registration, ServiceDefinition
from osdisco.testing import SimulatedProcess, Simulation

DRAIN = Drain(propagation=0.5, grace=2)
IDEMPOTENT = frozenset(["find", "relay"])
LATE = 0.05
"""Seconds by which a call may come back after its time."""


@define(eq=False)
class Caller:
    """A process that calls, and what became of its calls: `None` for a result."""

    process: SimulatedProcess
    mesh: ExtensionServiceMesh
    results: list[ServiceMeshError | None] = field(factory=list)
    tasks: list[asyncio.Task[None]] = field(factory=list)

    @property
    def pool(self) -> Pool:
        return self.process.ask(lambda: self.mesh.services["geo"].pool)


class Storm:
    """Processes that serve `geo` and such as call it.

    Its methods are `find`, which is idempotent, `add`, which is not, and `relay`, which calls `find` of another one.
    """

    def __init__(self, simulation: Simulation, **options: Any) -> None:
        self.simulation = simulation
        self.wire = Wire(simulation)
        self.options = options
        self.servers: list[SimulatedProcess] = []
        self.callers: list[Caller] = []
        self.unsent: set[str] = set()
        self.registrations: list[tuple[SimulatedProcess, Registration]] = []
        self._leaving: dict[SimulatedProcess, asyncio.Event] = {}
        self._numbers = Counter[str]()

    @property
    def now(self) -> float:
        return self.simulation.loop.elapsed()

    def sites(self) -> list[Site]:
        """Who serves and lives."""
        return [site for site in self.wire.sites.values() if site.process.alive and site.answer is not None]

    # Who serves

    def serve(self, sites: int = 1) -> SimulatedProcess:
        """Start a process that serves at so many addresses."""
        process = self.simulation.process(f"server{len(self.servers)}")
        self.servers.append(process)
        self._leaving[process] = asyncio.Event()
        for number in range(sites):
            process.start(self._serve(process, f"10.1.{len(self.servers)}.{number + 1}"))
        return process

    async def _serve(self, process: SimulatedProcess, host: str) -> None:
        address = f"{host}:9700"

        async def find(request: Mapping[str, str]) -> str:
            return await work_at(self.wire, address, request["call"], once=False)

        async def add(request: Mapping[str, str]) -> str:
            return await work_at(self.wire, address, request["call"], once=True)

        async def relay(request: Mapping[str, str]) -> Any:
            served = incoming()
            assert served is not None
            await work_at(self.wire, address, request["call"], once=False)
            try:
                return await mesh.call("geo", "find", request, timeout=60, metadata=served.metadata, idempotent=True)
            except ServiceMeshError as exc:
                raise RemoteError(type(exc).__name__, str(exc), 502) from None

        async with self._mesh(process) as mesh:
            handlers = {"find": find, "add": add, "relay": relay}
            definition = ServiceDefinition("geo", "1", address)
            async with mesh.serve(definition, handlers, host=host, port=9700, drain=DRAIN) as server:
                self.registrations.append((process, server.registration))
                await self._leaving[process].wait()

    def leave(self, process: SimulatedProcess) -> None:
        """Let all that a process serves leave as it should."""
        self._leaving[process].set()

    def _mesh(self, process: SimulatedProcess) -> ExtensionServiceMesh:
        return ExtensionServiceMesh(process.client, transport=WireTransport(self.wire, process), **self.options)

    # Who calls

    def caller(self) -> Caller:
        process = self.simulation.process(f"caller{len(self.callers)}")
        caller = Caller(process, process.ask(self._mesh, process))
        self.callers.append(caller)
        return caller

    def living(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.process.alive]

    def call(self, caller: Caller, method: str = "find", timeout: float = 4.0) -> asyncio.Task[None]:
        """Begin a call."""
        self._numbers[caller.process.name] += 1
        number = f"{caller.process.name}-{self._numbers[caller.process.name]}"
        task = caller.process.start(self._call(caller, method, number, timeout), number)
        caller.tasks.append(task)
        return task

    async def _call(self, caller: Caller, method: str, number: str, timeout: float) -> None:
        process, began, at = caller.process, caller.process.clock.now(), self.now
        metadata = {"call": number, "began": str(at), "until": str(at + timeout * CLOCKS)}
        error: ServiceMeshError | None = None
        try:
            await caller.mesh.call(
                "geo", method, {"call": number}, timeout=timeout, metadata=metadata, idempotent=method in IDEMPOTENT
            )
        except ServiceMeshError as exc:
            error = exc
        caller.results.append(error)
        took = process.clock.now() - began
        most = timeout * CLOCKS + LATE  # timers that are under way do not see that a clock goes faster now
        assert process.disturbed_since(at) or took <= most, f"{number} took {took} s of {timeout}"
        if error is None:
            assert self.wire.ran[number], f"{number} came back, and nobody did it"
        elif not error.sent:
            self.unsent.add(number)

    async def load(self, seconds: float, rate: float, method: str = "find") -> None:
        """Let every caller call so often a second, each at times of its own."""
        end = self.now + seconds

        async def keep_calling(caller: Caller) -> None:
            while True:
                await asyncio.sleep(self.simulation.random.expovariate(rate))
                if self.now >= end:
                    return
                self.call(caller, method)

        await asyncio.gather(*(keep_calling(caller) for caller in self.living()))

    async def all_back(self, seconds: float) -> None:
        """Wait until all calls have ended."""
        tasks = [task for caller in self.living() for task in caller.tasks]
        waiting = (await asyncio.wait(tasks, timeout=seconds))[1] if tasks else ()
        assert not waiting, f"{len(waiting)} calls never end"

    # What must hold

    def check_unsent(self) -> None:
        """What a caller was told was surely not done was not done."""
        done = [number for number in self.unsent if self.wire.ran[number]]
        assert not done, f"surely not done, said the caller, and they were: {done[:5]}"

    def check_nothing_left(self) -> None:
        """Nothing is counted as under way, and no permit is lost, when all calls have ended."""
        assert not self.wire.running()
        for caller in self.living():
            assert caller.mesh.under_way == 0
            pool = caller.pool
            assert not pool._limit.full
            for state in pool.states.values():
                assert state.in_flight == 0, f"{state} of {caller.process.name}"
                breaker = state.breaker
                assert breaker is not None
                if breaker.state is BreakerState.HALF_OPEN:
                    assert breaker._free + breaker._window.calls == breaker.settings.permits

    def check_ejected(self) -> None:
        """In no pool more than 30 % are ejected together; one always may be."""
        for caller in self.living():
            states = caller.pool.states.values() if "geo" in caller.mesh.services else ()
            serving = [state for state in states if state.weight > 0]
            ejected = sum(state.ejected_until is not None for state in serving)
            assert ejected <= max(1, 0.3 * len(serving)), f"{ejected} of {len(serving)} are ejected"

    async def end(self) -> None:
        """Let all leave, and close the meshes."""
        for process in self.servers:
            self.leave(process)
        await asyncio.gather(*(caller.process.call(caller.mesh.aclose()) for caller in self.living()))
        await self.simulation.finish(60)
        self.check_unsent()
