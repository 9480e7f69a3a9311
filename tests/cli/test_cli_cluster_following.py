"""`osdisco cluster watch` and a candidate for the mirror: what they tell, and as commands that are killed."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_clusters import a_cluster
from cli_processes import PATIENCE, Invoke, Running, once_true

from osdisco.cli.cluster import _watch
from osdisco.cli.cluster._documents import KINDS, change_document
from osdisco.cli.cluster._following import follow, stand
from osdisco.client import Client
from osdisco.cluster import (
    Block,
    BlocksChanged,
    ClusterChange,
    ClusterManagerChanged,
    ClusterReplaced,
    ClusterState,
    ClusterStateService,
    IndexChanged,
    IndexCreated,
    IndexDeleted,
    IndexMetadata,
    NodeChanged,
    NodeInfo,
    NodeJoined,
    NodeLeft,
    NodeStatus,
    ShardChanged,
    ShardMoved,
    ShardRouting,
    ShardState,
    StateComponent,
    StateHeader,
)
from osdisco.testing import FakeCluster, Fault

Start = Callable[..., Running]
REAL = pytest.mark.osdisco("etcd", "consul")

NODE = NodeInfo("n1", name="node-\x1b[31m", status=NodeStatus.ONLINE)
INDEX = IndexMetadata("logs", uuid="u", state="open", number_of_shards=1)
COPY = ShardRouting("logs", 0, True, ShardState.STARTED, "n1")
GONE = ShardRouting("logs", 0, True, ShardState.UNASSIGNED)
STATE = ClusterState(StateHeader("books", "uuid", 1, "s"))
CHANGES: list[tuple[ClusterChange, str]] = [
    (NodeJoined(NODE), "+ node node-"),
    (NodeLeft(NODE.left()), "- node node-"),
    (NodeChanged(NODE, NodeInfo("n1", status=NodeStatus.DRAINING)), "online -> draining"),
    (IndexCreated(INDEX), "+ index logs  open  1 shards"),
    (IndexDeleted(INDEX), "- index logs"),
    (IndexChanged(INDEX, INDEX), "~ index logs"),
    (ShardChanged(COPY, GONE), "~ shard logs/0  primary  -  STARTED -> UNASSIGNED"),
    (ShardChanged(None, COPY), "+ shard logs/0  primary  n1  STARTED"),
    (ShardChanged(COPY, None), "- shard logs/0  primary"),
    (ShardMoved(GONE, COPY), "> shard logs/0  primary  unassigned -> n1  STARTED"),
    (BlocksChanged(None, (), (Block(6, "read-only"),)), "~ blocks of the cluster: read-only"),
    (BlocksChanged("logs", (Block(4),), ()), "~ blocks of index logs: none"),
    (ClusterManagerChanged("n1", None), "~ cluster manager n1 -> none"),
    (ClusterReplaced(STATE, STATE), "! this is another cluster"),
]


class TestChanges:
    @pytest.mark.parametrize(("change", "words"), CHANGES, ids=lambda one: type(one).__name__)
    def test_each_is_a_line_and_a_document(
        self, change: ClusterChange, words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        told = json.loads(json.dumps(change_document(change) | {"time": 0.0}))
        _watch._line(told)
        out = capsys.readouterr().out
        assert words in out
        assert out[:-1].isprintable()

    def test_there_are_no_others(self) -> None:
        assert set(KINDS) == set(ClusterChange.__subclasses__()) == {type(change) for change, _ in CHANGES}
        assert set(KINDS.values()) < set(_watch._TEXTS)


async def test_whoever_follows_is_told_of_versions_that_cost_nothing(osdisco_client: Client) -> None:
    """Given a reader of nodes, when a shard moves, then it sees the version, and has fetched no byte more."""
    cluster, told = a_cluster(), list[dict[str, Any]]()
    async with ClusterStateService(osdisco_client, cluster.source()) as mirror:
        await mirror.subscribe(StateComponent)
        following = asyncio.ensure_future(follow(osdisco_client, "default", {StateComponent.NODES}, told.append))
        await asyncio.sleep(1)
        cluster.move_shard("logs-1", 0, "n4")
        await asyncio.sleep(3)
        cluster.join("n5")
        await asyncio.sleep(3)
        following.cancel()
        await asyncio.wait([following])
    state, first, moved, last, joined = told
    assert [one["event"] for one in told] == ["state", "version", "version", "version", "node_joined"]
    assert state["nodes"] == {"online": 3, "unresponsive": 1}
    assert joined["node"]["id"] == "n5"
    assert first["fetched"] == moved["fetched"] < last["fetched"]
    assert moved["version"] == first["version"] + 1 == last["version"] - 1


async def test_whoever_follows_is_told_when_that_is_old(osdisco_client: Client) -> None:
    """Given a follower, when nobody mirrors for long, then it is told so once, and again when somebody does."""
    cluster, told = a_cluster(), list[dict[str, Any]]()
    following = asyncio.ensure_future(follow(osdisco_client, "default", {StateComponent.NODES}, told.append))
    await asyncio.sleep(2)
    for _ in range(2):
        async with ClusterStateService(osdisco_client, cluster.source()):
            await asyncio.sleep(5)
        await asyncio.sleep(10)
    following.cancel()
    await asyncio.wait([following])
    olds = [(one["event"], one.get("reason")) for one in told if one["event"] in ("stale", "fresh")]
    nobody = ("stale", "nobody mirrors the cluster")
    assert olds == [("stale", "no mirror has shown a state yet"), ("fresh", None), nobody, ("fresh", None), nobody]
    assert len([one for one in told if one["event"] == "state"]) == 1


async def test_a_candidate_tells_how_it_does(osdisco_client: Client) -> None:
    """Given a candidate, when the cluster goes away and returns, then it tells that, and what it publishes."""
    cluster, told = a_cluster(), list[dict[str, Any]]()
    standing = asyncio.ensure_future(stand(osdisco_client, "default", cluster.source(), 1.0, told.append))
    await asyncio.sleep(2)
    cluster.faults.add(Fault.UNAVAILABLE, times=1)
    await asyncio.sleep(5)
    cluster.join("n5")
    await asyncio.sleep(3)
    standing.cancel()
    await asyncio.wait([standing])
    events = [one["event"] for one in told if one["event"] != "standing"]
    assert events == ["leading", "published", "away", "leading", "published"]
    assert "503" in next(one["error"] for one in told if one["event"] == "away")
    assert [one["version"] for one in told if one["event"] == "published"][-1] == cluster.version


@pytest.fixture
def served() -> Iterator[FakeCluster]:
    """A cluster that is served, in a thread of its own, and asks for a password."""
    ready, over = threading.Event(), threading.Event()
    cluster = FakeCluster("books", auth=("mirror", "secret"))

    async def serve() -> None:
        async with cluster:
            ready.set()
            await once_true(over.is_set)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(PATIENCE)
    yield cluster
    over.set()
    thread.join(PATIENCE)


@REAL
def test_as_commands_one_mirrors_and_another_takes_over_when_it_is_killed(
    osdisco_url: str, start: Start, invoke: Invoke, served: FakeCluster, tmp_path: Path
) -> None:
    url = f"{osdisco_url}{'&' if '?' in osdisco_url else '?'}ttl=3s"
    password = tmp_path / "password"
    password.write_text("secret\n")
    args = ("cluster", "mirror", "--json", "--source", served.urls[0], "--poll", "300ms", "--username", "mirror")
    first = start(*args, "--password-file", str(password), url=url)
    assert _heard(first, "published")["cluster_name"] == "books"
    second = start(*args, "--password-file", str(password), url=url)
    assert _heard(second, "standing")["mirror"] is not None
    watcher = start("cluster", "watch", "--json", url=url)
    assert _heard(watcher, "state")["nodes"] == {"online": 3}
    first.send(signal.SIGKILL)
    served.join("n7", name="late")
    assert _heard(second, "leading")["token"] is not None
    assert _heard(watcher, "node_joined")["node"]["name"] == "late"
    for running in (watcher, second):
        running.send(signal.SIGINT)
        told = running.end()
        assert (told.code, told.err) == (130, "")
    told = invoke("--url", url, "cluster", "nodes", "--zone", "a")
    assert (told.code, "nobody mirrors" in told.err) == (0, True)


@pytest.mark.osdisco("etcd")
def test_a_candidate_that_is_refused_says_so_and_goes_on(osdisco_url: str, start: Start, served: FakeCluster) -> None:
    running = start("cluster", "mirror", "--source", served.urls[0], url=osdisco_url)
    line = running.line()
    while "cannot mirror" not in line:
        line = running.line()
    assert "401; check user and password" in line
    running.send(signal.SIGTERM)
    assert running.end().code == 143


def _heard(running: Running, event: str) -> dict[str, Any]:
    """Read until an event comes."""
    while (told := json.loads(running.line()))["event"] != event:
        pass
    return dict(told)
