"""`osdisco cluster`: what the mirror shows, how old it may be and why, and being the mirror."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cli_clusters import a_cluster
from cli_processes import PATIENCE, Invoke, meanwhile, once_true

from osdisco.client import Client
from osdisco.cluster import ClusterStateService, StateComponent
from osdisco.testing import FakeCluster, Fault

READING = ("state", "nodes", "shards", "blocks")


@contextmanager
def mirrored(url: str, cluster: FakeCluster) -> Iterator[None]:
    """Let somebody mirror a cluster while a block runs, and have all of it shown before that begins."""
    shown, over = threading.Event(), threading.Event()

    async def mirror(client: Client) -> None:
        async with ClusterStateService(client, cluster.source(), poll=0.05) as service:
            await service.subscribe(StateComponent, PATIENCE)
            shown.set()
            await once_true(over.is_set)

    with meanwhile(url, mirror):
        assert shown.wait(PATIENCE)
        try:
            yield
        finally:
            over.set()


@pytest.fixture
def left_url(memory_url: str) -> str:
    """The URL of a store in which a mirror has left a state, and is gone."""
    with mirrored(memory_url, a_cluster()):
        pass
    return memory_url


class TestWhereNobodyEverMirrored:
    @pytest.mark.parametrize("command", READING)
    @pytest.mark.parametrize("patience", [(), ("--timeout", "50ms")])
    def test_there_is_nothing_to_show(
        self, command: str, patience: tuple[str, ...], invoke: Invoke, memory_url: str
    ) -> None:
        told = invoke("--url", memory_url, "cluster", command, *patience)
        assert (told.code, told.out) == (3, "")
        assert "no mirror has shown the state of the cluster 'default'; 'osdisco cluster mirror --source" in told.err

    def test_there_is_no_mirror_to_show(self, invoke: Invoke, memory_url: str) -> None:
        told = invoke("--url", memory_url, "cluster", "mirror", "--cluster", "other", "--json")
        assert (told.code, told.error["exit_code"]) == (3, 3)
        assert "nobody mirrors the cluster 'other'" in told.error["message"]

    def test_one_may_wait_for_the_first_state(self, invoke: Invoke, memory_url: str) -> None:
        async def late(client: Client) -> None:
            await asyncio.sleep(0.2)
            async with ClusterStateService(client, a_cluster().source()) as service:
                await service.subscribe(StateComponent, PATIENCE)
                await asyncio.sleep(0.2)

        with meanwhile(memory_url, late):
            told = invoke("--url", memory_url, "cluster", "nodes", "--timeout", "15s")
        assert told.code == 0
        assert len(told.out.splitlines()) == 4

    @pytest.mark.parametrize("command", [*READING, "mirror", "watch"])
    def test_a_store_that_is_away_is_code_5(self, command: str, invoke: Invoke) -> None:
        told = invoke("--url", "etcd://127.0.0.1:1?timeout=200ms", "cluster", command)
        assert (told.code, told.out) == (5, "")


class TestWhatIsShown:
    @pytest.fixture(autouse=True)
    def mirror(self, memory_url: str) -> Iterator[None]:
        with mirrored(memory_url, a_cluster()):
            yield

    @pytest.fixture
    def shown(self, invoke: Invoke, memory_url: str) -> Callable[..., list[list[str]]]:
        def show(*args: str) -> list[list[str]]:
            told = invoke("--url", memory_url, "cluster", *args)
            assert (told.code, told.err) == (0, "")
            return [line.split("\t") for line in told.out.splitlines()]

        return show

    @pytest.fixture
    def documents(self, invoke: Invoke, memory_url: str) -> Callable[..., list[dict[str, Any]]]:
        def show(*args: str) -> list[dict[str, Any]]:
            told = invoke("--url", memory_url, "cluster", *args, "--json")
            assert (told.code, told.err) == (0, "")
            documents: list[dict[str, Any]] = told.documents
            return documents

        return show

    def test_which_state_it_is(self, shown: Any, documents: Any) -> None:
        lines = dict(shown("state"))
        assert lines["name"] == "books"
        assert lines["cluster manager"] == "node-n1"
        assert lines["nodes"] == "4: 3 online, 1 unresponsive"
        assert lines["indices"] == "3: 1 close, 2 open"
        (found,) = documents("state")
        assert found["nodes"] == {"online": 3, "unresponsive": 1}
        assert (found["cluster"], found["cluster_name"], found["stale"]) == ("default", "books", None)
        assert lines["version"] == f"{found['version']}, in term {found['term']}"
        assert 0 <= found["age"] < PATIENCE

    def test_all_parts_as_they_came(self, documents: Any) -> None:
        parts = {(one["component"], one["part"]): one["value"] for one in documents("state", "--raw")}
        assert parts["metadata", "index/geo"]["state"] == "open"
        assert {component for component, _ in parts} == set(StateComponent)

    def test_nodes(self, shown: Any, documents: Any) -> None:
        lines = shown("nodes")
        assert [line[:4] for line in lines[:1]] == [["n1", "node-n1", "*", "10.0.0.1:9300"]]
        assert [(line[0], line[2], line[4], line[6]) for line in lines[1:]] == [
            ("n2", "", lines[0][4], "online"),
            ("n3", "", "?", "unresponsive"),
            ("n4", "", "coordinator", "online"),
        ]
        assert [one["cluster_manager"] for one in documents("nodes")] == [True, False, False, False]
        assert [one["roles"] for one in documents("nodes")][2:] == [None, []]

    @pytest.mark.parametrize(
        ("asked", "ids"),
        [
            (("--role", "data"), ["n1", "n2"]),
            (("--zone", "a"), ["n1", "n4"]),
            (("--status", "unresponsive"), ["n3"]),
            (("--zone", "a", "--role", "data"), ["n1"]),
        ],
    )
    def test_some_nodes(self, asked: tuple[str, ...], ids: list[str], shown: Any) -> None:
        assert [line[0] for line in shown("nodes", *asked)] == ids

    def test_shards(self, shown: Any, documents: Any) -> None:
        lines = shown("shards")
        assert [line[0] for line in lines] == ["geo"] * 2 + ["logs-1"] * 4 + ["logs-2"] * 2
        assert [line[1:] for line in lines[:2]] == [
            ["0", "primary", "STARTED", "node-n1", ""],
            ["0", "replica", "UNASSIGNED", "-", "ALLOCATION_FAILED"],
        ]
        assert documents("shards")[1]["unassigned"]["reason"] == "ALLOCATION_FAILED"

    @pytest.mark.parametrize(
        ("asked", "count"),
        [
            (("geo",), 2),
            (("logs-*",), 6),
            (("nothing-*",), 0),
            (("--state", "UNASSIGNED"), 1),
            (("logs-1", "--id", "7"), 2),
            (("logs-1", "--routing", "user-7"), 2),
        ],
    )
    def test_some_shards(self, asked: tuple[str, ...], count: int, shown: Any) -> None:
        assert len(shown("shards", *asked)) == count

    def test_shards_on_a_node_by_its_id_or_its_name(self, shown: Any) -> None:
        assert shown("shards", "--node", "n1") == shown("shards", "--node", "node-n1")
        assert {line[4] for line in shown("shards", "--node", "n1")} == {"node-n1"}

    def test_a_routing_value_leads_to_one_shard(self, documents: Any) -> None:
        found = documents("shards", "logs-1", "--routing", "user-7")
        assert len({one["shard"] for one in found}) == 1
        assert [one["primary"] for one in found] == [True, False]

    def test_blocks(self, shown: Any, documents: Any) -> None:
        assert [line[:2] for line in shown("blocks")] == [["*", "6"], ["logs-2", "4"]]
        assert [line[:2] for line in shown("blocks", "geo")] == [["*", "6"]]
        assert [one["index"] for one in documents("blocks")] == [None, "logs-2"]

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (("shards", "logs-3"), "the cluster has no index 'logs-3'"),
            (("shards", "--node", "n9"), "no nodes have the name 'n9'"),
            (("shards", "logs-3", "--id", "1"), "the cluster has no index 'logs-3'"),
            (("blocks", "logs-3"), "the cluster has no index 'logs-3'"),
        ],
    )
    def test_what_is_not_there_is_code_3(
        self, args: tuple[str, ...], words: str, invoke: Invoke, memory_url: str
    ) -> None:
        told = invoke("--url", memory_url, "cluster", *args)
        assert (told.code, told.out) == (3, "")
        assert words in told.err

    def test_who_mirrors(self, shown: Any, documents: Any) -> None:
        lines = dict(shown("mirror"))
        assert lines["mirror"].startswith("the operator, for ")
        assert lines["next"] == "nobody"
        assert lines["state"] == "up to date"
        assert lines["nodes"].startswith("1 blobs, ")
        (found,) = documents("mirror")
        assert (found["mirror"], found["candidates"], found["stale"]) == ("the operator", [], None)
        assert found["sizes"].keys() == set(StateComponent)
        assert found["age"] is not None


class TestWhatMayBeOld:
    @pytest.mark.parametrize("command", READING)
    def test_is_shown_with_the_reason_beside_it(self, command: str, invoke: Invoke, left_url: str) -> None:
        told = invoke("--url", left_url, "cluster", command)
        assert told.code == 0
        assert told.out != ""
        assert told.err.startswith("osdisco: not up to date: nobody mirrors the cluster; read from the cluster ")
        found = invoke("--url", left_url, "cluster", command, "--json")
        assert found.err == ""
        assert {one["stale"] for one in found.documents} == {"nobody mirrors the cluster"}

    def test_nobody_knows_for_how_long_nobody_mirrors(self, invoke: Invoke, left_url: str) -> None:
        (found,) = invoke("--url", left_url, "cluster", "mirror", "--json").documents
        assert (found["mirror"], found["age"], found["stale"]) == (None, None, "nobody mirrors the cluster")
        assert dict(line.split("\t") for line in invoke("--url", left_url, "cluster", "mirror").out.splitlines())[
            "state"
        ] == ("not up to date: nobody mirrors the cluster")

    def test_a_mirror_that_cannot_reach_the_cluster_says_why(self, invoke: Invoke, memory_url: str) -> None:
        cluster = a_cluster()
        with mirrored(memory_url, cluster):
            cluster.faults.add(Fault.UNAVAILABLE)
            found = _until(lambda: invoke("--url", memory_url, "cluster", "mirror", "--json").documents[0], "away")
            assert "503" in found["away"]
            assert found["stale"] == f"the cluster cannot be mirrored: {found['away']}"
            told = invoke("--url", memory_url, "cluster", "nodes")
            assert (told.code, len(told.out.splitlines())) == (0, 4)
            assert "not up to date: the cluster cannot be mirrored" in told.err

    def test_a_head_of_a_newer_osdisco_is_a_failure_that_says_so(self, invoke: Invoke, memory_url: str) -> None:
        async def newer(client: Client) -> None:
            await client.put("cluster/default/head", b'{"format": 2}')

        with meanwhile(memory_url, newer):
            pass
        told = invoke("--url", memory_url, "cluster", "nodes", "--timeout", "200ms")
        assert (told.code, told.out) == (1, "")
        assert "format 2, and this osdisco reads 1" in told.err


def _until(look: Callable[[], dict[str, Any]], what: str) -> dict[str, Any]:
    for _ in range(200):
        if (found := look())[what] is not None:
            return found
    raise AssertionError(f"never {what}")


class TestUsage:
    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (("shards", "--id", "1"), "--id and --routing need an INDEX"),
            (("mirror", "--poll", "2s"), "--poll is for a candidate: give --source, too"),
            (("mirror", "--tls-ca", "x"), "--tls-ca is for a candidate: give --source, too"),
            (("mirror", "--source", "os1:9200"), "os1:9200"),
            (("mirror", "--source", "http://os1", "--username", "u"), "username= and password_file= go together"),
            (("nodes", "--cluster", ""), "the mirror cannot be called"),
            (("nodes", "--status", "left"), "'left' is not one of"),
            (("watch", "--only", "settings"), "'settings' is not one of"),
        ],
    )
    def test_what_makes_no_sense_is_code_2(
        self, args: tuple[str, ...], words: str, invoke: Invoke, memory_url: str
    ) -> None:
        told = invoke("--url", memory_url, "cluster", *args)
        assert (told.code, told.out) == (2, "")
        assert words in told.err
