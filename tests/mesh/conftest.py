"""Stores for meshes that call by HTTP: their event loop is a real one on memory, too."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from osdisco.testing.servers import Servers


@pytest.fixture(params=["memory", "etcd", "etcd+http", "consul"])
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of each store, with a namespace of its own."""
    if request.param == "memory":
        yield f"memory://{uuid4().hex}"
        return
    servers: Servers = request.getfixturevalue("osdisco_servers")
    yield servers.url(request.param)
