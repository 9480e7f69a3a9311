"""`osdisco demo --cluster`: sets the stage for the demo of the cluster's mirror."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from osdisco.cli.demo._cluster_cast import CommandActor, command, in_scope_text, life
from osdisco.cli.demo._cluster_director import INDEX, ClusterDirector as ClusterDirector
from osdisco.cli.demo._documents import Documents
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._stages import Actor, Stage, ThreadActor
from osdisco.testing.opensearch import FakeCluster

if TYPE_CHECKING:
    from osdisco.cli.demo._cluster_timeline import ClusterTimeline


@asynccontextmanager
async def fake_cluster() -> AsyncIterator[FakeCluster]:
    """Enter a search cluster that is served on loopback: three nodes, two indices."""
    async with FakeCluster("demo") as cluster:
        with cluster.together():
            cluster.create_index(INDEX, shards=3, replicas=1)
            cluster.create_index("geo", shards=1, replicas=1)
        yield cluster


def show_for(facts: Facts, *, as_json: bool) -> Documents | ClusterTimeline:
    """Return whoever is told the story."""
    if as_json:
        return Documents(facts)
    from osdisco.cli.demo._cluster_timeline import ClusterTimeline

    return ClusterTimeline(facts)


def starter(director: ClusterDirector, stage: Stage, cluster: FakeCluster) -> Callable[[str], Awaitable[Actor]]:
    """Return what starts one of them: a command of ours, or in this process what that command does."""

    async def start(who: str) -> Actor:
        source = ",".join(cluster.urls)
        if stage.local:
            return ThreadActor(who, director.events, life(who, source, stage.scoped))
        url = in_scope_text(stage.text, stage.scope, stage.ttl)
        return await CommandActor.start(who, director.events, command(who, source), url)

    return start
