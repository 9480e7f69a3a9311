"""The clusters."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from cluster_rooms import TTL, Store

from osdisco.testing import Servers

HERE = "tests/cluster/"


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


@pytest.fixture
def cluster_seed() -> int:
    """What decides all that is left to chance; printed, and taken from `OSDISCO_TEST_CLUSTER_SEED` to run one again."""
    seed = int(os.environ.get("OSDISCO_TEST_CLUSTER_SEED") or random.SystemRandom().randrange(10**6))
    print(f"OSDISCO_TEST_CLUSTER_SEED={seed}")
    return seed


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
