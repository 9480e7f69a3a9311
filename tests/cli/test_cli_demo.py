"""`osdisco demo`: the story is told as it happens, holds what it promises, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from subprocess import PIPE
from typing import Any

import pytest
from cli_processes import COMMAND, PATIENCE, Invoke, Running, alive, eventually, read_until

from osdisco.cli import demo as demo_command
from osdisco.cli.demo._facts import Facts
from osdisco.url import StoreURL

Start = Callable[..., Running]
REAL = pytest.mark.osdisco("etcd", "etcd+http", "consul")
CAST = {"geo", "knn", "sql"}
CHAPTERS = ["Register", "Take turns", "Crash", "Fail over", "Goodbye"]


class Told:
    """The events of a demo."""

    def __init__(self, documents: Sequence[dict[str, Any]]) -> None:
        self.all = documents

    def of(self, event: str, **data: Any) -> list[dict[str, Any]]:
        return [d for d in self.all if d["event"] == event and all(d.get(name) == v for name, v in data.items())]

    def place(self, document: dict[str, Any]) -> int:
        return self.all.index(document)

    @property
    def pids(self) -> list[int]:
        return [int(document["place"].removeprefix("process ")) for document in self.of("started")]


def check_story(told: Told, *, ttl: float) -> dict[str, Any]:
    """Hold the events to what the demo is to show; returns the summary."""
    assert told.all[0]["event"] == "start"
    assert told.all[0]["ttl"] == ttl
    assert [document["title"] for document in told.of("chapter")] == CHAPTERS
    starts = [told.place(document) for document in told.of("chapter")]
    for extension in CAST:
        assert told.of("registered", who=extension)
        for other in CAST:
            (seen, *_) = told.of("discovered", who=extension, extension=other)
            assert told.place(seen) < starts[1] or other == extension
    (killed,) = told.of("killed")
    assert killed["who"] == "knn"
    check_lock(told, killed)
    for survivor in CAST - {"knn"}:
        (gone,) = told.of("gone", who=survivor, extension="knn")
        assert starts[3] < told.place(gone) < starts[4]
        assert ttl / 2 < gone["t"] - killed["t"] < 2 * ttl + 5
    assert told.of("late write refused")
    assert told.of("token refused")
    assert [d["who"] for d in told.of("leaving")] == ["geo", "sql"]
    assert {d["who"] for d in told.of("left")} == {"geo", "sql"}
    summary = told.all[-1]
    assert summary["event"] == "summary"
    assert set(summary["crash_seen_after"]) == CAST - {"knn"}
    return summary


def check_lock(told: Told, killed: dict[str, Any]) -> None:
    """One holder at a time, tokens that rise, a batch for each, and none for the dead one's time."""
    acquired = sorted(told.of("acquired"), key=lambda d: d["t"])
    assert [d["token"] for d in acquired] == sorted({d["token"] for d in acquired})
    assert [d["batch"] for d in sorted(told.of("wrote"), key=lambda d: d["t"])] == list(range(1, len(acquired) + 1))
    assert {who: len(told.of("acquired", who=who)) for who in CAST} == {"geo": 3, "knn": 3, "sql": 3}
    assert len({d["who"] for d in acquired[:3]}) == 3, "the queue is not fair"
    for earlier, later in pairwise(acquired):
        if earlier["token"] != told.of("acquired", who="knn")[-1]["token"]:
            (released,) = told.of("releasing", token=earlier["token"])
            assert released["t"] <= later["t"]
    following = next(d for d in acquired if d["t"] > killed["t"])
    seen = min(d["t"] for d in told.of("gone", extension="knn"))
    assert following["t"] - seen > -0.5, "somebody got the lock before its holder's lease ended"


def test_on_memory(start: Start) -> None:
    told = start("demo", "--json").end(60)
    assert (told.code, told.err) == (0, "")
    summary = check_story(Told(told.documents), ttl=1.0)
    assert summary["took"] < 15


def test_for_people(start: Start) -> None:
    told = start("demo").end(60)
    assert (told.code, told.err) == (0, "")
    assert "\x1b" not in told.out
    found = [re.match(r"  \d  (.*?)  ─", line) for line in told.out.splitlines()]
    assert [match[1] for match in found if match] == CHAPTERS
    for words in ("killed while it holds the lock", "takes over", "refused by the store", "Who held the lock", "▒"):
        assert words in told.out
    assert re.search(r"left in the store +nothing", told.out)


def test_a_terminal_without_these_letters_gets_others(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    told = start("demo").end(60)
    assert told.code == 0
    assert told.out.isascii()
    assert "\\u" not in told.out
    assert "x killed while it holds the lock" in told.out


def test_the_environment_does_not_lead_it_to_a_store(start: Start) -> None:
    running = start("demo", "--json", url="etcd://127.0.0.1:1")
    assert json.loads(running.line())["url"].startswith("memory://")
    running.send(signal.SIGINT)
    assert running.end().code == 130


@REAL
def test_on_a_real_store_with_processes_that_are_killed(osdisco_url: str, start: Start, invoke: Invoke) -> None:
    running = start("demo", "--json", "--url", with_ttl(osdisco_url))
    told = running.end(60)
    assert (told.code, told.err) == (0, "")
    story = Told(told.documents)
    check_story(story, ttl=3.0)
    assert len(set(story.pids)) == 3
    assert not any(alive(pid) for pid in story.pids)
    assert invoke("--url", osdisco_url, "kv", "ls").out == ""


@pytest.mark.osdisco("etcd", "consul")
def test_interrupted_it_cleans_up(osdisco_url: str, start: Start, invoke: Invoke) -> None:
    running = start("demo", "--json", "--url", with_ttl(osdisco_url))
    pids = run_into_turns(running)
    running.send(signal.SIGINT)
    told = running.end()
    assert (told.code, told.err) == (130, "")
    assert not any(alive(pid) for pid in pids)
    assert invoke("--url", osdisco_url, "kv", "ls").out == ""


@pytest.mark.osdisco("etcd")
def test_it_cleans_up_when_its_terminal_goes(osdisco_url: str, invoke: Invoke) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*COMMAND, "demo", "--url", with_ttl(osdisco_url)])
    read_until(terminal, b"runs out")  # the spinner turns
    os.close(terminal)
    os.waitpid(pid, 0)
    eventually(
        lambda: invoke("--url", osdisco_url, "kv", "ls").out == "", "the dead one's lease to end, and no key left"
    )


@pytest.mark.osdisco("etcd")
def test_when_it_is_killed_its_processes_end_and_give_back_what_they_hold(
    osdisco_url: str, start: Start, invoke: Invoke
) -> None:
    running = start("demo", "--json", "--url", with_ttl(osdisco_url))
    pids = run_into_turns(running)
    running.send(signal.SIGKILL)
    running.end()
    eventually(lambda: not any(alive(pid) for pid in pids), "the extensions to end")
    left = [line.split("\t")[0] for line in invoke("--url", osdisco_url, "kv", "ls").out.splitlines()]
    assert [key.rpartition("/")[2] for key in left] == ["batch"]


@pytest.mark.osdisco("etcd")
def test_an_extension_whose_demo_is_gone_leaves(osdisco_url: str) -> None:
    command = [*COMMAND, "demo-extension", "geo", "--scope=s", "--ttl=3"]
    environment = {**os.environ, "OSDISCO_URL": osdisco_url}
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, env=environment, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("hold\n")
        process.stdin.flush()
        while json.loads(process.stdout.readline())["what"] != "wrote":
            pass
        process.stdin.close()
        try:
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.mark.osdisco("etcd")
def test_an_extension_that_dies_unplanned_ends_it(osdisco_url: str, start: Start, invoke: Invoke) -> None:
    running = start("demo", "--json", "--url", with_ttl(osdisco_url))
    pids = run_into_turns(running)
    os.kill(pids[0], signal.SIGKILL)
    told = running.end()
    assert told.code == 1
    assert "geo: it ended with code -9" in told.error["message"]
    assert not any(alive(pid) for pid in pids)


def test_a_store_that_is_not_there_is_code_5(invoke: Invoke) -> None:
    told = invoke("demo", "--json", "--url", "etcd://127.0.0.1:1?timeout=500ms")
    assert (told.code, told.out) == (5, "")


def test_it_gives_up_in_time(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_command, "LIMIT", -1.2)  # plus twice the ttl: 0.8 s
    told = invoke("demo", "--json")
    assert told.code == 1
    assert told.error["message"].startswith("gave up after 1 s, waiting for ")


def test_a_broken_promise_is_a_failure(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Facts, "tokens", property(lambda _: [7, 7]))
    told = invoke("demo", "--json")
    assert told.code == 1
    assert told.error["message"] == "the fencing tokens did not rise: [7, 7]"


def with_ttl(url: str) -> str:
    """Return the URL with a ttl of 3 s, which servers for tests grant."""
    return f"{url}{'&' if '?' in url else '?'}ttl=3s"


def run_into_turns(running: Running) -> list[int]:
    """Read events until somebody holds the lock; returns the extensions' processes."""
    documents: list[dict[str, Any]] = []
    while not documents or documents[-1]["event"] != "acquired":
        documents.append(json.loads(running.line()))
    return Told(documents).pids


def test_an_anonymous_memory_store_is_one_for_all_extensions(start: Start) -> None:
    told = start("demo", "--json", "--url", "memory://").end(60)
    assert told.code == 0
    assert StoreURL.parse(told.documents[0]["url"]).hosts
