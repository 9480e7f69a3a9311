"""Puts a run's figures into the documentation: `python -m benchmarks.report RESULTS.json docs/benchmarks.md`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, markdown
from benchmarks.plot import PLOTS

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def report(run: dict[str, Any]) -> str:
    """Return what a run ran on, what it missed, its pictures and its tables."""
    figures = [Figure(**one) for one in run["figures"]]
    facts = "\n".join(f"- {name}: {value}" for name, value in run["machine"].items())
    pictures = "\n\n".join(f"![{title}](pictures/{name}.svg)" for name, (title, _) in PLOTS.items())
    return "\n\n".join([facts, _missed(figures), pictures, markdown(figures)])


def _missed(figures: Sequence[Figure]) -> str:
    held = [figure for figure in figures if figure.reached is not None]
    missed = [
        f"- {figure.group}: {figure.name}{' (not measured)' * (figure.value is None)}"
        for figure in held
        if not figure.reached
    ]
    said = f"{len(held) - len(missed)} of {len(held)} figures that were to be reached are"
    return f"{said}." if not missed else "\n".join([f"{said}; not reached:", "", *missed])


def page_with(run: dict[str, Any], page: str) -> str:
    """Return a page with what stands between its marks replaced."""
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n{report(run)}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Write the page, and its pictures beside it."""
    results, page = map(Path, sys.argv[1:3])
    run = json.loads(results.read_text())
    page.write_text(page_with(run, page.read_text()))
    figures = [Figure(**one) for one in run["figures"]]
    for name, (_, draw) in PLOTS.items():
        (page.parent / "pictures" / f"{name}.svg").write_text(draw(figures))


if __name__ == "__main__":
    main()
