"""The clusters, and what their leases and failovers take."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import frozen

from osdisco.testing import Servers
from osdisco.testing._stores import in_namespace

TTL = 3
TIMEOUT = 2


HERE = "tests/cluster/"
EVERYWHERE = ("etcd", "etcd+http", "consul")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the tests of faults the time that all of their cases take, when all were asked for."""
    if config.getoption("--all-faults"):
        for item in items:
            if item.nodeid.startswith(HERE) and item.get_closest_marker("fault"):
                item.add_marker(pytest.mark.timeout(1800), append=False)


@pytest.fixture
def all_faults(request: pytest.FixtureRequest) -> bool:
    """Whether all cases are to be run, and not some by chance."""
    return bool(request.config.getoption("--all-faults"))


@frozen
class Store:
    """A cluster, the ways to it by name, and bounds in seconds.

    `expiry` is for a lease of TTL that nobody renews; `failover` is until another node leads and writes. A storm has
    `strikes` at the leader.
    """

    cluster: Any
    ways: dict[str, Callable[[list[str]], str]]
    expiry: float
    failover: float
    strikes: int

    def url(self, way: str, addresses: list[str], namespace: str, ttl: float = TTL) -> str:
        """Return the URL for clients."""
        return f"{in_namespace(self.ways[way](addresses), namespace)}?ttl={ttl}s&timeout={TIMEOUT}s"

    def any_order(self, chance: random.Random) -> list[str]:
        """Return the addresses of all nodes."""
        return chance.sample(self.cluster.addresses, len(self.cluster.addresses))


@pytest.fixture(scope="package")
def etcds(osdisco_servers: Servers) -> Iterator[Store]:
    """An etcd cluster."""
    with osdisco_servers.fresh_etcd_cluster() as cluster:
        url = cluster.access.url
        ways = {"grpc": url, "gateway": lambda addresses: url(addresses, gateway=True)}
        yield Store(cluster, ways, expiry=TTL + 0.5, failover=3, strikes=4)


@pytest.fixture(scope="package")
def consuls(osdisco_servers: Servers) -> Iterator[Store]:
    """A Consul cluster."""
    with osdisco_servers.fresh_consul_cluster() as cluster:
        ways = {"consul": cluster.access.url}
        yield Store(cluster, ways, expiry=2 * TTL, failover=6, strikes=3)  # it takes long to be healthy again


@pytest.fixture(params=["etcds", "consuls"])
def store(request: pytest.FixtureRequest, osdisco_servers: Servers) -> Store:
    """Run the test on both. It must leave the cluster healthy."""
    store: Store = request.getfixturevalue(request.param)
    return store
