"""An instance of a service that this process registers, and keeps registered."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

from osdisco._records import encode_readable
from osdisco._signal import Signal
from osdisco.client import Client
from osdisco.discovery.checks import Check
from osdisco.discovery.extension import ExtensionStatus
from osdisco.discovery.health import Health, Monitor
from osdisco.discovery.leaving import Drain, InFlight, Leaving
from osdisco.discovery.registrar import Registrar
from osdisco.errors import ClosedError, RecordError, TimedOutError
from osdisco.registry._fields import refuse
from osdisco.registry._gauges import registered
from osdisco.registry.definition import ServiceDefinition, ServiceEndpoint
from osdisco.registry.record import PREFIX, Record, roster_of


class _Registrar(Registrar[ServiceEndpoint]):
    """What is kept in the store."""

    def __init__(
        self, client: Client, service: str, changed: Signal, endpoint: ServiceEndpoint, *, checked: bool
    ) -> None:
        self._path = PREFIX, service, endpoint.extension_id
        self._keys = client._keys
        what = f"{endpoint.extension_id!a} of the service {service!a}"
        super().__init__(client, roster_of(client, service), changed, what, endpoint, *self._path, checked=checked)

    def _check(self, said: ServiceEndpoint) -> None:
        """Refuse now what no key could hold and no reader would take. Raises DiscoveryError, InvalidNameError."""
        self._keys.join("x", *self._path, "0" * 42)
        try:
            encode_readable(Record(said, 2**63))
        except RecordError as exc:
            raise refuse("metadata", f"takes too much with the rest: {exc}") from exc

    def _record(self, desired: ServiceEndpoint) -> bytes:
        return encode_readable(Record(desired, self.mark))


class Registration:
    """Await it, or enter it with `async with`, whose end deregisters. It stays registered through any outage.

    The latest state is put into the store as soon, and again as often, as it can be: after the loss of the lease, an
    outage, a deletion by an operator. When another process registers the same id later, this one withdraws, and
    `superseded` is set.
    """

    def __init__(
        self,
        client: Client,
        definition: ServiceDefinition,
        status: ExtensionStatus,
        checks: Iterable[Check],
        drain: Drain | None,
    ) -> None:
        endpoint = definition.endpoint(status)
        self._client = client
        self._definition = definition
        self._changed = Signal()
        self._monitor = Monitor(checks, client.runtime, client._connection.supervisor, self._assess)
        checked = len(self._monitor.health) > 0
        self._registrar = _Registrar(client, definition.name, self._changed, endpoint, checked=checked)
        clock, timeout = client.runtime.clock, client.options.timeout
        self._leaving = Leaving(self._registrar, self._changed, clock, timeout=timeout, drain=drain)
        self._begun = self._left = False
        self._uncount: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        how = "registered" if self.registered else "not registered"
        return f"<Registration: {self.endpoint.extension_id} of {self._definition.name}, {how}>"

    @property
    def definition(self) -> ServiceDefinition:
        """What the instance says of itself now."""
        return self._definition

    @property
    def endpoint(self) -> ServiceEndpoint:
        """What is to stand in the store."""
        return self._registrar.desired

    @property
    def status(self) -> ExtensionStatus:
        """The status that is to stand in the store: the worse of what was said and what the checks say."""
        return self.endpoint.status

    @property
    def health(self) -> Health:
        """The checks by name, each with its state, its reason and since when; and their sum."""
        return self._monitor.health

    def _assess(self, status: ExtensionStatus) -> None:
        self._registrar.assess(status)

    @property
    def registered(self) -> bool:
        """Whether the latest record stands in the store, as far as this process can know. No I/O."""
        return self._begun and not self._left and self._registrar.registered

    @property
    def superseded(self) -> bool:
        """Whether another process registered this id later; this one is then out for good."""
        return self._registrar.superseded

    @property
    def draining(self) -> bool:
        """Whether `deregister` has begun: take on no new work."""
        return self._leaving.begun

    def in_flight(self) -> InFlight:
        """Return `async with`: work that `deregister` waits for. Raises ClosedError before it is registered."""
        if not self._begun:
            raise ClosedError(f"{self!r} has not begun: await or enter it first")
        return InFlight(self._leaving)

    def __await__(self) -> Generator[Any, None, Self]:
        return self._register().__await__()

    async def __aenter__(self) -> Self:
        return await self._register()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.deregister()

    async def _register(self) -> Self:
        """Begin, and wait until it stands, as long as one operation may take. The store need not be there."""
        if self._begun:
            raise ClosedError("a registration is awaited or entered once; ask the registry for a new one")
        self._client._connection.check_open()
        self._begin()
        try:
            with suppress(TimedOutError):
                await self.wait_registered(self._client.options.timeout)
        except BaseException:
            await self.deregister(now=True)
            raise
        return self

    def _begin(self) -> None:
        registrar, metrics = self._registrar, self._client.runtime.metrics
        registrar._roster.attend(self.endpoint.extension_id, registrar.look)
        self._begun = True
        self._uncount = metrics.follow(partial(registered, self._client._keys.root.rstrip("/"), self))
        registrar.start()
        self._monitor.start()

    async def wait_registered(self, timeout: float | None = None) -> None:
        """Wait until the latest record stands in the store.

        Raises:
            TimedOutError: after `timeout` seconds, saying why.
            DiscoveryError: another process registered this id later.
            ClosedError: it was deregistered, or has not begun.
        """
        await self._registrar.wait_registered(timeout, self._check_stands)

    def _check_stands(self) -> None:
        if not self._begun or self._left:
            raise ClosedError(f"{self!r}: it was deregistered, or has not begun")

    async def set_status(self, status: ExtensionStatus) -> None:
        """Say how it is. STOPPING is final. Waits as `update` does.

        With checks the worse of both stands: HEALTHY takes back what was said, and hides no check that fails.

        Raises:
            DiscoveryError: it is STOPPING, or another process has the id by now.
        """
        await self._desire(self._definition, status)

    async def update(self, **changes: Any) -> None:
        """Change fields of the definition; `metadata` is merged. Name and id stay.

        Waits until it is published, at most as long as one operation may take; it will be in any case, as soon as the
        store can be reached.

        Raises:
            DiscoveryError: naming the field that cannot be so, or another process has the id by now.
        """
        await self._desire(self._definition.changed(**changes), self._registrar.said.status)

    async def _desire(self, definition: ServiceDefinition, status: ExtensionStatus) -> None:
        self._check_stands()
        endpoint = definition.endpoint(status)
        self._registrar.desire(endpoint)
        self._definition = definition
        await self._registrar.wait_published(self._check_stands)

    async def deregister(self, *, now: bool = False) -> None:
        """Publish STOPPING, wait as `drain` says, and remove it. A second call waits for the first.

        With `now` neither waits for work that is in flight.
        """
        if not self._begun:
            return
        if now:
            self._leaving.hurry()
        if self._leaving.begun:
            await self._changed.wait_for(lambda: self._left)
            return
        try:
            await self._leaving.leave()
        finally:
            await self._end()

    async def _end(self) -> None:
        self._left = True
        self._changed.fire()
        self._uncount()
        async with AsyncExitStack() as ending:  # the roster is let go of, whatever becomes of the checks
            ending.push_async_callback(self._registrar._roster.forgo, self.endpoint.extension_id, self._registrar.look)
            await self._monitor.aclose()
