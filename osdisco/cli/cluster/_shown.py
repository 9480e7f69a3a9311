"""`osdisco cluster state`, `nodes`, `shards` and `blocks`: what there is, once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

import click

from osdisco.cli._errors import NotFoundError
from osdisco.cli._output import document, table
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli.cluster._documents import (
    Document,
    block_document,
    counts,
    header_document,
    node_document,
    shard_document,
)
from osdisco.cli.cluster._reading import EVERYTHING, age, doubt, read, reading_options, warn_of_doubt
from osdisco.client import Client
from osdisco.cluster import (
    Block,
    ClusterNodes,
    ClusterState,
    ClusterStateService,
    NodeInfo,
    NodeStatus,
    RoutingTable,
    ShardRouting,
    ShardState,
    StateComponent,
)
from osdisco.errors import ClusterError, nearest

NODES, ROUTING, METADATA, BLOCKS = (
    StateComponent.NODES,
    StateComponent.ROUTING_TABLE,
    StateComponent.METADATA,
    StateComponent.BLOCKS,
)

_STYLES: Final = {
    "online": "green",
    "unresponsive": "red",
    "draining": "magenta",
    "STARTED": "green",
    "RELOCATING": "cyan",
    "INITIALIZING": "yellow",
    "UNASSIGNED": "red",
}

Row = Sequence[str]
Work = Callable[[ClusterStateService], Any]


def _look(
    settings: Settings,
    name: str,
    timeout: float | None,
    components: Iterable[StateComponent],
    show: Work,
    *,
    raw: bool = False,
) -> None:
    """Read these components, and show them by `show`, which is called once they are there."""

    async def work(client: Client, _: Interrupts) -> None:
        async with read(client, name, timeout, components, raw=raw) as service:
            await show(service)
            warn_of_doubt(settings, service, service.state)

    run_with_client(settings, work)


def _print(
    settings: Settings,
    service: ClusterStateService,
    columns: Sequence[str],
    found: Iterable[tuple[Document, Row]],
) -> None:
    """Write things that are both a document and a row."""
    if not settings.json:
        table(columns, (row for _, row in found), styles=_STYLES)
        return
    for content, _ in found:
        document(content | {"stale": doubt(service)})


@click.command(cls=Command)
@reading_options
@click.option("--raw", is_flag=True, help="All parts as the cluster sent them: a document for each.")
@click.pass_obj
def state(settings: Settings, /, name: str, timeout: float | None, raw: bool) -> None:
    """Show which state the cluster is in, and how much there is of what.

    'read' is when the mirror got this state from the cluster, by its clock; a cluster that changes nothing keeps it.
    'age' in --json is for how many seconds it may have been wrong.
    """

    async def show(service: ClusterStateService) -> None:
        if raw:
            _print_raw(service)
        elif settings.json:
            about = {"cluster": name, **header_document(service.state), **counts(service.state)}
            document(about | {"age": age(service), "stale": doubt(service)})
        else:
            table(("", name), _lines(service.state), styles=_STYLES)

    _look(settings, name, timeout, EVERYTHING, show, raw=raw)


def _print_raw(service: ClusterStateService) -> None:
    state = service.state
    for component, parts in sorted((state.raw or {}).items()):
        for part, value in sorted(parts.items()):
            content = json.loads(value) if isinstance(value, bytes | str) else value
            document({"component": component, "part": part, "value": content, "version": state.version})


def _lines(state: ClusterState) -> Iterator[Row]:
    found = counts(state)
    manager = state.nodes.get(state.cluster_manager_node or "")
    yield "name", state.cluster_name
    yield "uuid", state.cluster_uuid
    yield "version", f"{state.version}, in term {state.term}"
    yield "read", f"{datetime.fromtimestamp(state.observed_at).astimezone():%Y-%m-%d %H:%M:%S}"
    yield "cluster manager", _named(manager) if manager is not None else state.cluster_manager_node or "none"
    for name in ("nodes", "indices", "shards"):
        yield name, _counted(found[name])
    yield "blocks", str(found["blocks"])


def _counted(by: Mapping[str, int]) -> str:
    """Return `17: 12 STARTED, 5 UNASSIGNED`."""
    each = ", ".join(f"{count} {what}" for what, count in sorted(by.items()))
    return f"{sum(by.values())}{each and ': '}{each}"


@click.command(cls=Command)
@reading_options
@click.option("--role", metavar="ROLE", help="Only nodes that have this role, such as data.")
@click.option("--zone", metavar="NAME", help="Only nodes whose attribute 'zone' this is.")
@click.option(
    "--status", type=click.Choice([s.value for s in NodeStatus if s is not NodeStatus.LEFT]), help="Only those."
)
@click.pass_obj
def nodes(
    settings: Settings, /, name: str, timeout: float | None, role: str | None, zone: str | None, status: str | None
) -> None:
    """List the nodes of the cluster.

    'unresponsive' is a node that did not answer when it was asked for itself, 'draining' one that shards or votes are
    moved away from. The cluster manager is the one with a '*'.
    """

    def meant(node: NodeInfo) -> bool:
        return role in (None, *node.role_names) and zone in (None, node.zone) and (status is None or _is(node, status))

    async def show(service: ClusterStateService) -> None:
        manager = service.state.cluster_manager_node
        found = sorted(filter(meant, service.state.nodes.values()), key=lambda node: (node.name, node.id))
        columns = ("id", "name", "", "address", "roles", "zone", "status", "version")
        documents = ((node_document(node) | {"cluster_manager": node.id == manager}) for node in found)
        _print(settings, service, columns, zip(documents, (_node_row(node, manager) for node in found), strict=True))

    _look(settings, name, timeout, [NODES], show)


def _is(node: NodeInfo, status: str) -> bool:
    return node.status is NodeStatus(status)


def _node_row(node: NodeInfo, manager: str | None) -> Row:
    roles = " ".join(node.role_names) or "coordinator" if node.heard else "?"
    mark = "*" if node.id == manager else ""
    about = (node.id, node.name, mark, "-" if node.address is None else str(node.address), roles)
    return (*about, node.zone or "-", node.status.value, node.version or "-")


def _named(node: NodeInfo) -> str:
    return node.name or node.id


@click.command(cls=Command)
@click.argument("index", required=False)
@reading_options
@click.option("--node", metavar="NODE", help="Only copies on this node, by its id or its name.")
@click.option("--state", "in_state", type=click.Choice([s.value for s in ShardState]), help="Only those that are so.")
@click.option("--id", "document_id", metavar="ID", help="Only the shard of INDEX that has this document.")
@click.option("--routing", metavar="VALUE", help="Only the shard of INDEX to which this routing value leads.")
@click.pass_obj
def shards(
    settings: Settings,
    /,
    index: str | None,
    name: str,
    timeout: float | None,
    node: str | None,
    in_state: str | None,
    document_id: str | None,
    routing: str | None,
) -> None:
    """List the copies of all shards, or of those of INDEX: a name, an alias, or a pattern such as 'logs-*'.

    With --id or --routing only of the shard that has, or gets, such a document.
    """
    asked = document_id is not None or routing is not None
    if asked and index is None:
        raise click.UsageError("--id and --routing need an INDEX")

    async def show(service: ClusterStateService) -> None:
        state = service.state
        where = None if node is None else _node(state.nodes, node).id
        copies = (
            (await _shard_of(service, index or "", document_id, routing))
            if asked
            else _copies(state.routing_table, index)
        )
        found = [copy for copy in copies if where in (None, copy.node) and in_state in (None, copy.state.value)]
        columns = ("index", "shard", "", "state", "node", "")
        _print(settings, service, columns, ((shard_document(copy), _shard_row(copy, state.nodes)) for copy in found))

    _look(settings, name, timeout, [NODES, ROUTING], show)


async def _shard_of(
    service: ClusterStateService, index: str, document_id: str | None, routing: str | None
) -> Iterable[ShardRouting]:
    _index(service.state.routing_table, index)
    return (await service.shard_for(index, document_id, routing=routing)).copies


def _copies(routing: RoutingTable, index: str | None) -> Iterator[ShardRouting]:
    """Yield the copies of what a name or a pattern means. Raises NotFoundError when a name means nothing."""
    if index is not None and "*" not in index:
        yield from _index(routing, index)
        return
    for name in sorted(routing):
        if index is None or fnmatchcase(name, index):
            yield from routing[name].copies()


def _index(routing: RoutingTable, index: str) -> Iterator[ShardRouting]:
    try:
        return routing.index(index).copies()
    except ClusterError as exc:
        raise NotFoundError(str(exc)) from exc


def _node(found: ClusterNodes, given: str) -> NodeInfo:
    if given in found:
        return found[given]
    try:
        return found.named(given)
    except ClusterError as exc:
        raise NotFoundError(str(exc)) from exc


def _shard_row(copy: ShardRouting, found: ClusterNodes) -> Row:
    more = []
    if copy.relocating_node is not None:
        way = "from" if copy.state is ShardState.INITIALIZING else "to"
        more.append(f"{way} {_node_name(copy.relocating_node, found)}")
    if copy.unassigned is not None:
        more.append(copy.unassigned.reason)
    kind = "primary" if copy.primary else "replica"
    where = "-" if copy.node is None else _node_name(copy.node, found)
    return copy.index, str(copy.number), kind, copy.state.value, where, "; ".join(more)


def _node_name(id_: str, found: ClusterNodes) -> str:
    return _named(found[id_]) if id_ in found else id_


@click.command(cls=Command)
@click.argument("index", required=False)
@reading_options
@click.pass_obj
def blocks(settings: Settings, /, index: str | None, name: str, timeout: float | None) -> None:
    """List what the cluster refuses, as a whole ('*') and for each index; with INDEX, all that it is under."""

    async def show(service: ClusterStateService) -> None:
        state = service.state
        if index is not None and index not in state.metadata.indices:
            raise NotFoundError(f"the cluster has no index {index!a}{nearest(index, state.metadata.indices)}")
        columns = ("index", "id", "refuses", "description")
        found = _all_blocks(state, index)
        _print(
            settings, service, columns, ((block_document(one, block), _block_row(one, block)) for one, block in found)
        )

    _look(settings, name, timeout, [BLOCKS, METADATA], show)


def _all_blocks(state: ClusterState, index: str | None) -> Iterator[tuple[str | None, Block]]:
    for block in state.blocks.everywhere:
        yield None, block
    for name in sorted(state.blocks):
        if index in (None, name):
            for block in state.blocks[name]:
                yield name, block


def _block_row(index: str | None, block: Block) -> Row:
    more = f"{block.description}{' (goes away by itself)' if block.retryable else ''}"
    return "*" if index is None else index, str(block.id), " ".join(sorted(block.levels)), more
