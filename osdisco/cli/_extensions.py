"""Extensions as commands ask for them and show them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import click

from osdisco._records import encode
from osdisco.discovery import ExtensionInfo, ExtensionStatus
from osdisco.discovery._filter import Filter
from osdisco.errors import DiscoveryError

F = TypeVar("F", bound=Callable[..., Any])

COLUMNS: Final = ("id", "name", "version", "address", "status", "capabilities", "metadata")


_OPTIONS: Final = (
    click.option("--name", metavar="NAME", help="Only extensions with this name."),
    click.option("--version", metavar="SPEC", help="Only such versions: '>=1.2,<2'."),
    click.option("--status", type=click.Choice([one.value for one in ExtensionStatus]), help="Only those that are so."),
    click.option("--capability", metavar="NAME", help="Only extensions that have this capability."),
    click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Only those that have this. Repeatable."),
    click.option("--zone", metavar="NAME", help="As --metadata zone=NAME."),
)


def filter_options(function: F) -> F:
    """Add the options that `filter_of` takes."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def filter_of(
    *,
    name: str | None,
    version: str | None,
    status: str | None,
    capability: str | None,
    metadata: Iterable[str],
    zone: str | None,
) -> Filter:
    """Return the filter that options make. Raises UsageError."""
    given = dict(pair("--metadata", text) for text in metadata)
    meant = None if status is None else ExtensionStatus(status)
    try:
        return Filter.of_extensions(
            name=name, version=version, status=meant, capability=capability, metadata=given, zone=zone
        )
    except DiscoveryError as exc:
        raise click.UsageError(str(exc)) from None


def pair(option: str, text: str) -> tuple[str, str]:
    """Split `NAME=VALUE`. Raises UsageError."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise click.UsageError(f"{option} {text!a} is not NAME=VALUE")
    return name, value


def extension_document(extension: ExtensionInfo) -> dict[str, Any]:
    """Return an extension for JSON."""
    document: dict[str, Any] = json.loads(encode(extension))
    return document


def row(extension: ExtensionInfo) -> tuple[str, ...]:
    """Return an extension for a table."""
    metadata = " ".join(f"{key}={value}" for key, value in sorted(extension.metadata.items()))
    capabilities = " ".join(extension.capabilities)
    about = (extension.id, extension.name, extension.version, address(extension), extension.status.value)
    return (*about, capabilities, metadata)


def address(extension: ExtensionInfo) -> str:
    """Return `host:port`."""
    host = f"[{extension.host}]" if ":" in extension.host else extension.host
    return f"{host}:{extension.port}"
