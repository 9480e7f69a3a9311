"""`osdisco lock`: whose exit code it is, who gets the signals, and that nothing runs on without the lock."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_processes import (
    COMMAND,
    Invoke,
    Running,
    alive,
    end_lease_of,
    eventually,
    everything,
    meanwhile,
    once_true,
    read_until,
)

import osdisco
from osdisco.cli._child import Child
from osdisco.client import Client
from osdisco.coordination import CoordinationService

Start = Callable[..., Running]
REAL = pytest.mark.osdisco("etcd", "consul")

WAIT_FOR_TERM = "trap 'echo ended; exit 9' TERM; echo $$ $OSDISCO_FENCE; while :; do sleep 0.05; done"
IGNORE_TERM = "trap '' TERM; echo $$; while :; do sleep 0.05; done"
WITH_CHILD = "sleep 300 & echo $!; wait"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "exit 124"), 124),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("no-such-command-at-all",), 127),
        (("/dev/null",), 126),
    ],
)
def test_the_commands_own_code_is_passed_on(command: tuple[str, ...], code: int, invoke: Invoke) -> None:
    told = invoke("--url", "memory://", "lock", "n", "--no-shell", "--", *command)
    assert told.code == code
    assert told.err.count("\n") == (1 if code in (126, 127) else 0)


@pytest.mark.parametrize(
    ("args", "code", "out"),
    [
        (("echo $OSDISCO_LOCK_NAME | tr a-z A-Z; exit 3",), 3, "N\n"),
        (("--shell", "--", "echo 'a  b'"), 0, "a  b\n"),
        (("--", "echo", "a  b", "$HOME"), 0, "a  b $HOME\n"),
        (("--no-shell", "--", "true; false"), 127, ""),
    ],
)
def test_one_argument_is_a_line_for_the_shell(args: tuple[str, ...], code: int, out: str, start: Start) -> None:
    told = start("--url", "memory://", "lock", "n", *args).end()
    assert (told.code, told.out) == (code, out)


@pytest.mark.parametrize(("args", "read"), [((), ""), (("--pass-stdin",), "input")])
def test_the_command_reads_stdin_only_if_it_is_passed(args: tuple[str, ...], read: str) -> None:
    command = [*COMMAND, "--url", "memory://", "lock", "n", *args, "--", "cat"]
    told = subprocess.run(command, input="input", capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, read)


def test_what_others_see_of_the_command_is_text_and_short(start: Start, invoke: Invoke) -> None:
    command = os.fsdecode(b"\xff" + b"x" * 100_000)
    assert invoke("--url", "memory://", "lock", "n", "--", "true", command).code == 0


def test_options_of_the_command_are_its_own(start: Start) -> None:
    told = start("--url", "memory://", "lock", "n", "--timeout", "5s", "--", "echo", "--json", "-v", "--", "x").end()
    assert (told.code, told.out) == (0, "--json -v -- x\n")


def test_the_command_knows_the_lock_and_its_token(start: Start, tmp_path: Path) -> None:
    show = "echo $OSDISCO_LOCK_HELD; echo $OSDISCO_LOCK_NAME; echo $OSDISCO_FENCE"
    held, name, fence = start("--url", "memory://", "lock", "a/b c", "--", "sh", "-c", show).end().out.splitlines()
    assert (held, name) == ("true", "a/b c")
    assert int(fence) > 0


def test_trouble_with_the_store_is_125_with_a_command(invoke: Invoke) -> None:
    assert invoke("--url", "etcd://127.0.0.1:1?timeout=300ms", "lock", "n", "--", "true").code == 125


@REAL
def test_who_does_not_get_it_says_who_holds_it(osdisco_url: str, start: Start, invoke: Invoke) -> None:
    holder = start("lock", "n", "--json", url=osdisco_url)
    assert '"event": "acquired"' in holder.line()
    tried = invoke("--url", osdisco_url, "lock", "n", "--try", "--json")
    assert tried.code == 4
    assert tried.error["type"] == "ConflictError"
    assert f":{holder.process.pid};" in tried.error["message"]
    late = invoke("--url", osdisco_url, "lock", "n", "--timeout", "300ms", "--json")
    assert (late.code, late.error["type"]) == (4, "TimedOutError")
    assert invoke("--url", osdisco_url, "lock", "n", "--try", "--", "true").code == 124
    assert invoke("--url", osdisco_url, "lock", "n", "--timeout", "300ms", "--", "true").code == 124
    assert len(contenders(osdisco_url)) == 1


@REAL
def test_held_until_interrupted_and_then_given_back(osdisco_url: str, start: Start) -> None:
    first = start("lock", "n", url=osdisco_url)
    token = int(first.line())
    waiting = start("lock", "n", url=osdisco_url)
    eventually(lambda: len(contenders(osdisco_url)) == 2, "the second to stand in the queue")
    first.send(signal.SIGINT)
    assert first.end().code == 130
    assert int(waiting.line()) > token
    waiting.send(signal.SIGTERM)
    assert waiting.end().code == 143
    assert contenders(osdisco_url) == []
    assert everything(osdisco_url) == []


@REAL
def test_interrupted_while_waiting_it_leaves_the_queue(osdisco_url: str, start: Start) -> None:
    holder = start("lock", "n", url=osdisco_url)
    holder.line()
    waiting = start("lock", "n", "--", "echo", "never", url=osdisco_url)
    eventually(lambda: len(contenders(osdisco_url)) == 2, "the second to stand in the queue")
    waiting.send(signal.SIGINT)
    told = waiting.end()
    assert (told.code, told.out, told.err) == (130, "", "")
    assert len(contenders(osdisco_url)) == 1


@REAL
def test_signals_are_passed_on_and_the_lock_is_given_back(osdisco_url: str, start: Start) -> None:
    running = start("lock", "n", "--", "sh", "-c", WAIT_FOR_TERM, url=osdisco_url)
    running.line()
    running.send(signal.SIGTERM)
    told = running.end()
    assert (told.code, told.out) == (9, "ended\n")
    assert "osdisco" not in told.err
    assert everything(osdisco_url) == []


def test_an_interrupt_reaches_what_the_command_started(start: Start) -> None:
    running = start("--url", "memory://", "lock", "n", "--", "sh", "-c", WITH_CHILD)
    grandchild = int(running.line())
    running.send(signal.SIGTERM)
    assert running.end().code == 128 + signal.SIGTERM
    eventually(lambda: not alive(grandchild), "the command's own child to end")


def test_a_signal_that_comes_while_the_command_starts_is_passed_on_too(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Child._start

    async def slow_start(self: Child) -> asyncio.subprocess.Process:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)
        return await original(self)

    monkeypatch.setattr(Child, "_start", slow_start)
    assert invoke("--url", "memory://", "lock", "n", "--", "sleep", "3").code == 128 + signal.SIGTERM


@REAL
def test_loss_ends_the_command(osdisco_url: str, start: Start) -> None:
    running = start("lock", "n", "--", "sh", "-c", WAIT_FOR_TERM, url=osdisco_url)
    pid, fence = map(int, running.line().split())
    assert fence == contenders(osdisco_url)[0].token
    revoke_holder(osdisco_url)
    told = running.end()
    assert (told.code, told.out) == (125, "ended\n")
    assert "the lock 'n' was lost" in told.err
    assert not alive(pid)


@REAL
def test_loss_kills_a_command_that_does_not_listen(osdisco_url: str, start: Start) -> None:
    running = start("lock", "n", "--grace", "500ms", "--", "sh", "-c", IGNORE_TERM, url=osdisco_url)
    pid = int(running.line())
    revoke_holder(osdisco_url)
    assert running.end().code == 125
    assert not alive(pid)


@REAL
def test_loss_ends_what_the_command_started(osdisco_url: str, start: Start) -> None:
    running = start("lock", "n", "--", "sh", "-c", WITH_CHILD, url=osdisco_url)
    grandchild = int(running.line())
    revoke_holder(osdisco_url)
    assert running.end().code == 125
    eventually(lambda: not alive(grandchild), "the command's own child to end")


@REAL
def test_loss_without_a_command_is_code_1(osdisco_url: str, start: Start) -> None:
    running = start("lock", "n", url=osdisco_url)
    running.line()
    revoke_holder(osdisco_url)
    told = running.end()
    assert told.code == 1
    assert "the lock 'n' was lost" in told.err


def test_signals_that_only_the_command_understands_are_passed_on(start: Start) -> None:
    command = "trap 'echo one' USR1; trap 'exit 4' USR2; echo ready; while sleep 0.05 || true; do :; done"
    running = start("--url", "memory://", "lock", "n", command)
    assert running.line() == "ready"
    running.send(signal.SIGUSR1)
    assert running.line() == "one"
    running.send(signal.SIGUSR2)
    assert running.end().code == 4


def test_without_the_lock_nothing_runs_on(invoke: Invoke, memory_url: str, tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def runs() -> bool:
        return pid.exists() and pid.read_text().endswith("\n")

    with meanwhile(memory_url, lambda client: end_lease_of(client, "lock/n/", once=runs)):
        told = invoke("--url", memory_url, "lock", "n", f"echo $$ >{pid}; exec sleep 10")
    assert told.code == 125
    assert "the lock 'n' was lost" in told.err
    assert not alive(int(pid.read_text()))


SLOW_END = "trap 'sleep 0.5; echo done >>{0}; exit 6' TERM; echo began >{0}; while :; do sleep 0.05; done"


def test_who_is_asked_for_it_ends_the_command_before_it_gives_it_back(
    invoke: Invoke, memory_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    seen: list[str] = []

    async def ask(client: Client) -> None:
        await once_true(log.exists)
        lock = CoordinationService(client).lock("n")
        await lock.revoke((await lock.contenders())[0].token, grace=30)
        seen.append(log.read_text())

    with meanwhile(memory_url, ask):
        told = invoke("--url", memory_url, "lock", "n", SLOW_END.format(log))
    assert told.code == 6
    assert told.err.endswith("wants it back, and takes it away after 30 s: ending the command\n")
    assert seen == ["began\ndone\n"]


def test_without_a_command_what_is_wanted_back_is_given_back(invoke: Invoke, memory_url: str) -> None:
    async def ask(client: Client) -> None:
        lock = CoordinationService(client).semaphore("n", limit=2)
        while not (queue := await lock.contenders()) or not queue[0].holds:
            await asyncio.sleep(0.01)
        await lock.revoke(queue[0].token, grace=30)

    with meanwhile(memory_url, ask):
        told = invoke("--url", memory_url, "lock", "n", "-n", "2")
    assert told.code == 1
    assert "a permit of 'n' is given back: " in told.err


@REAL
def test_a_command_that_does_not_give_it_back_is_killed_when_it_is_taken(osdisco_url: str, start: Start) -> None:
    running = start("lock", "n", "--grace", "100ms", "--", "sh", "-c", IGNORE_TERM, url=osdisco_url)
    pid = int(running.line())

    async def take() -> None:
        async with osdisco.connect(osdisco_url) as client:
            lock = CoordinationService(client).lock("n")
            await lock.revoke((await lock.contenders())[0].token, grace=1)

    asyncio.run(take())
    assert running.end().code == 125
    assert not alive(pid)


@REAL
def test_so_many_hold_a_permit_and_no_more(osdisco_url: str, start: Start, invoke: Invoke) -> None:
    holders = [start("lock", "-n", "2", "n", url=osdisco_url) for _ in range(2)]
    tokens = {int(holder.line()) for holder in holders}
    assert len(tokens) == 2
    tried = invoke("--url", osdisco_url, "lock", "-n", "2", "n", "--try")
    assert tried.code == 4
    assert tried.err.startswith("osdisco: a permit of 'n' is not free: held by ")
    for holder in holders:
        assert f":{holder.process.pid}" in tried.err
    assert invoke("--url", osdisco_url, "lock", "-n", "2", "n", "--timeout", "300ms", "--", "true").code == 124
    other = invoke("--url", osdisco_url, "lock", "-n", "3", "n", "--try")
    assert (other.code, "has a limit of 2" in other.err) == (2, True)
    assert invoke("--url", osdisco_url, "lock", "n", "--try", "--", "true").code == 0  # a lock, and no permit
    waiting = start("lock", "-n", "2", "n", "echo $OSDISCO_FENCE", url=osdisco_url)
    holders[0].send(signal.SIGINT)
    assert holders[0].end().code == 130
    assert int(waiting.line()) > max(tokens)
    assert waiting.end().code == 0


def test_at_a_terminal_the_command_gets_one_interrupt_and_may_read(tmp_path: Path) -> None:
    count = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: print('interrupted', flush=True))\n"
        "print('read', sys.stdin.readline().strip(), flush=True)\n"
        "time.sleep(1)\n"
        "sys.exit(5)\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*COMMAND, "--url", "memory://", "lock", "n", "--", sys.executable, "-c", count])
    shown = b""
    os.write(terminal, b"hello\n")
    shown += read_until(terminal, b"read hello")
    os.kill(pid, signal.SIGINT)  # to osdisco alone: was it passed on, each Ctrl-C would come twice
    time.sleep(0.3)
    os.write(terminal, b"\x03")
    shown += read_until(terminal, None)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5
    assert shown.count(b"interrupted") == 1


@REAL
def test_at_a_terminal_loss_ends_what_the_command_started_too(osdisco_url: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:  # the shell stays: with the leader of a session the terminal hangs up on everybody anyway
        command = "sleep 300 & echo began $! ''xxx; (sleep 301; true); wait"
        shell = ["sh", "-c", '"$@"; echo code $?; read line', "sh"]
        os.execvp("sh", [*shell, *COMMAND, "--url", osdisco_url, "lock", "n", command])
    grandchild = int(read_until(terminal, b"xxx").split()[1])
    assert alive(grandchild)
    revoke_holder(osdisco_url)
    read_until(terminal, b"code 125")
    eventually(lambda: not alive(grandchild), "the command's own child to end")
    os.write(terminal, b"\n")
    os.waitpid(pid, 0)
    os.close(terminal)


def contenders(url: str) -> list[osdisco.coordination.Contender]:
    async def ask() -> list[osdisco.coordination.Contender]:
        async with osdisco.connect(url) as client:
            return await CoordinationService(client).lock("n").contenders()

    return asyncio.run(ask())


def revoke_holder(url: str) -> None:
    """End the holder's lease, as an operator can."""

    async def revoke() -> None:
        async with osdisco.connect(url) as client:
            await end_lease_of(client, "lock/n/")

    asyncio.run(revoke())
