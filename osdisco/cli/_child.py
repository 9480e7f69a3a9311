"""A command that runs only while something is held: signals reach it, and it ends when its time is up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from osdisco.cli._below import Descendant, descendants, send
from osdisco.cli._errors import Exit, FailedError
from osdisco.cli._running import Interrupts

KILL_WAIT: Final = 5.0
"""Seconds for a killed process to be gone; longer only when the kernel holds it."""

_BY_TERMINAL: Final = {signal.SIGINT, signal.SIGQUIT}
"""What a terminal itself sends to the whole group."""


class Child:
    """One child process.

    At a terminal it stays in our process group, so that it can use the terminal, which also gives it the interrupts;
    other signals are sent to it and, on Linux, to whatever it started.
    Elsewhere it leads a group of its own, so that signals reach whatever it started, and reads nothing unless told to:
    what a script reads line by line is not the command's.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, pass_stdin: bool = False) -> None:
        self._command = command
        self._environment = environment
        at_terminal = os.isatty(0)
        self._leads_group = not at_terminal
        self._stdin = None if pass_stdin or at_terminal else asyncio.subprocess.DEVNULL
        self._process: asyncio.subprocess.Process | None = None
        self._early: list[signal.Signals] = []
        self._kill_at: float | None = None
        self._below: set[Descendant] = set()

    async def run(
        self,
        interrupts: Interrupts,
        *,
        started: Callable[[], Awaitable[object]] | None = None,
        receiver: Callable[[signal.Signals], None] | None = None,
    ) -> int:
        """Run it, passing signals on; returns its exit code, 128 plus the signal that killed it.

        Args:
            started: awaited once it runs.
            receiver: who gets the signals instead, to pass them on when it sees fit.

        Raises:
            FailedError: there is nothing to run; with the shell's codes.
        """
        with interrupts.passed_to(receiver or self.pass_on):
            self._process = process = await self._start()
            for number in self._early:
                self.pass_on(number)
            if started is not None:
                await started()
            code = await process.wait()
        return code if code >= 0 else 128 - code

    async def _start(self) -> asyncio.subprocess.Process:
        group = 0 if self._leads_group else None
        environment = {**os.environ, **self._environment}
        try:
            return await asyncio.create_subprocess_exec(
                *self._command, stdin=self._stdin, env=environment, process_group=group
            )
        except FileNotFoundError:
            raise FailedError(f"no such command: {self._command[0]!a}", Exit.NO_COMMAND) from None
        except OSError as exc:
            raise FailedError(f"cannot run {self._command[0]!a}: {exc.strerror}", Exit.CANNOT_RUN) from None

    def pass_on(self, number: signal.Signals) -> None:
        """Send it a signal, once it runs; one that its terminal sends is left to that."""
        if self._process is None:
            self._early.append(number)
        elif number not in _BY_TERMINAL or self._leads_group:
            self._send(self._process, number)

    def _send(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        if self._leads_group:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            return
        if process.returncode is None:
            self._below |= descendants(process.pid)  # before it ends: they are nobody's children then
            process.send_signal(number)
        send(self._below, number)

    def ask_to_end(self, grace: float) -> None:
        """Send SIGTERM, once; `end` then kills it no later than `grace` seconds on."""
        if self._kill_at is None:
            self._kill_at = asyncio.get_running_loop().time() + grace
            self.pass_on(signal.SIGTERM)

    async def end(self, grace: float) -> None:
        """End it if it still runs: SIGTERM, and SIGKILL `grace` seconds after it was first asked to end."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.ask_to_end(grace)
        try:
            async with asyncio.timeout_at(self._kill_at):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            self._send(process, signal.SIGKILL)  # also what it started and left behind
            async with asyncio.timeout(KILL_WAIT):
                await process.wait()
