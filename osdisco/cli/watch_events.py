"""`osdisco watch-events`: extensions as they come, change and go."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import click

from osdisco.cli._extensions import Filter, address, extension_document, filter_of, filter_options
from osdisco.cli._output import document, line, note
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._stdout import while_read
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionEvent


@click.command(name="watch-events", cls=Command)
@filter_options
@click.pass_obj
def watch_events(settings: Settings, /, **wanted: Any) -> None:
    """Follow extensions as they come, change and go, until interrupted; those that are there come first.

    One line an event; with --json one document: 'event' is discovered, changed or removed, 'extension' how it is or
    last was, 'before' how it was before it changed. An event is shown when the extension is, or was, one that is meant.
    Outages of the store are bridged: what happened meanwhile comes after them.
    """
    meant = filter_of(**wanted)

    async def work(client: Client, _: Interrupts) -> None:
        discovery = DiscoveryService(client)
        await discovery.discover_extensions()  # says when the store cannot be reached
        async with discovery:
            note(f"following {client.url}; Ctrl-C ends")
            await while_read(_follow(client, discovery, meant, settings))

    run_with_client(settings, work)


async def _follow(client: Client, discovery: DiscoveryService, meant: Filter, settings: Settings) -> None:
    events: asyncio.Queue[ExtensionEvent] = asyncio.Queue()
    discovery.add_listener(events.put_nowait)
    while True:
        event = await events.get()
        if any(one is not None and meant(one) for one in (event.old, event.new)):
            _tell(event, client.runtime.clock.wall(), settings)


def _tell(event: ExtensionEvent, when: float, settings: Settings) -> None:
    what = "discovered" if event.old is None else "removed" if event.new is None else "changed"
    if settings.json:
        before = {"before": extension_document(event.old)} if event.old and event.new else {}
        document({"event": what, "time": when, "extension": extension_document(event.extension)} | before)
        return
    sign = {"discovered": "+", "changed": "~", "removed": "-"}[what]
    one = event.extension
    status = one.status.value
    if event.old and event.new and event.old.status is not event.new.status:
        status = f"{event.old.status.value} -> {status}"
    at = datetime.fromtimestamp(when).astimezone()
    line(f"{at:%H:%M:%S}  {sign} {one.id}  {one.name} {one.version}  {address(one)}  {status}")
