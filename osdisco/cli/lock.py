"""`osdisco lock`: hold a lock, or run a command under it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from osdisco.cli._arguments import timeout_option
from osdisco.cli._errors import Exit
from osdisco.cli._hold import Job, held_for, job_options
from osdisco.cli._output import document, line, note, talking
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._text import preview
from osdisco.client import Client
from osdisco.coordination import Contender, CoordinationService, DistributedLock, LockGuard
from osdisco.errors import ConflictError

SHOWN: Final = 200
"""Characters of the command that others see in the queue."""


@click.command(cls=Command)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@timeout_option("for the lock")
@click.option("--try", "once", is_flag=True, help="Do not wait at all.")
@job_options
@click.pass_obj
def lock(
    settings: Settings, /, name: str, command: tuple[str, ...], timeout: float | None, once: bool, **how: Any
) -> None:
    """Hold the lock NAME until interrupted, or while a command runs: osdisco lock NAME -- CMD…

    CMD finds OSDISCO_LOCK_HELD=true, OSDISCO_LOCK_NAME and OSDISCO_FENCE, the fencing token, in its environment: hand
    the token to what it writes to, and refuse older ones there. Signals are passed on. When the lock is lost CMD is
    ended, with SIGTERM and then SIGKILL.

    The exit code is CMD's own; 124 when the lock was not acquired in time, 125 on trouble with the store or when the
    lock was lost. Without CMD: 4 and 5, or 1 when it was lost.
    """
    if once and timeout is not None:
        raise click.UsageError("--try and --timeout exclude each other")
    job = Job(command, **how)

    async def work(client: Client, interrupts: Interrupts) -> int:
        info = {"command": preview(os.fsencode(str(job)), SHOWN)} if job else None
        guard = await _acquire(CoordinationService(client).lock(name, info=info), timeout, once=once)
        async with guard:
            return await (job.run(_environment(guard), interrupts) if job else _hold(guard, settings))

    with held_for(job, f"the lock {name!a}"):
        code = run_with_client(settings, work)
    click.get_current_context().exit(code)


async def _acquire(wanted: DistributedLock, timeout: float | None, *, once: bool) -> LockGuard:
    if not once:
        if talking() and (queue := await wanted.contenders()):
            note(f"waiting for the lock {wanted.name!a}, {_held(queue)}; {len(queue) - 1} before us in the queue")
        return await wanted.acquire(timeout=timeout)
    guard = await wanted.try_acquire()
    if guard is None:
        holder = _held(await wanted.contenders())
        raise ConflictError(f"the lock {wanted.name!a} is {holder}; without --try this command waits for it")
    return guard


def _held(queue: Sequence[Contender]) -> str:
    return f"held by {queue[0].owner}" if queue else "free again by now"


async def _hold(guard: LockGuard, settings: Settings) -> int:
    if settings.json:
        document({"event": "acquired", "lock": guard.name, "token": guard.token})
    else:
        line(str(guard.token))
        note(f"the lock {guard.name!a} is held with the fencing token above, until you press Ctrl-C")
    await asyncio.Event().wait()
    return Exit.DONE


def _environment(guard: LockGuard) -> Mapping[str, str]:
    return {"OSDISCO_LOCK_HELD": "true", "OSDISCO_LOCK_NAME": guard.name, "OSDISCO_FENCE": str(guard.token)}
