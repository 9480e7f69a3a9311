"""`osdisco describe`: everything that the store knows of one extension."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click
from attrs import frozen

from osdisco._keeper import incarnation_of
from osdisco.backend import Item, LeaseStatus
from osdisco.cli._errors import NotFoundError
from osdisco.cli._extensions import address, extension_document
from osdisco.cli._output import at_terminal, document, fields, line
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionInfo, Finding
from osdisco.discovery.registration import PREFIX, read
from osdisco.errors import RecordError


@frozen
class Standing:
    """A record of one process. `extension` is None for what is none, and `wrong` then says why."""

    key: str
    item: Item
    extension: ExtensionInfo | None
    incarnation: int
    wrong: str
    lease: LeaseStatus | None
    owner: str | None

    @property
    def rank(self) -> tuple[bool, int, int]:
        """The highest one counts."""
        return self.extension is not None, self.incarnation, self.item.created

    @property
    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        shown: dict[str, Any] = {"key": self.key, "created": self.item.created, "revision": self.item.revision}
        shown |= {"incarnation": self.incarnation, "lease": self.item.lease, "owner": self.owner}
        shown |= {"ttl": self.lease and self.lease.ttl, "left": self.lease and self.lease.left}
        return shown | ({"wrong": self.wrong} if self.extension is None else {})


@click.command(cls=Command)
@click.argument("id_", metavar="ID")
@click.pass_obj
def describe(settings: Settings, /, id_: str) -> None:
    """Show all that the store knows of the extension ID: its record, and what that hangs on.

    'incarnation' rises with every process that registers the ID: the highest one counts. Others, of processes that
    have not withdrawn yet, and records that are none follow, and what those found who probe its endpoints. Exit code 3
    when there is none.
    """

    async def work(client: Client, _: Interrupts) -> tuple[list[Standing], Sequence[Finding]]:
        found = await _look(client, id_)
        return found, await _findings(client, id_) if found else ()

    found, findings = run_with_client(settings, work)
    if not found or found[0].extension is None:
        why = f": {found[0].key} is no registration: {found[0].wrong}" if found else ""
        raise NotFoundError(f"no extension {id_!a} is registered{why}")
    _show(found[0].extension, found, findings, settings)


async def _look(client: Client, id_: str) -> list[Standing]:
    """Return the records of an id, the one that counts first."""
    connection, keys = client._connection, client._keys
    snapshot = await connection.scan(keys.join(PREFIX, id_) + "/")
    if not snapshot.items:
        return []
    sessions = await connection.scan(keys.join("sess") + "/")
    owners = {item.lease: item.value.decode(errors="replace") for item in sessions.items.values()}
    found = [await _standing(client, item, id_, owners.get(item.lease)) for item in snapshot.items.values()]
    return sorted(found, key=lambda one: one.rank, reverse=True)


async def _standing(client: Client, item: Item, id_: str, owner: str | None) -> Standing:
    key = client._keys.name(item.key) or item.key
    lease = None
    if item.lease is not None:
        lease = await client.backend.lease_status(item.lease, timeout=client.options.timeout)
    try:
        extension, incarnation = read(item.value)
        if extension.id != id_:
            raise RecordError("the id in it is not the one in its key")
    except RecordError as exc:
        return Standing(key, item, None, 0, str(exc), lease, owner)
    return Standing(key, item, extension, incarnation_of(incarnation, item.created), "", lease, owner)


async def _findings(client: Client, id_: str) -> Sequence[Finding]:
    """Return what others found who probe it."""
    async with DiscoveryService(client) as discovery:
        return (await discovery.findings()).get(id_, ())


def _show(extension: ExtensionInfo, found: Sequence[Standing], findings: Sequence[Finding], settings: Settings) -> None:
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


def _known(one: Standing) -> Iterator[tuple[str, str]]:
    """Yield what the store knows of its record."""
    yield from (("key", one.key), ("incarnation", str(one.incarnation)), ("revision", str(one.item.revision)))
    yield "process", one.owner or "unknown"
    yield "lease", f"{one.item.lease or 'none'}, {_lasts(one.lease)}"


def _lasts(lease: LeaseStatus | None) -> str:
    if lease is None or lease.ttl is None:
        return "without an end" if lease is None else "of no known length"
    return f"{lease.ttl:g} s at a time" if lease.left is None else f"{lease.left:.0f} s of {lease.ttl:g} s left"


def _why(one: Standing) -> str:
    return f"no registration: {one.wrong}" if one.extension is None else f"incarnation {one.incarnation}, older"
