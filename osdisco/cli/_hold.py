"""What `lock` and `elect` share: something is held, and a command runs for as long as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from attrs import frozen

from osdisco._loss import Revocation
from osdisco.cli._arguments import Duration
from osdisco.cli._child import Child
from osdisco.cli._errors import Exit, FailedError
from osdisco.cli._output import warn
from osdisco.cli._running import Interrupts
from osdisco.errors import ConfigError, ConflictError, InvalidNameError, LostError, OsdiscoError, TimedOutError

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--shell/--no-shell",
        default=None,
        help="Run CMD, one argument, by 'sh -c', or as it is. Default: by the shell if it is one argument.",
    ),
    click.option("--pass-stdin", is_flag=True, help="Let CMD read stdin, also when that is no terminal."),
    click.option(
        "--grace",
        type=Duration(),
        metavar="5s",
        default="5s",
        show_default=True,
        help="From SIGTERM to SIGKILL when CMD may not run on.",
    ),
)


@frozen
class Job:
    """A command that runs while something is held; `grace` in seconds. False when there is none."""

    command: Sequence[str]
    shell: bool | None
    pass_stdin: bool
    grace: float

    def __bool__(self) -> bool:
        return bool(self.command)

    def __str__(self) -> str:
        return " ".join(self.command)

    def __attrs_post_init__(self) -> None:
        if self.shell and len(self.command) != 1:
            raise click.UsageError("--shell takes the whole command as one argument: quote it")

    @property
    def arguments(self) -> Sequence[str]:
        """What is run: a single argument is a line for the shell, unless told otherwise."""
        by_shell = len(self.command) == 1 if self.shell is None else self.shell
        return ("sh", "-c", *self.command) if by_shell else self.command

    async def run(
        self, environment: Mapping[str, str], interrupts: Interrupts, revoked: Revocation | None = None
    ) -> int:
        """Run it with more in its environment; returns its exit code. It does not outlive this call.

        Signals are passed on. When somebody wants back what is held, it is asked to end, and has until the loss.
        """
        child = Child(self.arguments, environment, pass_stdin=self.pass_stdin)

        def ask_to_end(why: str) -> None:
            warn(f"{why}: ending the command")
            child.ask_to_end(self.grace)

        forget = revoked.call(ask_to_end) if revoked is not None else None
        try:
            return await child.run(interrupts)
        finally:
            if forget is not None:
                forget()
            await child.end(self.grace)


def job_options(function: F) -> F:
    """Add the options of a Job: `shell`, `pass_stdin` and `grace`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@contextmanager
def held_for(job: Job, what: str) -> Iterator[None]:
    """Give failures the words and exit codes of what was to be held: with a command they must not look like its own.

    Raises:
        FailedError: 124 not acquired in time, 125 store trouble or lost; without a command 4, 5 or 1.
    """
    try:
        yield
    except (TimedOutError, ConflictError) as exc:
        raise FailedError(str(exc), Exit.NOT_ACQUIRED if job else Exit.CONFLICT) from exc
    except LostError as exc:
        raise FailedError(f"{what} was lost: {exc.reason}", Exit.HOLD_FAILED if job else Exit.FAILED) from exc
    except (ConfigError, InvalidNameError, FailedError):
        raise
    except OsdiscoError as exc:
        raise FailedError(str(exc), Exit.HOLD_FAILED) if job else exc from exc
