"""The picture of who held the lock and who led: time runs to the right, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from osdisco.cli.demo._cast import CAST
from osdisco.cli.demo._facts import Facts, Span

BLOCKED_MAX: Final = 1.5
"""Seconds to scale for which it shows that an owner is dead or paused."""

Cell = tuple[str, str]
"""A letter and its style."""
_CUTS: Final = {"killed": "✗", "paused": "‖"}


def lanes(facts: Facts, width: int) -> list[list[Cell]]:
    """Return the lines: one for each extension with the times that it held the lock, and one for who led."""
    holds, leads = facts.holds, facts.leads
    scale = _Scale(holds[0].since, leads, width)
    drawn = [
        [(f"{role.id:<6}", f"bold {role.colour}"), *_lane(scale, holds, who=role.id)]  # aligned with the last one
        for role in CAST.values()
    ]
    return [*drawn, [("leads ", "bold"), *_named(scale, leads, _lane(scale, leads))]]


def _lane(scale: _Scale, spans: Sequence[Span], who: str | None = None) -> list[Cell]:
    cells = [("·", "dim")] * scale.width
    for span, following in zip(spans, [*spans[1:], None], strict=True):
        if who not in (None, span.who):
            continue
        first, last = scale.column(span.since), scale.column(span.until)
        _paint(cells, first, last, ("█", CAST[span.who].colour))
        if span.cut and following is not None:
            _paint(cells, last, scale.column(following.since) - 1, ("▒", "red"))
            cells[last] = (_CUTS[span.end], "bold red")
    return cells


def _named(scale: _Scale, spans: Sequence[Span], cells: list[Cell]) -> list[Cell]:
    """Write the name of each into its span, where there is room."""
    for span in spans:
        first, last = scale.column(span.since), scale.column(span.until)
        if last - first > len(span.who):
            for place, letter in enumerate(span.who, first + 1):
                cells[place] = (letter, f"reverse {CAST[span.who].colour}")
    return cells


def _paint(cells: list[Cell], first: int, last: int, cell: Cell) -> None:
    cells[first : last + 1] = [cell] * (last + 1 - first)


class _Scale:
    """Moments as columns. Times in which nobody led, because who did was cut off, are shortened to `BLOCKED_MAX`."""

    def __init__(self, start: float, leads: Sequence[Span], width: int) -> None:
        self.width: Final = width
        self._gaps = [(span.until, following.since) for span, following in pairwise(leads) if span.cut]
        self._start = start
        self._length = self._moved(leads[-1].until)

    def _moved(self, at: float) -> float:
        shortened = sum(_shortened(at, begin, end) for begin, end in self._gaps)
        return at - self._start - shortened

    def column(self, at: float) -> int:
        """Return the column of a moment."""
        return min(self.width - 1, int(self._moved(at) / self._length * self.width))


def _shortened(at: float, begin: float, end: float) -> float:
    """Return the seconds that are left out of a gap until `at`."""
    length = end - begin
    return min(max(at - begin, 0.0), length) * (1 - min(1.0, BLOCKED_MAX / length))
