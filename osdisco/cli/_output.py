"""What commands write to stdout: documents for programs, tables for people, plain lines where nobody looks."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from osdisco.backend import Item
from osdisco.cli._text import visible


def document(content: Mapping[str, Any]) -> None:
    """Write one JSON document in one line."""
    sys.stdout.write(json.dumps(content, allow_nan=False, separators=(", ", ": ")) + "\n")
    sys.stdout.flush()


def line(text: str) -> None:
    """Write one line of text."""
    sys.stdout.write(visible(text) + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Say on stderr what else went wrong."""
    sys.stderr.write(f"osdisco: {visible(text)}\n")


def talking() -> bool:
    """Whether a person reads stderr."""
    return sys.stderr.isatty()


def note(text: str) -> None:
    """Tell the person at the terminal something that is no result."""
    if talking():
        sys.stderr.write(visible(text) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Mapping[str, str] | None = None) -> None:
    """Write a table for a terminal, or lines of tab-separated fields for a pipe. `styles` are those of whole fields."""
    if not at_terminal():
        for row in rows:
            _write_fields(row)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(*columns, box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for row in rows:  # Text: nothing in it is taken for markup
        shown.add_row(*(Text(visible(field), (styles or {}).get(field, "")) for field in row))
    Console(highlight=False).print(shown)


def at_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def fields(*texts: str) -> None:
    """Write one line of tab-separated fields."""
    _write_fields(texts)
    sys.stdout.flush()


def _write_fields(texts: Iterable[str]) -> None:
    sys.stdout.write("\t".join(visible(text) for text in texts) + "\n")


def item_document(item: Item) -> dict[str, Any]:
    """Return an item for JSON; a value that is not UTF-8 comes as `base64` instead of `value`."""
    about = {"key": item.key, "created": item.created, "revision": item.revision, "lease": item.lease}
    return about | _value(item.value)


def _value(value: bytes) -> dict[str, str]:
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
