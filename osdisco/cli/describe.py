"""`osdisco describe`: everything that the store knows of one extension."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click
from attrs import evolve, frozen

from osdisco._feed import Change
from osdisco._folded import Folded
from osdisco._keeper import process_of
from osdisco.backend import Item, LeaseStatus
from osdisco.cli._errors import NotFoundError
from osdisco.cli._extensions import address, extension_document
from osdisco.cli._output import at_terminal, document, fields, line
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._text import rough
from osdisco.client import Client
from osdisco.discovery import ExtensionInfo, Finding, Findings
from osdisco.discovery.registration import PREFIX, kind


@frozen
class Record:
    """A record of one process. `extension` is None for what is none, and `wrong` then says why."""

    key: str
    item: Item
    extension: ExtensionInfo | None
    incarnation: int
    wrong: str = ""
    lease: LeaseStatus | None = None
    owner: str | None = None

    @property
    def renewed(self) -> float | None:
        """Seconds since its process was last heard; None where the store does not tell it."""
        if self.lease is None or self.lease.ttl is None or self.lease.left is None:
            return None
        return max(0.0, self.lease.ttl - self.lease.left)

    @property
    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        shown: dict[str, Any] = {"key": self.key, "created": self.item.created, "revision": self.item.revision}
        shown |= {"incarnation": self.incarnation, "lease": self.item.lease, "owner": self.owner}
        shown |= {"process": process_of(self.key), "renewed": self.renewed}
        shown |= {"ttl": self.lease and self.lease.ttl, "left": self.lease and self.lease.left}
        return shown | ({"wrong": self.wrong} if self.extension is None else {})


@click.command(cls=Command)
@click.argument("id_", metavar="ID")
@click.pass_obj
def describe(settings: Settings, /, id_: str) -> None:
    """Show all that the store knows of the extension ID: its record, and what that hangs on.

    'process' is the name of the client that registered it, and the number of the process. 'incarnation' rises with
    every process that registers the ID: the highest one counts. 'heard' is when its lease was last renewed, where the
    store tells it (etcd). Others, of processes that have not withdrawn yet, and records that are none follow, and what
    those found who probe its endpoints. Exit code 3 when there is none.
    """

    async def work(client: Client, _: Interrupts) -> tuple[list[Record], Sequence[Finding]]:
        found = await _look(client, id_)
        return found, await Findings._once(client, id_) if found else ()

    found, findings = run_with_client(settings, work)
    if not found or found[0].extension is None:
        why = f": {found[0].key} is no registration: {found[0].wrong}" if found else ""
        raise NotFoundError(f"no extension {id_!a} is registered{why}")
    _show(found[0].extension, found, findings, settings)


async def _look(client: Client, id_: str) -> list[Record]:
    """Return the records of an id, the one that counts first, and last what is none."""
    connection, keys = client._connection, client._keys
    snapshot = await connection.scan(keys.join(PREFIX, id_) + "/")
    if not snapshot.items:
        return []
    sessions = await connection.scan(keys.join("sess") + "/")
    owners = {item.lease: item.value.decode(errors="replace") for item in sessions.items.values()}
    table = Folded(kind(), keys, PREFIX)
    table.apply(Change(snapshot.items, {}, snapshot.revision))
    standing = {one.key: one for one in table.standing(id_)}
    found = [
        Record(keys.name(key) or key, snapshot.items[key], one.record, one.incarnation) for key, one in standing.items()
    ]
    for key, item in snapshot.items.items():
        if key not in standing:
            name = keys.name(key) or key
            found.append(Record(name, item, None, 0, table.skipped[name]))
    return [evolve(one, lease=await _lease(client, one.item), owner=owners.get(one.item.lease)) for one in found]


async def _lease(client: Client, item: Item) -> LeaseStatus | None:
    if item.lease is None:
        return None
    return await client.backend.lease_status(item.lease, timeout=client.options.timeout)


def _show(extension: ExtensionInfo, found: Sequence[Record], findings: Sequence[Finding], settings: Settings) -> None:
    first, *others = found
    if settings.json:
        more = {"others": [one.document for one in others]} if others else {}
        more |= {"findings": [_found(one) for one in findings]} if findings else {}
        document({"extension": extension_document(extension), **first.document, **more})
        return
    rows = [*_said(extension), *_known(first)]
    rows += [("also there", f"{one.key}, {_why(one)}") for one in others]
    rows += [("probed", f"{one.url} {one.state.value} by {one.prober}: {one.reason}") for one in findings]
    if not at_terminal():
        for name, value in rows:
            fields(name, value)
        return
    for name, value in rows:
        line(f"{name:<{max(len(name) for name, _ in rows)}}  {value}")


def _found(one: Finding) -> dict[str, Any]:
    about = {"prober": one.prober, "url": one.url, "state": one.state.value}
    return about | {"reason": one.reason, "since": one.since}


def _said(extension: ExtensionInfo) -> Iterator[tuple[str, str]]:
    """Yield what it says of itself."""
    yield from (("id", extension.id), ("name", extension.name), ("version", extension.version))
    yield from (("status", extension.status.value), ("address", address(extension)))
    host = address(extension).rpartition(":")[0]
    for name, endpoint in sorted(extension.endpoints.items()):
        yield f"endpoint {name}", f"{endpoint.protocol}://{host}:{endpoint.port}{endpoint.path}"
    yield "capabilities", " ".join(extension.capabilities)
    for name, value in sorted(extension.metadata.items()):
        yield f"metadata {name}", value


def _known(one: Record) -> Iterator[tuple[str, str]]:
    """Yield what the store knows of its record."""
    yield from (("key", one.key), ("incarnation", str(one.incarnation)), ("revision", str(one.item.revision)))
    yield "process", f"{one.owner or 'unknown'}, {process_of(one.key)}"
    yield "lease", f"{one.item.lease or 'none'}, {_lasts(one.lease)}"
    if one.renewed is not None:
        yield "heard", f"{rough(one.renewed)} ago"


def _lasts(lease: LeaseStatus | None) -> str:
    if lease is None or lease.ttl is None:
        return "without an end" if lease is None else "of no known length"
    return f"{lease.ttl:g} s at a time" if lease.left is None else f"{lease.left:.0f} s of {lease.ttl:g} s left"


def _why(one: Record) -> str:
    return f"no registration: {one.wrong}" if one.extension is None else f"incarnation {one.incarnation}, older"
