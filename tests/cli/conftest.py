"""The command line as tests run it: in this process where that is enough, as a process where it matters."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
from cli_processes import PATIENCE, Invoke, Ran, Running
from click.testing import CliRunner

from osdisco.cli._app import app
from osdisco.cli._below import descendants, send


@pytest.fixture
def memory_url(osdisco_url: str) -> str:
    """A memory store of its own; in one process all commands of a test share it."""
    assert osdisco_url.startswith("memory://")
    return osdisco_url


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in this process."""
    monkeypatch.delenv("OSDISCO_URL", raising=False)

    def run(*args: str, stdin: bytes | None = None) -> Ran:
        result = CliRunner().invoke(app, args, prog_name="osdisco", input=stdin, catch_exceptions=False)
        return Ran(result.exit_code, result.stdout, result.stdout_bytes, result.stderr)

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Start commands as processes; those that are left at the end are killed."""
    started: list[Running] = []

    def run(*args: str, url: str | None = None) -> Running:
        started.append(Running(args, url))
        return started[-1]

    yield run
    for running in started:
        if running.process.poll() is None:
            below = descendants(running.process.pid)  # they would keep its pipes open
            running.process.kill()
            send(below, signal.SIGKILL)
            running.process.communicate(timeout=PATIENCE)
        for stream in (running.process.stdout, running.process.stderr):
            if stream is not None:
                stream.close()
