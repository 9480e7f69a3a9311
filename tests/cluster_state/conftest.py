"""A cluster that is mirrored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mirrors import Mirrored
from worlds import World

from osdisco.testing import FakeCluster


@pytest.fixture
def mirrored(world: World) -> Iterator[Mirrored]:
    """A cluster of three nodes with one index; what may never be seen of it fails the test."""
    cluster = FakeCluster()
    cluster.create_index("logs", shards=2)
    mirrored = Mirrored(world, cluster)
    yield mirrored
    assert mirrored.failures == []
