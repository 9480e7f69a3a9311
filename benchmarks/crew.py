"""Starts processes of `benchmarks.contender` and talks with them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

LONGEST = 64 * 2**20
"""Bytes of one line: the times of a long run."""


class Member:
    """One process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def said(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a contender ended without a word")
        said: dict[str, Any] = json.loads(line)
        return said

    def go_on(self, what: str = "go on") -> None:
        """Let it take its next step, which for most is their end."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()


@asynccontextmanager
async def crew(*specs: dict[str, object]) -> AsyncIterator[list[Member]]:
    """Start a process for each; they are gone in the end."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = (sys.executable, "-m", "benchmarks.contender")
    processes = [
        await asyncio.create_subprocess_exec(*command, json.dumps(s), stdin=PIPE, stdout=PIPE, limit=LONGEST, env=env)
        for s in specs
    ]
    try:
        yield [Member(process) for process in processes]
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def all_say(members: list[Member]) -> list[dict[str, Any]]:
    """Return what each says next."""
    return list(await asyncio.gather(*(member.said() for member in members)))
