"""A search cluster for tests of the command line."""

from __future__ import annotations

from osdisco.testing import FakeCluster


def a_cluster() -> FakeCluster:
    """Return one with something of everything."""
    cluster = FakeCluster("books")
    with cluster.together():
        cluster.create_index("logs-1", shards=2, replicas=1)
        cluster.create_index("logs-2", shards=1)
        cluster.create_index("geo", shards=1)
        cluster.join("n4", name="spare", zone="a", roles=())
        cluster.silence("n3")
        cluster.fail_shard("geo", 0)
        cluster.close_index("logs-2")
        cluster.block("cluster_read_only")
    return cluster
