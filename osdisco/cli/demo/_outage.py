"""How the demo's store is stopped and started again, where that is ours to do."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from osdisco.cli._errors import FailedError


class Outage(ABC):
    """A store that can be stopped."""

    how: str
    """What is done to it, for people."""

    @abstractmethod
    async def begin(self) -> None:
        """Stop it."""

    @abstractmethod
    async def end(self) -> None:
        """Start it again, with the data of before; returns when it is started."""


class SwitchedOff(Outage):
    """A memory store that answers nobody."""

    how = "it answers nobody"

    def __init__(self, store: Any) -> None:
        self._store = store

    async def begin(self) -> None:
        self._store.faults.outage()

    async def end(self) -> None:
        self._store.faults.clear()


class Killed(Outage):
    """A server of our own."""

    how = "SIGKILL to its process"

    def __init__(self, server: Any) -> None:
        self._server = server

    async def begin(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def end(self) -> None:
        await asyncio.to_thread(self._server.start)


class ByCommands(Outage):
    """Somebody's store, which two lines for the shell stop and start."""

    def __init__(self, stop: str, start: str) -> None:
        self.how = stop
        self._start = start

    async def begin(self) -> None:
        await _run(self.how)

    async def end(self) -> None:
        await _run(self._start)


async def _run(line: str) -> None:
    process = await asyncio.create_subprocess_shell(line, stdin=asyncio.subprocess.DEVNULL)
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code:
        raise FailedError(f"{line!a} ended with code {code}")
