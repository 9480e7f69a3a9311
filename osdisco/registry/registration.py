"""An instance of a service that this process registers, and keeps registered."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from attrs import evolve

from osdisco._keeper import Keeper
from osdisco._records import encode_readable
from osdisco._signal import Signal
from osdisco.client import Client
from osdisco.discovery.checks import Check
from osdisco.discovery.extension import ExtensionStatus
from osdisco.discovery.health import Health, Monitor, worse
from osdisco.discovery.leaving import Drain, InFlight, Leaving
from osdisco.errors import ClosedError, DiscoveryError, RecordError, TimedOutError
from osdisco.registry._fields import refuse
from osdisco.registry.definition import ServiceDefinition, ServiceEndpoint
from osdisco.registry.record import PREFIX, Record
from osdisco.registry.roster import Roster, Rosters, place_of


class _Place(Keeper[ServiceEndpoint]):
    """What is kept in the store."""

    def __init__(self, client: Client, roster: Roster, desired: ServiceEndpoint, changed: Signal) -> None:
        super().__init__(client, roster, changed, PREFIX, roster.service, desired.extension_id)
        self.desired = desired
        self._roster = roster
        self._ending = False

    def look(self) -> None:
        """Find out whether another process has the id by now."""
        self.yield_to(self._roster.table.rival(self.desired.extension_id, self.ours))
        self._changed.fire()

    def desire(self, endpoint: ServiceEndpoint) -> None:
        """Let it be what stands in the store, unless it is on its way out."""
        if not self._ending:
            self.desired = endpoint
            self._changed.fire()

    def announce_end(self) -> None:
        """Let it be STOPPING from now on, whatever others want it to be."""
        self.desire(evolve(self.desired, status=ExtensionStatus.STOPPING))
        self._ending = True

    async def leave(self) -> None:
        """Say STOPPING before going, so that nobody takes the end for a crash. Waits as long as one operation may."""
        self.announce_end()
        await super().leave()

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
        rosters: Rosters,
        definition: ServiceDefinition,
        status: ExtensionStatus,
        checks: Iterable[Check],
        drain: Drain | None,
    ) -> None:
        client = rosters.client
        _check(client, definition.name, definition.endpoint(status))
        self._rosters = rosters
        self._client = client
        self._definition = definition
        self._said = status
        self._monitor = Monitor(checks, client.runtime, client._connection.supervisor, self._assess)
        self._drain = drain
        self._changed = Signal()
        self._roster: Roster | None = None
        self._place: _Place | None = None
        self._leaving: Leaving | None = None
        self._left = False

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
        return self._settled() if self._place is None else self._place.desired

    @property
    def status(self) -> ExtensionStatus:
        """The status that is to stand in the store: the worse of what was said and what the checks say."""
        return self.endpoint.status

    @property
    def health(self) -> Health:
        """The checks by name, each with its state, its reason and since when; and their sum."""
        return self._monitor.health

    def _settled(self) -> ServiceEndpoint:
        return self._definition.endpoint(worse(self._said, self.health.status))

    def _assess(self, _: ExtensionStatus) -> None:
        if self._place is not None:
            self._place.desire(self._settled())

    @property
    def registered(self) -> bool:
        """Whether the latest record stands in the store, as far as this process can know. No I/O."""
        return self._place is not None and not self._left and self._place.registered

    @property
    def superseded(self) -> bool:
        """Whether another process registered this id later; this one is then out for good."""
        return self._place is not None and self._place.superseded

    @property
    def draining(self) -> bool:
        """Whether `deregister` has begun: take on no new work."""
        return self._leaving is not None and self._leaving.begun

    def in_flight(self) -> InFlight:
        """Return `async with`: work that `deregister` waits for. Raises ClosedError before it is registered."""
        if self._leaving is None:
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
        if self._place is not None:
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
        self._roster = self._rosters.roster(self._definition.name)
        self._place = _Place(self._client, self._roster, self._settled(), self._changed)
        self._roster.places.setdefault(place_of(self.endpoint.extension_id), []).append(self._place.look)
        clock, timeout = self._client.runtime.clock, self._client.options.timeout
        self._leaving = Leaving(self._place, self._changed, clock, timeout=timeout, drain=self._drain)
        self._place.start()
        self._monitor.start()

    async def wait_registered(self, timeout: float | None = None) -> None:
        """Wait until the latest record stands in the store.

        Raises:
            TimedOutError: after `timeout` seconds, saying why.
            DiscoveryError: another process registered this id later.
            ClosedError: it was deregistered, or has not begun.
        """

        def done() -> bool:
            if self._place is None or self._left:
                raise ClosedError(f"{self!r}: it was deregistered, or has not begun")
            self._client._connection.check_open()
            self._check_not_superseded()
            return self.registered

        try:
            await self._changed.wait_for(done, timeout)
        except TimeoutError:
            assert self._place is not None
            why = self._place.error or "the store is slow"
            raise TimedOutError(f"not registered within {timeout} s: {why}") from None

    def _check_not_superseded(self) -> None:
        if self.superseded:
            raise DiscoveryError(
                f"{self.endpoint.extension_id!a} of the service {self._definition.name!a} was registered anew by "
                "another process; this one is out"
            )

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
        await self._desire(self._definition.changed(**changes), self._said)

    async def _desire(self, definition: ServiceDefinition, status: ExtensionStatus) -> None:
        if self._place is None or self._left:
            raise ClosedError(f"{self!r}: it was deregistered, or has not begun")
        self._check_not_superseded()
        if self.status is ExtensionStatus.STOPPING:
            raise DiscoveryError(f"{self!r} is STOPPING, which is final")
        _check(self._client, definition.name, definition.endpoint(status))
        self._definition, self._said = definition, status
        self._place.desire(self._settled())
        if self._place.session is not None:  # else nobody could say for how long it is not registered
            with suppress(TimedOutError):
                await self.wait_registered(self._client.options.timeout)

    async def deregister(self, *, now: bool = False) -> None:
        """Publish STOPPING, wait as `drain` says, and remove it. A second call waits for the first.

        With `now` neither waits for work that is in flight.
        """
        if self._leaving is None or self._place is None or self._roster is None:
            return
        if now:
            self._leaving.hurry()
        if self._leaving.begun:
            await self._changed.wait_for(lambda: self._left)
            return
        try:
            await self._leaving.leave()
        finally:
            await self._end(self._roster, self._place)

    async def _end(self, roster: Roster, place: _Place) -> None:
        wakes = roster.places[(segment := place_of(place.desired.extension_id))]
        wakes.remove(place.look)
        if not wakes:
            del roster.places[segment]
        self._left = True
        self._changed.fire()
        await self._monitor.aclose()
        await self._rosters.let_go(roster)


def _check(client: Client, service: str, endpoint: ServiceEndpoint) -> None:
    """Refuse now what no key could hold and no reader would take. Raises DiscoveryError, InvalidNameError."""
    client._keys.join("x", PREFIX, service, endpoint.extension_id, "0" * 42)
    try:
        encode_readable(Record(endpoint, 2**63))
    except RecordError as exc:
        raise refuse("metadata", f"takes too much with the rest: {exc}") from exc
