"""The service: shows the state of a search cluster, and mirrors it for everybody where it has a source."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from math import inf, isfinite
from types import TracebackType
from typing import Final, Self

from osdisco._signal import Signal
from osdisco._tasks import cancel
from osdisco.client import Client
from osdisco.cluster._gauges import gauges
from osdisco.cluster._lead import Lead
from osdisco.cluster._mirror import Mirror
from osdisco.cluster._places import Places
from osdisco.cluster._reader import Reader
from osdisco.cluster._searching import shard_searched
from osdisco.cluster.components import StateComponent
from osdisco.cluster.listeners import MANNERS, Changes, ClusterStateEvent, Function, Hearer
from osdisco.cluster.routing import ShardGroup
from osdisco.cluster.source import ClusterStateSource
from osdisco.cluster.state import ClusterState
from osdisco.cluster.status import MirrorStatus, status_of
from osdisco.discovery._telling import Audience, Listener
from osdisco.errors import ClosedError, ClusterError, ConfigError, OsdiscoError, TimedOutError

POLLS_MISSED: Final = 3
"""Polls without a mirror after which nobody knows how the cluster is."""

Predicate = Callable[[ClusterState], object]


class ClusterStateService:
    """`async with` it. With a source it is also a candidate for the one mirror that asks the cluster for everybody.

    Neither the store nor the cluster is needed to start. What was shown once stays when either is away, `stale`. The
    source is not closed with the service, for others may use it, too.

    Args:
        source: who can be asked for the state; without one this process needs no credentials for the cluster.
        cluster: the mirror's name, one segment; a namespace may serve several search clusters.
        poll: seconds between two questions to the cluster, of whoever mirrors it. Readers that give another than the
            mirror only notice sooner or later that nobody mirrors.
        raw: also keep what the cluster said, as `state.raw`.

    Raises:
        ConfigError: a name or a poll that cannot be used.
    """

    def __init__(
        self,
        client: Client,
        source: ClusterStateSource | None = None,
        *,
        cluster: str = "default",
        poll: float = 1.0,
        raw: bool = False,
    ) -> None:
        if isinstance(poll, bool) or not isinstance(poll, int | float) or not isfinite(poll) or poll <= 0:
            raise ConfigError("poll is a number of seconds above zero")
        self.cluster: Final = cluster
        self._client = client
        self._poll = poll
        self._places = Places(client._keys, cluster)
        self._reader = Reader(client, self._places, self._show, raw=raw, trouble=self._trouble)
        self._lead = Lead(client, self._places)
        self._mirror = None if source is None else Mirror(client, self._places, cluster, source, self._lead, poll)
        self._asked: Counter[StateComponent] = Counter()
        self._state: ClusterState | None = None
        self._changed = Signal()
        self._audience = Audience[ClusterStateEvent](client._connection.supervisor, MANNERS)
        self._hearers: dict[Hearer, None] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._started = self._stopped = self._closed = False
        self._unfollow: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        shown = "nothing is known yet" if self._state is None else f"version {self._state.version}"
        return f"<ClusterStateService {self.cluster!a}: {shown}, {'stale' if self.stale else 'fresh'}>"

    async def start(self) -> Self:
        """Begin to show the state, and to stand for the mirror; waits for nothing.

        Raises:
            ClosedError: it was stopped, or the client is closed.
        """
        if self._stopped:
            raise ClosedError("a ClusterStateService is started once; make a new one")
        if not self._started:
            self._client._connection.check_open()
            self._started = True
            self._reader.follower.start()
            self._lead.follower.start()
            spawn = self._client._connection.supervisor.spawn
            self._tasks = [spawn(self._reader.run(), f"show the state of {self.cluster}")]
            if self._mirror is not None:
                self._tasks.append(spawn(self._mirror.run(), f"mirror {self.cluster}"))
            namespace = self._client._keys.root.rstrip("/")
            self._unfollow = self._client.runtime.metrics.follow(partial(gauges, namespace, self))
        return self

    async def stop(self) -> None:
        """Give the mirror to others, and show no more; what is shown stays. A second call waits for the first."""
        if not self._started:
            return
        if self._stopped:
            await self._changed.wait_for(lambda: self._closed)
            return
        self._stopped = True
        self._changed.fire()
        self._unfollow()
        async with AsyncExitStack() as ending:  # each has its end, whatever becomes of those before
            ending.callback(self._is_closed)
            ending.push_async_callback(self._reader.follower.aclose)
            ending.push_async_callback(self._lead.follower.aclose)
            ending.push_async_callback(self._audience.aclose)
            ending.callback(self._end_hearers)
            await cancel(*self._tasks)

    def _is_closed(self) -> None:
        self._closed = True
        self._changed.fire()

    def _end_hearers(self, error: OsdiscoError | None = None) -> None:
        for hearer in self._hearers:
            hearer.backlog.close(error)
        self._hearers.clear()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def subscribe(self, components: Iterable[StateComponent | str], timeout: float | None = None) -> None:
        """Show these components, too, and wait until they are there. Several calls add up; see `unsubscribe`.

        Only what was subscribed to is fetched from the store.

        Args:
            components: such as `{StateComponent.NODES}`.
            timeout: seconds to wait for the first state; for ever when None.

        Raises:
            ConfigError: what is no component.
            TimedOutError: no state was there in time. The subscription stays.
            ClosedError: not started, or stopped.
        """
        asked = _checked(components)
        self._check_running()
        self.follow(asked)
        await self._until(lambda: self._state is not None and asked <= self._state.components, timeout)

    def follow(self, components: Iterable[StateComponent | str]) -> None:
        """Subscribe without waiting; also before the start.

        Raises:
            ConfigError: what is no component.
        """
        self._asked.update(_checked(components))
        self._reader.ask(self.components)

    def unsubscribe(self, components: Iterable[StateComponent | str]) -> None:
        """Take one subscription of each of these components back; with the last one it is no longer shown.

        Raises:
            ConfigError: what is no component, or was not subscribed to.
        """
        given = _checked(components)
        if unknown := given - self.components:
            raise ConfigError(f"{', '.join(sorted(unknown))} was not subscribed to")
        self._asked.subtract(given)
        self._reader.ask(self.components)

    @property
    def components(self) -> frozenset[StateComponent]:
        """What is subscribed to."""
        return frozenset(+self._asked)

    @property
    def state(self) -> ClusterState:
        """The state as it is known. It never changes: the next one is another object.

        Raises:
            ClusterError: none is known yet, and why.
        """
        if self._state is None:
            raise ClusterError(f"the state of the cluster {self.cluster!a} is not known yet: {self.stale_reason}")
        return self._state

    @property
    def stale(self) -> bool:
        """Whether the cluster may have another state by now than the one that is shown, for longer than it takes."""
        return self.stale_reason is not None

    @property
    def stale_reason(self) -> str | None:
        """Why it is stale; None when it is not."""
        return next((reason for reason, _ in self._doubts()), None)

    @property
    def age(self) -> float:
        """Seconds since what is shown was last known to be the present state; infinite before anything is."""
        now = self._client.runtime.clock.now()
        if self._state is None:
            return inf
        return max(self._reader.follower.age, *(now - since for _, since in self._doubts()), 0.0)

    def _doubts(self) -> Iterator[tuple[str, float]]:
        """Yield why what is shown may be wrong, and since when, by this process's clock."""
        reader, lead, now = self._reader, self._lead, self._client.runtime.clock.now()
        if self._stopped or not self._started:
            yield f"the service was {'stopped' if self._stopped else 'not started'}", now - reader.follower.age
        elif reader.follower.stale:
            error = reader.follower.error
            yield f"the store is away: {error or 'it was not heard of'}", now - reader.follower.age
        elif lead.follower.stale:
            error = lead.follower.error
            yield f"whether anybody mirrors cannot be seen: {error or 'it was not heard of'}", now - lead.follower.age
        if reader.unusable is not None:
            yield reader.unusable.reason, reader.unusable.since
        if lead.missing_since is not None and now - lead.missing_since > POLLS_MISSED * self._poll:
            yield "nobody mirrors the cluster", lead.missing_since
        if lead.away is not None and lead.away_since is not None:
            yield f"the cluster cannot be mirrored: {lead.away}", lead.away_since
        if self._state is None:
            yield "no mirror has shown a state yet", -inf

    @property
    def mirroring(self) -> bool:
        """Whether this process is the mirror, as far as it can know."""
        return self._mirror is not None and self._mirror.leading

    @property
    def mirror(self) -> MirrorStatus:
        """Who mirrors, since when, how old it is and how large, as far as this process knows. No I/O."""
        return status_of(self._lead, self._reader, self._mirror, self.age, self.stale_reason)

    async def wait_for(self, predicate: Predicate, timeout: float | None = None) -> ClusterState:
        """Wait until `predicate(state)` is true; it is asked again with every state. Returns that state.

        Raises:
            TimedOutError: `timeout` seconds are over.
            ClosedError: not started, or stopped.
        """
        self._check_running()
        fitting: list[ClusterState] = []

        def fits() -> bool:
            if self._state is not None and predicate(self._state):
                fitting.append(self._state)
            return bool(fitting)

        await self._until(fits, timeout)
        return fitting[-1]

    async def _until(self, done: Callable[[], object], timeout: float | None) -> None:
        def done_or_over() -> object:
            self._check_running()
            return done()

        try:
            await self._changed.wait_for(done_or_over, timeout)
        except TimeoutError:
            why = self.stale_reason or "no state of the cluster was what was waited for"
            raise TimedOutError(f"not within {timeout} s: {why}") from None

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Tell a listener (methods of ClusterStateListener, or a function of ClusterStateEvent) of what is there.

        And of what changes, when the version has risen, or it is another cluster, or a component is there for the first
        time. It runs on a task of its own, in order; when it fails this is logged. Returns a function that removes it.

        Raises:
            ConfigError: it has none of the methods and cannot be called.
            ClosedError: the service was stopped, or its client closed.
        """
        self._check_open()
        methods = any(hasattr(listener, name) for name in MANNERS.methods)
        told = Function(listener) if callable(listener) and not methods else listener
        return self._subscribe(Hearer(self._audience.add(told), every=False))

    def changes(self) -> Changes:
        """Return `async with` around an iterator of typed changes, from the state at entry on; see `Changes`."""
        return Changes(self._subscribe)

    def _subscribe(self, hearer: Hearer) -> Callable[[], None]:
        self._check_open()
        self._hearers[hearer] = None
        if self._state is not None:
            hearer.see(self._state)

        def leave() -> None:
            self._hearers.pop(hearer, None)
            hearer.backlog.close()

        return leave

    def _show(self, state: ClusterState) -> None:
        """Take a state from the reader: it is whole, and not before the last one."""
        self._state = state
        for hearer in list(self._hearers):
            hearer.see(state)
        self._changed.fire()

    def _trouble(self, error: OsdiscoError) -> None:
        """Let nobody wait for what never comes, when the client was closed. All else is bridged."""
        if isinstance(error, ClosedError):
            self._end_hearers()
        self._changed.fire()

    async def shard_for(self, index: str, id: str | None = None, *, routing: str | None = None) -> ShardGroup:
        """Return the shard that has a document, or gets it, with its copies.

        Computed from the routing table, which must be subscribed to. Of an index of which only the cluster itself knows
        it, the source is asked.

        Args:
            index: its name, or an alias that only it has.
            id: of the document.
            routing: the routing value that it was, or will be, written with. Without one the id decides.

        Raises:
            ClusterError: no such index, no subscription, neither id nor routing, or the cluster had to be asked and
                there is no source, or no answer.
        """
        table = self.state.routing_table
        if (number := table.shard_number(index, id, routing=routing)) is not None:
            return table.index(index).shards[number]
        if self._mirror is None:
            return table.shard_for(index, id, routing=routing)
        return await shard_searched(self._mirror.source, table.index(index).index, id, routing)

    def _check_open(self) -> None:
        if self._stopped:
            raise ClosedError("this ClusterStateService was stopped")
        self._client._connection.check_open()

    def _check_running(self) -> None:
        self._check_open()
        if not self._started:
            raise ClosedError("start this ClusterStateService first, or enter it with `async with`")


def _checked(components: Iterable[StateComponent | str]) -> frozenset[StateComponent]:
    if isinstance(components, str) or not isinstance(components, Iterable):
        raise ConfigError(f"components are a set such as {{StateComponent.NODES}}, not one {type(components).__name__}")
    checked = set()
    for component in components:
        try:
            checked.add(StateComponent(component))
        except ValueError:
            allowed = ", ".join(StateComponent)
            raise ConfigError(f"{component!a} is no component; there are {allowed}") from None
    return frozenset(checked)
