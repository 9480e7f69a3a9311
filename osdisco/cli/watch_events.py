"""`osdisco watch-events`: extensions as they come, change and go."""

from __future__ import annotations

from datetime import datetime
from math import isfinite
from typing import Any

import click

from osdisco.cli._extensions import address, extension_document, filter_of, filter_options
from osdisco.cli._output import document, line, note
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._stdout import while_read
from osdisco.cli._text import rough
from osdisco.client import Client
from osdisco.discovery import (
    DiscoveryService,
    ExtensionEvent,
    Superseded,
    ViewFresh,
    ViewProtecting,
    ViewProtectionOver,
    ViewStale,
)
from osdisco.discovery._filter import Filter


@click.command(name="watch-events", cls=Command)
@filter_options
@click.pass_obj
def watch_events(settings: Settings, /, **wanted: Any) -> None:
    """Follow extensions as they come, change and go, until interrupted; those that are there come first.

    One line an event; with --json one document: 'event' is discovered, changed or removed, 'extension' how it is or
    last was, 'before' how it was before it changed. An event is shown when the extension is, or was, one that is meant.
    Outages of the store are bridged: 'stale' and 'fresh' say when they begin and end; what was missed comes after that.
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
    async with discovery.events() as events:
        async for event in events:
            if isinstance(event, Superseded | ViewProtecting | ViewProtectionOver):
                continue  # only who has an extension, or protects its view, is told so
            if not isinstance(event, ExtensionEvent) or any(map(meant, filter(None, (event.old, event.new)))):
                tell = _document if settings.json else _line
                tell(event, client.runtime.clock.wall())


def _document(event: ExtensionEvent | ViewStale | ViewFresh, when: float) -> None:
    if isinstance(event, ViewStale):
        age = event.age if isfinite(event.age) else None  # the store was never seen
        document({"event": "stale", "time": when, "age": age, "reason": event.reason})
    elif isinstance(event, ViewFresh):
        document({"event": "fresh", "time": when, "lasted": event.lasted})
    else:
        before = {"before": extension_document(event.old)} if event.old and event.new else {}
        about = {"event": _kind(event), "time": when, "extension": extension_document(event.extension)}
        document(about | before)


def _kind(event: ExtensionEvent) -> str:
    return "discovered" if event.old is None else "removed" if event.new is None else "changed"


def _line(event: ExtensionEvent | ViewStale | ViewFresh, when: float) -> None:
    at = f"{datetime.fromtimestamp(when).astimezone():%H:%M:%S}"
    if isinstance(event, ViewStale):
        line(f"{at}  ? not up to date from here on: {event.reason}")
        return
    if isinstance(event, ViewFresh):
        line(f"{at}  ! up to date again, after {rough(event.lasted)}")
        return
    sign = {"discovered": "+", "changed": "~", "removed": "-"}[_kind(event)]
    one = event.extension
    line(f"{at}  {sign} {one.id}  {one.name} {one.version}  {address(one)}  {_status(event)}")


def _status(event: ExtensionEvent) -> str:
    now = event.extension.status.value
    if event.old and event.new and event.old.status is not event.new.status:
        return f"{event.old.status.value} -> {now}"
    return now
