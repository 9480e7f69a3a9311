"""The picture of who answered the calls: time runs to the right, in columns."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Final

from osdisco.cli.demo._cast import INSTANCES
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._picture import Cell

SHARE: Final = 0.3
"""Of the calls of a column, from which on one answers many."""


def answers(facts: Facts, width: int) -> list[list[Cell]]:
    """Return the lines: one for each endpoint, with how many of the calls it answered."""
    told = facts.all("called")
    begin, end = told[0].at, told[-1].at
    moments = [begin + (end - begin) * (column + 0.5) / width for column in range(width)]
    parts = [(later.at, _between(earlier.data["by"], later.data["by"])) for earlier, later in pairwise(told)]
    columns = [next(part for until, part in parts if moment <= until) for moment in moments]
    killed = {event.who: event.at for event in facts.all("endpoint killed")}
    lines = []
    for one in INSTANCES.values():
        cells = [_cell(part.get(one.id, 0), part.total(), one.colour) for part in columns]
        if one.id in killed:
            cells[sum(moment < killed[one.id] for moment in moments[:-1])] = ("✗", "bold red")
        lines.append([(f"{one.id:<6}", f"bold {one.colour}"), *cells])
    return lines


def _between(earlier: dict[str, int], later: dict[str, int]) -> Counter[str]:
    return Counter(later) - Counter(earlier)


def _cell(answered: int, of: int, colour: str) -> Cell:
    if not answered:
        return "·", "dim"
    return ("█" if answered >= SHARE * of else "─"), colour
