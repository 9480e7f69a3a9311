"""The discovery service: keeps this process's extension in the store, and shows all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve

from osdisco._guard import checked_share, checked_window
from osdisco._signal import Signal
from osdisco.client import Client
from osdisco.discovery._changing import changed
from osdisco.discovery._gauges import gauges
from osdisco.discovery._iterating import Events
from osdisco.discovery._nearness import ClusterAware
from osdisco.discovery._prober import EXTENSIONS, Prober
from osdisco.discovery._telling import Audience, Backlog, Listener
from osdisco.discovery.checks import Check
from osdisco.discovery.events import ExtensionEvent, Single, Superseded
from osdisco.discovery.extension import ExtensionInfo, ExtensionStatus
from osdisco.discovery.extensions import Extensions
from osdisco.discovery.findings import Findings
from osdisco.discovery.health import Health, Monitor
from osdisco.discovery.leaving import Drain, InFlight, Leaving
from osdisco.discovery.listeners import MANNERS
from osdisco.discovery.probing import Probing
from osdisco.discovery.publication import Publication, Publishers
from osdisco.discovery.registrar import ExtensionRegistrar
from osdisco.discovery.registration import fold
from osdisco.errors import ClosedError, DiscoveryError, OsdiscoError, TimedOutError

if TYPE_CHECKING:
    from osdisco.cluster import ClusterStateService


class DiscoveryService(ClusterAware):
    """`async with` it. Without an extension of its own it only observes.

    The store is not needed to start: the latest record is put into it as soon, and again as often, as it can be. When
    another process registers the same id later, this one withdraws, and `superseded` is set.

    Args:
        checks: what decides how the own extension is: STARTING until all have passed, then HEALTHY, DEGRADED or
            UNHEALTHY. Without any only `set_status` changes it.
        drain: how long `stop` waits; by default not at all, or as `Drain()` says once `in_flight` was used.
        probing: how this process probes others' extensions, if it is to.
        publish: other catalogs that show the extension, too.
        cluster: what shows the search cluster; its nodes are then followed, too. It is started and stopped by itself.
        protection: the share of its recent size that the view keeps when too many extensions vanish at once, from 0
            (off) to 1; for `protection_window` seconds, two ttls when None. See `osdisco.registry`.

    Raises:
        DiscoveryError: the extension holds what cannot be registered, or there are checks and no extension.
        ConfigError: two checks of one name, something that is no check, or a share or window out of range.
    """

    def __init__(
        self,
        client: Client,
        extension: ExtensionInfo | None = None,
        *,
        checks: Iterable[Check] = (),
        drain: Drain | None = None,
        probing: Probing | None = None,
        publish: Sequence[Publication] = (),
        cluster: ClusterStateService | None = None,
        protection: float = 0.0,
        protection_window: float | None = None,
    ) -> None:
        super().__init__(cluster)
        self._client = client
        self._changed = Signal()
        share, window = checked_share(protection), checked_window(protection_window, client.options.ttl)
        self._extensions = Extensions._of(client, share, window)
        self._view = self._extensions._roster
        self._audience = Audience(client._connection.supervisor, MANNERS)
        self._monitor = Monitor(checks, client.runtime, client._connection.supervisor, self._assess)
        self._registrar: ExtensionRegistrar | None = None
        if extension is not None:
            checked = len(self.health) > 0
            self._registrar = ExtensionRegistrar(client, self._view, self._changed, extension, checked=checked)
            self._registrar.on_superseded = self._on_superseded
        elif self.health:
            raise DiscoveryError("checks are of the own extension; give an ExtensionInfo, too")
        self._looking = _Looking(self._audience)
        self._findings = Findings(client)
        self._prober: Prober[ExtensionInfo] | None = None
        if probing is not None:
            own_id = "" if extension is None else extension.id
            self._prober = Prober(client, probing, self._extensions, EXTENSIONS, self._findings, own_id)
        self._leaving = Leaving(
            self._registrar, self._changed, client.runtime.clock, timeout=client.options.timeout, drain=drain
        )
        self._publishers = Publishers(client._connection, publish, self._registrar, self._changed)
        self._started = self._stopped = self._closed = False
        self._unfollow: Callable[[], None] = lambda: None

    @property
    def _own(self) -> ExtensionRegistrar:
        if self._registrar is None:
            raise DiscoveryError("this DiscoveryService only observes; give it an ExtensionInfo to register")
        return self._registrar

    def __repr__(self) -> str:
        return f"<DiscoveryService: {self._extensions!r}>"

    @property
    def extension(self) -> ExtensionInfo:
        """This process's own extension, as it should stand in the store. DiscoveryError when it only observes."""
        return self._own.desired

    @property
    def extensions(self) -> Extensions:
        """The live local view, by id."""
        return self._extensions

    @property
    def registered(self) -> bool:
        """Whether the latest record stands in the store, as far as this process can know. No I/O."""
        return self._registrar is not None and self._registrar.registered

    @property
    def superseded(self) -> bool:
        """Whether another process registered this id later; this one is then out for good."""
        return self._registrar is not None and self._registrar.superseded

    @property
    def health(self) -> Health:
        """The checks of the own extension by name, each with its state, its reason and since when; and their sum."""
        return self._monitor.health

    def _assess(self, status: ExtensionStatus) -> None:
        self._own.assess(status)

    async def findings(self) -> Findings:
        """Return the live view of what those who probe others' extensions found. It ends with this service.

        Raises:
            TimedOutError: the store was not seen within `timeout`. ClosedError: not started, or stopped.
        """
        if not self._started or self._stopped:
            raise ClosedError("findings are shown between start and stop")
        await self._findings._wait_known(self._client.options.timeout)
        return self._findings

    @property
    def draining(self) -> bool:
        """Whether `stop` has begun: take on no more work than what still comes, and no work of long life."""
        return self._leaving.begun

    @property
    def leaving(self) -> Leaving:
        """How far `stop` has come, and how much work is in flight."""
        return self._leaving

    def in_flight(self) -> InFlight:
        """Return `async with`: work that `stop` waits for. It is counted also after `stop` has begun."""
        return InFlight(self._leaving)

    async def start(self) -> Self:
        """Begin to observe and to register; does not wait for the store.

        Raises:
            ClosedError: it was stopped, or the client is closed.
        """
        if self._stopped:
            raise ClosedError("a DiscoveryService is started once; make a new one")
        if not self._started:
            try:
                self._client._connection.check_open()
            except ClosedError:
                self._audience.close()  # who listens already would wait for ever
                raise
            self._begin()
            self._started = True
        return self

    def _begin(self) -> None:
        self._attend_cluster()
        if self._audience.needed:
            self._extensions._hear(self._looking)
        if self._prober is not None:
            self._extensions._hear(self._prober)
        self._extensions._attend(self._looking)
        self._view.attend(self._own_id, self._look)
        namespace = self._client._keys.root.rstrip("/")
        self._unfollow = self._client.runtime.metrics.follow(
            partial(gauges, namespace, self, self._registrar, self._publishers)
        )
        if self._registrar is not None:
            self._registrar.start()
        self._publishers.start()
        self._monitor.start()
        if self._prober is not None:
            self._prober.start()

    async def stop(self, *, now: bool = False) -> None:
        """Publish STOPPING, wait as `drain` says, deregister, and stop observing.

        A second call waits for the first. With `now` neither waits for work that is in flight.
        """
        if not self._started:
            return
        if now:
            self._leaving.hurry()
        if self._stopped:
            await self._changed.wait_for(lambda: self._closed)
            return
        self._stopped = True
        self._changed.fire()
        self._unfollow()
        async with AsyncExitStack() as ending:  # each has its end, whatever becomes of those before
            ending.callback(self._is_closed)
            ending.callback(self._forgo_cluster)
            ending.push_async_callback(self._view.forgo, self._own_id, self._look)
            ending.push_async_callback(self._extensions._forgo, self._looking)
            ending.push_async_callback(self._audience.aclose)
            ending.push_async_callback(self._findings._follower.aclose)
            if self._prober is not None:
                ending.push_async_callback(self._prober.aclose)
                ending.callback(self._extensions._unhear, self._prober)
            ending.push_async_callback(self._monitor.aclose)
            ending.push_async_callback(self._publishers.stop)
            await self._leaving.leave()

    @property
    def _own_id(self) -> str | None:
        return None if self._registrar is None else self._registrar.desired.id

    def _look(self) -> None:
        """Take a change at the own id, or of all that is known."""
        if self._registrar is not None:
            self._registrar.look()
        else:
            self._changed.fire()

    def _on_superseded(self) -> None:
        self._audience.put(Superseded(self._view.table[self._own.desired.id]))

    def _is_closed(self) -> None:
        self._closed = True
        self._changed.fire()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def wait_registered(self, timeout: float | None = None) -> None:
        """Wait until the latest record stands in the store.

        Raises:
            TimedOutError: after `timeout` seconds.
            DiscoveryError: it only observes, or another process registered the id later.
        """
        await self._own.wait_registered(timeout, self._check_not_stopped)

    async def wait_known(self, timeout: float | None = None) -> None:
        """Wait until the store was seen once. Raises TimedOutError after `timeout` seconds."""

        def known() -> bool:
            self._check_not_stopped()
            self._client._connection.check_open()
            return self._view.known

        try:
            await self._changed.wait_for(known, timeout)
        except TimeoutError:
            why = self._view.error or "the store is slow"
            raise TimedOutError(f"the store was not reached within {timeout} s: {why}") from None

    async def set_status(self, status: ExtensionStatus) -> None:
        """Say how the own extension is. STOPPING is final.

        With checks the worse of both stands: HEALTHY takes back what was said, and hides no check that fails.

        Waits until it is published, at most as long as one operation may take; it will be in any case, as soon as the
        store can be reached.
        """
        await self._desire(evolve(self._own.said, status=status))

    async def update(self, **changes: Any) -> None:
        """Change fields of the own extension; `metadata` is merged. The id stays. Waits as `set_status` does.

        Raises:
            DiscoveryError: another id, no such field, something that cannot be registered, or another process has the
                id by now.
        """
        await self._desire(changed(self._own.said, "an extension", ("id",), changes))

    async def _desire(self, extension: ExtensionInfo) -> None:
        self._own.desire(extension)
        await self._own.wait_published(self._check_not_stopped)

    async def discover_extensions(self) -> list[ExtensionInfo]:
        """Ask the store which extensions there are. Linearizable."""
        client, asked = self._client, self._client.runtime.clock.wall()
        client._connection.check_open()
        snapshot = await client._connection.scan(self._view.table.target)
        return list(fold(client._keys, snapshot, asked).values())

    def find_by_capability(self, capability: str) -> list[ExtensionInfo]:
        """Return the extensions of the local view that have a capability."""
        return self._extensions.find_by_capability(capability)

    def find(
        self,
        *,
        name: str | None = None,
        version: str | None = None,
        status: ExtensionStatus | None = None,
        capability: str | None = None,
        metadata: Mapping[str, str] | None = None,
        zone: str | None = None,
    ) -> list[ExtensionInfo]:
        """Return the extensions of the local view that are all of what is asked for; see `Extensions.find`.

        Raises:
            DiscoveryError: a version specifier or another argument that is none, and what is allowed.
        """
        return self._extensions.find(
            name=name, version=version, status=status, capability=capability, metadata=metadata, zone=zone
        )

    def events(self) -> Events:
        """Return `async with` around an iterator of ExtensionEvent and Superseded, and of events of the view.

        Those are ViewStale, ViewFresh, ViewProtecting and ViewProtectionOver. Subscribed at entry: what is there comes
        first, as extensions that appear. It ends when the service stops.
        """
        return Events(self._subscribe)

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Tell a listener (methods of DiscoveryListener, or a function of ExtensionEvent) what is there and changes.

        It runs on a task of its own, in order; when it fails this is logged. Returns a function that removes it.

        Raises:
            ConfigError: it has none of the methods and cannot be called.
            ClosedError: the service was stopped, or its client closed.
        """
        self._check_open()
        return self._subscribe(self._audience.add(listener))

    def _check_not_stopped(self) -> None:
        if self._stopped:
            raise ClosedError("this DiscoveryService was stopped")

    def _check_open(self) -> None:
        self._check_not_stopped()
        self._client._connection.check_open()

    def _subscribe(self, backlog: Backlog[ExtensionEvent]) -> Callable[[], None]:
        self._check_open()
        if not self._started:  # it is told with all the others, then
            return self._audience.follow(backlog)
        self._extensions._hear(self._looking)
        return self._audience.follow(backlog, self._extensions._present())


class _Looking:
    """What a service does with what its view tells."""

    def __init__(self, audience: Audience[ExtensionEvent]) -> None:
        self._audience = audience

    def put(self, told: Sequence[ExtensionEvent] | Single) -> None:
        """Take changes that came at once, or one event of the view."""
        self._audience.put(told)

    def end(self, error: OsdiscoError) -> None:
        """Let nobody wait for what never comes, when the client was closed. A loss of permission is bridged."""
        if isinstance(error, ClosedError):
            self._audience.close()
