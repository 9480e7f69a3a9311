"""Failures as the shell sees them: the one place that turns exceptions into exit codes and words."""

from __future__ import annotations

import enum
import json
import sys
import traceback
from typing import Any, Final

import click

from osdisco.cli._text import visible
from osdisco.errors import (
    ClusterUnavailableError,
    ConfigError,
    ConflictError,
    IndeterminateError,
    InvalidCommitError,
    InvalidNameError,
    NoHealthyEndpointsError,
    OsdiscoError,
    RulesError,
    ServiceNotFoundError,
    TimedOutError,
    UnavailableError,
)


class Exit(enum.IntEnum):
    """Exit codes. Those of signals are 128 plus the signal: 130 for an interrupt."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    NOT_ACQUIRED = 124
    HOLD_FAILED = 125
    CANNOT_RUN = 126
    NO_COMMAND = 127


class NotFoundError(OsdiscoError):
    """What was asked for does not exist."""


class FailedError(OsdiscoError):
    """A command that came to a bad end, with the exit code that says how."""

    def __init__(self, message: str, code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


class InterruptedBySignal(Exception):
    """The command was ended by a signal, and has cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_CODES: Final = (
    ((ConfigError, InvalidNameError, InvalidCommitError, RulesError, click.ClickException), Exit.USAGE),
    ((NotFoundError, ServiceNotFoundError), Exit.NOT_FOUND),
    ((ConflictError, TimedOutError), Exit.CONFLICT),
    ((UnavailableError, IndeterminateError, NoHealthyEndpointsError, ClusterUnavailableError), Exit.UNAVAILABLE),
)


def exit_code(exc: BaseException) -> int:
    """Return the exit code of a failure."""
    if isinstance(exc, InterruptedBySignal):
        return 128 + exc.number
    if isinstance(exc, FailedError):
        return exc.code
    if _lacks_rich(exc):
        return Exit.USAGE
    return next((code for kinds, code in _CODES if isinstance(exc, kinds)), Exit.FAILED)


def report(exc: BaseException, *, as_json: bool, verbose: bool) -> int:
    """Say on stderr, in one line, what went wrong and what to do; returns the exit code."""
    code = exit_code(exc)
    if isinstance(exc, InterruptedBySignal | BrokenPipeError):
        return code
    if verbose:
        traceback.print_exception(exc)
    message = _message(exc)
    if as_json:
        cause = exc.__cause__ if isinstance(exc, FailedError) and exc.__cause__ else exc
        error = {"type": type(cause).__name__, "message": message, "exit_code": code}
        sys.stderr.write(json.dumps({"error": error}) + "\n")
    else:
        sys.stderr.write(f"osdisco: {visible(message)}\n")
    return code


def _message(exc: BaseException) -> str:
    if isinstance(exc, click.UsageError):
        where = f"; see '{exc.ctx.command_path} --help'" if exc.ctx else ""
        return exc.format_message().rstrip(".") + where
    if isinstance(exc, click.ClickException):
        return exc.format_message()
    if isinstance(exc, OsdiscoError):
        return _with_remedy(exc)
    if _lacks_rich(exc):
        return "this command needs rich: pip install 'osdisco[cli]'"
    return f"unexpected {type(exc).__name__}: {exc} (-v shows where; please report it)"


def _lacks_rich(exc: BaseException) -> bool:
    return isinstance(exc, ModuleNotFoundError) and (exc.name or "").partition(".")[0] == "rich"


def _with_remedy(exc: OsdiscoError) -> str:
    """Errors say what happened; what to do next at a shell is added where that is always the same."""
    remedies: Any = (
        (UnavailableError, "'osdisco doctor' tells more"),
        (IndeterminateError, "it may have been applied: read before trying again"),
    )
    remedy = next((text for kind, text in remedies if isinstance(exc, kind)), "")
    return f"{exc}{remedy and f' ({remedy})'}"
