"""`osdisco kv`: keys and values of the namespace."""

from __future__ import annotations

import os
import sys

import click

from osdisco.backend import Put, Revision, Snapshot
from osdisco.cli._errors import NotFoundError
from osdisco.cli._output import document, item_document, line, table
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Group, Settings
from osdisco.cli._text import preview
from osdisco.client import Client


@click.group(cls=Group)
def kv() -> None:
    """Read and write keys of the namespace.

    A key is segments of any text joined by '/'; a prefix ends in '/'.
    """


@kv.command()
@click.argument("key")
@click.pass_obj
def get(settings: Settings, key: str) -> None:
    """Print the value of KEY as it is; exit code 3 when there is none."""

    async def work(client: Client, _: Interrupts) -> None:
        item = await client.get(key)
        if item is None:
            raise NotFoundError(f"no key {key!a} in {client.url}; 'osdisco kv ls' shows what is there")
        if settings.json:
            document(item_document(item))
        else:
            _print_raw(item.value)

    run_with_client(settings, work)


def _print_raw(value: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(value)
    if sys.stdout.isatty() and not value.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


@kv.command()
@click.argument("key")
@click.argument("value")
@click.option("--create", is_flag=True, help="Only if the key does not exist.")
@click.option("--expect", type=click.IntRange(min=1), metavar="REVISION", help="Only if the key is at this revision.")
@click.pass_obj
def put(settings: Settings, key: str, value: str, create: bool, expect: int | None) -> None:
    """Write VALUE ('-': all of stdin) at KEY, and print its new revision.

    Exit code 4 when the condition does not hold; nothing is written then.
    """
    if create and expect is not None:
        raise click.UsageError("--create and --expect exclude each other")
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)

    async def work(client: Client, _: Interrupts) -> None:
        if create:
            revision = await client.create(key, data)
        elif expect is not None:
            revision = (await client.commit([Put(key, data)], expect={key: Revision(expect)}))[key]
        else:
            revision = await client.put(key, data)
        if settings.json:
            document({"key": key, "revision": revision})
        else:
            line(str(revision))

    run_with_client(settings, work)


@kv.command()
@click.argument("key")
@click.option("--expect", type=click.IntRange(min=1), metavar="REVISION", help="Only if the key is at this revision.")
@click.pass_obj
def rm(settings: Settings, key: str, expect: int | None) -> None:
    """Delete KEY; exit code 3 when there is none, 4 when it is not at the expected revision."""

    async def work(client: Client, _: Interrupts) -> None:
        item = await client.get(key)
        if item is None:
            raise NotFoundError(f"no key {key!a} in {client.url}; nothing was deleted")
        await client.delete(key, expect=None if expect is None else Revision(expect))
        if settings.json:
            document({"key": key, "deleted": True})

    run_with_client(settings, work)


@kv.command()
@click.argument("prefix", default="")
@click.pass_obj
def ls(settings: Settings, prefix: str) -> None:
    """List the keys under PREFIX, or all; in a pipe as tab-separated lines."""
    folder = f"{prefix}/" if prefix and not prefix.endswith("/") else prefix

    async def work(client: Client, _: Interrupts) -> None:
        _print_items(await client.scan(folder), as_json=settings.json)

    run_with_client(settings, work)


def _print_items(snapshot: Snapshot, *, as_json: bool) -> None:
    items = [item for _, item in sorted(snapshot.items.items())]
    if as_json:
        for item in items:
            document(item_document(item))
        return
    rows = [(i.key, str(i.revision), str(len(i.value)), i.lease or "-", preview(i.value)) for i in items]
    table(("key", "revision", "bytes", "lease", "value"), rows)
