"""Three-node clusters for tests, in Docker, whose nodes can be killed, frozen and cut off.

    with EtcdCluster() as cluster:
        cluster.leader().kill()

The nodes talk to each other on a private network of their own, and clients reach each node on a port of this machine's
loopback. `disconnect` cuts a node off from the others only: clients still reach it, as in the worst of partitions, in
which a watch on it falls silent. `disconnect(clients=True)` takes its published port away as well: connections of
clients break and new ones are refused.

Half of that is worse, and so it can be had: `deafen`, `mute`, `cut` from some, `lose` and `throttle` filter the packets
between the nodes. They need root and nftables on the machine, which must be Docker's own; `packets_problem()` tells.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from attrs import frozen
from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool
from testcontainers.core.network import Network

from osdisco.testing._api import ApiError, wait_for
from osdisco.testing._packets import PacketFilter, packets_problem as packets_problem
from osdisco.testing._stores import START_SECONDS, Access, ConsulAccess, EtcdAccess
from osdisco.testing.containers import ConsulContainer, EtcdContainer, ServerContainer

NODES: Final = 3

_PATIENCE: Final = 1.0
"""Seconds for a node that may not be well to say whether it leads."""

_WRITE_PATIENCE: Final = 3.0

_CLIENTS: Final = "bridge"
"""The network through which Docker publishes the ports."""


@frozen
class Place:
    """Where a node stands among the others: its name, and everyone's address on the private network."""

    name: str
    network: str
    peers: Mapping[str, str]

    @property
    def address(self) -> str:
        """The node's own address."""
        return self.peers[self.name]

    @property
    def others(self) -> list[str]:
        """The addresses of the other nodes."""
        return [address for name, address in self.peers.items() if name != self.name]


class Node(ServerContainer):
    """One node of a cluster. `start` does not wait: a node alone cannot write; the cluster's `wait_healthy` does."""

    place: Place

    def started(self) -> None:
        """Connect to the other nodes."""
        self._connect()

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait for nothing."""

    def disconnect(self, *, clients: bool = False) -> None:
        """Cut it off from the other nodes; with `clients`, from those too."""
        self._docker_network(self.place.network).disconnect(self.get_container_id())
        if clients:
            self._docker_network(_CLIENTS).disconnect(self.get_container_id())

    def deafen(self, *others: Node) -> None:
        """Let nothing arrive that other nodes send, all of them if none is named; what it sends still does."""
        self._filter().drop(self._addresses(others), arriving=True, leaving=False)

    def mute(self, *others: Node) -> None:
        """Let nothing arrive at other nodes that it sends; it still hears them."""
        self._filter().drop(self._addresses(others), arriving=False, leaving=True)

    def cut(self, *others: Node) -> None:
        """Cut it off from some nodes in both directions, while each may still reach a third one."""
        self._filter().drop(self._addresses(others), arriving=True, leaving=True)

    def lose(self, percent: int, *others: Node) -> None:
        """Lose so many of a hundred packets between it and other nodes, at most 99, in each direction."""
        chance = f"numgen random mod 100 < {percent}"
        self._filter().drop(self._addresses(others), arriving=True, leaving=True, matching=chance)

    def throttle(self, kbytes: int, *others: Node) -> None:
        """Let pass so many thousand bytes a second to other nodes, and as many from them."""
        rate = f"limit rate over {kbytes} kbytes/second burst {kbytes} kbytes"
        self._filter().drop(self._addresses(others), arriving=True, leaving=True, matching=rate)

    def heal(self) -> None:
        """Undo what was done to its network."""
        self._mend()
        self.rejoin()

    def restore(self) -> None:
        """Undo whatever was done to it."""
        self.revive()
        self.rejoin()

    def revive(self) -> None:
        """Undo whatever was done to it, and let it find the others by itself."""
        self.unpause()
        if self._status() != "running":
            self.start()
        self._mend()

    def rejoin(self) -> None:
        """Look for the other nodes at once, if it would not by itself."""

    @abstractmethod
    def leads(self) -> bool:
        """Return whether it takes itself for the leader. Raises ApiError or OSError when it does not answer."""

    def _mend(self) -> None:
        if packets_problem() is None:
            self._filter().clear()
        self._connect()

    def _connect(self) -> None:
        """Connect to what it is not connected to; Docker remembers it over a kill and a start."""
        container = self.get_wrapped_container()
        container.reload()
        connected = container.attrs["NetworkSettings"]["Networks"]
        for name, address in (_CLIENTS, None), (self.place.network, self.place.address):
            if name not in connected:
                self._docker_network(name).connect(self.get_container_id(), ipv4_address=address)

    def _filter(self) -> PacketFilter:
        return PacketFilter(self.get_wrapped_container())

    def _addresses(self, others: Sequence[Node]) -> list[str]:
        return [node.place.address for node in others] or self.place.others

    def _docker_network(self, name: str) -> Any:
        return self.get_docker_client().client.networks.get(name)


class EtcdNode(Node, EtcdContainer):
    """One etcd of a cluster."""

    def leads(self) -> bool:
        """Ask the metrics, which need no login: none is to be had without a leader."""
        metrics = self.access.bare_api(self.address, timeout=_PATIENCE).text("GET", "/metrics")
        return "\netcd_server_is_leader 1" in metrics

    def _members(self) -> tuple[str, dict[str, str]]:
        return self.place.name, {name: f"{address}:2380" for name, address in self.place.peers.items()}


class ConsulNode(Node, ConsulContainer):
    """One Consul server of a cluster."""

    def rejoin(self) -> None:
        """Join again at once: Consul itself tries every 30 s."""
        api = self.access.api(self.address, timeout=_PATIENCE)
        for address in self.place.others:
            with suppress(ApiError, OSError):  # that one may be down
                api("PUT", f"/v1/agent/join/{address}")

    def leads(self) -> bool:
        """Ask for the leader's address, which needs no token."""
        leader = self.access.bare_api(self.address, timeout=_PATIENCE)("GET", "/v1/status/leader")
        return bool(leader == f"{self.place.address}:8300")

    def _member(self) -> dict[str, Any]:
        return {
            "node_name": self.place.name,
            "bootstrap_expect": NODES,
            "bind_addr": "0.0.0.0",  # nosec B104 # noqa: S104 - the private network comes right after the start
            "advertise_addr": self.place.address,
            "retry_join": self.place.others,
            "retry_interval": "1s",
        }


N = TypeVar("N", bound=Node)


class Cluster(ABC, Generic[N]):
    """What clusters of both stores can do. `with` starts and removes one."""

    def __init__(self, access: Access, nodes: Sequence[N]) -> None:
        self.access = access
        self.nodes = tuple(nodes)
        self._stack = ExitStack()

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL with all nodes."""

    @property
    def addresses(self) -> list[str]:
        """`host:port` of every node, for clients."""
        return [node.address for node in self.nodes]

    def start(self) -> Self:
        """Start all nodes; returns when the cluster is healthy."""
        try:
            network, addresses = _private_network()
            self._stack.callback(network.remove)
            peers = {f"n{number}": address for number, address in enumerate(addresses, 1)}
            for name, node in zip(peers, self.nodes, strict=True):
                node.place = Place(name, network.name, peers)
                self._stack.callback(node.stop)
                node.start()
            self.wait_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Remove all of it."""
        self._stack.close()
        self.access.cleanup()

    def leader(self, *, other_than: N | None = None, seconds: float = START_SECONDS) -> N:
        """Return the leader: the one node that takes itself for it. An old one does so for about another second.

        Args:
            other_than: wait until it is another one than this, as after a fault of the leader.
            seconds: how long to wait for one.
        """
        return wait_for(lambda: self._leader(other_than), seconds=seconds)

    def wait_healthy(self, seconds: float = START_SECONDS) -> None:
        """Return once every node is well, writes, and the cluster can bear the loss of one."""
        wait_for(self._check, seconds=seconds, death=self._death)

    def restore(self) -> None:
        """Undo whatever was done to the nodes; returns when the cluster is healthy."""
        for node in self.nodes:  # all of them before any looks for the others, which takes 10 s for one that is away
            node.revive()
        for node in self.nodes:
            node.rejoin()
        self.wait_healthy()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.stop()

    def _check(self) -> None:
        leaders = [node.place.name for node in self.nodes if node.leads()]
        if len(leaders) != 1:
            raise ApiError(f"{leaders} take themselves for the leader")
        for node in self.nodes:
            node.open(self.access.api(node.address, timeout=_WRITE_PATIENCE))

    def _leader(self, other_than: N | None) -> N:
        leaders = []
        for node in self.nodes:
            with suppress(ApiError, OSError):
                leaders += [node] if node.leads() else []
        if len(leaders) != 1 or leaders[0] is other_than:
            raise ApiError(f"{[node.place.name for node in leaders]} take themselves for the leader")
        return leaders[0]

    def _death(self) -> str | None:
        return next((f"{node.place.name}: {said}" for node in self.nodes if (said := node.death())), None)


class EtcdCluster(Cluster[EtcdNode]):
    """Three etcd members.

    Args:
        image: as for `EtcdContainer`.
        tls: clients must talk TLS; the members trust each other.
        auth: clients must log in.
        mtls: clients must show a certificate.
        flags: as for `EtcdContainer`.
    """

    access: EtcdAccess

    def __init__(
        self,
        image: str | None = None,
        *,
        tls: bool = False,
        auth: bool = False,
        mtls: bool = False,
        flags: tuple[str, ...] = (),
    ) -> None:
        access = EtcdAccess(tls=tls, auth=auth, mtls=mtls)
        super().__init__(access, [EtcdNode(image, access=access, flags=flags) for _ in range(NODES)])

    @property
    def url(self) -> str:
        """The URL with all members, over gRPC."""
        return self.access.url(self.addresses)

    @property
    def gateway_url(self) -> str:
        """The URL with all members, over the JSON gateway."""
        return self.access.url(self.addresses, gateway=True)


class ConsulCluster(Cluster[ConsulNode]):
    """Three Consul servers.

    Args:
        image: as for `ConsulContainer`.
        tls: clients must talk TLS; the servers trust each other.
        acl: clients must show a token.
        config: as for `ConsulContainer`.
    """

    access: ConsulAccess

    def __init__(
        self,
        image: str | None = None,
        *,
        tls: bool = False,
        acl: bool = False,
        config: dict[str, Any] | None = None,
    ) -> None:
        access = ConsulAccess(tls=tls, acl=acl)
        super().__init__(access, [ConsulNode(image, access=access, config=config) for _ in range(NODES)])

    @property
    def url(self) -> str:
        """The URL with all servers."""
        return self.access.url(self.addresses)

    def _check(self) -> None:
        """Look at autopilot as well: a server that was away comes back as a non-voter, and counts only later."""
        super()._check()
        health = self.nodes[0].admin("GET", "/v1/operator/autopilot/health")
        if health["FailureTolerance"] < (NODES - 1) // 2:
            raise ApiError(f"autopilot: {health}")


def _private_network() -> tuple[Network, list[str]]:
    """Make a network on which nodes can have addresses of our choice, so that these outlive a disconnection."""
    for _ in range(20):
        prefix = f"10.{64 + secrets.randbelow(64)}.{secrets.randbelow(256)}"
        pool = IPAMConfig(pool_configs=[IPAMPool(subnet=f"{prefix}.0/28")])
        network = Network(docker_network_kw={"internal": True, "ipam": pool})
        try:
            return network.create(), [f"{prefix}.{number}" for number in range(2, 2 + NODES)]
        except APIError as exc:
            taken = exc
    raise taken
