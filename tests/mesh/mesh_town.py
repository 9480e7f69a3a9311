"""A network in virtual time that carries calls, with what can go wrong on it; and meshes of several processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, TypeVar

from attrs import evolve, frozen
from worlds import World

from osdisco.client import Client
from osdisco.discovery import Drain
from osdisco.errors import CallInterruptedError, EndpointUnreachableError, ServiceMeshError
from osdisco.mesh.breaker import BreakerSettings, CircuitBreakerRegistry
from osdisco.mesh.mesh import ExtensionServiceMesh
from osdisco.mesh.pool import PoolSettings
from osdisco.mesh.serving import ServiceServer
from osdisco.mesh.transport import Answer, MeshRequest, MeshResponse
from osdisco.registry import ServiceDefinition, ServiceEndpoint

AT_ONCE = Drain(propagation=0, grace=0)

NOT_JUDGED = {
    "pool": PoolSettings(panic=0, outliers=None),
    "circuit_breakers": CircuitBreakerRegistry(BreakerSettings(window=10**6, minimum=10**6)),
}
"""Options of a mesh in which no endpoint is left alone for what it did."""


@frozen
class Query:
    text: str
    size: int = 10


@frozen
class Hits:
    names: tuple[str, ...]


async def search(query: Query) -> Hits:
    return Hits((query.text,) * query.size)


def echo(request: Any) -> Any:
    return request


class Place:
    """Who listens at an address, and what is wrong with it.

    Attributes:
        trouble: instead of an answer: an error, an answer of its own, or a coroutine function.
        delay: seconds that a request takes to come.
    """

    def __init__(self, answer: Answer | None) -> None:
        self.answer = answer
        self.trouble: ServiceMeshError | MeshResponse | Callable[[MeshRequest], Awaitable[MeshResponse]] | None = None
        self.delay = 0.0
        self.running: set[asyncio.Task[MeshResponse]] = set()

    async def run(self, answer: Callable[[MeshRequest], Awaitable[MeshResponse]], request: MeshRequest) -> MeshResponse:
        """Answer; when that is ended from here, the connection ends."""
        task = asyncio.ensure_future(answer(request))
        self.running.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self.running.discard(task)
            task.cancel()
            await asyncio.wait([task])
        if task.cancelled():
            raise CallInterruptedError(*INTERRUPTED.args, sent=True)
        return task.result()


INTERRUPTED = CallInterruptedError("the connection ended before any answer", sent=True)


class Network:
    """Places by address, and everything that was sent, in its order."""

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.sent: list[tuple[str, MeshRequest]] = []
        self._ports = iter(range(20_000, 60_000))

    def counts(self) -> Mapping[str, int]:
        """How many requests were sent to each address."""
        return Counter(address for address, _ in self.sent)

    def fail(self, address: str, trouble: Any) -> None:
        """Let requests to an address come to something else than an answer, from now on."""
        self.places.setdefault(address, Place(None)).trouble = trouble

    def heal(self, address: str) -> None:
        self.places[address].trouble = None

    def port(self) -> int:
        return next(self._ports)

    async def carry(self, address: str, request: MeshRequest) -> MeshResponse:
        self.sent.append((address, request))
        place = self.places.get(address)
        await asyncio.sleep(place.delay if place else 0)
        if place is None or (place.answer is None and place.trouble is None):
            raise EndpointUnreachableError("cannot connect: Connection refused")
        if isinstance(place.trouble, MeshResponse):
            return evolve(place.trouble)
        if isinstance(place.trouble, ServiceMeshError):
            raise type(place.trouble)(*place.trouble.args, sent=place.trouble.sent)
        answer = place.trouble or place.answer
        assert answer is not None
        return await place.run(answer, request)


class FakeListener:
    def __init__(self, network: Network, address: str, port: int) -> None:
        self._network = network
        self._address = address
        self.port = port

    async def aclose(self) -> None:
        if (place := self._network.places.get(self._address)) is not None:
            place.answer = None
            for task in list(place.running):
                task.cancel()


class FakeTransport:
    """A process's end of the network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.closed = False

    async def send(self, endpoint: ServiceEndpoint, request: MeshRequest, timeout: float) -> MeshResponse:
        # in a task with a context of its own, as that of another process is
        work = self._network.carry(endpoint.address, evolve(request, timeout=timeout))
        task = asyncio.get_running_loop().create_task(work, context=Context())
        try:
            return await asyncio.shield(task)
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def listen(self, answer: Answer, host: str, port: int) -> FakeListener:
        port = port or self._network.port()
        place = self._network.places.setdefault(f"{host}:{port}", Place(None))
        place.answer = answer
        return FakeListener(self._network, f"{host}:{port}", port)

    async def aclose(self) -> None:
        self.closed = True


class Town:
    """Processes with a mesh each, on one store and one network."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.network = Network()
        self.meshes: list[ExtensionServiceMesh] = []
        self._hosts = iter(range(1, 250))

    def mesh(self, client: Client | None = None, **options: Any) -> ExtensionServiceMesh:
        mesh = ExtensionServiceMesh(client or self.world.process(), transport=FakeTransport(self.network), **options)
        self.meshes.append(mesh)
        return mesh

    async def serve(
        self,
        handlers: Mapping[str, Any],
        service: str = "geo",
        mesh: ExtensionServiceMesh | None = None,
        **options: Any,
    ) -> ServiceServer:
        """Serve from a process of its own, at a host of its own."""
        definition = ServiceDefinition(service, **{"version": "2.1.0", **options.pop("definition", {})})
        options = {"host": f"10.0.0.{next(self._hosts)}", "drain": AT_ONCE, **options}
        return await (mesh or self.mesh()).serve(definition, handlers, **options)

    async def aclose(self) -> None:
        for mesh in reversed(self.meshes):
            await mesh.aclose()


T = TypeVar("T", bound=Town)


@asynccontextmanager
async def town(world: World, kind: type[T] = Town) -> AsyncGenerator[T, None]:  # type: ignore[assignment]
    """Give a town; its meshes are closed at the end."""
    town = kind(world)
    yield town
    await town.aclose()


async def hang(_: MeshRequest) -> MeshResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError
