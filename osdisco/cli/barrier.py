"""`osdisco barrier`: let everybody wait, wait, or let everybody pass."""

from __future__ import annotations

import click

from osdisco.cli._arguments import timeout_option
from osdisco.cli._output import document, note
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Group, Settings
from osdisco.client import Client
from osdisco.coordination import CoordinationService


@click.group(cls=Group)
def barrier() -> None:
    """Let everybody wait, wait, or let everybody pass.

    A barrier is down until somebody holds it. It belongs to nobody: it stays when this command has ended, and anybody
    may release it. 'osdisco status' shows those that are held.
    """


@barrier.command()
@click.argument("name")
@click.pass_obj
def hold(settings: Settings, /, name: str) -> None:
    """Let whoever comes to the barrier NAME wait from now on."""

    async def work(client: Client, _: Interrupts) -> None:
        await CoordinationService(client).barrier(name).hold()

    run_with_client(settings, work)
    _tell(settings, name, "held", f"the barrier {name!a} is held until 'osdisco barrier release' lets all pass")


@barrier.command()
@click.argument("name")
@timeout_option("for its release")
@click.pass_obj
def wait(settings: Settings, /, name: str, timeout: float | None) -> None:
    """Return once nobody holds the barrier NAME, at once if nobody does; exit code 4 when that takes too long."""

    async def work(client: Client, _: Interrupts) -> None:
        wanted = CoordinationService(client).barrier(name)
        if await wanted.held():  # says when the store cannot be reached; the wait alone would bridge that
            note(f"waiting until 'osdisco barrier release' lets all pass {name!a}")
            await wanted.wait(timeout)

    run_with_client(settings, work)
    _tell(settings, name, "passed", f"nobody holds the barrier {name!a}")


@barrier.command()
@click.argument("name")
@click.pass_obj
def release(settings: Settings, /, name: str) -> None:
    """Let everybody pass the barrier NAME, whoever held it. One that nobody holds is no error."""

    async def work(client: Client, _: Interrupts) -> None:
        await CoordinationService(client).barrier(name).release()

    run_with_client(settings, work)
    _tell(settings, name, "released", f"the barrier {name!a} lets everybody pass")


def _tell(settings: Settings, name: str, event: str, said: str) -> None:
    if settings.json:
        document({"event": event, "barrier": name})
    else:
        note(said)
