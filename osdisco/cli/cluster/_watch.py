"""`osdisco cluster watch`: what changes in the cluster, as it does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import click

from osdisco.cli._output import document, line, note
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._stdout import while_read
from osdisco.cli._text import rough
from osdisco.cli.cluster._documents import Document
from osdisco.cli.cluster._following import follow
from osdisco.cli.cluster._reading import EVERYTHING, name_option, published
from osdisco.client import Client
from osdisco.cluster import StateComponent


@click.command(cls=Command)
@name_option
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([one.value for one in StateComponent]),
    help="Fetch and follow this component alone; may be repeated.",
)
@click.pass_obj
def watch(settings: Settings, /, name: str, only: tuple[str, ...]) -> None:
    """Follow what changes in the cluster, until interrupted: nodes, indices, shards, blocks and the cluster manager.

    One line a change: '+' it came, '~' it changed, '-' it went, '>' it moved. Begins with what is there; waits for a
    mirror where there is none yet. Outages of store, mirror and cluster are bridged: '?' and '!' say when what is known
    begins and ends to be old, and why. With --json one document each; 'version' comes with each version that is seen.
    """
    components = frozenset(map(StateComponent, only)) or EVERYTHING

    async def work(client: Client, _: Interrupts) -> None:
        there = await published(client, name)  # says when the store cannot be reached
        note(f"{'following' if there else 'waiting for a mirror of'} {name} in {client.url}; Ctrl-C ends")
        await while_read(follow(client, name, components, document if settings.json else _line))

    run_with_client(settings, work)


def _line(told: Document) -> None:
    if (text := _TEXTS[told["event"]](told)) is not None:
        line(f"{datetime.fromtimestamp(told['time']).astimezone():%H:%M:%S}  {text}")


def _state(told: Document) -> str:
    counted = ", ".join(f"{_total(told[name])} {name}" for name in ("nodes", "indices", "shards") if name in told)
    return f"= {told['cluster_name']}, version {told['version']}{counted and ': '}{counted}"


def _total(by: Mapping[str, int]) -> int:
    return sum(by.values())


def _node(told: Mapping[str, Any]) -> str:
    return f"node {told['name'] or told['id']}  {told['address'] or '-'}  {' '.join(told['roles'] or ()) or '-'}"


def _node_changed(told: Document) -> str:
    was, now = told["before"]["status"], told["node"]["status"]
    return f"~ {_node(told['node'])}  {f'{was} -> {now}' if was != now else now}"


def _index(told: Mapping[str, Any]) -> str:
    return f"index {told['index']}  {told['state']}  {told['number_of_shards']} shards"


def _copy(told: Mapping[str, Any]) -> str:
    return f"shard {told['index']}/{told['shard']}  {'primary' if told['primary'] else 'replica'}"


def _moved(told: Document) -> str:
    old, new = told["before"], told["shard"]
    return f"> {_copy(new)}  {old['node'] or 'unassigned'} -> {new['node']}  {new['state']}"


def _shard_changed(told: Document) -> str:
    old, new = told["before"], told["shard"]
    if new is None:
        return f"- {_copy(old)}"
    state = new["state"] if old is None or old["state"] == new["state"] else f"{old['state']} -> {new['state']}"
    return f"{'+' if old is None else '~'} {_copy(new)}  {new['node'] or '-'}  {state}"


def _blocks(told: Document) -> str:
    whose = "the cluster" if told["index"] is None else f"index {told['index']}"
    under = ", ".join(block["description"] or str(block["id"]) for block in told["blocks"])
    return f"~ blocks of {whose}: {under or 'none'}"


_TEXTS: Final[dict[str, Any]] = {
    "state": _state,
    "version": lambda told: None,  # changes say more
    "stale": lambda told: f"? not up to date from here on: {told['reason']}",
    "fresh": lambda told: f"! up to date again, after {rough(told['lasted'])}",
    "node_joined": lambda told: f"+ {_node(told['node'])}",
    "node_left": lambda told: f"- {_node(told['node'])}",
    "node_changed": _node_changed,
    "index_created": lambda told: f"+ {_index(told['index'])}",
    "index_deleted": lambda told: f"- {_index(told['index'])}",
    "index_changed": lambda told: f"~ {_index(told['index'])}",
    "shard_moved": _moved,
    "shard_changed": _shard_changed,
    "blocks_changed": _blocks,
    "cluster_manager_changed": lambda told: f"~ cluster manager {told['before'] or 'none'} -> {told['node'] or 'none'}",
    "cluster_replaced": lambda told: "! this is another cluster: nothing that was known of the old one holds",
}
