"""The nodes of a search cluster: who they are, what they are there for, and how they seem to be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from attrs import evolve, field, frozen

from osdisco.cluster._fields import Fields
from osdisco.cluster._table import NO_TEXTS, Table, read_only
from osdisco.errors import ClusterDocumentError, ClusterError, nearest

_ADDRESS: Final = re.compile(
    r"(?:(?P<name>[^/\[\]\s]*)/)?(?:\[(?P<v6>[^/\[\]\s]+)\]|(?P<host>[^/\[\]\s]+)):(?P<port>[0-9]{1,5})"
)


class NodeRole(Enum):
    """What a node is there for; roles that are not listed here are in `NodeInfo.role_names`."""

    CLUSTER_MANAGER = "cluster_manager"
    MASTER = CLUSTER_MANAGER
    DATA = "data"
    INGEST = "ingest"
    COORDINATOR = "coordinator"
    """None of the roles: it only passes requests on and gathers their answers."""


class NodeStatus(Enum):
    """How a node seems to be."""

    ONLINE = "online"
    UNRESPONSIVE = "unresponsive"
    """In the cluster's state, but it did not answer when it was asked for itself."""
    DRAINING = "draining"
    """Excluded from voting, or shards are to move away from it."""
    LEFT = "left"
    """No longer in the cluster; only events show this."""


@frozen
class NodeAddress:
    """Where a node listens. `host` is a name where the node gave one, otherwise the same as `ip`."""

    host: str
    port: int
    ip: str = ""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, place: str) -> NodeAddress | None:
        """Read `ip:port`, `[ip]:port` or `name/ip:port`; None for an empty text.

        Raises:
            ClusterDocumentError: it is none of these.
        """
        if not text:
            return None
        match = _ADDRESS.fullmatch(text) or _ADDRESS.fullmatch(_bracketed(text))
        if match is None or int(match["port"]) > 65535:
            raise ClusterDocumentError(f"{place} must be an address such as 10.0.0.7:9300, [::1]:9300 or name/ip:port")
        ip = match["v6"] or match["host"]
        return cls(match["name"] or ip, int(match["port"]), ip)


@frozen
class NodeInfo:
    """A node of the cluster.

    Args:
        id: stays when the node is restarted; `ephemeral_id` does not.
        address: where other nodes reach it; None when the state does not say.
        http_address: where clients reach it. Like version and roles, only a node itself says this.
        attributes: what its operator gave it, such as `zone`.
        roles: the four that NodeRole knows; none while `heard` is False.
        role_names: all roles as the node names them, `master` as `cluster_manager`.
        status: as the mirror derived it.
        heard: whether the node itself was asked and answered.
    """

    id: str
    name: str = ""
    ephemeral_id: str = ""
    address: NodeAddress | None = None
    http_address: NodeAddress | None = None
    version: str = ""
    attributes: Mapping[str, str] = field(default=NO_TEXTS, hash=False)
    roles: frozenset[NodeRole] = frozenset()
    role_names: tuple[str, ...] = ()
    status: NodeStatus = NodeStatus.ONLINE
    heard: bool = False

    @property
    def zone(self) -> str | None:
        """The attribute `zone`, or None."""
        return self.attributes.get("zone")

    def left(self) -> NodeInfo:
        """Return this node as it is told of when it is no longer in the cluster."""
        return evolve(self, status=NodeStatus.LEFT)


class ClusterNodes(Table[NodeInfo]):
    """The nodes by id."""

    __slots__ = ()

    def nodes_with(self, role: NodeRole) -> tuple[NodeInfo, ...]:
        """Return the nodes that have a role."""
        return self._grouped("role", lambda node: node.roles).get(role, ())

    def in_zone(self, zone: str) -> tuple[NodeInfo, ...]:
        """Return the nodes whose attribute `zone` this is."""
        return self.with_attribute("zone", zone)

    def with_attribute(self, name: str, value: str) -> tuple[NodeInfo, ...]:
        """Return the nodes of which an attribute has a value."""
        groups = self._grouped(f"attribute {name}", lambda node: filter(None, [node.attributes.get(name)]))
        return groups.get(value, ())

    def zones(self) -> tuple[str, ...]:
        """Return the zones in which nodes are, sorted."""
        return tuple(sorted({node.zone for node in self.values() if node.zone}))

    def named(self, name: str) -> NodeInfo:
        """Return the node of a name. Raises ClusterError when there is none, or several."""
        found = self._grouped("name", lambda node: [node.name]).get(name, ())
        if len(found) != 1:
            hint = "" if found else nearest(name, (node.name for node in self.values()))
            raise ClusterError(f"{len(found) or 'no'} nodes have the name {name!a}{hint}")
        return found[0]


def node_of(id_: str, given: Any, place: str) -> NodeInfo:
    """Read a node from its part. Raises ClusterDocumentError."""
    part = Fields(given, place)
    state, info = part.inside("state"), part.inside("info")
    heard = part.has("info")
    names = tuple("cluster_manager" if name == "master" else name for name in info.texts("roles"))
    return NodeInfo(
        id=id_,
        name=state.text("name") or info.text("name"),
        ephemeral_id=state.text("ephemeral_id"),
        address=_address(state, "transport_address") or _address(info, "transport_address"),
        http_address=_address(info.inside("http"), "publish_address"),
        version=info.text("version"),
        attributes=_attributes(state),
        roles=_roles(names) if heard and info.has("roles") else frozenset(),
        role_names=names,
        status=_status(part),
        heard=heard,
    )


def _address(fields: Fields, name: str) -> NodeAddress | None:
    return NodeAddress.parse(fields.text(name), fields.place(name))


def _attributes(state: Fields) -> Mapping[str, str]:
    fields = state.inside("attributes")
    return read_only({name: fields.name(name) or "" for name, _ in fields.items()})


def _roles(names: tuple[str, ...]) -> frozenset[NodeRole]:
    known = {role.value: role for role in NodeRole}
    return frozenset(known[name] for name in names if name in known) if names else frozenset({NodeRole.COORDINATOR})


def _status(part: Fields) -> NodeStatus:
    """Return the status; one that a newer writer knows, and this one does not, is nothing to stop for."""
    text = part.text("status")
    return next((status for status in NodeStatus if status.value == text), NodeStatus.ONLINE)


def _bracketed(text: str) -> str:
    """Return an address of IPv6 with brackets, where somebody left them out: its port is behind the last colon."""
    name, slash, rest = text.rpartition("/")
    ip, _, port = rest.rpartition(":")
    return f"{name}{slash}[{ip}]:{port}" if ip.count(":") > 1 else text
