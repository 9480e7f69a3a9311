"""Puts a run's figures into the documentation: `python -m benchmarks.report RESULTS.json docs/benchmarks.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, markdown
from benchmarks.harness import Result, table

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def report(run: dict[str, Any]) -> str:
    """Return the tables of a run, and what it ran on."""
    facts = "\n".join(f"- {name}: {value}" for name, value in run["machine"].items())
    parts = [facts, markdown([Figure(**one) for one in run["figures"]])]
    if run["results"]:
        rest = table([Result(**one) for one in run["results"]])
        parts.append(f"### Keys and starting up, beside the bare driver and a bare interpreter\n\n```text\n{rest}\n```")
    return "\n\n".join(parts)


def main() -> None:
    """Replace what stands between the marks."""
    results, page = map(Path, sys.argv[1:3])
    text = page.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    page.write_text(f"{head}{BEGIN}\n{report(json.loads(results.read_text()))}\n{END}{tail}")


if __name__ == "__main__":
    main()
