"""Fixtures of our own tests, thin over `osdisco.testing`."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import canaries
import pytest
import reliability
from worlds import World

from osdisco.testing import VirtualClock
from osdisco.testing.clusters import packets_problem
from osdisco.testing.servers import ConsulServer, EtcdServer, Servers, missing

collect_ignore = ["example_backend"]  # a package of its own; tests/testing/test_example_backend.py runs its tests


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of `make unit` and `make faults`."""
    parser.addoption("--no-servers", action="store_true", help="leave out the tests that need real servers")
    parser.addoption("--all-faults", action="store_true", help="run all of tests/faults, not a third of it")
    parser.addoption("--reliability", type=Path, metavar="FILE", help="add to FILE what tests of faults have shown")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the third of tests/faults that is run, one for all processes of the run; count outcomes if asked to.

    And let all that is said be searched for secrets.
    """
    config.pluginmanager.register(canaries.Plugin())
    config.addinivalue_line("markers", "fault(*classes, on=None): holds these classes of docs/reliability.md")
    os.environ.setdefault("OSDISCO_TEST_FAULTS_SEED", str(random.randrange(2**32)))
    if config.getoption("--reliability") and not config.getoption("--all-faults"):
        raise pytest.UsageError("--reliability books all faults of a test as held, which only --all-faults runs")
    if (file := config.getoption("--reliability")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(reliability.Keeper(file))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a real server, if that is wished."""
    reliability.mark(items)
    if config.getoption("--no-servers"):
        out = [item for item in items if _needs_server(item)]
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)


def _needs_server(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec else {}
    store = params.get("osdisco_url") or params.get("store_url", "memory")
    return store != "memory" or "osdisco_servers" in getattr(item, "fixturenames", ())


@pytest.fixture(autouse=True)
def log_level_as_found() -> Iterator[None]:
    """The command line sets the level of all logs; within a test run it would silence those of later tests."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Draw a seed, or take the one of the environment; what is printed shows when the test fails, and repeats it."""
    number = int(os.environ.get("OSDISCO_TEST_CASE_SEED") or random.SystemRandom().randrange(2**32))
    print(f"OSDISCO_TEST_CASE_SEED={number} pytest '{request.node.nodeid}'")
    return number


@pytest.fixture
async def world(osdisco_clock: VirtualClock) -> AsyncGenerator[World, None]:
    """A store with processes, in virtual time. Nothing may be left in it once they are closed."""
    world = World()
    yield world
    await world.aclose()
    assert not world.left(), f"left behind: {world.left()}"


@pytest.fixture
def packet_filters() -> None:
    """Packets can be filtered here; otherwise the test is skipped, or fails with CI=true."""
    if problem := packets_problem():
        missing("filtered", problem, cluster=True)


@pytest.fixture(scope="session")
def etcd_server(osdisco_servers: Servers) -> EtcdServer:
    """The shared etcd, in the open."""
    return osdisco_servers.etcd()


@pytest.fixture(scope="session")
def secured_etcd_server(osdisco_servers: Servers) -> EtcdServer:
    """The shared etcd with TLS and auth."""
    return osdisco_servers.etcd(secured=True)


@pytest.fixture(scope="session")
def consul_server(osdisco_servers: Servers) -> ConsulServer:
    """The shared Consul, in the open."""
    return osdisco_servers.consul()


@pytest.fixture(scope="session")
def secured_consul_server(osdisco_servers: Servers) -> ConsulServer:
    """The shared Consul with TLS and ACLs."""
    return osdisco_servers.consul(secured=True)
