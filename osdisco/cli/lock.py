"""`osdisco lock`: hold a lock, or run a command under it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import click

from osdisco.cli._child import Child
from osdisco.cli._errors import Exit, FailedError
from osdisco.cli._output import document, line, note, talking
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.client import Client
from osdisco.coordination import Contender, CoordinationService, DistributedLock, LockGuard
from osdisco.errors import ConfigError, ConflictError, InvalidNameError, LostError, OsdiscoError, TimedOutError
from osdisco.url import parse_duration


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(value)
        except ConfigError as exc:
            self.fail(str(exc), param, ctx)


@click.command(cls=Command)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--timeout", type=_Duration(), metavar="5s", help="Wait at most so long for the lock; else for ever.")
@click.option("--try", "once", is_flag=True, help="Do not wait at all.")
@click.option(
    "--grace", type=_Duration(), default="5s", show_default=True, help="From SIGTERM to SIGKILL when it is lost."
)
@click.pass_obj
def lock(
    settings: Settings, name: str, command: tuple[str, ...], timeout: float | None, once: bool, grace: float
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

    async def work(client: Client, interrupts: Interrupts) -> int:
        wanted = CoordinationService(client).lock(name, info={"command": " ".join(command)} if command else None)
        guard = await _acquire(wanted, timeout, once=once)
        async with guard:
            if not command:
                return await _hold(guard, settings)
            return await _run(guard, command, grace, interrupts)

    try:
        code = run_with_client(settings, work)
    except (TimedOutError, ConflictError) as exc:
        raise FailedError(str(exc), Exit.NOT_ACQUIRED if command else Exit.CONFLICT) from exc
    except LostError as exc:
        told = f"the lock {name!a} was lost: {exc.reason}"
        raise FailedError(told, Exit.HOLD_FAILED if command else Exit.FAILED) from exc
    except (ConfigError, InvalidNameError, FailedError):
        raise
    except OsdiscoError as exc:
        raise FailedError(str(exc), Exit.HOLD_FAILED) if command else exc from exc
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


async def _run(guard: LockGuard, command: tuple[str, ...], grace: float, interrupts: Interrupts) -> int:
    child = Child(command, _environment(guard))
    try:
        return await child.run(interrupts)
    finally:
        await child.end(grace)


def _environment(guard: LockGuard) -> Mapping[str, str]:
    return {"OSDISCO_LOCK_HELD": "true", "OSDISCO_LOCK_NAME": guard.name, "OSDISCO_FENCE": str(guard.token)}
