"""`osdisco mesh top`: how calls go, from what the processes that make them report."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from attrs import evolve
from cli_processes import COMMAND, Invoke, meanwhile, read_until

from osdisco.cli.mesh import COLUMNS, row
from osdisco.client import Client
from osdisco.discovery import Drain
from osdisco.mesh import ExtensionServiceMesh, ServiceFigures
from osdisco.registry import ServiceDefinition

CALLER = """
import asyncio, sys
import osdisco
from osdisco import ExtensionServiceMesh, ServiceDefinition

async def main():
    async with osdisco.connect() as client, ExtensionServiceMesh(client) as mesh:
        async with mesh.serve(ServiceDefinition("geo\\x1b[31m", "1"), {"who": lambda: "me"}):
            while True:
                await mesh.call("geo\\x1b[31m", "who")
                await asyncio.sleep(0.02)

asyncio.run(main())
"""


@contextmanager
def calling(url: str) -> Iterator[None]:
    """Let a process call a service with an ugly name, by HTTP."""
    caller = subprocess.Popen([sys.executable, "-c", CALLER], env={**os.environ, "OSDISCO_URL": url})
    try:
        yield
    finally:
        caller.kill()
        caller.wait()


@pytest.mark.osdisco("etcd", "consul")
def test_services_are_shown_as_lines_and_documents(osdisco_url: str, invoke: Invoke) -> None:
    with calling(osdisco_url):
        told = invoke("--url", osdisco_url, "mesh", "top", "-n", "1")
        for _ in range(5):
            if told.out:
                break
            told = invoke("--url", osdisco_url, "mesh", "top", "-n", "1")  # it had not called yet
        (fields,) = [line.split("\t") for line in told.out.splitlines()]
        shown = dict(zip(COLUMNS, fields, strict=True))
        assert (shown["service"], shown["callers"], shown["endpoints"]) == ("geo\\x1b[31m", "1", "1")
        assert float(shown["calls/s"]) > 1
        assert shown["ok"] == "100.00 %"
        documents = invoke("--url", osdisco_url, "mesh", "top", "-n", "2", "--json").documents
    assert [document["service"] for document in documents] == ["geo\x1b[31m"] * 2
    assert set(documents[0]) == set(ServiceFigures.__annotations__)
    assert documents[1]["calls"] > 1


@pytest.mark.osdisco("etcd")
def test_a_terminal_is_drawn_anew_and_obeys_nothing_that_it_shows(osdisco_url: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="160", LINES="40")
        os.execv(sys.executable, [*COMMAND, "--url", osdisco_url, "mesh", "top"])
    shown = read_until(terminal, b"no process reports yet")
    with calling(osdisco_url):
        shown += read_until(terminal, b"100.00 %")
    os.write(terminal, b"\x03")
    shown += read_until(terminal, None)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"geo\\x1b[31m" in shown
    assert b"geo\x1b[31m" not in shown


def test_when_nobody_reports_that_is_said(invoke: Invoke, memory_url: str) -> None:
    told = invoke("--url", memory_url, "mesh", "top", "-n", "1", "--json")
    assert (told.code, told.out) == (0, "")
    assert "no process reports" in told.err


def test_a_store_that_is_not_there_is_code_5(invoke: Invoke) -> None:
    assert invoke("--url", "etcd://127.0.0.1:1?timeout=300ms", "mesh", "top").code == 5


def test_times_are_at_least_one(invoke: Invoke, memory_url: str) -> None:
    assert invoke("--url", memory_url, "mesh", "top", "-n", "0").code == 2


def test_figures_are_written_for_people() -> None:
    figures = ServiceFigures("geo", 2, 12.34, 0.9876, 0.0123, float("inf"), 0.5, None, 3, 4, 1, 2, True, 99.9)
    shown = dict(zip(COLUMNS, row(figures), strict=True))
    assert (shown["calls/s"], shown["ok"], shown["p50"], shown["p99"]) == ("12.3", "98.76 %", "12.3 ms", "> 30 s")
    assert (shown["refused/s"], shown["budget"], shown["panic"]) == ("-", "99.9", "panic")
    whole = evolve(figures, whole_open=True)
    assert [dict(zip(COLUMNS, row(one), strict=True))["open"] for one in (figures, whole)] == ["2", "all"]


def test_what_is_called_in_memory_shows_too(invoke: Invoke, memory_url: str) -> None:
    told = asyncio.Event()

    async def call(client: Client) -> None:
        geo, at_once = ServiceDefinition("geo", "1"), Drain(propagation=0)
        async with ExtensionServiceMesh(client) as mesh, mesh.serve(geo, {"who": lambda: "me"}, drain=at_once):
            while not told.is_set():
                await mesh.call("geo", "who")
                await asyncio.sleep(0.02)

    with meanwhile(memory_url, call):
        (document,) = invoke("--url", memory_url, "mesh", "top", "-n", "1", "--json").documents
        told.set()
    assert (document["service"], document["ok"], document["panic"]) == ("geo", 1.0, False)
    assert json.dumps(document)
