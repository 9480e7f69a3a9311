"""`osdisco counter`: whole numbers that many add to."""

from __future__ import annotations

import re
from typing import Final

import click

from osdisco.cli._output import document, line
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Group, Settings
from osdisco.client import Client
from osdisco.coordination import CoordinationService

_NEGATIVE: Final = re.compile(r"-[0-9]+\Z")


class _TakesNegative(Command):
    """A command with an argument that may be a negative number, which click takes for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put negative numbers behind `--`."""
        if "--" not in args:
            negative = [arg for arg in args if _NEGATIVE.match(arg)]
            args = [arg for arg in args if arg not in negative] + (["--", *negative] if negative else [])
        return super().parse_args(ctx, args)


@click.group(cls=Group)
def counter() -> None:
    """Show a counter, or add to it.

    A counter is a whole number by name, 0 until something was added.
    """


@counter.command()
@click.argument("name")
@click.pass_obj
def get(settings: Settings, /, name: str) -> None:
    """Print the counter NAME."""

    async def work(client: Client, _: Interrupts) -> int:
        return await CoordinationService(client).counter(name).get()

    _tell(settings, name, run_with_client(settings, work))


@counter.command(cls=_TakesNegative)
@click.argument("name")
@click.argument("delta", metavar="[N]", type=int, default=1)
@click.option("--exactly-once", is_flag=True, help="Find out what became of an addition whose answer was lost.")
@click.pass_obj
def add(settings: Settings, /, name: str, delta: int, exactly_once: bool) -> None:
    """Add N (1, may be negative) to the counter NAME, and print the sum.

    Exit code 5 when the answer was lost, so that it may have counted. --exactly-once then looks, and repeats only what
    did not count; it costs a write more.
    """

    async def work(client: Client, _: Interrupts) -> int:
        return await CoordinationService(client).counter(name).add(delta, exactly_once=exactly_once)

    _tell(settings, name, run_with_client(settings, work))


def _tell(settings: Settings, name: str, number: int) -> None:
    if settings.json:
        document({"counter": name, "value": number})
    else:
        line(str(number))
