"""`osdisco ls`: who is registered."""

from __future__ import annotations

import json

import click

from osdisco._records import encode
from osdisco.cli._output import document, table
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionInfo


@click.command(cls=Command)
@click.option("--capability", metavar="NAME", help="Only extensions that have this capability.")
@click.pass_obj
def ls(settings: Settings, capability: str | None) -> None:
    """List the registered extensions; in a pipe as tab-separated lines."""

    async def work(client: Client, _: Interrupts) -> None:
        found = await DiscoveryService(client).discover_extensions()
        _print([one for one in found if capability is None or capability in one.capabilities], settings)

    run_with_client(settings, work)


def _print(extensions: list[ExtensionInfo], settings: Settings) -> None:
    if settings.json:
        for extension in extensions:
            document(json.loads(encode(extension)))
        return
    table(("id", "name", "version", "address", "status", "capabilities", "metadata"), map(_row, extensions))


def _row(extension: ExtensionInfo) -> tuple[str, ...]:
    address = f"[{extension.host}]" if ":" in extension.host else extension.host
    metadata = " ".join(f"{key}={value}" for key, value in sorted(extension.metadata.items()))
    capabilities = " ".join(extension.capabilities)
    return (
        extension.id,
        extension.name,
        extension.version,
        f"{address}:{extension.port}",
        extension.status.value,
        capabilities,
        metadata,
    )
