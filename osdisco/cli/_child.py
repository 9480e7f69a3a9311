"""A command that runs only while something is held: signals reach it, and it ends when its time is up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from osdisco.cli._errors import Exit, FailedError
from osdisco.cli._running import Interrupts

KILL_WAIT: Final = 5.0
"""Seconds for a killed process to be gone; longer only when the kernel holds it."""


class Child:
    """One child process.

    At a terminal it stays in our process group, so that it can use the terminal, which also gives it the interrupts.
    Elsewhere it leads a group of its own, so that signals reach whatever it started.
    """

    def __init__(self, process: asyncio.subprocess.Process, *, leads_group: bool) -> None:
        self._process = process
        self._leads_group = leads_group

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start it. Raises FailedError with the shell's codes when there is nothing to run."""
        leads_group = not os.isatty(0)
        group = 0 if leads_group else None
        try:
            process = await asyncio.create_subprocess_exec(
                *command, env={**os.environ, **environment}, process_group=group
            )
        except FileNotFoundError:
            raise FailedError(f"no such command: {command[0]!a}", Exit.NO_COMMAND) from None
        except OSError as exc:
            raise FailedError(f"cannot run {command[0]!a}: {exc.strerror}", Exit.CANNOT_RUN) from None
        return cls(process, leads_group=leads_group)

    async def wait(self, interrupts: Interrupts) -> int:
        """Pass signals on until it ends; returns its code, 128 plus the signal that killed it."""
        with interrupts.passed_to(self._pass_on):
            code = await self._process.wait()
        return code if code >= 0 else 128 - code

    def _pass_on(self, number: signal.Signals) -> None:
        if number is signal.SIGINT and not self._leads_group:
            return  # the terminal has sent it to the whole group
        self._send(number)

    def _send(self, number: signal.Signals) -> None:
        if self._leads_group:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return
        elif self._process.returncode is None:
            self._process.send_signal(number)

    async def end(self, grace: float) -> None:
        """End it if it still runs: SIGTERM, and SIGKILL after `grace` seconds."""
        if self._process.returncode is not None:
            return
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self._send(signal.SIGKILL)  # also what it started and left behind
            async with asyncio.timeout(KILL_WAIT):
                await self._process.wait()
