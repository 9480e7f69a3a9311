"""A service that this process serves: a port that listens, and the registration that leads others to it.

It listens before it is registered, and goes on until it has left: STOPPING is published, what is in flight ends, the
registration is taken away, and only then is the port closed. So neither a start nor an end costs anybody a call.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from osdisco.client import Client
from osdisco.discovery.checks import Check
from osdisco.discovery.extension import ExtensionStatus
from osdisco.discovery.leaving import Drain
from osdisco.errors import ClosedError, TimedOutError
from osdisco.mesh._own_address import reachable
from osdisco.mesh.handlers import Handlers
from osdisco.mesh.transport import Listener, Transport
from osdisco.registry.definition import ServiceDefinition
from osdisco.registry.registration import Registration
from osdisco.registry.service import ServiceRegistry


class ServiceServer:
    """Await it, or enter it with `async with`, whose end leaves as above. Get it by `ExtensionServiceMesh.serve`."""

    def __init__(
        self,
        client: Client,
        transport: Transport,
        definition: ServiceDefinition,
        handlers: Handlers,
        place: tuple[str, int],
        registered: dict[str, Any],
        closed: Callable[[ServiceServer], None],
    ) -> None:
        self._client = client
        self._transport = transport
        self._definition = definition
        self._handlers = handlers
        self._place = place
        self._registered = registered
        self._closed = closed
        self._listener: Listener | None = None
        self._registration: Registration | None = None
        self._begun = self._ended = False

    def __repr__(self) -> str:
        where = "not started" if self._registration is None else self.address
        return f"<ServiceServer of {self._definition.name!a}: {where}, {self.in_flight} in flight>"

    @property
    def registration(self) -> Registration:
        """What others find: its status, weight and metadata can be changed. Raises ClosedError before the start."""
        if self._registration is None:
            raise ClosedError(f"{self._definition.name!a} is not served yet; await it or enter it first")
        return self._registration

    @property
    def address(self) -> str:
        """`host:port` under which others reach it. Raises ClosedError before the start."""
        return self.registration.endpoint.address

    @property
    def port(self) -> int:
        """The port that is really listened on. Raises ClosedError before the start."""
        if self._listener is None:
            raise ClosedError(f"{self._definition.name!a} is not served yet; await it or enter it first")
        return self._listener.port

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of what can be called."""
        return self._handlers.methods

    @property
    def in_flight(self) -> int:
        """Requests that are under way."""
        return self._handlers.running

    @property
    def draining(self) -> bool:
        """Whether it is leaving."""
        return self._registration is not None and self._registration.draining

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> Self:
        if self._begun:
            raise ClosedError("a service is served once; ask the mesh for a new one")
        self._begun = True
        host, port = self._place
        try:
            self._listener = await self._transport.listen(self._handlers, host, port)
            await self._register(host)
            if self._ended:
                raise ClosedError(f"{self._definition.name!a} was closed while it was starting")
        except BaseException:  # else it would stay registered, and nobody listen
            await self.aclose(now=True)
            raise
        return self

    async def _register(self, host: str) -> None:
        assert self._listener is not None
        definition = self._definition
        if definition.address is None:
            address = await reachable(host, self._listener.port, self._client.url)
            definition = definition.changed(address=address)
        registration = ServiceRegistry(self._client).register(definition, **self._registered)
        self._handlers.leave_by(registration._leaving)
        self._registration = await registration
        if registration.registered:
            await self._seen(registration)

    async def _seen(self, registration: Registration) -> None:
        """Wait until this process's own view shows it, so that whoever calls after this finds it."""
        roster = registration._registrar._roster
        with suppress(TimedOutError):
            id_ = registration.endpoint.extension_id
            await roster._wait(lambda: id_ in roster.table, self._client.options.timeout)

    async def aclose(self, *, now: bool = False) -> None:
        """Leave, and close the port. A second call waits for the first. With `now` nothing in flight is waited for."""
        self._begun = self._ended = True
        try:
            if self._registration is not None:
                await self._registration.deregister(now=now)
        finally:
            if self._listener is not None:
                await self._listener.aclose()
            self._closed(self)


def options(status: ExtensionStatus, checks: Iterable[Check], drain: Drain | None) -> dict[str, Any]:
    """Return what a registration is made with besides its definition."""
    return {"status": status, "checks": tuple(checks), "drain": drain}
