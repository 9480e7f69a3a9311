"""How the command line is called, what it says when that goes wrong, and that it starts at once."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import click
import pytest
from cli_processes import COMMAND, Invoke, Running

import osdisco
from osdisco import errors
from osdisco.cli._errors import FailedError, InterruptedBySignal, NotFoundError, exit_code
from osdisco.errors import OsdiscoError
from osdisco.names import SEGMENT_MAX

CODES = {
    "OsdiscoError": 1,
    "ConfigError": 2,
    "InvalidNameError": 2,
    "InvalidCommitError": 2,
    "ConflictError": 4,
    "LeaseExpiredError": 1,
    "UnavailableError": 5,
    "IndeterminateError": 5,
    "DeniedError": 1,
    "LimitError": 1,
    "ClosedError": 1,
    "TimedOutError": 4,
    "LostError": 1,
    "StaleTokenError": 1,
    "RecordError": 1,
    "DiscoveryError": 1,
    "ClusterError": 1,
    "ClusterUnavailableError": 5,
    "ClusterDeniedError": 1,
    "ClusterDocumentError": 1,
    "CoordinationError": 1,
    "BarrierBrokenError": 1,
    "ServiceMeshError": 1,
    "ServiceNotFoundError": 3,
    "NoHealthyEndpointsError": 5,
    "CircuitOpenError": 5,
    "DeadlineExceededError": 1,
    "EndpointUnreachableError": 1,
    "CallInterruptedError": 1,
    "RemoteError": 1,
    "OverloadedError": 1,
    "RequestError": 1,
    "ResponseError": 1,
    "RulesError": 2,
}

MORE = {"RemoteError": ("says why",), "RulesError": ("says why",)}
"""What an error is made of besides its message."""


def _made(name: str, message: str) -> OsdiscoError:
    return _error_classes()[name](message, *MORE.get(name, ()))


def _error_classes() -> dict[str, type[OsdiscoError]]:
    return {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, OsdiscoError)}


def test_every_error_has_its_exit_code() -> None:
    assert {name: exit_code(_made(name, "x")) for name in _error_classes()} == CODES


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (NotFoundError("x"), 3),
        (FailedError("x", 124), 124),
        (InterruptedBySignal(2), 130),
        (InterruptedBySignal(15), 143),
        (click.UsageError("x"), 2),
        (RuntimeError("x"), 1),
    ],
)
def test_other_ends_have_theirs(exc: Exception, code: int) -> None:
    assert exit_code(exc) == code


@pytest.mark.parametrize("name", sorted(_error_classes()))
def test_an_error_is_one_line_and_one_document(
    name: str, invoke: Invoke, memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise _made(name, "it broke\nin two lines \x1b[31m")

    monkeypatch.setattr(osdisco.Client, "get", fail)
    told = invoke("--url", memory_url, "kv", "get", "k")
    assert told.code == CODES[name]
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith("osdisco: it broke\\nin two lines \\x1b[31m")
    document = invoke("--url", memory_url, "--json", "kv", "get", "k")
    assert (document.code, document.out) == (CODES[name], "")
    assert document.error["type"] == name
    assert document.error["exit_code"] == CODES[name]
    assert document.error["message"].startswith("it broke")


def test_what_nobody_expected_is_one_line_too_and_a_traceback_with_v(
    invoke: Invoke, memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(osdisco.Client, "get", fail)
    told = invoke("--url", memory_url, "kv", "get", "k")
    assert told.code == 1
    assert told.err == "osdisco: unexpected ZeroDivisionError: surprise (-v shows where; please report it)\n"
    assert "Traceback" in invoke("--url", memory_url, "-v", "kv", "get", "k").err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("kv", "get", "k"), "OSDISCO_URL"),
        (("--url", "memory://?tll=5s", "kv", "get", "k"), "did you mean 'ttl'?"),
        (("--url", "ectd://h", "kv", "get", "k"), "did you mean 'etcd'?"),
        (("--url", "memory://", "kv", "get", "a//b"), "empty segment"),
        (("--url", "memory://", "kv", "get", "x" * (SEGMENT_MAX + 1)), "255 are allowed"),
        (("--url", "memory://", "kv", "put", "k", "v", "--create", "--expect", "3"), "exclude each other"),
        (("--url", "memory://", "lock", "n", "--timeout", "soon"), "not a duration"),
        (("--url", "memory://", "lock", "n", "--try", "--timeout", "1s"), "exclude each other"),
        (("--url", "memory://", "lock", ""), "must not be empty"),
        (("--url", "memory://", "lock", "n", "-n", "0"), "from 1 to 10000"),
        (("--url", "memory://", "lock", "n", "-n", "few"), "not a valid integer"),
        (("--url", "memory://", "lock", "n", "--shell", "a", "b"), "quote it"),
        (("--url", "memory://", "lock", "n", "--grace", "0", "a"), "above zero"),
        (("--url", "memory://", "kv", "gte", "k"), "'osdisco kv --help'"),
        (("dmeo",), "did you mean 'demo'?"),
        (("kv", "get"), "'osdisco kv get --help'"),
        (("kv", "get", "k", "--nope"), "--nope"),
    ],
)
def test_a_mistake_of_usage_is_code_2_and_says_what_to_do(args: tuple[str, ...], said: str, invoke: Invoke) -> None:
    told = invoke(*args)
    assert told.code == 2
    assert said in told.err
    assert told.err.count("\n") == 1
    document = invoke(*args, "--json")
    assert document.code == 2
    assert said in document.error["message"]


def test_global_options_stand_before_or_after_the_command(invoke: Invoke, memory_url: str) -> None:
    invoke("--url", memory_url, "kv", "put", "k", "v")
    before = invoke("--url", memory_url, "--json", "kv", "get", "k")
    between = invoke("kv", "--json", "--url", memory_url, "get", "k")
    after = invoke("kv", "get", "k", "--url", memory_url, "--json")
    assert before.documents == between.documents == after.documents
    assert before.documents[0]["value"] == "v"


def test_the_url_comes_from_the_environment(invoke: Invoke, memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSDISCO_URL", memory_url)
    assert invoke("kv", "put", "k", "v").code == 0
    assert invoke("kv", "get", "k").raw == b"v"


@pytest.mark.parametrize("args", [(), ("kv",)])
def test_no_command_shows_the_help_as_a_mistake(args: tuple[str, ...], invoke: Invoke) -> None:
    told = invoke(*args)
    assert (told.code, told.out) == (2, "")
    assert "Commands:" in told.err


def test_help_and_version(invoke: Invoke) -> None:
    told = invoke("--help")
    assert told.code == 0
    commands = "barrier counter demo describe doctor elect kv lock ls mesh register serve status watch watch-events"
    for command in commands.split():
        assert f"  {command} " in told.out
        assert invoke(command, "--help").code == 0
    assert "demo-extension" not in told.out
    assert invoke("--version").out == f"osdisco {osdisco.__version__}\n"


def test_the_help_is_there_at_once_and_loads_nothing_heavy() -> None:
    heavy = "aiohttp", "grpc", "aetcd", "etcd3", "consul", "cattrs", "rich", "osdisco_memory"
    probe = (
        "import sys; from osdisco.cli._app import app\n"
        "try: app(['--help'], prog_name='osdisco')\n"
        f"finally: sys.stderr.write(' '.join(m for m in {heavy!r} if m in sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    assert "Commands:" in told.stdout


def test_the_help_takes_no_time() -> None:
    """150 ms on an idle machine; a busy one takes longer, but not much more of the processor."""

    def run() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(run() for _ in range(7)) < 0.2


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_package_is_told_with_the_way_to_get_it(missing: str) -> None:
    args = ["osdisco", "--url", "memory://", "doctor"]
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv = {args!r}; from osdisco.cli import main; main()"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "pip install 'osdisco[cli]'" in told.stderr
    assert told.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_failure_to_talk_about(start: Callable[..., Running]) -> None:
    running = start("--url", "memory://", "watch", "--json")
    running.line()
    pipeline = f"{sys.executable} -m osdisco.cli --url memory:// --json doctor | head -n 1"
    told = subprocess.run(["/bin/sh", "-c", pipeline], capture_output=True, text=True, check=False)
    assert told.stdout.count("\n") == 1
    assert told.stderr == ""


@pytest.fixture
def black_hole() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["etcd", "etcd+http", "consul"])
def test_a_store_that_says_nothing_hangs_no_command(
    scheme: str, black_hole: int, start: Callable[..., Running]
) -> None:
    told = start("--url", f"{scheme}://127.0.0.1:{black_hole}?timeout=1s", "kv", "get", "k").end()
    assert told.code == 5


@pytest.mark.parametrize("scheme", ["etcd", "etcd+http", "consul"])
def test_nor_does_it_keep_it_from_being_interrupted(
    scheme: str, black_hole: int, start: Callable[..., Running]
) -> None:
    running = start("--url", f"{scheme}://127.0.0.1:{black_hole}?timeout=60s", "-vv", "kv", "get", "k")
    assert running.process.stderr is not None
    running.process.stderr.readline()  # the first log line: it is at work
    running.send(signal.SIGINT)
    assert running.end().code == 130


@pytest.mark.parametrize("end", [asyncio.CancelledError, KeyboardInterrupt])
def test_an_interrupt_that_comes_before_anything_runs_is_one_too(
    end: type[BaseException], invoke: Invoke, memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(work: Any) -> None:
        work.close()
        raise end

    monkeypatch.setattr(asyncio, "run", interrupted)
    told = invoke("--url", memory_url, "kv", "get", "k")
    assert (told.code, told.err.strip()) == (130, "")


def test_a_second_interrupt_ends_it_at_once(invoke: Invoke, memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(*_: object, **__: object) -> None:
        for _attempt in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    monkeypatch.setattr(osdisco.Client, "get", deaf)
    told = invoke("--url", memory_url, "kv", "get", "k")
    assert (told.code, told.err.strip()) == (130, "")
