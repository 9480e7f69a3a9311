"""A command that runs only while something is held: signals reach it, and it ends when its time is up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
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

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._leads_group = not os.isatty(0)
        self._process: asyncio.subprocess.Process | None = None
        self._early: list[signal.Signals] = []

    async def run(self, interrupts: Interrupts) -> int:
        """Run it, passing signals on; returns its exit code, 128 plus the signal that killed it.

        Raises:
            FailedError: there is nothing to run; with the shell's codes.
        """
        with interrupts.passed_to(self._pass_on):
            self._process = process = await self._start()
            for number in self._early:
                self._pass_on(number)
            code = await process.wait()
        return code if code >= 0 else 128 - code

    async def _start(self) -> asyncio.subprocess.Process:
        group = 0 if self._leads_group else None
        environment = {**os.environ, **self._environment}
        try:
            return await asyncio.create_subprocess_exec(*self._command, env=environment, process_group=group)
        except FileNotFoundError:
            raise FailedError(f"no such command: {self._command[0]!a}", Exit.NO_COMMAND) from None
        except OSError as exc:
            raise FailedError(f"cannot run {self._command[0]!a}: {exc.strerror}", Exit.CANNOT_RUN) from None

    def _pass_on(self, number: signal.Signals) -> None:
        if self._process is None:
            self._early.append(number)
        elif number is not signal.SIGINT or self._leads_group:  # else the terminal has sent it to the whole group
            self._send(self._process, number)

    def _send(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        if self._leads_group:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        elif process.returncode is None:
            process.send_signal(number)

    async def end(self, grace: float) -> None:
        """End it if it still runs: SIGTERM, and SIGKILL after `grace` seconds."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._send(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            self._send(process, signal.SIGKILL)  # also what it started and left behind
            async with asyncio.timeout(KILL_WAIT):
                await process.wait()
