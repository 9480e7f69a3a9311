"""Clusters of three: their nodes die, freeze, are cut off and come back, and healthy means healthy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from osdisco.testing import ApiError, ConsulCluster, EtcdCluster, Servers

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def etcds(osdisco_servers: Servers) -> Iterator[EtcdCluster]:
    """An etcd cluster with TLS and auth."""
    with osdisco_servers.fresh_etcd_cluster(tls=True, auth=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def consuls(osdisco_servers: Servers) -> Iterator[ConsulCluster]:
    """A Consul cluster with TLS and ACLs."""
    with osdisco_servers.fresh_consul_cluster(tls=True, acl=True) as cluster:
        yield cluster


@pytest.fixture(params=["etcds", "consuls"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Run the test on both; whatever it does, the next one finds the cluster healthy."""
    cluster = request.getfixturevalue(request.param)
    yield cluster
    cluster.restore()


@pytest.mark.parametrize(("fault", "cure"), [("kill", "start"), ("pause", "unpause")])
def test_a_leader_that_fails_is_followed_by_another_and_comes_back(cluster: Any, fault: str, cure: str) -> None:
    old = cluster.leader()
    getattr(old, fault)()
    assert cluster.leader(other_than=old) is not old
    with pytest.raises((TimeoutError, RuntimeError)):  # two of three are no healthy cluster
        cluster.wait_healthy(seconds=1)
    getattr(old, cure)()
    cluster.wait_healthy()
    assert reads(cluster, old)


def test_clients_still_reach_a_leader_that_is_cut_off_and_it_steps_down(cluster: Any) -> None:
    old = cluster.leader()
    assert reads(cluster, old)
    old.disconnect()
    cluster.leader(other_than=old)
    assert old.leads() is False  # it answers
    assert not reads(cluster, old)  # only not to what takes a majority
    old.heal()
    cluster.wait_healthy()
    assert reads(cluster, old)


def reads(cluster: Any, node: Any) -> bool:
    """Return whether a linearizable read through the node works."""
    try:
        if isinstance(cluster, EtcdCluster):
            node.access.bare_api(node.address, timeout=2).text("GET", "/health")
        else:
            node.access.api(node.address, timeout=2)("GET", "/v1/kv/?keys&consistent")
    except ApiError as exc:
        return "404" in str(exc)  # Consul's way to say that there are no keys
    except OSError:
        return False
    return True


def test_a_node_can_be_cut_off_from_clients_too(etcds: EtcdCluster) -> None:
    node = etcds.nodes[0]
    node.disconnect(clients=True)
    with pytest.raises(ConnectionRefusedError):
        node.leads()
    node.heal()
    etcds.wait_healthy()


@pytest.mark.usefixtures("packet_filters")
@pytest.mark.parametrize("fault", ["deafen", "mute"])
def test_a_leader_that_hears_or_says_nothing_is_followed_by_another(etcds: EtcdCluster, fault: str) -> None:
    """The network between the nodes is up, and clients reach all of them."""
    old = etcds.leader()
    getattr(old, fault)()
    assert etcds.leader(other_than=old) is not old
    assert not reads(etcds, old)
    old.heal()
    etcds.wait_healthy()
    assert reads(etcds, old)


@pytest.mark.usefixtures("packet_filters")
def test_one_direction_is_one_direction(etcds: EtcdCluster) -> None:
    one, two, three = etcds.nodes
    one.deafen(two)
    assert [hears(one, two), hears(two, one), hears(one, three), hears(three, one)] == [False, True, True, True]
    one.heal()
    one.mute(two)
    assert [hears(one, two), hears(two, one), hears(one, three), hears(three, one)] == [True, False, True, True]
    one.heal()
    one.cut(two)
    assert [hears(one, two), hears(two, one), hears(one, three), hears(two, three)] == [False, False, True, True]
    one.heal()
    one.lose(50)
    assert 5 < hears(one, two, times=100) < 95
    assert 5 < hears(two, one, times=100) < 95
    assert hears(two, three, times=100) == 100
    one.heal()
    one.throttle(20)
    assert hears(one, two, times=500, size=1000) < 250
    one.heal()
    assert hears(one, two, times=100) == 100


LISTEN = """
import socket
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
listener.bind(("", 9999))
listener.settimeout(0.3)
print("ready", flush=True)
heard = 0
try:
    while True:
        listener.recv(2000)
        heard += 1
except TimeoutError:
    print(heard)
"""
SPEAK = """
import socket, sys
speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[2])):
    try:
        speaker.sendto(b"x" * int(sys.argv[3]), (sys.argv[1], 9999))
    except PermissionError:
        pass  # how Linux tells who sends that its own filter dropped it
"""


def hears(one: Any, other: Any, times: int = 1, size: int = 1) -> int:
    """Return how many datagrams arrive that another node sends."""
    with subprocess.Popen([*inside(one), LISTEN], stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        subprocess.run([*inside(other), SPEAK, one.place.address, str(times), str(size)], check=True)
        return int(listener.stdout.readline())


def inside(node: Any) -> list[str]:
    """Return the command that runs Python code in a node's network."""
    container = node.get_wrapped_container()
    container.reload()
    return ["nsenter", f"--target={container.attrs['State']['Pid']}", "--net", sys.executable, "-c"]
