"""What a process started, for where that has no process group of its own. By /proc, so on Linux only."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from attrs import frozen


@frozen
class Descendant:
    """A process that another one started, or whatever that started. Its start, because ids are used again."""

    pid: int
    started: str


def descendants(pid: int) -> set[Descendant]:
    """Return what is below a process now; nothing where there is no /proc."""
    children: dict[int, set[Descendant]] = defaultdict(set)
    for folder in Path("/proc").glob("[0-9]*"):
        if found := _look(int(folder.name)):
            parent, descendant = found
            children[parent].add(descendant)
    below: set[Descendant] = set()
    unseen = children[pid]
    while unseen:
        below |= unseen
        unseen = {child for one in unseen for child in children[one.pid]} - below
    return below


def send(to: Iterable[Descendant], number: int) -> None:
    """Send a signal to those that are still there."""
    for one in to:
        found = _look(one.pid)
        if found and found[1] == one:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(one.pid, number)


def _look(pid: int) -> tuple[int, Descendant] | None:
    """Return a process with its parent; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), Descendant(pid, fields[19])
