"""`osdisco watch`: changes as they come."""

from __future__ import annotations

import click

from osdisco._feed import Change
from osdisco.cli._output import document, item_document, line, note
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._text import preview
from osdisco.client import Client


@click.command(cls=Command)
@click.argument("prefix", default="")
@click.pass_obj
def watch(settings: Settings, prefix: str) -> None:
    """Follow the changes under PREFIX, or all; begins with what is there, ends when interrupted.

    One line a key: '+' it came, '~' it changed, '-' it went. Outages of the store are bridged.
    With --json one document a change; what changed in one transaction is one change.
    """
    folder = f"{prefix}/" if prefix and not prefix.endswith("/") else prefix

    async def work(client: Client, _: Interrupts) -> None:
        async with client.view(folder):  # says when the store cannot be reached; the watch alone would wait for it
            note(f"watching {folder or 'everything'} in {client.url}; Ctrl-C ends")
            async with client.watch(folder) as changes:
                async for change in changes:
                    _print(change, as_json=settings.json)

    run_with_client(settings, work)


def _print(change: Change, *, as_json: bool) -> None:
    if as_json:
        puts = [item_document(item) for _, item in sorted(change.puts.items())]
        head = {"revision": change.revision, "resync": change.resync}
        document(head | {"puts": puts, "deletes": sorted(change.deletes)})
        return
    for key in sorted(change.deletes.keys() - change.puts.keys()):
        line(f"- {key}")
    for key, item in sorted(change.puts.items()):
        line(f"{'~' if key in change.replaced else '+'} {key} = {preview(item.value)}  (revision {item.revision})")
