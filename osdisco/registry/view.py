"""What is there of a service, live: it survives outages of the store, and holds back what vanishes in a panic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from osdisco._guard import Guard
from osdisco._protection import Pairs, Traits
from osdisco._signal import Signal
from osdisco._tasks import cancel
from osdisco.discovery.events import ViewFresh, ViewStale
from osdisco.discovery.extension import ExtensionStatus, copied
from osdisco.discovery.versions import specifier
from osdisco.errors import ClosedError, ConfigError, DiscoveryError, OsdiscoError, TimedOutError
from osdisco.registry._gauges import gauges
from osdisco.registry.definition import ServiceEndpoint
from osdisco.registry.events import Event, Pending, ViewProtecting, ViewProtectionOver, events_of
from osdisco.registry.roster import Roster, Rosters

FIT: Final = {ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED}

TRAITS: Final = Traits[ServiceEndpoint](
    id_of=lambda endpoint: endpoint.extension_id,
    place_of=lambda endpoint: endpoint.address,
    leaving=lambda endpoint: endpoint.status is ExtensionStatus.STOPPING,
    fit=lambda endpoint: endpoint.status in FIT,
)

Listener = Callable[[Event], Any]
"""A function, which may be a coroutine function."""


class ServiceView(Mapping[str, ServiceEndpoint]):
    """A live, read-only Mapping of ids to endpoints of all statuses. Enter or await it.

    Losing the store takes nothing away: what was there last is shown, and `stale`. Of those that vanish without having
    said so, too many at once, some are shown on, and it is `protecting`.
    """

    def __init__(self, rosters: Rosters, service: str, share: float, window: float) -> None:
        self._rosters = rosters
        self._service = service
        self._now = rosters.client.runtime.clock.now
        self._guard = Guard(self, TRAITS, share, window, rosters.client.runtime.clock, self._show)
        self._told_protecting = False
        self._stale_for, self._protecting_for = _Lap(self._now), _Lap(self._now)
        self._roster: Roster | None = None
        self._shown: dict[str, ServiceEndpoint] = {}
        self._endpoints: tuple[ServiceEndpoint, ...] | None = ()
        self._changed = Signal()
        self._ended: ClosedError | None = None
        self._ears: list[Pending] = []
        self._listening: set[asyncio.Task[None]] = set()
        self._unfollow: Callable[[], None] = lambda: None

    def __getitem__(self, extension_id: str) -> ServiceEndpoint:
        return self._shown[extension_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown)

    def __len__(self) -> int:
        return len(self._shown)

    def __repr__(self) -> str:
        how = f"{'stale' if self.stale else 'fresh'}{', protecting' if self.protecting else ''}"
        return f"<ServiceView of {self._service}: {len(self)} endpoints, {how}>"

    @property
    def endpoints(self) -> tuple[ServiceEndpoint, ...]:
        """All endpoints, in no particular order. The same tuple until something changes, so asking often is cheap."""
        if self._endpoints is None:
            self._endpoints = tuple(self._shown.values())
        return self._endpoints

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
        versions = None if version is None else specifier(version)
        if status is not None and not isinstance(status, ExtensionStatus):
            raise DiscoveryError(f"a status is one of ExtensionStatus, not {type(status).__name__}")
        wanted = copied(metadata or {})
        return [
            one
            for one in self.endpoints
            if (status is None or one.status is status)
            and (zone is None or one.zone == zone)
            and wanted.items() <= one.metadata.items()
            and (versions is None or versions.matches(one.version))
        ]

    @property
    def protecting(self) -> bool:
        """Whether endpoints are shown although their records are gone: too many vanished at once."""
        return bool(self._guard.held)

    @property
    def protected(self) -> Mapping[str, ServiceEndpoint]:
        """The endpoints that are shown only by protection, by id, as they last were."""
        return self._guard.protected

    @property
    def known(self) -> bool:
        """Whether the store was seen at all; before that the view is empty because nothing is known."""
        return self._roster is not None and self._roster.known

    @property
    def stale(self) -> bool:
        """Whether the store may know better by now."""
        return self._roster is None or self._roster.stale

    @property
    def age(self) -> float:
        """Seconds since the store last spoke; infinite before it ever did, and when closed."""
        return float("inf") if self._roster is None else self._roster.age

    @property
    def error(self) -> OsdiscoError | None:
        """What interrupted the watch last; None while it runs."""
        return None if self._roster is None else self._roster.error

    @property
    def skipped(self) -> Mapping[str, str]:
        """The keys of this service that hold no good record now, and why."""
        return {} if self._roster is None else self._roster.table.skipped

    def start(self) -> None:
        """Begin without waiting for the store. Raises ClosedError when it was closed."""
        if self._ended is not None:
            raise ClosedError(f"{self!r} was closed; ask the registry for a new one")
        if self._roster is None:
            self._rosters.client._connection.check_open()
            self._roster = roster = self._rosters.roster(self._service)
            roster.onlookers[id(self)] = self
            client = self._rosters.client
            namespace = client._keys.root.rstrip("/")
            self._unfollow = client.runtime.metrics.follow(partial(gauges, namespace, self._service, self))
            if roster.staleness.stale:
                self.on_stale(True)
            self.on_pairs([(None, endpoint) for endpoint in roster.table.values()])

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
        assert self._roster is not None
        try:
            await self._roster.wait_known()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def aclose(self) -> None:
        """Stop following. What was shown stays readable, and stale. May be called twice."""
        roster, self._roster = self._roster, None
        self._end(ClosedError("the view was closed"))
        await cancel(*self._listening)
        if roster is not None:
            del roster.onlookers[id(self)]
            await self._rosters.let_go(roster)

    async def until(
        self, predicate: Callable[[Mapping[str, ServiceEndpoint]], object], timeout: float | None = None
    ) -> None:
        """Wait until `predicate(view)` is true; it is asked again at every change.

        Raises:
            TimedOutError: `timeout` seconds are over.
            ClosedError: the view or its client was closed.
        """

        def done() -> object:
            if self._ended is not None or self._roster is None:
                raise ClosedError(str(self._ended or f"{self!r} is not open: enter, await or start it"))
            return predicate(self)

        try:
            await self._changed.wait_for(done, timeout)
        except TimeoutError:
            raise TimedOutError(f"nothing fitting came to the service {self._service!a} within {timeout} s") from None

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(event)` for what is there already as if it came now, then for what happens; see ServiceWatch.

        It runs on a task of its own; when it fails this is logged, and it is told of the next event all the same.
        Returns a function that removes it.

        Raises:
            ConfigError: it cannot be called.
        """
        if not callable(listener):
            raise ConfigError(f"a listener is a function of ServiceEvent, not {type(listener).__name__}")
        pending = self._hear(bridges=True)
        work = pending.hand_to(listener)
        task = self._rosters.client._connection.supervisor.spawn(work, f"listener {listener!r}")
        self._listening.add(task)
        task.add_done_callback(self._listening.discard)

        def remove() -> None:
            self._unhear(pending)
            pending.end(None)

        return remove

    def _hear(self, *, bridges: bool) -> Pending:
        """Return a queue of all that is told, how the view is and what is there already first."""
        pending = Pending(bridges)
        if self._roster is not None and self._roster.staleness.stale:
            pending.put([self._stale()])
        pending.put([ViewProtecting()] if self.protecting else [])
        pending.put(events_of([(None, endpoint) for endpoint in self._shown.values()]))
        self._ears.append(pending)
        return pending

    def _unhear(self, pending: Pending) -> None:
        if pending in self._ears:
            self._ears.remove(pending)

    def on_pairs(self, pairs: Pairs[ServiceEndpoint]) -> None:
        """Take what was and what is from the roster."""
        self._guard.take(pairs)

    def on_stale(self, stale: bool) -> None:
        """Learn that the store was lost, or is there again. Nothing is let go meanwhile."""
        self._guard.set_stale(stale)
        lasted = self._stale_for.turn()
        self._tell([self._stale() if stale else ViewFresh(lasted)])

    def _stale(self) -> ViewStale:
        return ViewStale(self.age, str(self.error or "the store has been silent for too long"))

    def on_end(self, error: OsdiscoError) -> None:
        """Learn that the client was closed, or that its permission is lost."""
        if isinstance(error, ClosedError):
            self._end(error)
        else:
            for ear in [ear for ear in self._ears if not ear.bridges]:
                ear.end(error)

    def _end(self, error: ClosedError) -> None:
        self._ended = self._ended or error
        self._unfollow()
        self._guard.close()
        for ear in self._ears:
            ear.end(error)
        self._changed.fire()

    def _show(self, changes: Pairs[ServiceEndpoint]) -> None:
        for old, new in changes:
            if new is not None:
                self._shown[new.extension_id] = new
            elif old is not None:
                del self._shown[old.extension_id]
        self._endpoints = None if changes else self._endpoints
        events: list[Event] = [*events_of(changes)] if self._ears else []
        if self.protecting and not self._told_protecting:
            self._protecting_for.turn()
            events.insert(0, ViewProtecting())
        elif self._told_protecting and not self.protecting:
            events.append(ViewProtectionOver(self._protecting_for.turn()))
        self._told_protecting = self.protecting
        self._tell(events)

    def _tell(self, events: Sequence[Event]) -> None:
        for ear in self._ears if events else ():
            ear.put(events)
        self._changed.fire()


class _Lap:
    """The seconds between one turn and the next."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since = now()

    def turn(self) -> float:
        since, self._since = self._since, self._now()
        return self._since - since
