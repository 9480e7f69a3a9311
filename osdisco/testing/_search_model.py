"""A search cluster that exists only on paper: nodes, indices and shards as a cluster's own JSON has them.

No I/O and no clock, so that simulations can have one in virtual time. `FakeCluster` is what tests use.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

from attrs import define

from osdisco.errors import ConfigError, nearest
from osdisco.testing import _search_shards as shards_of

Shard = dict[str, Any]
"""One copy of a shard, in the shape of `routing_table`."""

BLOCKS: Final[Mapping[str, tuple[int, str, bool, tuple[str, ...]]]] = {
    "state_not_recovered": (
        1,
        "state not recovered / initialized",
        True,
        ("read", "write", "metadata_read", "metadata_write", "create_index"),
    ),
    "no_manager": (2, "no cluster-manager", True, ("write", "metadata_write")),
    "closed": (4, "index closed", False, ("read", "write")),
    "read_only": (5, "index read-only (api)", False, ("write", "metadata_write")),
    "cluster_read_only": (6, "cluster read-only (api)", False, ("write", "metadata_write")),
    "read": (7, "index read (api)", False, ("read",)),
    "write": (8, "index write (api)", False, ("write",)),
    "metadata": (9, "index metadata (api)", False, ("metadata_write", "metadata_read")),
    "create_index": (10, "cluster create-index blocked (api)", False, ("create_index",)),
    "read_only_allow_delete": (12, "index read-only / allow delete (api)", False, ("write", "metadata_write")),
}
"""Name to number, description, whether it passes by itself, and levels; all from OpenSearch's own constants."""

_ROUTING_BITS: Final = 10
"""An index can be split until it has about 2^10 shards (`calculateNumRoutingShards`)."""


@define
class FakeNode:
    """A node of the cluster."""

    id: str
    name: str
    host: str
    roles: tuple[str, ...]
    attributes: dict[str, str]
    version: str
    ephemeral_id: str
    answers: bool = True
    """Whether it is found by `/_nodes`; one that does not answer is still in the state until it is removed."""

    @property
    def address(self) -> str:
        """Its host as it stands in addresses."""
        return f"[{self.host}]" if ":" in self.host else self.host


class ClusterModel:
    """The cluster. What changes it publishes a new state, unless within `together`."""

    def __init__(self, name: str, release: str) -> None:
        self.name: Final = name
        self.release: Final = release
        self.version, self.term = 0, 1
        self.cluster_uuid = self.state_uuid = ""
        self.manager: str | None = None
        self.nodes: Final[dict[str, FakeNode]] = {}
        self.indices: Final[dict[str, dict[str, Any]]] = {}
        self.routing: Final[dict[str, dict[str, list[Shard]]]] = {}
        self.global_blocks: Final[set[str]] = set()
        self.blocks: Final[dict[str, set[str]]] = {}
        self.settings: Final[dict[str, str]] = {}
        self.voting_exclusions: Final[dict[str, str]] = {}
        self.tombstones: Final[list[dict[str, Any]]] = []
        self.changes = 0  # rises with all that changes any answer, which not all publishes a state
        self._lives = count()
        self._hosts = count(1)
        self._allocations = count(1)
        self._gathering = False
        self.replace()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Publish what changes within as one state."""
        outer, self._gathering = self._gathering, True
        try:
            yield
        finally:
            self._gathering = outer
            self.publish()

    def publish(self) -> None:
        """Publish a state, also when nothing has changed."""
        self.changes += 1
        if not self._gathering:
            self.version += 1
            self.state_uuid = _uuid("state", self.cluster_uuid, self.changes)

    def replace(self) -> None:
        """Let another cluster stand here: another uuid, versions and terms from the beginning."""
        self.cluster_uuid = _uuid("cluster", self.name, next(self._lives))
        self.version, self.term = 0, 1
        self.publish()

    def join(
        self,
        id_: str,
        *,
        name: str | None = None,
        host: str | None = None,
        zone: str | None = None,
        roles: Iterable[str] = ("data", "ingest"),
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Add a node, or let one come back as a new process. The first that may manage does.

        Args:
            id_: its id; `name` is `node-` and the id when not given.
            host: its address, 10.0.0.1 and so on when not given.
            zone: the same as an attribute `zone`.
            roles: as `/_nodes` shows them; none makes a coordinating node. Releases 1.x say `master`.
            attributes: its own attributes.
        """
        there = self.nodes.get(id_)
        host = host or (there.host if there else self._next_host())
        shown = {**({} if zone is None else {"zone": zone}), **(attributes or {})}
        life = _uuid("life", id_, next(self._lives))
        self.nodes[id_] = FakeNode(
            id_, name or f"node-{id_}", host, self._named(roles), shown, self.release, ephemeral_id=life
        )
        with self.together():
            if self.manager is None and self.may_manage(id_):
                self.elect(id_)

    def _next_host(self) -> str:
        high, low = divmod(next(self._hosts), 256)
        return f"10.0.{high}.{low}"

    def _named(self, roles: Iterable[str]) -> tuple[str, ...]:
        old, new = ("cluster_manager", "master") if self.release.startswith("1.") else ("master", "cluster_manager")
        return tuple(new if role == old else role for role in roles)

    def leave(self, id_: str) -> None:
        """Remove a node: its copies are lost, and where it had a primary, a copy elsewhere becomes one."""
        self.node(id_)
        with self.together():
            del self.nodes[id_]
            for index, by_number in self.routing.items():
                for number, copies in by_number.items():
                    if shards_of.lose_node(copies, id_):
                        self.indices[index]["primary_terms"][number] += 1
                self._note_in_sync(index)
            if self.manager == id_:
                self._succeed()

    def _succeed(self) -> None:
        """Let another node manage after the manager is gone."""
        heir = next((id_ for id_ in self.nodes if self.may_manage(id_)), None)
        if heir is None:
            self.manager = None
            self.global_blocks.add("no_manager")
        else:
            self.elect(heir)

    def elect(self, id_: str) -> None:
        """Let a node manage; the term rises."""
        self.node(id_)
        if not self.may_manage(id_):
            raise ConfigError(f"the node {id_!a} has no role to manage a cluster")
        self.manager, self.term = id_, self.term + 1
        self.global_blocks.discard("no_manager")
        self.publish()

    def may_manage(self, id_: str) -> bool:
        """Whether a node has the role, whichever of its two names."""
        return not {"cluster_manager", "master"}.isdisjoint(self.nodes[id_].roles)

    def node(self, id_: str) -> FakeNode:
        """Return a node. Raises ConfigError when there is none."""
        node: FakeNode = _found(self.nodes, id_, "node")
        return node

    def silence(self, id_: str, answers: bool = False) -> None:
        """Let a node not answer, or answer again: `/_nodes` leaves it out, the state still has it."""
        self.node(id_).answers = answers
        self.changes += 1

    def exclude(self, *names: str, by: str = "_name") -> None:
        """Let shards leave nodes, by `_name`, `_ip`, `_id`, `_host` or an attribute; none ends that."""
        key = f"cluster.routing.allocation.exclude.{by}"
        self.settings.pop(key, None)
        if names:
            self.settings[key] = ",".join(names)
        self.publish()

    def exclude_from_voting(self, *ids: str) -> None:
        """Let nodes have no vote, as before they are taken away; none ends that."""
        self.voting_exclusions.clear()
        self.voting_exclusions.update({id_: self.node(id_).name for id_ in ids})
        self.publish()

    def create_index(
        self,
        name: str,
        *,
        shards: int = 1,
        replicas: int = 1,
        aliases: Iterable[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Add an index whose copies are started, as far as there are nodes for them.

        Args:
            settings: of the index, without `index.` before them, such as `routing_partition_size`.
        """
        if name in self.indices:
            raise ConfigError(f"the index {name!a} is there already")
        number = len(self.indices)
        homes = self._homes()
        self.routing[name] = {
            str(shard): shards_of.copies(name, shard, replicas, homes, number + shard, self._allocations)
            for shard in range(shards)
        }
        uuid = _uuid("index", name, next(self._lives))
        own = {"uuid": uuid, "provided_name": name, "version": {"created": _created(self.release)}, **(settings or {})}
        self.indices[name] = _index(self.routing[name], replicas, aliases, own)
        self.publish()

    def _homes(self) -> list[str]:
        return [node.id for node in self.nodes.values() if "data" in node.roles]

    def delete_index(self, name: str) -> None:
        """Take an index away."""
        gone = _found(self.indices, name, "index")
        uuid = gone["settings"]["index"]["uuid"]
        self.tombstones.append({"index": {"index_name": name, "index_uuid": uuid}, "delete_date_in_millis": 0})
        del self.indices[name], self.routing[name]
        self.blocks.pop(name, None)
        self.publish()

    def close_index(self, name: str) -> None:
        """Close an index: it keeps its copies, and has a block."""
        self._set_open(name, False)

    def open_index(self, name: str) -> None:
        """Open an index again."""
        self._set_open(name, True)

    def _set_open(self, name: str, open_: bool) -> None:
        index = _found(self.indices, name, "index")
        index["state"] = "open" if open_ else "close"
        index["version"] += 1
        settings = index["settings"]["index"]
        if open_:
            settings.pop("verified_before_close", None)
        else:
            settings["verified_before_close"] = "true"
        self._set_block(name, "closed", not open_)

    def block(self, block: str, index: str | None = None) -> None:
        """Set a block on an index, or on all of the cluster; `BLOCKS` has their names."""
        self._set_block(index, block, True)

    def unblock(self, block: str, index: str | None = None) -> None:
        """Lift a block."""
        self._set_block(index, block, False)

    def _set_block(self, index: str | None, block: str, there: bool) -> None:
        _found(BLOCKS, block, "block")
        if index is not None:
            _found(self.indices, index, "index")
        blocks = self.global_blocks if index is None else self.blocks.setdefault(index, set())
        (blocks.add if there else blocks.discard)(block)
        self.publish()

    def copies(self, index: str, shard: int) -> list[Shard]:
        """Return all copies of a shard, the primary first. Raises ConfigError when there is none."""
        copies: list[Shard] = _found(_found(self.routing, index, "index"), str(shard), "shard")
        return copies

    def move_shard(self, index: str, shard: int, to: str, *, primary: bool = True) -> None:
        """Let a copy stand on another node, as after a move that has ended."""
        with self._at(index, shard, primary) as (_, copy):
            shards_of.start(copy, self.node(to).id, self._allocations)

    def relocate_shard(self, index: str, shard: int, to: str, *, primary: bool = True) -> None:
        """Let a copy begin to move; `settle` ends it."""
        with self._at(index, shard, primary) as (_, copy):
            if copy["state"] != "STARTED":
                raise ConfigError(f"a copy that is {copy['state']} does not move; settle() first")
            shards_of.relocate(copy, self.node(to).id, self._allocations)

    def fail_shard(self, index: str, shard: int, *, primary: bool = True) -> None:
        """Let a copy fail: it is unassigned, and a started replica becomes the primary in the stead of one."""
        with self._at(index, shard, primary) as (group, copy):
            if shards_of.lose(group, copy, "ALLOCATION_FAILED"):
                self.indices[index]["primary_terms"][str(shard)] += 1

    def begin_shard(self, index: str, shard: int, on: str, *, primary: bool = False) -> None:
        """Let an unassigned copy begin on a node; `settle` ends it."""
        with self._at(index, shard, primary) as (_, copy):
            if copy["state"] != "UNASSIGNED":
                raise ConfigError(f"a copy that is {copy['state']} does not begin; fail_shard() first")
            shards_of.begin(copy, self.node(on).id, self._allocations)

    @contextmanager
    def _at(self, index: str, shard: int, primary: bool) -> Iterator[tuple[list[Shard], Shard]]:
        """Give all copies of a shard and one of them, whose change is then published."""
        group = self.copies(index, shard)
        copy = next((one for one in group if one["primary"] is primary), None)
        if copy is None:
            raise ConfigError(f"shard {shard} of {index!a} has no {'primary' if primary else 'replica'}")
        yield group, copy
        self._note_in_sync(index)
        self.publish()

    def _note_in_sync(self, index: str) -> None:
        metadata = self.indices[index]
        metadata["in_sync_allocations"] = shards_of.in_sync(self.routing[index], metadata["in_sync_allocations"])

    def settle(self) -> None:
        """Let the cluster finish what it is at: moves end, what begins is started, what has no place gets one."""
        homes = self._homes()
        for index, by_number in self.routing.items():
            for copies in by_number.values():
                shards_of.settle(copies, homes, self._allocations)
            self._note_in_sync(index)
        self.publish()

    def rewind(self, version: int) -> None:
        """Show a lower version, as a cluster does that was restored by hand; a term that falls is yours to set."""
        self.version = version - 1
        self.publish()


def _found(things: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in things:
        raise ConfigError(f"the cluster has no {what} {name!a}{nearest(str(name), things)}")
    return things[name]


def _index(
    routing: Mapping[str, list[Shard]], replicas: int, aliases: Iterable[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    shards = len(routing)
    counts = {"number_of_shards": str(shards), "number_of_replicas": str(replicas)}
    return {
        "version": 4,
        "mapping_version": 2,
        "settings_version": 1,
        "aliases_version": 1,
        "routing_num_shards": int(settings.get("number_of_routing_shards", routing_num_shards(shards))),
        "state": "open",
        "settings": {"index": {**counts, "creation_date": "1763632800000", **settings}},
        "mappings": {"_doc": {"properties": {"id": {"type": "keyword"}, "at": {"type": "date"}}}},
        "aliases": list(aliases),
        "primary_terms": dict.fromkeys(routing, 1),
        "in_sync_allocations": shards_of.in_sync(routing, {}),
        "rollover_info": {},
        "system": False,
    }


def routing_num_shards(shards: int) -> int:
    """Return into how many shards an index is thought to be cut, of which each of its own has as many."""
    splits = max(1, _ROUTING_BITS - (shards - 1).bit_length())
    return shards << splits


def _created(release: str) -> str:
    major, minor, patch = (int(part) for part in release.split("."))
    return str((major * 1_000_000 + minor * 10_000 + patch * 100 + 99) ^ 0x08000000)  # the mask of OpenSearch's ids


def _uuid(*parts: object) -> str:
    """Return 22 letters, as the cluster's own ids have; the same ones in each run."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return urlsafe_b64encode(digest[:16]).decode().rstrip("=")
