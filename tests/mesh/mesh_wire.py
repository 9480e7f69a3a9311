"""A network that carries calls between simulated processes, with what goes wrong on it; it keeps who sent what, when.

Handlers run in the simulated process that listens: when that is paused they wait, when it is killed connections end.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from attrs import define, field, frozen

from osdisco.errors import CallInterruptedError, EndpointUnreachableError, RemoteError
from osdisco.mesh import MeshRequest, MeshResponse
from osdisco.mesh.transport import Answer
from osdisco.registry import ServiceEndpoint
from osdisco.testing import SimulatedProcess, Simulation

CLOCKS = 1.12
"""By how much the clocks of two processes may differ: each is up to 5 % off."""

LATENCY_MAX = 0.004
WORK = 0.01
"""Seconds that a handler takes at an endpoint that is well."""


@define(eq=False)
class Site:
    """Who listens at an address.

    Args:
        slow: how many times as long as usual its handlers take.
        fails, loses: the share of calls that fail in the handler, and whose answers are lost with the connection.
        refuses: whether there is no connection. silent: whether what is sent is never heard of again.
    """

    address: str
    process: SimulatedProcess
    answer: Answer | None
    slow: float = 1.0
    fails: float = 0.0
    loses: float = 0.0
    refuses: bool = False
    silent: bool = False
    waiting: set[asyncio.Future[MeshResponse]] = field(factory=set)

    def heal(self) -> None:
        self.slow, self.fails, self.loses = 1.0, 0.0, 0.0
        self.refuses = self.silent = False

    def end(self) -> None:
        """End all connections: nobody listens any more."""
        self.answer = None
        for reply in self.waiting:
            if not reply.done():
                reply.set_exception(CallInterruptedError("the connection ended before any answer", sent=True))


@frozen
class Sent:
    """One attempt, when it was sent: `at` in the simulation's time, `call` as the caller numbered it."""

    at: float
    by: str
    to: str
    call: str
    attempt: int


class Wire:
    """All sites by address, what was `sent`, and how often a handler `ran` for a call."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.sites: dict[str, Site] = {}
        self.sent: list[Sent] = []
        self.ran: Counter[str] = Counter()
        self.working: dict[asyncio.Task[MeshResponse], tuple[SimulatedProcess, Site]] = {}
        self._chance = simulation.random

    def now(self) -> float:
        return self.simulation.loop.elapsed()

    def of(self, process: SimulatedProcess) -> list[Site]:
        return [site for site in self.sites.values() if site.process is process]

    def lose(self, dead: SimulatedProcess) -> None:
        """End all connections of a process that was killed."""
        for site in self.of(dead):
            site.end()
        for work, (by, _) in list(self.working.items()):
            if by is dead:
                self.simulation.later(LATENCY_MAX, work.cancel)

    def running(self) -> list[str]:
        """Where handlers run, of processes that live."""
        return [site.address for work, (_, site) in self.working.items() if site.process.alive and not work.done()]

    def heal(self) -> None:
        for site in self.sites.values():
            site.heal()

    async def travel(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.0005, LATENCY_MAX))

    def note(self, by: SimulatedProcess, to: str, request: MeshRequest, timeout: float) -> None:
        """Keep an attempt. It may not have more time than its call has left, unless somebody was paused on its way."""
        call, began = request.metadata["call"], float(request.metadata["began"])
        self.sent.append(Sent(self.now(), by.name, to, call, request.attempt))
        left = float(request.metadata["until"]) - self.now()
        if timeout > left * CLOCKS + 10 * LATENCY_MAX:
            root = next(one for one in self.simulation.processes if one.name == call.rpartition("-")[0])
            paused = by.disturbed_since(began) or root.disturbed_since(began)
            assert paused, f"{timeout} s for an attempt of {left} s that are left"

    async def exchange(self, by: SimulatedProcess, site: Site, request: MeshRequest) -> MeshResponse:
        """Let it be worked on where it came to, and return the answer, if that is heard of."""
        assert site.answer is not None
        reply: asyncio.Future[MeshResponse] = asyncio.get_running_loop().create_future()
        if site.silent:
            return await reply
        work = site.process.ask(asyncio.get_running_loop().create_task, site.answer(request))  # type: ignore[arg-type, var-annotated]
        self.working[work] = by, site
        work.add_done_callback(lambda done: self._answered(site, reply, done))
        site.waiting.add(reply)
        try:
            return await reply
        finally:
            site.waiting.discard(reply)
            if not work.done():  # who serves sees the end of the connection a little later
                self.simulation.later(LATENCY_MAX, work.cancel)

    def _answered(self, site: Site, reply: asyncio.Future[MeshResponse], work: asyncio.Task[MeshResponse]) -> None:
        del self.working[work]
        if reply.done():
            return
        if work.cancelled() or self._chance.random() < site.loses:
            reply.set_exception(CallInterruptedError("the connection ended before any answer", sent=True))
        else:
            reply.set_result(work.result())


class WireTransport:
    """A process's end of the wire."""

    def __init__(self, wire: Wire, process: SimulatedProcess) -> None:
        self._wire = wire
        self._process = process

    async def send(self, endpoint: ServiceEndpoint, request: MeshRequest, timeout: float) -> MeshResponse:
        wire = self._wire
        wire.note(self._process, endpoint.address, request, timeout)
        await wire.travel()
        site = wire.sites.get(endpoint.address)
        if site is None or site.answer is None or site.refuses:
            raise EndpointUnreachableError("cannot connect: Connection refused")
        response = await wire.exchange(self._process, site, request)
        await wire.travel()
        return response

    async def listen(self, answer: Answer, host: str, port: int) -> WireListener:
        site = self._wire.sites[f"{host}:{port}"] = Site(f"{host}:{port}", self._process, answer)
        return WireListener(site, port)

    async def aclose(self) -> None:
        """Nothing is kept open."""


class WireListener:
    def __init__(self, site: Site, port: int) -> None:
        self._site = site
        self.port = port

    async def aclose(self) -> None:
        self._site.end()


async def work_at(wire: Wire, address: str, call: str, *, once: bool) -> str:
    """Do what a handler does: note that it ran, take its time, and fail if it is to."""
    wire.ran[call] += 1
    if once and wire.ran[call] > 1:
        wire.simulation.fail(f"the call {call} was done twice, and is not idempotent")
    site = wire.sites[address]
    await asyncio.sleep(WORK * site.slow)
    if wire.simulation.random.random() < site.fails:
        raise RemoteError("Broken", "as it was told to", 500)
    return address
