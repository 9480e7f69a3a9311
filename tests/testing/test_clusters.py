"""Clusters of three: their nodes die, freeze, are cut off and come back, and healthy means healthy."""

from __future__ import annotations

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
