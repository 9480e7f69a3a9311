"""Rooms of the fault suites, and the third of them that a run of all suites takes."""

from __future__ import annotations

import os
from hashlib import blake2b

import pytest
from network import STORES

from osdisco.testing import Servers

HERE = "tests/faults/"
PARTS = 3


def pytest_report_header(config: pytest.Config) -> str:
    """Tell which third is run, and how to run it again."""
    return f"tests/faults: {_told(config)}"


def _told(config: pytest.Config) -> str:
    return "all" if _all(config) else f"a third, run again by OSDISCO_TEST_FAULTS_SEED={_seed()}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave two thirds out, unless all were asked for."""
    if _all(config):
        return
    out = [item for item in items if item.nodeid.startswith(HERE) and not is_chosen(item.nodeid, _seed())]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


def _all(config: pytest.Config) -> bool:
    return config.getoption("--all-faults") or any(HERE.rstrip("/") in arg for arg in config.args)


def _seed() -> int:
    return int(os.environ["OSDISCO_TEST_FAULTS_SEED"])


def is_chosen(node: str, seed: int) -> bool:
    """Return whether a test is in the third that a seed chooses. Three seeds in a row choose all."""
    number = int.from_bytes(blake2b(node.encode(), digest_size=4).digest(), "big")
    return number % PARTS == seed % PARTS


@pytest.fixture
def urls(osdisco_servers: Servers) -> dict[str, str]:
    """Return a URL of each store. (A server that starts would stop the event loop of who uses another one.)"""
    return {store: osdisco_servers.url(store) for store in STORES}
