"""Mirrors and those who read them, and what must hold whatever happens: what tests of the store's side share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from worlds import NAMESPACE, World, until

from osdisco.backend import Item
from osdisco.client import Client
from osdisco.cluster import ClusterState, ClusterStateService, StateComponent
from osdisco.cluster._head import Address, Head, Journal, flat
from osdisco.cluster._pack import expand
from osdisco.testing import FakeCluster, FakeSource
from osdisco_memory import MemoryStore

PREFIX = f"{NAMESPACE}/cluster/default/"
HEAD, JOURNAL = f"{PREFIX}head", f"{PREFIX}journal"
EVERYTHING = frozenset(StateComponent)

Picture = Mapping[str, Any]
"""What there is in a cluster at one version, as short as will do to tell two apart."""


def drawn(cluster: FakeCluster) -> Picture:
    """Return what there is."""
    return {
        "nodes": sorted(cluster.nodes),
        "metadata": {name: index["state"] for name, index in cluster.indices.items()},
        "routing_table": {
            f"{name}/{number}": sorted((copy["primary"], str(copy["node"])) for copy in copies)
            for name, shards in cluster.routing.items()
            for number, copies in shards.items()
        },
        "blocks": sorted(name for name, blocks in cluster.blocks.items() if blocks),
    }


def shown(state: ClusterState) -> Picture:
    """Return the same of the components that a state has."""
    drawings: dict[str, Callable[[], Any]] = {
        "nodes": lambda: sorted(state.nodes),
        "metadata": lambda: {name: index.state for name, index in state.metadata.indices.items()},
        "routing_table": lambda: {
            f"{index.index}/{number}": sorted((copy.primary, str(copy.node)) for copy in group.copies)
            for index in state.routing_table.values()
            for number, group in index.shards.items()
        },
        "blocks": lambda: sorted(state.blocks),
    }
    return {component.value: drawings[component.value]() for component in state.components}


Fail = Callable[[AssertionError], object]
"""Takes what may never be: who finds it is mostly in the middle of the library, where to raise is to be logged."""


class Truth:
    """What the cluster was at each of its versions, so that a state that was never there is recognised."""

    def __init__(self, cluster: FakeCluster, fail: Fail) -> None:
        self.cluster = cluster
        self.fail = fail
        self._pictures: dict[tuple[str, str], Picture] = {}
        self._publish = cluster.publish
        cluster.publish = self._recording  # type: ignore[method-assign]
        self._record()

    def _recording(self) -> None:
        self._publish()
        self._record()

    def _record(self) -> None:
        state = self.cluster.cluster_uuid, self.cluster.state_uuid  # of before, within `together`
        self._pictures.setdefault(state, drawn(self.cluster))

    def check(self, state: ClusterState) -> None:
        """All components of a state are of its one version."""
        there = self._pictures[state.cluster_uuid, state.state_uuid]
        for component, picture in shown(state).items():
            assert picture == there[component], f"{component} of version {state.version} is torn"


class Audit:
    """Looks at the store after each write: the head is whole, nothing is there that nobody names, nothing falls."""

    def __init__(self, store: MemoryStore, fail: Fail) -> None:
        self.heads: list[Head] = []
        self._store = store
        self._fail = fail
        self._write = store._write
        store._write = self._audited  # type: ignore[method-assign]

    def _audited(self, after: Mapping[str, Item | None]) -> None:
        self._write(after)
        if any(key.startswith(PREFIX) for key in after):
            try:
                self._check()
            except AssertionError as exc:
                self._fail(exc)

    def _check(self) -> None:
        values = {key: item.value for key, item in self._store.scan(PREFIX).items.items()}
        head = Head.parse(values[HEAD]) if HEAD in values else None
        if head is not None:
            self._check_whole(head, values)
            self._check_order(head)
        unnamed = blobs_in(values) - self._named(head, values)
        assert not unnamed, f"nobody would ever remove {sorted(unnamed)}"

    def _named(self, head: Head | None, values: Mapping[str, bytes]) -> set[Address]:
        journal = Journal.parse(values[JOURNAL]) if JOURNAL in values else Journal()
        named = {blob.address for blob in head.blobs()} if head else set()
        return named | flat(journal.pending).keys() | flat(journal.garbage).keys()

    def _check_whole(self, head: Head, values: Mapping[str, bytes]) -> None:
        for blob in head.blobs():
            keys = [f"{PREFIX}blob/{blob.component}/{blob.sha}/{number}" for number in range(blob.pieces)]
            assert values.keys() >= {*keys}, f"the head names {blob}, which is not there"
            data = b"".join(values[key] for key in keys)
            assert len(data) == blob.size
            expand(data, blob.raw, blob.sha)

    def _check_order(self, head: Head) -> None:
        last = self.heads[-1] if self.heads else None
        if last == head:
            return
        self.heads.append(head)
        if last is not None:
            assert head.seq > last.seq, f"seq {head.seq} came after {last.seq}"
            assert head.cluster_uuid != last.cluster_uuid or head.order >= last.order, f"{head.order} < {last.order}"


def blobs_in(keys: Mapping[str, object]) -> set[Address]:
    """Return which blobs some keys are pieces of."""
    found = set()
    for key in keys:
        if key.startswith(f"{PREFIX}blob/"):
            component, sha, _ = key.removeprefix(f"{PREFIX}blob/").split("/")
            found.add((component, sha))
    return found


class Seer:
    """Follows a service's states, and holds that each was there, whole, and none came after a later one."""

    def __init__(self, service: ClusterStateService, truth: Truth) -> None:
        self.service = service
        self.versions: list[int] = []
        self.told: list[int] = []
        self._truth = truth
        self._last: ClusterState | None = None
        show = service._reader._show

        def seen(state: ClusterState) -> None:
            show(state)
            try:
                self._see(state)
            except AssertionError as exc:
                truth.fail(exc)

        service._reader._show = seen
        service.add_listener(self)

    def _see(self, state: ClusterState) -> None:
        self._truth.check(state)
        last, self._last = self._last, state
        if last is not None and last.cluster_uuid == state.cluster_uuid:
            assert (state.term, state.version) >= (last.term, last.version), f"{state.version} after {last.version}"
        self.versions.append(state.version)

    def on_state_changed(self, old: ClusterState | None, new: ClusterState) -> None:
        try:
            self._hear(old, new)
        except AssertionError as exc:
            self._truth.fail(exc)

    def _hear(self, old: ClusterState | None, new: ClusterState) -> None:
        if old is None or old.cluster_uuid != new.cluster_uuid:
            self.told.clear()
        else:
            assert old.version == self.told[-1]
            assert new.version > old.version, f"told of {new.version} after {old.version}"
        self.told.append(new.version)


class Mirrored:
    """A cluster on paper, and processes that mirror and read it on one store in memory."""

    def __init__(self, world: World, cluster: FakeCluster | None = None, *, audited: bool = True) -> None:
        self.world = world
        self.cluster = cluster or FakeCluster()
        self.failures: list[AssertionError] = []
        self.truth = Truth(self.cluster, self.failures.append)
        if audited:
            self.audit = Audit(world.store, self.failures.append)
        self.sources: dict[ClusterStateService, FakeSource] = {}

    async def mirror(self, *components: StateComponent, client: Client | None = None) -> ClusterStateService:
        """Start a candidate, which its client's end stops."""
        source = self.cluster.source()
        service = ClusterStateService(client or self.world.process(), source)
        self.sources[service] = source
        await self._begin(service, components)
        return service

    async def reader(self, *components: StateComponent, client: Client | None = None) -> ClusterStateService:
        """Start one that only reads."""
        service = ClusterStateService(client or self.world.process())
        await self._begin(service, components)
        return service

    async def _begin(self, service: ClusterStateService, components: tuple[StateComponent, ...]) -> None:
        Seer(service, self.truth)
        service.follow(components)
        await service.start()

    async def seen(self, *services: ClusterStateService, seconds: float = 10.0) -> None:
        """Return once all show the cluster as it is."""
        for service in services:
            await until(lambda service=service: self.shows_now(service), seconds)

    def shows_now(self, service: ClusterStateService) -> bool:
        """Whether a service shows the cluster as it is, of what it was asked for."""
        state = service._state
        if state is None or state.components != service.components:
            return False
        return (state.cluster_uuid, state.version) == (self.cluster.cluster_uuid, self.cluster.version)

    @property
    def head(self) -> Head:
        """What stands in the store."""
        return Head.parse(self.world.store.scan(PREFIX).items[HEAD].value)

    @property
    def blobs(self) -> set[Address]:
        """The blobs that are in the store."""
        return blobs_in(self.world.store.scan(PREFIX).items)

    def last_heads(self, count: int = 3) -> set[Address]:
        """Return the blobs of the last heads."""
        return {blob.address for head in self.audit.heads[-count:] for blob in head.blobs()}
