"""`osdisco ls`: who is registered, once or live."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from osdisco.cli._extensions import COLUMNS, extension_document, filter_of, filter_options, row
from osdisco.cli._output import at_terminal, document, fields, note, table
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._stdout import while_read
from osdisco.cli._text import rough, visible
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionInfo
from osdisco.discovery._filter import Filter

if TYPE_CHECKING:
    from rich.console import RenderableType

Found = Mapping[str, ExtensionInfo]

REFRESH: Final = 1.0
"""Seconds after which a terminal is drawn anew when nothing has changed: the view may have become stale."""

_STYLES: Final = {
    "healthy": "green",
    "degraded": "yellow",
    "unhealthy": "red",
    "stopping": "magenta",
    "starting": "cyan",
}


@click.command(cls=Command)
@filter_options
@click.option("--watch", "live", is_flag=True, help="Keep it live: what changes is shown at once, until interrupted.")
@click.pass_obj
def ls(settings: Settings, /, live: bool, **wanted: Any) -> None:
    """List the registered extensions.

    In a pipe tab-separated lines, with --json a document for each; with --watch again for each that changes, and one
    that says 'gone'. While the store is away a live list keeps what was known, and a terminal shows how old it is.
    """
    meant = filter_of(**wanted)

    async def work(client: Client, _: Interrupts) -> None:
        discovery = DiscoveryService(client)
        found = await discovery.discover_extensions()
        if not live:
            _print(_by_id(meant, found), settings)
            return
        async with discovery:
            await discovery.wait_known()
            drawn = at_terminal() and not settings.json
            await while_read(_draw(client, discovery, meant) if drawn else _follow(client, discovery, meant, settings))

    run_with_client(settings, work)


def _by_id(meant: Filter, extensions: Iterable[ExtensionInfo]) -> Found:
    return {one.id: one for one in sorted(filter(meant, extensions), key=lambda one: one.id)}


def _print(found: Found, settings: Settings) -> None:
    if settings.json:
        for extension in found.values():
            document(extension_document(extension))
        return
    table(COLUMNS, map(row, found.values()))


def _changes_of(discovery: DiscoveryService) -> asyncio.Event:
    """Return what is set with every change."""
    changed = asyncio.Event()
    changed.set()
    discovery.add_listener(lambda _: changed.set())
    return changed


async def _follow(client: Client, discovery: DiscoveryService, meant: Filter, settings: Settings) -> None:
    """Tell every change; the first state is all change."""
    note(f"following {client.url}; Ctrl-C ends")
    changed = _changes_of(discovery)
    before: Found = {}
    while True:
        await changed.wait()
        changed.clear()
        now = _by_id(meant, discovery.extensions.values())
        for id_ in sorted(before.keys() - now.keys()):
            _tell_gone(id_, settings)
        for id_, extension in now.items():
            if before.get(id_) != extension:
                _tell(extension, settings)
        before = now


def _tell(extension: ExtensionInfo, settings: Settings) -> None:
    if settings.json:
        document(extension_document(extension))
    else:
        fields(*row(extension))


def _tell_gone(id_: str, settings: Settings) -> None:
    if settings.json:
        document({"id": id_, "gone": True})
    else:
        fields(id_, "-", "-", "-", "gone", "", "")


async def _draw(client: Client, discovery: DiscoveryService, meant: Filter) -> None:
    from rich.console import Console
    from rich.live import Live

    changed = _changes_of(discovery)
    with Live(console=Console(highlight=False), auto_refresh=False) as screen:
        while True:
            changed.clear()
            screen.update(_picture(client, discovery, meant), refresh=True)
            try:
                async with asyncio.timeout(REFRESH):
                    await changed.wait()
            except TimeoutError:
                pass


def _picture(client: Client, discovery: DiscoveryService, meant: Filter) -> RenderableType:
    """Return what a terminal shows."""
    from rich.console import Group
    from rich.text import Text

    view = discovery.extensions
    found = _by_id(meant, view.values())
    title = Text(visible(str(client.url)), "bold")
    title.append(f"  {datetime.fromtimestamp(client.runtime.clock.wall()).astimezone():%H:%M:%S}", "dim not bold")
    parts: list[RenderableType] = [title]
    if view.stale:
        parts.append(Text(f"not up to date: the store was last heard {rough(view.age)} ago", "red"))
    parts.append(_table(found) if found else Text("nobody is registered\n", "dim"))
    parts += [Text(f"skipped {visible(key)}: {visible(why)}", "yellow") for key, why in view.skipped.items()]
    return Group(*parts)


def _table(found: Found) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = Table(*COLUMNS, box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for extension in found.values():
        cells = [Text(visible(text)) for text in row(extension)]
        cells[0].stylize("bold")
        cells[COLUMNS.index("status")].stylize(_STYLES[extension.status.value])
        shown.add_row(*cells)
    return shown
