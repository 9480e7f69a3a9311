"""`osdisco lock`: hold a lock, or run a command under it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from osdisco.cli._arguments import timeout_option
from osdisco.cli._errors import FailedError
from osdisco.cli._hold import Job, held_for, job_options
from osdisco.cli._output import document, line, note, talking
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._text import preview
from osdisco.client import Client
from osdisco.coordination import Contender, CoordinationService, DistributedLock, DistributedSemaphore, LockGuard
from osdisco.errors import ConflictError

SHOWN: Final = 200
"""Characters of the command that others see in the queue."""


@click.command(cls=Command)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("-n", "limit", type=int, metavar="N", help="One of N permits, instead of a lock that is held alone.")
@timeout_option("for the lock")
@click.option("--try", "once", is_flag=True, help="Do not wait at all.")
@job_options
@click.pass_obj
def lock(
    settings: Settings,
    /,
    name: str,
    command: tuple[str, ...],
    limit: int | None,
    timeout: float | None,
    once: bool,
    **how: Any,
) -> None:
    """Hold the lock NAME until interrupted, or while a command runs: osdisco lock NAME -- CMD…

    CMD finds OSDISCO_LOCK_HELD=true, OSDISCO_LOCK_NAME and OSDISCO_FENCE, the fencing token, in its environment: hand
    the token to what it writes to, and refuse older ones there. Signals are passed on. When the lock is lost CMD is
    ended, with SIGTERM and then SIGKILL. When somebody wants it back CMD gets SIGTERM, and the lock is given back when
    it has ended.

    With -n NAME is a semaphore, which has nothing to do with the lock NAME, also not with -n 1. N is the same for all
    who use it.

    The exit code is CMD's own; 124 when the lock was not acquired in time, 125 on trouble with the store or when the
    lock was lost. Without CMD: 4 and 5, or 1 when it was lost.
    """
    if once and timeout is not None:
        raise click.UsageError("--try and --timeout exclude each other")
    job = Job(command, **how)
    what = f"the lock {name!a}" if limit is None else f"a permit of {name!a}"

    async def work(client: Client, interrupts: Interrupts) -> int:
        info = {"command": preview(os.fsencode(str(job)), SHOWN)} if job else None
        wanted = _wanted(CoordinationService(client), name, limit, info)
        async with await _acquire(wanted, what, timeout, once=once) as guard:
            if job:
                return await job.run(_environment(guard), interrupts, guard.revoked)
            return await _hold(guard, what, settings)

    with held_for(job, what):
        code = run_with_client(settings, work)
    click.get_current_context().exit(code)


def _wanted(
    coordination: CoordinationService, name: str, limit: int | None, info: Mapping[str, Any] | None
) -> DistributedLock | DistributedSemaphore:
    if limit is None:
        return coordination.lock(name, info=info)
    return coordination.semaphore(name, limit=limit, info=info)


async def _acquire(
    wanted: DistributedLock | DistributedSemaphore, what: str, timeout: float | None, *, once: bool
) -> LockGuard:
    if not once:
        if talking() and (queue := await wanted.contenders()):
            note(f"waiting for {what}, {_held(queue)}; {sum(not one.holds for one in queue)} before us in the queue")
        return await wanted.acquire(timeout=timeout)
    guard = await wanted.try_acquire()
    if guard is None:
        raise ConflictError(f"{what} is not free: {_held(await wanted.contenders())}; without --try this waits")
    return guard


def _held(queue: Sequence[Contender]) -> str:
    holders = ", ".join(one.owner for one in queue if one.holds)
    return f"held by {holders}" if holders else "free again by now"


async def _hold(guard: LockGuard, what: str, settings: Settings) -> int:
    if settings.json:
        document({"event": "acquired", "lock": guard.name, "token": guard.token})
    else:
        line(str(guard.token))
        note(f"{what} is held with the fencing token above, until you press Ctrl-C")
    raise FailedError(f"{what} is given back: {await guard.revoked.wait()}")


def _environment(guard: LockGuard) -> Mapping[str, str]:
    return {"OSDISCO_LOCK_HELD": "true", "OSDISCO_LOCK_NAME": guard.name, "OSDISCO_FENCE": str(guard.token)}
