"""`osdisco status`: all that stands in the namespace, once or live, for people and for programs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
import threading
from collections.abc import Callable

import pytest
from cli_processes import COMMAND, Invoke, Running, meanwhile, read_until

from osdisco.cli._text import rough
from osdisco.client import Client
from osdisco.coordination import CoordinationService, NamespaceStatus

Start = Callable[..., Running]
REAL = pytest.mark.osdisco("etcd", "consul")


async def put_up(client: Client) -> None:
    """Let something stand that belongs to nobody's session."""
    await CoordinationService(client).barrier("maintenance").hold()
    await client.put("lock/job/by-hand", b"\x1b[31m")
    await client.put("lock/by-hand", b"")


def test_an_empty_namespace_has_nothing_to_show(invoke: Invoke, memory_url: str) -> None:
    for args in ((), ("--json",)):
        told = invoke("--url", memory_url, "status", *args)
        assert (told.code, told.out, told.err) == (0, "", "")


def test_what_stands_is_shown_as_lines_and_documents(invoke: Invoke, memory_url: str) -> None:
    with meanwhile(memory_url, put_up):
        pass
    lines = [line.split("\t") for line in invoke("--url", memory_url, "status").out.splitlines()]
    assert [line[:4] for line in lines] == [
        ["lock", "job", "holds", "by-hand"],
        ["barrier", "maintenance", "held", "the operator"],
        ["strange", "lock/by-hand", "-", "-"],
    ]
    assert re.fullmatch(r"\d+ s", lines[1][4])
    assert lines[0][4:] == ["-", lines[0][5], "not osdisco's"]
    lock, barrier, strange = invoke("--url", memory_url, "status", "--json").documents
    (holder,) = lock.pop("holders")
    assert lock == {"kind": "lock", "name": "job", "waiting": [], "revocations": []}
    assert holder == {
        "owner": "by-hand",
        "token": int(lines[0][5]),
        "since": None,
        "info": {},
        "foreign": True,
    }
    assert (barrier["kind"], barrier["name"], barrier["owner"]) == ("barrier", "maintenance", "the operator")
    assert strange == {"kind": "strange", "name": "lock/by-hand"}


def is_all_there(status: NamespaceStatus) -> bool:
    return bool(
        status.locks[0].revocations
        and status.rwlocks[0].waiting
        and status.elections[0].candidates
        and status.double_barriers
        and sum(status.groups[0].partitions.values()) == 4
    )


def test_everybody_is_shown_with_what_it_has_to_do_with_it(invoke: Invoke, memory_url: str) -> None:
    ready, done = threading.Event(), threading.Event()

    async def use(client: Client) -> None:
        at = CoordinationService(client)

        async def wait_for_the_others() -> None:
            async with at.rwlock("catalog").write(), at.double_barrier("never", parties=2):
                pass

        async def stand() -> None:
            await at.election("boss", candidate_id="she", priority=3).participate()

        async def meet() -> None:
            await at.double_barrier("phase", parties=2).enter()

        async with (
            at.lock("job", info={"command": "make it"}) as guard,
            at.rwlock("catalog").read(),
            at.semaphore("merges", limit=3),
            at.election("boss", candidate_id="me", info={"value": "http://x"}).campaign(),
            at.group("workers").join("w1", weight=2, info={"zone": "a"}) as member,
            member.partition(4),
        ):
            waiting = (wait_for_the_others(), stand(), meet(), at.lock("job").revoke(guard.token, 90))
            tasks = [asyncio.ensure_future(one) for one in waiting]
            while not is_all_there(await at.status()):
                await asyncio.sleep(0.01)
            ready.set()
            await asyncio.to_thread(done.wait)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    with meanwhile(memory_url, use):
        assert ready.wait(20)
        seen = [line.split("\t") for line in invoke("--url", memory_url, "status").out.splitlines()]
        done.set()
    shown = [(*line[:4], line[6]) for line in seen]
    me = "the operator"
    assert shown[:-1] == [
        ("lock", "job", "holds", me, f"asked back by {me}, with 1 min of grace; make it"),
        ("rwlock", "catalog", "reads", me, ""),
        ("rwlock", "catalog", "waits to write", me, ""),
        ("semaphore", "merges", "holds", me, "1 of 3 held"),
        ("election", "boss", "leads", "me", "http://x"),
        ("election", "boss", "stands", "she", f"priority 3; in {me}"),
        ("group", "workers", "member", "w1", 'weight 2; 4 partitions; {"zone": "a"}'),
        ("double_barrier", "phase", "waits", me, "for 2 to be there"),
    ]
    kind, name, state, who, more = shown[-1]
    assert (kind, len(name), state, who) == ("session", 32, "alive", me)
    assert re.fullmatch(r"1\d s of 15 s left; \d+ keys; lease \w+", more)


@REAL
def test_a_session_is_shown_with_what_is_left_of_its_lease(osdisco_url: str, invoke: Invoke, start: Start) -> None:
    holder = start("lock", "n", url=osdisco_url)
    token = int(holder.line())
    lock, session = invoke("--url", osdisco_url, "status", "--json").documents
    assert (lock["name"], lock["holders"][0]["token"]) == ("n", token)
    assert session["owner"] == lock["holders"][0]["owner"]
    assert (session["kind"], session["ttl"], session["keys"]) == ("session", 15.0, 2)
    assert session["left"] is None if osdisco_url.startswith("consul") else 5 < session["left"] <= 15


@REAL
def test_watching_shows_what_stands_and_each_thing_that_changes(osdisco_url: str, invoke: Invoke, start: Start) -> None:
    invoke("--url", osdisco_url, "barrier", "hold", "b")
    watching = start("status", "--watch", "--json", url=osdisco_url)
    lines = start("status", "--watch", url=osdisco_url)
    assert json.loads(watching.line())["name"] == "b"
    assert lines.line().startswith("barrier\tb\theld\t")
    assert invoke("--url", osdisco_url, "barrier", "release", "b").code == 0
    assert invoke("--url", osdisco_url, "barrier", "hold", "c").code == 0
    shown = {}
    while "c" not in shown or "b" not in shown:
        document = json.loads(watching.line())
        shown[document["name"]] = document
    assert shown["b"] == {"kind": "barrier", "name": "b", "gone": True}
    assert shown["c"]["owner"]
    while (line := lines.line()).startswith("session\t"):
        pass
    assert line.rstrip("\t") == "barrier\tb\tgone\t-\t-\t-"
    for running in (watching, lines):
        running.send(signal.SIGINT)
        told = running.end()
        assert (told.code, told.err) == (130, "")


@REAL
def test_a_terminal_is_drawn_anew_and_obeys_nothing_that_it_shows(osdisco_url: str, start: Start) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="120", LINES="40")
        os.execv(sys.executable, [*COMMAND, "--url", osdisco_url, "status", "--watch"])
    shown = read_until(terminal, b"nothing is held, and nobody waits")
    leading = start("elect", "n", "--id", "\x1b]0;me\x07", url=osdisco_url)
    shown += read_until(terminal, b"leads")
    shown += read_until(terminal, b"s of 15 s left" if osdisco_url.startswith("etcd") else b"15 s at a time")
    leading.send(signal.SIGINT)
    assert leading.end().code == 130
    shown += read_until(terminal, b"nothing is held, and nobody waits")
    os.write(terminal, b"\x03")
    shown += read_until(terminal, None)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"\\x1b]0;me\\x07" in shown
    assert b"\x1b]0;me" not in shown


def test_a_store_that_is_not_there_is_code_5_also_when_watching(invoke: Invoke) -> None:
    for args in ((), ("--watch",)):
        told = invoke("--url", "etcd://127.0.0.1:1?timeout=300ms", "status", *args)
        assert (told.code, told.err.count("\n")) == (5, 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (2 * 86400 - 1, "47 h 59 min"),
        (2 * 86400, "2 d"),
        (1e9, "11574 d"),
    ],
)
def test_times_are_told_in_their_largest_units(seconds: float, text: str) -> None:
    assert rough(seconds) == text
