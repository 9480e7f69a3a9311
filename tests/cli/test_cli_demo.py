"""`osdisco demo`: the story is told as it happens, holds what it promises, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from cli_processes import COMMAND, PATIENCE, Invoke, Running, alive, eventually, read_until, state

from osdisco.backend import Condition, Op, Revision
from osdisco.cli import demo as demo_command
from osdisco.cli._errors import FailedError
from osdisco.cli.demo import _director, _extension, _service
from osdisco.cli.demo._cast import Event
from osdisco.cli.demo._directing import Directing
from osdisco.cli.demo._director import Director
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._outage import ByCommands
from osdisco.cli.demo._stages import ThreadActor
from osdisco.client import Client
from osdisco.coordination import Fence, LeaderElection, Term, _board
from osdisco.mesh import RetryPolicy
from osdisco.testing import VirtualClock, servers
from osdisco.testing.servers import Servers
from osdisco.url import StoreURL
from osdisco_memory import MemoryStore

Start = Callable[..., Running]
CAST = {"geo", "knn", "sql"}
WHOLE = 115.0
"""Seconds for a demo, of those that a test has; it ends itself when a part of it takes too long."""
CALLED = {"geo-1", "geo-2", "geo-3", "geo-4"}
BEFORE_CALLS = ["Register", "Health", "Outage", "Take turns", "Elect", "Crash", "Fail over", "Pause", "Goodbye"]
CHAPTERS = [*BEFORE_CALLS, "Call", "Lose one", "Canary"]


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
        started = [*self.of("started"), *self.of("enters")]
        return [int(document["place"].removeprefix("process ")) for document in started]


def check_story(told: Told, *, ttl: float, outage: bool = True) -> dict[str, Any]:
    """Hold the events to what the demo is to show; returns the summary."""
    assert told.all[0]["event"] == "start"
    assert told.all[0]["ttl"] == ttl
    chapters = [title for title in CHAPTERS if outage or title != "Outage"]
    assert [document["title"] for document in told.of("chapter")] == chapters
    health, turns, crash, fail_over, pause = (
        told.place(told.of("chapter", title=title)[0])
        for title in ("Health", "Take turns", "Crash", "Fail over", "Pause")
    )
    check_health(told)
    if outage:
        check_outage(told)
    for extension in CAST:
        assert told.of("registered", who=extension)
        for other in CAST:
            seen = told.of("discovered", who=extension, extension=other)[0]
            assert told.place(seen) < health or other == extension
    assert health < turns
    (killed,) = told.of("killed")
    assert crash < told.place(killed) < fail_over
    victim = killed["who"]
    check_lock(told, killed)
    check_election(told, killed)
    for survivor in CAST - {victim}:
        (gone,) = (d for d in told.of("gone", who=survivor, extension=victim) if d["t"] > killed["t"])
        assert fail_over < told.place(gone) < pause
        assert ttl / 2 < gone["t"] - killed["t"] < 2 * ttl + 5
    assert told.of("late write refused", who=victim)
    assert {d["who"] for d in told.of("left")} == CAST - {victim}
    check_calls(told)
    summary = told.all[-1]
    assert summary["event"] == "summary"
    assert set(summary["crash_seen_after"]) == CAST - {victim}
    return summary


def check_health(told: Told) -> None:
    """One turns unhealthy and healthy again, as its check finds it, and everybody sees it."""
    (ails,), (recovers,) = told.of("ails"), told.of("recovers")
    assert ails["who"] == recovers["who"] == "geo"
    for one in CAST:
        turns = [(d["was"], d["now"]) for d in told.of("status", who=one, extension="geo") if d["t"] > ails["t"]]
        assert turns[:2] == [("healthy", "unhealthy"), ("unhealthy", "healthy")]
        (ill, *_) = told.of("status", who=one, extension="geo", now="unhealthy")
        assert ails["t"] < ill["t"] < recovers["t"]


def check_outage(told: Told) -> None:
    """Nobody forgets anybody while the store is away, and all return by themselves when it is there again."""
    (stopped,), (started,) = told.of("stopped"), told.of("started again")
    losses = [d for d in told.of("unregistered") if stopped["t"] < d["t"] < started["t"]]
    assert {d["who"] for d in losses} == CAST
    for lost in losses:
        assert (lost["known"], lost["stale"]) == (3, True)
        assert [d for d in told.of("returned", who=lost["who"]) if d["t"] > lost["t"]]
    assert not [d for d in told.of("gone") if stopped["t"] < d["t"] < max(lost["t"] for lost in losses)]


def check_lock(told: Told, killed: dict[str, Any]) -> None:
    """One holder at a time, tokens that rise, a batch for each, and none for the dead one's time."""
    acquired = in_time(told.of("acquired"))
    assert [d["token"] for d in acquired] == sorted({d["token"] for d in acquired})
    assert [d["batch"] for d in in_time(told.of("wrote"))] == list(range(1, len(acquired) + 1))
    assert {who: len(told.of("acquired", who=who)) for who in CAST} == {"geo": 3, "knn": 3, "sql": 3}
    assert len({d["who"] for d in acquired[:3]}) == 3, "the queue is not fair"
    for earlier, later in pairwise(acquired):
        if earlier["token"] != told.of("acquired", who=killed["who"])[-1]["token"]:
            (released,) = told.of("releasing", token=earlier["token"])
            assert released["t"] <= later["t"]
    following = next(d for d in acquired if d["t"] > killed["t"])
    seen = min(d["t"] for d in told.of("gone", extension=killed["who"]) if d["t"] > killed["t"])
    assert following["t"] - seen > -0.5, "somebody got the lock before its holder's lease ended"


def check_election(told: Told, killed: dict[str, Any]) -> None:
    """Four terms: of the one that is killed, of the one that is paused, of the last, and of the paused one again."""
    terms = in_time(told.of("elected"))
    first, second, third, fourth = (d["who"] for d in terms)
    assert {first, second, third} == CAST
    assert (first, fourth) == (killed["who"], second)
    assert [d["token"] for d in terms] == sorted({d["token"] for d in terms})
    assert [(d["plan"], d["token"]) for d in in_time(told.of("planned"))] == [
        (plan, d["token"]) for plan, d in enumerate(terms, 1)
    ]
    assert [d["who"] for d in told.of("leaving")] == [third, second]
    check_pause(told, old=terms[1], new=terms[2])


def check_pause(told: Told, *, old: dict[str, Any], new: dict[str, Any]) -> None:
    """The old leader sleeps until another leads, wakes up as none, and can write neither by itself nor past that."""
    (paused,), (woke,) = told.of("paused", who=old["who"], token=old["token"]), told.of("woke", who=old["who"])
    assert paused["t"] < new["t"] < woke["t"]
    assert [
        d for d in told.of("gone", extension=old["who"]) if paused["t"] < d["t"] < woke["t"] and d["who"] == new["who"]
    ]
    meanwhile = [d for d in told.all if d.get("who") == old["who"] and paused["t"] < d.get("t", 0) < woke["t"]]
    assert [d["event"] for d in meanwhile] == ["resumed"], "it was not paused"
    assert woke["is_leader"] is False
    (by_itself,) = told.of("late plan refused by itself", who=old["who"])
    assert "the deadline passed" in by_itself["said"]
    (by_store,) = told.of("late plan refused by the store", who=old["who"])
    assert told.place(woke) < told.place(by_itself) < told.place(by_store)
    assert [d["token"] for d in told.of("token refused")][1:] == [old["token"]]
    assert told.of("plan stands", who=new["who"], plan=3)


def check_calls(told: Told) -> None:
    """Calls reach all who serve; no kill and no slow version costs one; who is dead or rolled back gets none."""
    assert not told.of("call failed")
    assert {d["who"]: d["version"] for d in told.of("serves")} == {
        **dict.fromkeys(CALLED - {"geo-4"}, "1.0.0"),
        "geo-4": "2.0.0",
    }
    assert set(told.of("reached")[0]["by"]) == CALLED - {"geo-4"}
    (killed,), (survived,) = told.of("endpoint killed", who="geo-2"), told.of("survived")
    assert survived["calls"] >= 100
    assert (survived["failed"], survived["again"] > 0) == (0, True)
    first, *_, end = told.of("canary")
    assert (first["phase"], first["weight"], end["phase"], end["failed"]) == ("progressing", 20, "rolled_back", 2)
    assert "p99 of" in end["last"]
    assert told.place(killed) < told.place(first)
    (back,) = told.of("all back")
    last = told.of("called")[-1]["by"]
    assert all(d["by"]["geo-4"] == last["geo-4"] for d in told.of("called") if told.place(d) > told.place(back))
    assert {d["by"]["geo-2"] for d in told.of("called") if d["t"] > survived["t"]} == {last["geo-2"]}
    assert {d["who"] for d in told.of("ended")} == CALLED - {"geo-2"} | {"search"}


def in_time(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(documents, key=lambda d: d["t"])


def test_on_memory(start: Start) -> None:
    told = start("demo", "--json").end(WHOLE)
    assert (told.code, told.err) == (0, "")
    summary = check_story(Told(told.documents), ttl=1.0)
    assert summary["took"] < 25
    assert (summary["calls_failed"], summary["calls_of_canary"] > 0) == (0, True)
    assert summary["returned_after"] < 5
    assert summary["paused_for"] > summary["leader_paused_next_after"]
    assert [d["token"] for d in summary["terms"]] == sorted(d["token"] for d in summary["terms"])


def test_for_people(start: Start) -> None:
    told = start("demo").end(WHOLE)
    assert (told.code, told.err) == (0, "")
    assert "\x1b" not in told.out
    found = [re.match(r"  \d+  (.*?)  ─", line) for line in told.out.splitlines()]
    assert [match[1] for match in found if match] == CHAPTERS
    for words in (
        "killed while it leads and holds the lock",
        "sees that geo is unhealthy",
        "is no longer registered; still knows 3 extensions, and that this is stale",
        "is registered again",
        "takes over the lock",
        "its write with token",
        "stopped while it leads",
        "is_leader is False",
        "its write ends in LostError, unsent: the deadline passed",
        "sent past that check, is refused by the store",
        "its plan 3 stands",
        "killed while it is called: its event loop stops dead",
        "calls since then, none failed",
        "geo-4  → is rolled back, and gets no more calls: 2 checks failed",
        "Who held the lock, and who led",
        "Who answered",
        "▒",
    ):
        assert words in told.out
    assert re.search(r"left in the store +nothing", told.out)


def test_a_terminal_without_these_letters_gets_others(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    told = start("demo").end(WHOLE)
    assert told.code == 0
    assert told.out.isascii()
    assert "\\u" not in told.out
    assert "x killed while it leads and holds the lock" in told.out


def test_the_environment_does_not_lead_it_to_a_store(start: Start) -> None:
    running = start("demo", "--json", url="etcd://127.0.0.1:1")
    assert json.loads(running.line())["url"].startswith("memory://")
    running.send(signal.SIGINT)
    assert running.end().code == 130


@pytest.mark.osdisco("etcd+http")
def test_on_a_real_store_with_processes_that_are_killed(osdisco_url: str, start: Start, invoke: Invoke) -> None:
    running = start("demo", "--json", "--url", with_ttl(osdisco_url))
    told = running.end(WHOLE)
    assert (told.code, told.err) == (0, "")
    story = Told(told.documents)
    check_story(story, ttl=3.0, outage=False)
    assert len(set(story.pids)) == 8
    assert not any(alive(pid) for pid in story.pids)
    assert invoke("--url", osdisco_url, "kv", "ls").out == ""


@pytest.mark.parametrize("kind", ["etcd", "consul"])
def test_on_a_server_of_its_own_that_is_stopped_and_started(kind: str, start: Start, osdisco_servers: Servers) -> None:
    getattr(osdisco_servers, f"fresh_{kind}")()  # or it is missed as all servers are
    running = start("demo", "--json", "--start", kind)
    told = running.end(WHOLE)
    assert (told.code, told.err) == (0, "")
    check_story(Told(told.documents), ttl=3.0)
    assert told.documents[0]["url"].startswith(f"{kind}://127.0.0.1:")


@pytest.mark.parametrize("event", ["acquired", "paused"])
@pytest.mark.osdisco("etcd", "consul")
def test_interrupted_it_cleans_up(osdisco_url: str, start: Start, invoke: Invoke, event: str) -> None:
    running = start("demo", "--json", "--url", with_ttl(osdisco_url))
    pids = run_until(running, event).pids
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
    pids = run_until(running, "wrote").pids
    running.send(signal.SIGKILL)
    running.end()
    eventually(lambda: not any(alive(pid) for pid in pids), "the extensions to end")
    left = [line.split("\t")[0] for line in invoke("--url", osdisco_url, "kv", "ls").out.splitlines()]
    assert [key.rpartition("/")[2] for key in left] == ["batch"]


@pytest.mark.osdisco("etcd")
def test_when_it_is_killed_the_paused_one_wakes_up_and_ends(osdisco_url: str, start: Start) -> None:
    running = start("demo", "--json", "--url", with_ttl(osdisco_url))
    told = run_until(running, "paused")
    (place,) = (d["place"] for d in told.of("started", who=told.all[-1]["who"]))
    eventually(lambda: state(int(place.removeprefix("process "))) == "T", "the leader to be stopped")
    running.send(signal.SIGKILL)
    running.end()
    eventually(lambda: not any(alive(pid) for pid in told.pids), "the extensions to end")


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
    pids = run_until(running, "acquired").pids
    os.kill(pids[0], signal.SIGKILL)
    told = running.end()
    assert told.code == 1
    assert "geo: it ended with code -9" in told.error["message"]
    assert not any(alive(pid) for pid in pids)


def test_a_store_that_is_not_there_is_code_5(invoke: Invoke) -> None:
    told = invoke("demo", "--json", "--url", "etcd://127.0.0.1:1?timeout=500ms")
    assert (told.code, told.out) == (5, "")


def test_it_gives_up_in_time(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_command, "LIMIT", -4.2)  # plus five times the ttl: 0.8 s
    told = invoke("demo", "--json")
    assert told.code == 1
    assert told.error["message"].startswith("gave up after 1 s, waiting for ")


@pytest.mark.parametrize(("gaps", "handover"), [([0.1, 0.05, 0.1, 3.0], 0.1), ([0.5, 0.3, 4.0], 0.3)])
def test_on_a_busy_machine_a_handover_may_take_long(gaps: list[float], handover: float) -> None:
    facts, at = Facts(0.0), 0.0
    for gap in (0.0, *gaps):
        facts.add(Event(at + gap, "geo", "acquired", {"token": 1}))
        facts.add(Event(at := at + gap + 1, "geo", "releasing", {"token": 1}))
    assert facts.handover == pytest.approx(handover)


class Slow(Directing):
    """Waits for three things, each longer than the one before."""

    async def play(self, start: Callable[[str], Any]) -> None:
        for seconds in (20, 25, 31):
            asyncio.get_running_loop().call_later(seconds, self.events.put_nowait, Event(0.0, "geo", f"{seconds}", {}))
            await self._until(f"{seconds} s", partial(self._facts.seen, f"{seconds}", "geo"))


async def test_it_takes_its_time_as_long_as_the_story_goes_on(
    osdisco_client: Client, osdisco_clock: VirtualClock
) -> None:
    facts = Facts(0.0)
    facts.ttl_late = 1.0
    began = osdisco_clock.now()
    with pytest.raises(FailedError, match="gave up after 30 s, waiting for 31 s"):
        await demo_command._within_limit(Slow(osdisco_client, Silent(), facts), print, facts)
    assert osdisco_clock.now() - began == pytest.approx(75)


class Silent:
    """A show that nobody watches."""

    def chapter(self, title: str, text: str) -> None: ...

    def event(self, event: Event) -> None: ...

    def wait(self, text: str) -> None: ...


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--start=etcd", "--url=memory://"), "--start and --url exclude each other"),
        (("--outage", "true", "true"), "--outage is for the store of --url"),
        (("--start=zookeeper",), "'zookeeper' is not one of 'etcd', 'consul'"),
    ],
)
def test_options_that_make_no_sense(args: tuple[str, ...], words: str, invoke: Invoke) -> None:
    told = invoke("demo", *args)
    assert told.code == 2
    assert words in told.err


def test_without_the_server_that_it_is_to_start(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("OSDISCO_TEST_SERVERS", raising=False)
    monkeypatch.setattr(servers, "docker_problem", lambda store: "Docker does not answer")
    told = invoke("demo", "--start", "etcd")
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "there is no etcd on PATH; Docker does not answer" in told.err


def test_lines_for_the_shell_stop_and_start_a_store(tmp_path: Path) -> None:
    file = tmp_path / "told"
    outage = ByCommands(f"echo stop >> {file}", f"echo start >> {file}; exit 3")
    asyncio.run(outage.begin())
    with pytest.raises(FailedError, match="ended with code 3"):
        asyncio.run(outage.end())
    assert file.read_text() == "stop\nstart\n"


class TestBrokenPromises:
    """Each is broken on purpose, and the demo says so."""

    @pytest.fixture(autouse=True)
    def nobody_watches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_director, "SUSPENSE", 0.01)
        monkeypatch.setattr(_extension, "WORK", 0.01)
        monkeypatch.setattr(Director, "_go_without_store", lambda *_: asyncio.sleep(0))
        monkeypatch.setattr(demo_command, "_can_call", lambda: False)

    def test_tokens(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Facts, "tokens", property(lambda _: [7, 7]))
        assert broken(invoke) == "the fencing tokens did not rise: [7, 7]"

    def test_terms(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        begin = Term.__init__

        def falling(term: Term, *args: Any) -> None:
            begin(term, *args)
            vars(term)["token"] = -term.token

        monkeypatch.setattr(Term, "__init__", falling)
        monkeypatch.setattr(_board, "token_of", lambda _, created: -created)  # as others see it
        assert re.fullmatch(r"the terms did not rise: \[-\d+, -\d+, -\d+\]", broken(invoke))

    def test_what_others_see_of_the_leader(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_board, "token_of", lambda _, created: created + 1)
        assert re.match(r"(geo|knn|sql) leads with token \d+, but others see Leader\(", broken(invoke))

    def test_a_leader_that_does_not_look_at_the_clock(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LeaderElection, "is_leader", True)
        assert "still took itself for the leader after its lease had ended" in broken(invoke)

    def test_a_commit_without_its_guard(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Term, "commit", lambda term, ops: term._client.commit(ops))
        assert broken(invoke) == "a write of the paused leader was let through by its own term"

    def test_a_commit_that_is_refused_and_applied(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        async def commit(term: Term, ops: Sequence[Op]) -> None:
            await term._client.commit(ops)
            term.check()

        monkeypatch.setattr(Term, "commit", commit)
        assert broken(invoke) == "a write that was refused changed something all the same"

    def test_a_store_that_does_not_compare(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        check = MemoryStore._check

        def careless(store: MemoryStore, key: str, condition: Condition) -> None:
            if not (key.endswith("/leader") and isinstance(condition, Revision)):
                check(store, key, condition)

        monkeypatch.setattr(MemoryStore, "_check", careless)
        assert broken(invoke) == "a write of the paused leader was let through by the store"

    def test_a_pause_that_is_none(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ThreadActor, "_pause", lambda _: None)
        assert re.fullmatch("(geo|knn|sql) went on before it was let to: it was not paused", broken(invoke))

    def test_a_fence_that_is_open(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Fence, "admit", lambda *_: None)
        assert re.fullmatch("a fence admitted .*'s token [0-9]+ after [0-9]+, which is newer", broken(invoke))

    def test_something_that_stays(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Director, "_tidy", lambda _: asyncio.sleep(0))
        assert re.fullmatch("left behind in memory://.*: batch, plan", broken(invoke))


class TestBrokenCalls:
    """The same of the last chapters."""

    @pytest.fixture(autouse=True)
    def nothing_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chapters = "register fall_ill go_without_store take_turns elect crash fail_over pause say_goodbye"
        for chapter in chapters.split():
            monkeypatch.setattr(Director, f"_{chapter}", lambda *_: asyncio.sleep(0))

    def test_calls_that_are_not_made_again(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_service, "RetryPolicy", lambda **_: RetryPolicy(attempts=1))
        assert broken(invoke).startswith("a call of search failed: geo.locate at 127.0.0.1:")

    def test_a_slow_version_that_is_let_through(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_service, "SLOW", 0)
        assert broken(invoke).startswith("a version that is too slow is promoted: good: 100.00 % of")

    def test_rules_that_stay(self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Director, "_tidy_rules", lambda _: asyncio.sleep(0))
        assert re.fullmatch("left behind in memory://.*: routes-history/geo/.*, routes/geo", broken(invoke))


def test_without_what_a_mesh_needs_it_says_so_and_plays_the_rest(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_command, "find_spec", lambda name: None if name == "tenacity" else object())
    monkeypatch.setattr(Director, "_go_without_store", lambda *_: asyncio.sleep(0))
    told = invoke("demo", "--json")
    assert told.code == 0
    assert told.err == (
        "osdisco: calls between extensions are left out: tenacity is missing; pip install 'osdisco[cli,mesh]'\n"
    )
    titles = [document["title"] for document in told.documents if document["event"] == "chapter"]
    assert titles == [title for title in BEFORE_CALLS if title != "Outage"]
    assert "calls" not in told.documents[-1]


def broken(invoke: Invoke) -> str:
    """Play; return what it says of the promise that it found broken."""
    told = invoke("demo", "--json")
    assert told.code == 1
    message: str = told.error["message"]
    return message


def with_ttl(url: str) -> str:
    """Return the URL with a ttl of 3 s, which servers for tests grant."""
    return f"{url}{'&' if '?' in url else '?'}ttl=3s"


def run_until(running: Running, event: str) -> Told:
    """Read events until such a one; returns them."""
    documents: list[dict[str, Any]] = []
    while not documents or documents[-1]["event"] != event:
        documents.append(json.loads(running.line()))
    return Told(documents)


def test_an_anonymous_memory_store_is_one_for_all_extensions(start: Start) -> None:
    told = start("demo", "--json", "--url", "memory://").end(WHOLE)
    assert told.code == 0
    assert StoreURL.parse(told.documents[0]["url"]).hosts
