"""Pictures of a run, written as SVG by hand: they need no library, and look alike in a dark and a light page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

from attrs import frozen

from benchmarks.figures import Figure

WIDTH, NAMES, ROW, TOP = 960, 430, 20, 44
GOOD, BAD, PLAIN = "#2e9e5b", "#c8503c", "#5b7fb5"
SPAN = 16.0
"""The scale goes from this much worse than the goal to this much better; what is beyond is cut off at its end."""


@frozen
class Bar:
    """One row: from 1 to `value` on a scale of ratios, and what stands behind it."""

    name: str
    value: float
    text: str
    colour: str


def goals(figures: Iterable[Figure]) -> str:
    """Draw how much better than its goal each figure is."""
    bars = []
    for figure in figures:
        if figure.value is not None and figure.reached is not None and (margin := _margin(figure)) is not None:
            measured = f"{_short(figure.value)} {figure.unit}".strip()
            goal = f"at most {figure.most:g}" if figure.most is not None else f"at least {figure.least:g}"
            bars.append(Bar(figure.name, margin, f"{measured}, {goal}", GOOD if figure.reached else BAD))
    return _picture("How much better than its goal each figure is (right of the line: reached)", bars)


def beside(figures: Iterable[Figure]) -> str:
    """Draw how many times as fast as something else osdisco is."""
    bars = [
        Bar(f"{figure.name}, beside {figure.against}", figure.value, _short(figure.value), PLAIN)
        for figure in figures
        if figure.against
        and figure.value
        and figure.value > 0
        and (figure.unit == "x as fast" or "faster than" in figure.name)
    ]
    return _picture("How many times as fast as what stands beside it (right of the line: faster)", bars)


def _margin(figure: Figure) -> float | None:
    """Return the goal divided by what was measured, or the other way round, so that more is better."""
    if figure.value is None:
        return None
    if figure.most is not None:
        better, worse = figure.most, figure.value
    else:
        better, worse = figure.value, figure.least or 0.0
    return better / worse if better > 0 and worse > 0 else None


def _picture(title: str, bars: Sequence[Bar]) -> str:
    height = TOP + ROW * len(bars) + 12
    font = "font-family='sans-serif' font-size='12'"
    rows = [row for number, bar in enumerate(bars) for row in _row(bar, TOP + ROW * number)]
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' {font} fill='#808080' role='img'>",
            f"<title>{escape(title)}</title>",
            f"<text x='8' y='18' font-size='14'>{escape(title)}</text>",
            *(_tick(value, height) for value in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)),
            *rows,
            "</svg>\n",
        ]
    )


def _tick(value: float, height: int) -> str:
    x, label = _x(value), f"{value:g}" if value >= 1 else f"1/{1 / value:g}"
    width = 1.5 if value == 1 else 0.4
    line = f"<line x1='{x:.1f}' y1='38' x2='{x:.1f}' y2='{height - 8}' stroke='#808080' stroke-width='{width}'/>"
    return f"{line}<text x='{x:.1f}' y='34' text-anchor='middle' font-size='10'>{label}</text>"


def _row(bar: Bar, y: int) -> list[str]:
    start, end = sorted((_x(1), _x(bar.value)))
    right = bar.value >= 1
    x, anchor = (end + 4, "start") if right else (start - 4, "end")
    if right and end > WIDTH - 150:  # else the text would end outside
        x, anchor = end - 4, "end"
    inside = " fill='#ffffff'" if anchor == "end" and right else ""
    return [
        f"<text x='{NAMES - 92}' y='{y + 13}' text-anchor='end' font-size='11'>{escape(_cut(bar.name))}</text>",
        f"<rect x='{start:.1f}' y='{y + 3}' width='{max(end - start, 1):.1f}' height='{ROW - 6}' fill='{bar.colour}'/>",
        f"<text x='{x:.1f}' y='{y + 13}' text-anchor='{anchor}' font-size='10'{inside}>{escape(bar.text)}</text>",
    ]


def _x(value: float) -> float:
    """Place a ratio on the logarithmic scale."""
    share = math.log(min(max(value, 1 / SPAN), SPAN)) / math.log(SPAN)
    middle = (NAMES - 80 + WIDTH - 20) / 2
    return middle + share * (WIDTH - 20 - middle)


def _cut(name: str) -> str:
    return name if len(name) <= 58 else f"{name[:57]}…"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


PLOTS: dict[str, tuple[str, Callable[[Iterable[Figure]], str]]] = {
    "benchmarks-goals": ("Each figure beside its goal", goals),
    "benchmarks-beside": ("osdisco beside bare drivers and peers", beside),
}
"""The pictures of the page by the names of their files, with their titles."""
