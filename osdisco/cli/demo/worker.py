"""The hidden command that is one extension of the demo: orders come in on stdin, events go out on stdout."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import click
from attrs import asdict

from osdisco._tasks import cancel
from osdisco.cli._output import document
from osdisco.cli._running import run
from osdisco.cli._settings import Command
from osdisco.cli.demo._cast import CALLING, CAST, Event
from osdisco.cli.demo._lives import life_of
from osdisco.cli.demo._stages import in_scope
from osdisco.client import URL_VARIABLE
from osdisco.url import StoreURL


@click.command("demo-extension", cls=Command, hidden=True)
@click.argument("id_", metavar="ID", type=click.Choice([*CAST, *CALLING]))
@click.option("--scope", required=True)
@click.option("--ttl", type=float, required=True)
def demo_extension(id_: str, scope: str, ttl: float) -> None:
    """Be one extension of the demo, on the store of OSDISCO_URL, until stdin ends."""
    url = in_scope(StoreURL.parse(os.environ.get(URL_VARIABLE, "")), scope, ttl)

    run(lambda _: _live_while_wanted(url, id_))


async def _live_while_wanted(url: StoreURL, id_: str) -> None:
    """Live until told to leave; when stdin ends before, the demo is gone and the extension goes, too."""
    living = asyncio.current_task()
    assert living is not None
    orders: asyncio.Queue[str] = asyncio.Queue()
    reading = asyncio.get_running_loop().create_task(_read_orders(orders))
    reading.add_done_callback(lambda task: task.cancelled() or living.cancel())
    try:
        await life_of(id_)(url, id_, orders, _write, _pause)
    except asyncio.CancelledError:
        if not reading.done():
            raise
    finally:
        await cancel(reading)


async def _read_orders(orders: asyncio.Queue[str]) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        orders.put_nowait(line.decode().strip())


def _write(event: Event) -> None:
    document(json.loads(json.dumps(asdict(event))))


def _pause() -> None:
    """Stop this process, here and now, until somebody sends SIGCONT."""
    signal.raise_signal(signal.SIGSTOP)
