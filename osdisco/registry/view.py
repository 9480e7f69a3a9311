"""What is there of a service, live: it survives outages of the store, and holds back what vanishes in a panic."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Final, Self

from osdisco._protection import Pairs, Traits
from osdisco._signal import Signal
from osdisco.client import Client
from osdisco.discovery._filter import Filter
from osdisco.discovery._live import LiveView
from osdisco.discovery._prober import Prober
from osdisco.discovery._roster import Roster
from osdisco.discovery._telling import Audience, Backlog, Listener
from osdisco.discovery.extension import ExtensionStatus
from osdisco.discovery.findings import Findings
from osdisco.discovery.probing import Probing
from osdisco.errors import ClosedError, OsdiscoError, TimedOutError
from osdisco.registry._gauges import gauges
from osdisco.registry._probed import PLACE, PROBED
from osdisco.registry.definition import ServiceEndpoint
from osdisco.registry.events import ServiceEvent
from osdisco.registry.listeners import MANNERS
from osdisco.registry.record import roster_of

FIT: Final = {ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED}

TRAITS: Final = Traits[ServiceEndpoint](
    id_of=lambda endpoint: endpoint.extension_id,
    place_of=lambda endpoint: endpoint.address,
    leaving=lambda endpoint: endpoint.status is ExtensionStatus.STOPPING,
    fit=lambda endpoint: endpoint.status in FIT,
)


class ServiceView(LiveView[ServiceEndpoint]):
    """A live, read-only Mapping of ids to endpoints of all statuses. Enter or await it.

    Losing the store takes nothing away: what was there last is shown, and `stale`. Of those that vanish without having
    said so, too many at once, some are shown on, and it is `protecting`.
    """

    def __init__(
        self, client: Client, service: str, share: float, window: float, probing: Probing | None = None
    ) -> None:
        roster: Roster[ServiceEndpoint] = roster_of(client, service)
        super().__init__(client, roster, TRAITS, ServiceEvent, share, window)
        self._client = client
        self._service = service
        self._endpoints: tuple[ServiceEndpoint, ...] | None = ()
        self._endpoints_of = 0  # the successions
        self._changed = Signal()
        self._ended: ClosedError | None = None
        self._audience = Audience(client._connection.supervisor, MANNERS)
        self._hearers[self._audience] = None
        self._findings = Findings(client, PLACE, service)
        self._prober: Prober[ServiceEndpoint] | None = None
        if probing is not None:
            self._prober = Prober(client, probing, self, PROBED, self._findings)
            self._hearers[self._prober] = None
        self._uncount: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        how = f"{'stale' if self.stale else 'fresh'}{', protecting' if self.protecting else ''}"
        return f"<ServiceView of {self._service}: {len(self)} endpoints, {how}>"

    @property
    def endpoints(self) -> tuple[ServiceEndpoint, ...]:
        """All endpoints, in no particular order. The same tuple until something changes, so asking often is cheap."""
        successions = self._successions
        if self._endpoints is None or self._endpoints_of != successions:
            self._endpoints, self._endpoints_of = tuple(self.values()), successions
        return self._endpoints

    @property
    def _successions(self) -> int:
        """How often a process took the place of another one, and is exactly as that was."""
        return self._roster.table.successions

    def _incarnation(self, id_: str) -> int | None:
        """Return that of the process that is shown; None when only protection shows it."""
        return self._roster.table.incarnation(id_) if self._following else None

    def find(
        self,
        *,
        version: str | None = None,
        status: ExtensionStatus | None = None,
        zone: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[ServiceEndpoint]:
        """Return the endpoints that are all of what is asked for, without I/O.

        Args:
            version: a specifier such as `>=1.2,<2`; see `osdisco.discovery.versions`.
            metadata: entries that it must have.

        Raises:
            DiscoveryError: an argument that is none, and what is allowed.
        """
        meant = Filter.of_endpoints(version=version, status=status, zone=zone, metadata=metadata)
        return list(filter(meant, self.endpoints))

    def start(self) -> None:
        """Begin without waiting for the store. Raises ClosedError when it was closed."""
        self._check_not_ended()
        if not self._following:
            self._client._connection.check_open()
            namespace = self._client._keys.root.rstrip("/")
            self._uncount = self._client.runtime.metrics.follow(partial(gauges, namespace, self._service, self))
            self._follow()
            if self._prober is not None:
                self._prober.start()

    def _check_not_ended(self) -> None:
        if self._ended is not None:
            raise ClosedError(f"{self!r} was closed; ask the registry for a new one")

    async def findings(self) -> Findings:
        """Return the live view of what those who probe endpoints of this service found. It ends with this view.

        Raises:
            TimedOutError: the store was not seen within `timeout`. ClosedError: it is not open.
        """
        if not self._following or self._ended is not None:  # while it is closed it still follows
            raise ClosedError(f"{self!r} is not open: enter, await or start it")
        await self._findings._wait_known(self._client.options.timeout)
        return self._findings

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> Self:
        """Start, and wait for the first state as long as one operation may take."""
        self.start()
        try:
            await self._roster.wait_known()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def aclose(self) -> None:
        """Stop following. What was shown stays readable, and stale. May be called twice."""
        self._end(ClosedError("the view was closed"))
        async with AsyncExitStack() as ending:  # each has its end, whatever becomes of those before
            ending.push_async_callback(self._unfollow)
            ending.push_async_callback(self._findings._follower.aclose)
            if self._prober is not None:
                ending.push_async_callback(self._prober.aclose)
            await self._audience.aclose()

    async def until(
        self, predicate: Callable[[Mapping[str, ServiceEndpoint]], object], timeout: float | None = None
    ) -> None:
        """Wait until `predicate(view)` is true; it is asked again at every change.

        Raises:
            TimedOutError: `timeout` seconds are over.
            ClosedError: the view or its client was closed.
        """

        def done() -> object:
            if self._ended is not None or not self._following:
                raise ClosedError(str(self._ended or f"{self!r} is not open: enter, await or start it"))
            return predicate(self)

        try:
            await self._changed.wait_for(done, timeout)
        except TimeoutError:
            raise TimedOutError(f"nothing fitting came to the service {self._service!a} within {timeout} s") from None

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Tell a listener (methods of ServiceListener, or a function of all events) what is there and what happens.

        It runs on a task of its own, in order; when it fails this is logged. Returns a function that removes it.

        Raises:
            ConfigError: it has none of the methods and cannot be called.
            ClosedError: the view or its client was closed.
        """
        self._check_not_ended()
        self._client._connection.check_open()
        return self._subscribe(self._audience.add(listener))

    def _subscribe(self, backlog: Backlog[ServiceEvent]) -> Callable[[], None]:
        """Put what is there, and then what happens, into a backlog; returns a function that ends it."""
        self._check_not_ended()
        return self._audience.follow(backlog, self._present())

    def _on_stale(self, stale: bool) -> None:
        """Learn that the store was lost, or is there again."""
        super()._on_stale(stale)
        self._changed.fire()

    def _on_end(self, error: OsdiscoError) -> None:
        """Learn that the client was closed, or that its permission is lost."""
        super()._on_end(error)
        if isinstance(error, ClosedError):
            self._end(error)

    def _end(self, error: ClosedError) -> None:
        self._ended = self._ended or error
        self._uncount()
        self._guard.close()
        self._audience.end(error)
        self._changed.fire()

    def _note(self, changes: Pairs[ServiceEndpoint]) -> None:
        self._endpoints = None if changes else self._endpoints
        self._changed.fire()
