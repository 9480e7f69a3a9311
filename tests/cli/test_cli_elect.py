"""`osdisco elect`: lead alone, with a command or without, and follow who leads."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_processes import Invoke, Running, alive, end_lease_of, eventually, everything, meanwhile

import osdisco
from osdisco.client import Client
from osdisco.coordination import CoordinationService, Leader

Start = Callable[..., Running]
REAL = pytest.mark.osdisco("etcd", "consul")

WAIT_FOR_TERM = "trap 'echo ended; exit 9' TERM; echo $OSDISCO_FENCE; while :; do sleep 0.05; done"


def test_the_command_runs_while_it_leads_and_its_code_is_passed_on(start: Start) -> None:
    show = "echo $OSDISCO_ELECTION_NAME $OSDISCO_CANDIDATE_ID; echo $OSDISCO_FENCE; exit 7"
    running = start("--url", "memory://", "elect", "a/b c", "--id", "node 7", "--", show)
    told = running.end()
    names, fence = told.out.splitlines()
    assert (told.code, names) == (7, "a/b c node 7")
    assert int(fence) > 0


def test_what_stands_behind_the_dashes_is_the_command_and_before_them_a_value(start: Start) -> None:
    told = start("--url", "memory://", "elect", "n", "echo", "--", "echo", "--json", "-l", "--", "x").end()
    assert (told.code, told.out) == (0, "--json -l -- x\n")


@pytest.mark.parametrize(
    ("value", "info"),
    [
        ((), {}),
        (("http://10.0.0.1:9200",), {"value": "http://10.0.0.1:9200"}),
        (('{"url": "http://x", "n": 1}',), {"url": "http://x", "n": 1}),
    ],
)
def test_others_see_the_value(value: tuple[str, ...], info: dict[str, object], invoke: Invoke, memory_url: str) -> None:
    seen: list[Leader | None] = []

    async def look(client: Client) -> None:
        election = CoordinationService(client).election("n")
        while (leader := await election.leader()) is None:
            await asyncio.sleep(0.01)
        seen.append(leader)

    with meanwhile(memory_url, look):
        assert invoke("--url", memory_url, "elect", "n", *value, "--id", "me", "--", "sleep 0.5").code == 0
    assert seen[0] is not None
    assert (seen[0].candidate_id, seen[0].info) == ("me", info)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("n", "{x"), "no JSON object"),
        (("n", "--priority", "high"), "not a valid integer"),
        (("n", "--timeout", "0"), "above zero"),
        (("n", "--id", ""), "must not be empty"),
        (("n", "--"), "no command behind '--'"),
        (("n", "--shell", "--", "a", "b"), "one argument"),
        (("", "x"), "must not be empty"),
        (("-l", "n", "x"), "takes NAME alone"),
        (("-l", "n", "--id", "me"), "takes NAME alone"),
        (("-l", "n", "--", "true"), "takes NAME alone"),
        (("-l",), "Missing argument 'NAME'"),
    ],
)
def test_a_mistake_of_usage_is_code_2_in_one_line(args: tuple[str, ...], said: str, invoke: Invoke) -> None:
    told = invoke("--url", "memory://", "elect", *args)
    assert (told.code, told.out) == (2, "")
    assert said in told.err
    assert told.err.count("\n") == 1


@REAL
def test_it_leads_until_interrupted_and_then_the_next_one_does(osdisco_url: str, start: Start, invoke: Invoke) -> None:
    first = start("elect", "n", "one", "--id", "a", "--json", url=osdisco_url)
    elected = json.loads(first.line())
    assert (elected["event"], elected["election"], elected["id"]) == ("elected", "n", "a")
    late = invoke("--url", osdisco_url, "elect", "n", "--timeout", "300ms")
    assert (late.code, "was not elected" in late.err) == (4, True)
    assert invoke("--url", osdisco_url, "elect", "n", "--timeout", "300ms", "--", "true").code == 124
    low = start("elect", "n", "--id", "b", "echo $OSDISCO_CANDIDATE_ID", url=osdisco_url)
    high = start("elect", "n", "two", "--id", "c", "--priority", "5", url=osdisco_url)
    eventually(lambda: candidates(osdisco_url) == 2, "both to stand")
    first.send(signal.SIGINT)
    assert first.end().code == 130
    assert int(high.line()) > elected["token"]
    for running in (low, high):
        running.send(signal.SIGTERM)
        assert running.end().code == 143
    assert everything(osdisco_url) == []


@REAL
def test_following_shows_the_present_leader_then_every_change(osdisco_url: str, start: Start) -> None:
    following = start("elect", "-l", "n", url=osdisco_url)
    assert following.line() == "-\t-\t-"
    leading = start("elect", "n", "http://a", "--id", "a", url=osdisco_url)
    token = leading.line()
    assert following.line() == f"a\t{token}\thttp://a"
    as_json = start("elect", "-l", "n", "--json", url=osdisco_url)
    (shown,) = [json.loads(as_json.line())]
    assert (shown["election"], shown["leader"]["id"], shown["leader"]["token"]) == ("n", "a", int(token))
    assert shown["leader"]["info"] == {"value": "http://a"}
    leading.send(signal.SIGINT)
    assert leading.end().code == 130
    assert following.line() == "-\t-\t-"
    assert json.loads(as_json.line()) == {"election": "n", "leader": None}
    for running in (following, as_json):
        running.send(signal.SIGINT)
        told = running.end()
        assert (told.code, told.out, told.err) == (130, "", "")


@REAL
def test_signals_are_passed_on_and_the_leadership_is_given_back(osdisco_url: str, start: Start) -> None:
    running = start("elect", "n", WAIT_FOR_TERM, "--", "sh", "-c", WAIT_FOR_TERM, url=osdisco_url)
    running.line()
    running.send(signal.SIGTERM)
    told = running.end()
    assert (told.code, told.out) == (9, "ended\n")
    assert everything(osdisco_url) == []


def test_loss_ends_the_command(invoke: Invoke, memory_url: str, tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def runs() -> bool:
        return pid.exists() and pid.read_text().endswith("\n")

    with meanwhile(memory_url, lambda client: end_lease_of(client, "election/n/", once=runs)):
        told = invoke("--url", memory_url, "elect", "n", "--", f"echo $$ >{pid}; exec sleep 10")
    assert told.code == 125
    assert "the leadership of 'n' was lost" in told.err
    assert not alive(int(pid.read_text()))


def test_loss_without_a_command_is_code_1(invoke: Invoke, memory_url: str) -> None:
    async def depose(client: Client) -> None:
        while await client.get("election/n/leader") is None:
            await asyncio.sleep(0.01)
        await client.delete("election/n/leader")

    with meanwhile(memory_url, depose):
        told = invoke("--url", memory_url, "elect", "n")
    assert told.code == 1
    assert told.err.startswith("osdisco: the leadership of 'n' was lost: ")


def candidates(url: str) -> int:
    async def ask() -> int:
        async with osdisco.connect(url) as client:
            return len((await client.scan("election/n/q/")).items)

    return asyncio.run(ask())
