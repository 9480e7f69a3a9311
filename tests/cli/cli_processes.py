"""Commands as processes of their own, and what tests ask about them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

import osdisco
from osdisco.backend import Lease
from osdisco.client import Client
from osdisco.testing.containers import EtcdContainer
from osdisco.testing.processes import find_binary
from osdisco.testing.servers import EtcdServer

COMMAND = (sys.executable, "-m", "osdisco.cli")
PATIENCE = 20.0
"""Seconds for what should take one at most."""


@frozen
class Ran:
    """A command that has ended."""

    code: int
    out: str
    raw: bytes
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """What it wrote to stdout, as JSON, one document a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The JSON document on stderr."""
        (line,) = self.err.splitlines()
        error: dict[str, Any] = json.loads(line)["error"]
        return error


Invoke = Callable[..., Ran]


class Running:
    """A command that runs as a process of its own, with pipes."""

    def __init__(self, args: Sequence[str], url: str | None) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "OSDISCO_URL"}
        environment |= {"OSDISCO_URL": url} if url else {}
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._ahead = b""  # read already, and no whole line yet

    def line(self) -> str:
        """Return the next line of stdout."""
        assert self.process.stdout is not None
        out, deadline = self.process.stdout.fileno(), time.monotonic() + PATIENCE
        while b"\n" not in self._ahead:
            ready, _, _ = select.select([out], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"it said nothing in {PATIENCE} s"
            more = os.read(out, 4096)
            assert more, f"it ended: {self.process.stderr and self.process.stderr.read()}"
            self._ahead += more
        line, _, self._ahead = self._ahead.partition(b"\n")
        return line.decode()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self.process.send_signal(number)

    def end(self, timeout: float = PATIENCE) -> Ran:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=timeout)
        out = self._ahead.decode() + out
        return Ran(self.process.returncode, out, out.encode(), err)


class Etcdctl:
    """`etcdctl lock NAME` at a terminal, of this machine or, without one, in the server's container."""

    def __init__(self, server: EtcdServer, name: str) -> None:
        self._terminal, inside = pty.openpty()
        binary = find_binary("etcdctl")
        self._in_container = binary is None
        command = [binary, f"--endpoints={server.address}"] if binary else _in_container(server)
        self._process = subprocess.Popen(
            [*command, "lock", name], stdin=inside, stdout=inside, stderr=inside, start_new_session=True
        )
        os.close(inside)

    def wait_held(self) -> None:
        """Wait until it has the lock: it then shows its key."""
        read_until(self._terminal, b"/lock/")

    def interrupt(self) -> None:
        """Press Ctrl-C, and wait until it has given the lock back."""
        if self._in_container:
            os.write(self._terminal, b"\x03")
        else:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE)

    def close(self) -> None:
        """End it in any case."""
        if self._process.poll() is None:
            self.interrupt()
        os.close(self._terminal)


def _in_container(server: EtcdServer) -> list[str]:
    assert isinstance(server, EtcdContainer)
    return ["docker", "exec", "-it", str(server.get_wrapped_container().id), "etcdctl"]


def eventually(check: Callable[[], object], what: str) -> None:
    """Wait until `check()` is true."""
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


def state(pid: int) -> str | None:
    """Return the letter of a process's state; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None


@contextmanager
def meanwhile(url: str, work: Callable[[Client], Coroutine[Any, Any, object]]) -> Iterator[None]:
    """Do some work on the store, in a thread of its own: commands in this process need the main one for signals."""

    async def connected() -> None:
        async with osdisco.connect(url, name="the operator") as client, asyncio.timeout(PATIENCE):
            await work(client)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(lambda: asyncio.run(connected()))
        try:
            yield
        finally:
            working.result(2 * PATIENCE)


def everything(url: str) -> list[str]:
    """Return the keys of the namespace."""

    async def ask() -> list[str]:
        async with osdisco.connect(url) as client:
            return list((await client.scan()).items)

    return asyncio.run(ask())


async def once_true(check: Callable[[], object]) -> None:
    """Wait until `check()` is true."""
    while not check():
        await asyncio.sleep(0.01)


async def end_lease_of(client: Client, prefix: str, once: Callable[[], object] = lambda: True) -> None:
    """End the lease of the one key under a prefix, as an operator can."""
    await once_true(once)
    (entry,) = (await client.scan(prefix)).items.values()
    assert entry.lease is not None
    await client.backend.revoke(Lease(entry.lease, 10.0), timeout=5.0)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return state(pid) not in (None, "Z")


def read_until(terminal: int, wanted: bytes | None) -> bytes:
    """Read what a terminal shows, until it shows `wanted` or its program is gone."""
    shown, deadline = b"", time.monotonic() + PATIENCE
    while wanted is None or wanted not in shown:
        readable, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert readable, f"only {shown!r}"
        try:
            piece = os.read(terminal, 1024)
        except OSError:  # Linux: nobody has the other side open any more
            break
        if not piece:
            break
        shown += piece
    return shown
