"""`osdisco demo --cluster`: shows what it says, fails when that did not happen, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_processes import Invoke, Running, alive, eventually

from osdisco.cli import demo as demo_command
from osdisco.cli.cluster._following import Tell, follow
from osdisco.cli.demo import _cluster_cast, _cluster_director
from osdisco.cli.demo._cluster_cast import MIRRORS, READERS, in_scope_text
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._stages import in_scope
from osdisco.client import Client
from osdisco.cluster import StateComponent
from osdisco.testing import FakeCluster
from osdisco.url import StoreURL

Start = Callable[..., Running]
CHAPTERS = ["Mirror", "Join", "Move", "Kill", "Replace"]
ROOT = Path(__file__).parents[2]


def check_story(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Hold the events to what the demo is to show; returns the summary."""

    def of(event: str, **data: Any) -> list[dict[str, Any]]:
        return [one for one in told if one["event"] == event and data.items() <= one.items()]

    def at(event: str, **data: Any) -> int:
        return told.index(of(event, **data)[0])

    assert [one["title"] for one in of("chapter")] == CHAPTERS
    places = [at("chapter", title=title) for title in CHAPTERS]
    (killed,) = of("killed")
    first, second = (one["who"] for one in of("leading"))
    assert (killed["who"], {first, second}) == (first, set(MIRRORS))
    assert of("leading")[0]["token"] < of("leading")[1]["token"]
    for who in READERS:
        assert at("state", who=who) < places[1] < at("node_joined", who=who) < places[2]
        assert [one["node"]["id"] for one in of("node_left", who=who)] == ["n3"]
        assert at("node_left", who=who) > places[4]
        versions = [one["version"] for one in of("version", who=who)]
        assert versions == sorted(set(versions))
        assert at("unharmed", who=who) > at("leading", who=second)
    for who in ("geo", "knn"):
        (moved,) = of("shard_moved", who=who)
        assert (moved["shard"]["index"], moved["shard"]["node"]) == ("logs", "n4")
        assert places[2] < told.index(moved) < places[3]
    assert [one["who"] for one in of("fetched nothing")] == ["sql"]
    return told[-1]


def test_on_memory(start: Start) -> None:
    told = start("demo", "--cluster", "--json").end(60)
    assert (told.code, told.err) == (0, "")
    summary = check_story(told.documents)
    assert summary["event"] == "summary"
    assert summary["asked_for_the_state"] <= 5
    assert summary["took"] < 20


def test_for_people(start: Start) -> None:
    told = start("demo", "--cluster").end(60)
    assert (told.code, told.err) == (0, "")
    assert "\x1b" not in told.out
    found = [re.match(r"  \d  (.*?)  ─", line) for line in told.out.splitlines()]
    assert [match[1] for match in found if match] == CHAPTERS
    for words in (
        "2 candidates for the mirror and 3 readers, each in a thread of this process",
        "sees node-n4 join, ",
        "sees logs/0 on n4, ",
        "fetched nothing but its head",
        "killed while it mirrors: its event loop stops dead",
        "sees node-n3 leave, ",
        "unharmed: ",
    ):
        assert words in told.out
    assert re.search(r"left in the store +nothing", told.out)


@pytest.mark.osdisco("etcd")
def test_on_a_real_store_it_is_commands_of_which_one_is_killed(osdisco_url: str, start: Start, invoke: Invoke) -> None:
    told = start("demo", "--cluster", "--json", "--url", _with_ttl(osdisco_url)).end(90)
    assert (told.code, told.err) == (0, "")
    check_story(told.documents)
    pids = _pids(told.documents)
    assert len(set(pids)) == 5
    assert not any(map(alive, pids))
    assert invoke("--url", osdisco_url, "kv", "ls").out == ""


@pytest.mark.osdisco("etcd")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_ended_it_takes_its_commands_with_it(osdisco_url: str, start: Start, number: signal.Signals, code: int) -> None:
    running = start("demo", "--cluster", "--json", "--url", _with_ttl(osdisco_url))
    told = [json.loads(running.line())]
    while told[-1].get("title") != "Join":
        told.append(json.loads(running.line()))
    running.send(number)
    assert running.end().code == code
    pids = _pids(told)
    assert len(pids) == 5
    eventually(lambda: not any(map(alive, pids)), "the commands to end")


def test_what_does_not_go_together(invoke: Invoke) -> None:
    told = invoke("demo", "--cluster", "--url", "etcd://127.0.0.1", "--outage", "true", "true")
    assert (told.code, told.out) == (2, "")
    assert "--outage is for the demo of extensions" in told.err


def test_without_aiohttp_it_says_what_to_install(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    told = invoke("demo", "--cluster")
    assert (told.code, told.out) == (2, "")
    assert "pip install 'osdisco[cli,opensearch]'" in told.err


def test_it_is_run_where_the_other_one_is() -> None:
    assert "$(BIN)/osdisco demo --cluster\n" in (ROOT / "Makefile").read_text()
    assert "'.[cli,mesh,opensearch]'" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    "text",
    ["etcd://h:1", "etcd://u:p%2Fw@h:1,i:2/a%20b/c/?ttl=9s&timeout=1s", "consul+https://h/n?tls_ca=%2Fx"],
)
def test_commands_are_told_the_same_namespace_with_all_secrets(text: str) -> None:
    told = StoreURL.parse(in_scope_text(text, "demo-1", 3.0))
    meant = in_scope(StoreURL.parse(text), "demo-1", 3.0)
    assert told == meant


class TestBrokenPromises:
    """Each is broken on purpose, and the demo says so."""

    @pytest.fixture(autouse=True)
    def nobody_watches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_cluster_director, "SUSPENSE", 0.01)

    def test_a_node_that_does_not_join(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo_command, "LIMIT", -2.0)  # plus five times the ttl: 3 s
        monkeypatch.setattr(FakeCluster, "join", _only_at_first(FakeCluster.join))
        assert _broken(invoke) == "gave up after 3 s, waiting for all to see n4; 'osdisco doctor' looks at the store"

    def test_a_reader_that_fetches_what_it_did_not_ask_for(
        self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def greedy(client: Client, name: str, components: Iterable[StateComponent], tell: Tell) -> None:
            await follow(client, name, StateComponent, tell)

        monkeypatch.setattr(_cluster_cast, "follow", greedy)
        assert re.fullmatch(r"sql asked for nodes alone, and fetched \d+ bytes when a shard moved", _broken(invoke))

    def test_a_mirror_that_asks_too_often(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_cluster_director, "POLL", 60.0)
        assert re.match(r"the cluster was asked \d+ times in \d", _broken(invoke))

    def test_a_reader_that_begins_anew(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        add = Facts.add
        monkeypatch.setattr(Facts, "add", lambda facts, event: [add(facts, event) for _ in range(_times(event.what))])
        assert re.fullmatch("geo lost what it knew, and began anew", _broken(invoke))

    def test_an_actor_that_fails(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: object) -> None:
            raise RuntimeError("no more")

        monkeypatch.setattr(_cluster_cast, "follow", fail)
        assert re.fullmatch("(geo|knn|sql): no more", _broken(invoke))


def _times(what: str) -> int:
    return 2 if what == "state" else 1


def _only_at_first(join: Callable[..., None]) -> Callable[..., None]:
    def joined(cluster: FakeCluster, id_: str, **about: Any) -> None:
        if id_ != "n4":
            join(cluster, id_, **about)

    return joined


def _broken(invoke: Invoke) -> str:
    told = invoke("demo", "--cluster", "--json")
    assert told.code == 1
    message: str = told.error["message"]
    return message


def _pids(told: Sequence[dict[str, Any]]) -> list[int]:
    return [int(one["place"].removeprefix("process ")) for one in told if one["event"] == "started"]


def _with_ttl(url: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}ttl=3s"
