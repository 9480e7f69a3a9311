"""Arguments that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from osdisco.errors import ConfigError
from osdisco.url import parse_duration

F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """`1500ms`, `15s`, `2m`, `1h` or a number of seconds; above zero, unless `zero` is fine, too."""

    name = "duration"

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if self._zero and value in ("0", "0s"):
            return 0.0
        try:
            return parse_duration(value)
        except ConfigError as exc:
            self.fail(str(exc), param, ctx)


def timeout_option(what: str) -> Callable[[F], F]:
    """Return `--timeout`: how long to wait for what."""
    return click.option(
        "--timeout", type=Duration(), metavar="5s", help=f"Wait at most so long {what}; else as long as it takes."
    )
