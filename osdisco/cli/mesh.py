"""`osdisco mesh`: how the calls of services go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Final

import click

from osdisco.cli._output import at_terminal, document, fields, note, warn
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Group, Settings
from osdisco.cli._stdout import while_read
from osdisco.cli._text import visible
from osdisco.client import Client
from osdisco.mesh._reports import PERIOD
from osdisco.mesh.top import MeshWatch, ServiceFigures, document_of

if TYPE_CHECKING:
    from rich.console import RenderableType

COLUMNS: Final = (
    *("service", "callers", "calls/s", "ok", "p50", "p99", "retries/s", "refused/s"),
    *("in flight", "endpoints", "ejected", "open", "budget", "panic"),
)

PATIENCE: Final = 3 * PERIOD
"""Seconds that a program waits for the first rates; a process must have reported twice."""


@click.group(cls=Group)
def mesh() -> None:
    """See how the calls of services go."""


@mesh.command()
@click.option("-n", "--times", type=click.IntRange(min=1), help="End after so many times, else when interrupted.")
@click.pass_obj
def top(settings: Settings, /, times: int | None) -> None:
    """Show all services that are called, by whom and with what success, every two seconds.

    While it runs, every process that calls something by a mesh counts, and reports into the store; else none does.
    'retries' are attempts beside the first of a call, 'refused' those for which nobody was picked, 'open' circuits that
    are not closed, or 'all' when it is that of the whole service, 'budget' the retries that are left to the caller who
    has least.

    In a pipe tab-separated lines, with --json a document for each service.
    """

    async def work(client: Client, _: Interrupts) -> None:
        async with MeshWatch(client) as watch:
            drawn = at_terminal() and not settings.json
            await while_read(_draw(client, watch, times) if drawn else _tell(client, watch, times, settings))

    run_with_client(settings, work)


async def _tell(client: Client, watch: MeshWatch, times: int | None, settings: Settings) -> None:
    note(f"following {client.url}; Ctrl-C ends")
    left, told = times, False
    began = client.runtime.clock.now()
    async for found in watch:
        early = client.runtime.clock.now() - began < PATIENCE
        if not told and early and (not found or any(one.calls is None for one in found)):
            continue
        told = True
        if not found:
            warn("no process reports: none has called anything by a mesh, or all have reports=False")
        for one in found:
            document(document_of(one)) if settings.json else fields(*row(one))
        if left is not None and (left := left - 1) == 0:
            return


async def _draw(client: Client, watch: MeshWatch, times: int | None) -> None:
    from rich.console import Console
    from rich.live import Live

    left = times
    with Live(console=Console(highlight=False), auto_refresh=False) as screen:
        async for found in watch:
            screen.update(_picture(client, watch, found), refresh=True)
            if left is not None and (left := left - 1) == 0:
                return


def row(one: ServiceFigures) -> tuple[str, ...]:
    """Return the fields of a service, as `COLUMNS` name them."""
    return (
        one.service,
        str(one.callers),
        _number(one.calls),
        "-" if one.ok is None else f"{100 * one.ok:.2f} %",
        _seconds(one.p50),
        _seconds(one.p99),
        _number(one.retries),
        _number(one.refused),
        str(one.in_flight),
        str(one.endpoints),
        str(one.ejected),
        "all" if one.whole_open else str(one.open),
        _number(one.budget),
        "panic" if one.panic else "-",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return "> 30 s" if value == inf else f"{1000 * value:.1f} ms" if value < 1 else f"{value:.2f} s"


def _picture(client: Client, watch: MeshWatch, found: Sequence[ServiceFigures]) -> RenderableType:
    """Return what a terminal shows."""
    from rich.console import Group as Parts
    from rich.text import Text

    title = Text(visible(str(client.url)), "bold")
    title.append(f"  {datetime.fromtimestamp(client.runtime.clock.wall()).astimezone():%H:%M:%S}", "dim not bold")
    parts: list[RenderableType] = [title]
    if watch.error is not None:
        parts.append(Text(f"not up to date: {visible(str(watch.error))}", "red"))
    parts.append(_table(found) if found else Text("no process reports yet; those that call by a mesh do\n", "dim"))
    return Parts(*parts)


def _table(found: Sequence[ServiceFigures]) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for number, name in enumerate(COLUMNS):
        shown.add_column(name, justify="right" if number else "left")
    for one in found:
        cells = [Text(visible(text)) for text in row(one)]
        cells[0].stylize("bold")
        cells[COLUMNS.index("ok")].stylize(_style(one))
        cells[COLUMNS.index("ejected")].stylize("yellow" if one.ejected else "dim")
        cells[COLUMNS.index("open")].stylize("bold red" if one.whole_open else "yellow" if one.open else "dim")
        cells[COLUMNS.index("panic")].stylize("bold red" if one.panic else "dim")
        shown.add_row(*cells)
    return shown


def _style(one: ServiceFigures) -> str:
    if one.ok is None:
        return "dim"
    return "green" if one.ok >= 0.99 else "yellow" if one.ok >= 0.9 else "red"
