"""`osdisco status`: what is held in the namespace, by whom, and who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from osdisco.cli._output import at_terminal, document, fields, note
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._text import visible
from osdisco.cli._things import COLUMNS, Row, Thing, left, things
from osdisco.client import Client
from osdisco.coordination import CoordinationService, NamespaceStatus, SessionStatus, StatusWatch
from osdisco.coordination.status import with_leases
from osdisco.errors import UnavailableError

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH: Final = 2.0
"""Seconds after which a terminal shows ages and leases anew when nothing has changed."""

SHOWN: Final = 10
"""Rows of one thing at a terminal. Pipes and --json get all."""

_STYLES: Final = {"holds": "green", "reads": "green", "writes": "green", "leads": "green", "held": "yellow"}


@click.command(cls=Command)
@click.option("--watch", "live", is_flag=True, help="Keep it live: what changes is shown at once, until interrupted.")
@click.pass_obj
def status(settings: Settings, /, live: bool) -> None:
    """Show what is held in the namespace, by whom, and who waits.

    That is locks, read/write locks, semaphores, elections, groups, barriers and double barriers, then the sessions
    with what is left of their leases (Consul tells only how long one lasts at a time), and keys that osdisco cannot
    have written. 'since' is when somebody came to the queue, or began to lead or to hold, by its own clock.

    In a pipe tab-separated lines, with --json a document for each thing; with --watch again for each that changes.
    """

    async def work(client: Client, _: Interrupts) -> None:
        coordination = CoordinationService(client)
        found = await coordination.status()
        if not live:
            _show(client, found, settings)
            return
        async with coordination.watch_status() as states:
            if settings.json or not at_terminal():
                await _follow(client, states, settings)
            else:
                await _draw(client, states, found)

    run_with_client(settings, work)


def _show(client: Client, found: NamespaceStatus, settings: Settings) -> None:
    if settings.json or not at_terminal():
        for thing in things(found):
            _tell(client, thing, settings)
        return
    from rich.console import Console

    Console(highlight=False).print(_picture(client, found))


def _tell(client: Client, thing: Thing, settings: Settings) -> None:
    if settings.json:
        document(thing.document)
        return
    for row in thing.rows:
        fields(thing.kind, thing.name, *row.fields(client.runtime.clock.wall()))


async def _follow(client: Client, states: StatusWatch, settings: Settings) -> None:
    """Tell every change, thing by thing; the first state is all change."""
    note(f"following {client.url}; Ctrl-C ends")
    before: dict[tuple[str, str], Thing] = {}
    async for state in states:
        now = {(thing.kind, thing.name): thing for thing in things(state)}
        for kind, name in sorted(before.keys() - now.keys()):
            _tell_gone(kind, name, settings)
        for key, thing in now.items():
            if before.get(key) != thing:
                _tell(client, thing, settings)
        before = now


def _tell_gone(kind: str, name: str, settings: Settings) -> None:
    if settings.json:
        document({"kind": kind, "name": name, "gone": True})
    else:
        fields(kind, name, "gone", "-", "-", "-", "")


async def _draw(client: Client, states: StatusWatch, found: NamespaceStatus) -> None:
    from rich.console import Console
    from rich.live import Live

    with Live(_picture(client, found), console=Console(highlight=False), auto_refresh=False) as screen:
        while True:
            try:
                async with asyncio.timeout(REFRESH):
                    found = await anext(states)
            except TimeoutError:
                with suppress(UnavailableError, TimeoutError):
                    async with asyncio.timeout(REFRESH):
                        found = await with_leases(client, found)
            screen.update(_picture(client, found, states), refresh=True)


def _picture(client: Client, found: NamespaceStatus, states: StatusWatch | None = None) -> RenderableType:
    """Return what a terminal shows."""
    from rich.console import Group
    from rich.text import Text

    wall = client.runtime.clock.wall()
    title = Text(visible(str(client.url)), "bold")
    parts: list[RenderableType] = [title]
    if states is not None:
        title.append(f"  {datetime.fromtimestamp(wall).astimezone():%H:%M:%S}", "dim not bold")
        if states.error is not None:
            parts.append(Text(f"not up to date: {visible(str(states.error))}", "red"))
    held = [thing for thing in things(found) if thing.kind not in ("session", "strange")]
    parts.append(_table_of_things(held, wall) if held else Text("nothing is held, and nobody waits\n", "dim"))
    if found.sessions:
        parts.append(_table_of_sessions(found.sessions))
    parts += [Text(f"not osdisco's: {visible(key)}", "yellow") for key in found.strange]
    return Group(*parts)


def _table_of_things(held: Iterable[Thing], wall: float) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS, box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    kinds: set[str] = set()
    for thing in held:
        for place, row in enumerate(_cut(thing.rows)):
            kind = "" if thing.kind in kinds else thing.kind.replace("_", " ")
            kinds.add(thing.kind)
            state, *rest = (Text(visible(text)) for text in row.fields(wall))
            state.stylize(_STYLES.get(row.state, "dim"))
            table.add_row(Text(kind, "bold"), Text("" if place else visible(thing.name), "bold"), state, *rest)
    return table


def _cut(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    if len(rows) <= SHOWN:
        return rows
    return (*rows[: SHOWN - 1], Row("…", f"and {len(rows) - SHOWN + 1} more"))


def _table_of_sessions(sessions: Iterable[SessionStatus]) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table("session of", "lease lasts", "keys", "lease", box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for session in sessions:
        table.add_row(Text(visible(session.owner)), left(session), str(session.keys), Text(session.lease, "dim"))
    return table
