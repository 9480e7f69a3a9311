"""`osdisco ls`, `watch-events` and `describe`: who is registered, who comes and goes, and all that is known of one."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import attrs
import pytest
from cli_processes import COMMAND, Invoke, Running, meanwhile, read_until

import osdisco
from osdisco.backend import Snapshot
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, EndpointInfo, ExtensionInfo, ExtensionStatus, Probing
from osdisco.testing._api import free_port
from osdisco.testing.servers import Servers
from osdisco_memory import MemoryBackend

Start = Callable[..., Running]
REAL = pytest.mark.osdisco("etcd", "consul")
GEO = ExtensionInfo(
    "geo-1",
    "geo",
    "1.4.0",
    "::1",
    9700,
    ["geo.search", "geo.index"],
    endpoints={"rest": EndpointInfo("http", 9701, "/geo")},
    metadata={"zone": "a"},
)
SQL = ExtensionInfo("sql-1", "sql", "2.0.0", "10.0.0.8", 9800, ["sql.query"], status=ExtensionStatus.HEALTHY)


@contextmanager
def registered(url: str, *extensions: ExtensionInfo) -> Iterator[None]:
    """Extensions in a thread of their own: the commands need the main one for their signals."""
    ready, done = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        living = pool.submit(lambda: asyncio.run(live(url, extensions, ready, done)))
        try:
            assert ready.wait(10)
            yield
        finally:
            done.set()
            living.result(10)


async def live(url: str, extensions: tuple[ExtensionInfo, ...], ready: threading.Event, done: threading.Event) -> None:
    async with osdisco.connect(url, name="the host") as client:
        services = [await DiscoveryService(client, one).start() for one in extensions]
        for service in services:
            await service.wait_registered(10)
        ready.set()
        await asyncio.to_thread(done.wait)
        for service in services:
            await service.stop()


# ls


def test_ls_shows_extensions(invoke: Invoke, memory_url: str) -> None:
    with registered(memory_url, GEO, SQL):
        rows = [line.split("\t") for line in invoke("--url", memory_url, "ls").out.splitlines()]
        assert [row[0] for row in rows] == ["geo-1", "sql-1"]
        assert rows[0][1:] == ["geo", "1.4.0", "[::1]:9700", "starting", "geo.search geo.index", "zone=a"]
        document, _ = invoke("--url", memory_url, "ls", "--json").documents
        assert (document["id"], document["host"], document["port"]) == ("geo-1", "::1", 9700)
    assert invoke("--url", memory_url, "ls").out == ""


def test_ls_shows_those_that_are_meant(invoke: Invoke, memory_url: str) -> None:
    both = {"geo-1", "sql-1"}
    with registered(memory_url, GEO, SQL):
        for options, meant in (
            (("--capability", "sql.query"), {"sql-1"}),
            (("--capability", "none"), set()),
            (("--name", "geo"), {"geo-1"}),
            (("--version", ">=1.2,<2"), {"geo-1"}),
            (("--version", ">1"), both),
            (("--status", "healthy"), {"sql-1"}),
            (("--metadata", "zone=a"), {"geo-1"}),
            (("--zone", "a"), {"geo-1"}),
            (("--zone", "a", "--status", "healthy"), set()),
        ):
            told = invoke("--url", memory_url, "ls", "--json", *options)
            assert {one["id"] for one in told.documents} == meant, options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--version", "new"), "the version specifier 'new' has 'new' in it; allowed are"),
        (("--status", "fine"), "'fine' is not one of 'starting'"),
        (("--metadata", "zone"), "--metadata 'zone' is not NAME=VALUE"),
    ],
)
@pytest.mark.parametrize("command", ["ls", "watch-events"])
def test_filters_that_are_none(command: str, options: tuple[str, ...], words: str, invoke: Invoke) -> None:
    told = invoke("--url", "memory://", command, *options)
    assert told.code == 2
    assert words in told.err


@pytest.mark.osdisco("etcd")
def test_a_live_list_shows_each_that_changes_and_goes(osdisco_url: str, start: Start) -> None:
    with registered(osdisco_url, SQL):
        documents = start("ls", "--watch", "--json", url=osdisco_url)
        lines = start("ls", "--watch", "--status", "starting", url=osdisco_url)
        assert json.loads(documents.line())["id"] == "sql-1"
        with registered(osdisco_url, GEO):
            assert json.loads(documents.line())["status"] == "starting"
            assert lines.line().split("\t")[:2] == ["geo-1", "geo"]
        assert json.loads(documents.line())["status"] == "stopping"
        assert json.loads(documents.line()) == {"id": "geo-1", "gone": True}
        assert lines.line().split("\t") == ["geo-1", "-", "-", "-", "gone", "", ""]
        for running in (documents, lines):
            running.send(signal.SIGINT)
            told = running.end()
            assert (told.code, told.err) == (130, "")


@pytest.mark.osdisco("etcd")
def test_a_terminal_is_drawn_anew_and_obeys_nothing_that_it_shows(osdisco_url: str, start: Start) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="160", LINES="40")
        os.execv(sys.executable, [*COMMAND, "--url", osdisco_url, "ls", "--watch"])
    shown = read_until(terminal, b"nobody is registered")
    evil = ExtensionInfo("evil", "\x1b]0;me\x07", "1", "h", 1, status=ExtensionStatus.UNHEALTHY)
    with registered(osdisco_url, evil):
        shown += read_until(terminal, b"unhealthy")
    shown += read_until(terminal, b"nobody is registered")
    os.write(terminal, b"\x03")
    shown += read_until(terminal, None)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"\\x1b]0;me\\x07" in shown
    assert b"\x1b]0;me" not in shown


# watch-events


@REAL
def test_events_are_shown_in_order(osdisco_url: str, start: Start) -> None:
    with registered(osdisco_url, SQL):
        documents = start("watch-events", "--json", url=osdisco_url)
        lines = start("watch-events", "--capability", "geo.search", url=osdisco_url)
        assert json.loads(documents.line())["extension"]["id"] == "sql-1"
        with registered(osdisco_url, GEO):
            assert re.fullmatch(r"[\d:]{8}  \+ geo-1  geo 1.4.0  \[::1\]:9700  starting", lines.line())
        told = [json.loads(documents.line()) for _ in range(3)]
        assert [one["event"] for one in told] == ["discovered", "changed", "removed"]
        assert [one["extension"]["status"] for one in told] == ["starting", "stopping", "stopping"]
        assert [one.get("before", {}).get("status") for one in told] == [None, "starting", None]
        assert lines.line().endswith("~ geo-1  geo 1.4.0  [::1]:9700  starting -> stopping")
        assert lines.line()[8:].startswith("  - geo-1  ")
        for running in (documents, lines):
            running.send(signal.SIGINT)
            told_at_end = running.end()
            assert (told_at_end.code, told_at_end.err) == (130, "")


def test_an_outage_is_told_when_it_begins_and_ends(start: Start, osdisco_servers: Servers) -> None:
    with osdisco_servers.fresh_etcd() as server:
        documents = start("watch-events", "--json", url=server.url)
        lines = start("watch-events", url=server.url)
        with registered(server.url, SQL):
            assert json.loads(documents.line())["event"] == "discovered"
            assert lines.line()[8:].startswith("  + sql-1")
            server.kill()
            told = json.loads(documents.line())
            assert (told["event"], bool(told["reason"])) == ("stale", True)
            assert lines.line()[8:].startswith("  ? not up to date from here on: ")
            server.start()
            told = json.loads(documents.line())
            assert told["event"] == "fresh"
            assert told["lasted"] > 0
            assert lines.line()[8:].startswith("  ! up to date again, after ")


@pytest.mark.osdisco("etcd")
@pytest.mark.parametrize("command", [("watch-events", "--json"), ("ls", "--watch")])
def test_it_ends_when_nobody_reads_it_any_more(osdisco_url: str, command: tuple[str, ...], start: Start) -> None:
    with registered(osdisco_url, SQL):
        running = start(*command, url=osdisco_url)
        running.line()
        assert running.process.stdout is not None
        running.process.stdout.close()
        assert running.process.wait(20) == 1
        assert running.process.stderr is not None
        assert running.process.stderr.read() == ""


@pytest.mark.parametrize("command", [("ls",), ("ls", "--watch"), ("watch-events",), ("describe", "geo")])
def test_a_store_that_is_not_there_is_code_5(command: tuple[str, ...], invoke: Invoke) -> None:
    told = invoke("--url", "etcd://127.0.0.1:1?timeout=300ms", *command)
    assert (told.code, told.err.count("\n")) == (5, 1)


# describe


@pytest.mark.osdisco("memory", "etcd", "consul")
def test_all_that_is_known_of_one(osdisco_url: str, invoke: Invoke) -> None:
    with registered(osdisco_url, GEO, SQL):
        (told,) = invoke("--url", osdisco_url, "describe", "geo-1", "--json").documents
        rows = dict(line.split("\t") for line in invoke("--url", osdisco_url, "describe", "geo-1").out.splitlines())
    assert told["extension"]["endpoints"] == {"rest": {"protocol": "http", "port": 9701, "path": "/geo"}}
    assert told["key"].startswith("ext/geo-1/")
    assert told["incarnation"] == told["created"] == told["revision"]
    assert (told["owner"], told["ttl"]) == ("the host", 15.0)
    assert told["left"] is None if osdisco_url.startswith("consul") else 5 < told["left"] <= 15
    assert "others" not in told
    assert (rows["address"], rows["endpoint rest"]) == ("[::1]:9700", "http://[::1]:9701/geo")
    assert (rows["status"], rows["metadata zone"]) == ("starting", "a")
    assert rows["process"] == f"the host, {told['process']}"
    assert told["process"] == told["key"].split("/")[2].split(".")[0]
    if osdisco_url.startswith("consul"):
        assert (told["renewed"], "heard" in rows) == (None, False)
    else:
        assert 0 <= told["renewed"] < 10
        assert re.fullmatch(r"\d+ s ago", rows["heard"])
    assert (rows["capabilities"], rows["incarnation"]) == ("geo.search geo.index", str(told["incarnation"]))
    assert re.fullmatch(rf"{told['lease']}, (15 s at a time|\d+ s of 15 s left)", rows["lease"])


def test_one_is_read_without_following_all(memory_url: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    scan = MemoryBackend.scan

    async def scanning(self: MemoryBackend, prefix: str, *, timeout: float) -> Snapshot:
        read.append(prefix)
        return await scan(self, prefix, timeout=timeout)

    with registered(memory_url, GEO, SQL):
        monkeypatch.setattr(MemoryBackend, "watch", None)
        monkeypatch.setattr(MemoryBackend, "scan", scanning)
        assert invoke("--url", memory_url, "describe", "geo-1").code == 0
        monkeypatch.undo()
    one = {"osdisco/ext/geo-1/", "osdisco/probe/found/geo-1/"}
    assert one <= set(read) <= {*one, "osdisco/sess/"}


@pytest.mark.osdisco("etcd")
def test_what_probers_found_is_shown(osdisco_url: str, invoke: Invoke) -> None:
    ready, done = threading.Event(), threading.Event()

    async def probe() -> None:
        target = attrs.evolve(GEO, host="127.0.0.1", port=free_port())
        async with (
            osdisco.connect(osdisco_url) as client,
            osdisco.connect(osdisco_url, name="the prober") as other,
            DiscoveryService(client, target),
            DiscoveryService(other, probing=Probing(allow=["127.0.0.0/8"], interval=0.2)) as prober,
        ):
            while "geo-1" not in await prober.findings():
                await asyncio.sleep(0.05)
            ready.set()
            await asyncio.to_thread(done.wait)

    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(lambda: asyncio.run(probe()))
        assert ready.wait(20), probing.exception(0)
        (told,) = invoke("--url", osdisco_url, "describe", "geo-1", "--json").documents
        lines = invoke("--url", osdisco_url, "describe", "geo-1").out.splitlines()
        done.set()
        probing.result(10)
    (found,) = told["findings"]
    assert (found["prober"], found["state"]) == ("the prober", "failing")
    assert lines[-1].startswith(f"probed\t{found['url']} failing by the prober: ")


def test_one_that_nobody_knows_is_code_3(invoke: Invoke, memory_url: str) -> None:
    async def put(client: Client) -> None:
        await client.put("ext/bad/p.1", b"{}")

    with meanwhile(memory_url, put):
        pass
    told = invoke("--url", memory_url, "describe", "geo")
    assert (told.code, told.out, told.err) == (3, "", "osdisco: no extension 'geo' is registered\n")
    told = invoke("--url", memory_url, "describe", "bad")
    assert told.code == 3
    assert "ext/bad/p.1 is no registration: " in told.err
    assert invoke("--url", memory_url, "describe", "").code == 2


def test_records_of_others_under_the_id_follow_the_one_that_counts(invoke: Invoke, memory_url: str) -> None:
    async def put(client: Client) -> None:
        record = '{"extension":{"id":"a/b","name":"%s","version":"1","host":"h","port":1},"incarnation":%d}'
        root = client._keys.join("ext", "a/b")
        for process, name, incarnation in (("old", "old", 3), ("new", "new", 900), ("wrong", "", 9999)):
            data = record % (name, incarnation)
            await client._connection.commit([osdisco.Put(f"{root}/{process}.1", data.encode())], {}, 5.0)

    with meanwhile(memory_url, put):
        pass
    (told,) = invoke("--url", memory_url, "describe", "a/b", "--json").documents
    assert (told["extension"]["name"], told["incarnation"], told["lease"]) == ("new", 900, None)
    assert [(one["incarnation"], "wrong" in one) for one in told["others"]] == [(3, False), (0, True)]
    lines = invoke("--url", memory_url, "describe", "a/b").out.splitlines()
    assert "lease\tnone, without an end" in lines
    assert [line.partition(", ")[2][:20] for line in lines[-2:]] == ["incarnation 3, older", "no registration: the"]
