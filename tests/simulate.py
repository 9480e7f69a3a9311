"""Runs every scenario of the tests by many seeds and keeps what was seen in docs: `make simulate`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from pathlib import Path

from attrs import asdict

from osdisco.testing.simulate import Report, first_seed, load, simulate
from osdisco.testing.simulation import Scenario

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PARTS = ("core", "coordination", "discovery", "registry", "mesh", "cluster_state")
PASS = 250
"""Seeds of each scenario before the next one's turn: what was seen is kept after every pass, if it is broken off."""
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
STRUCK = ("lost answers", "late", "delayed", "refused", "partitioned", "slow renewal, then silence", "watch cut")
STRUCK += ("resync", "paused", "suspended", "clock jumped", "clock drifts", "killed", "lease ended", "key removed")
STRUCK += ("false renewals", "revoked", "record deleted", "leases ended", "records deleted")


def scenarios() -> list[Scenario]:
    """Return the scenarios of the tests."""
    files = [file for part in PARTS for file in sorted((ROOT / "tests" / part).glob("test_*.py"))]
    return [one for file in files if "\n@scenario(" in file.read_text() for one in load(str(file))]


def kept(report: Report) -> dict[str, object]:
    """Return what is kept of a report."""
    result = asdict(report)
    result["seen"] = dict(sorted(report.seen.items()))
    result["failures"] = [{"seed": failure.seed, "error": told(failure.error)} for failure in report.failures[:20]]
    return {**result, "failed": len(report.failures), "seconds": round(report.seconds)}


def told(error: str) -> str:
    """Return where in the project it was raised, and what it says: the seed shows the rest."""
    frames = re.findall(rf'File "{re.escape(str(ROOT))}/(.+?)", (line \d+)', error)
    return ", ".join([*(frames[-1] if frames else ()), error.strip().splitlines()[-1]])


def table(reports: list[Report], minutes: float) -> str:
    """Return the figures for people."""
    lines = ["| scenario | seeds | virtual hours | steps | faults | failed |", "|---|--:|--:|--:|--:|--:|"]
    for report in reports:
        faults = sum(report.seen[what] for what in STRUCK)
        figures = f"{report.seeds:,} | {report.seconds / 3600:.1f} | {report.steps:,} | {faults:,}"
        lines.append(f"| {report.scenario} | {figures} | {len(report.failures)} |")
    total = sum(report.seconds for report in reports) / 3600
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
    return "\n".join([*lines, "", f"{total:.0f} hours of virtual time in {minutes:.0f} minutes; {machine}."]) + "\n"


def keep(reports: list[Report], minutes: float) -> None:
    """Write what was seen so far."""
    (DOCS / "simulation.json").write_text(json.dumps([kept(report) for report in reports], indent=1) + "\n")
    page = (DOCS / "simulation.md").read_text()
    before, after = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
    (DOCS / "simulation.md").write_text(before + table(reports, minutes) + after)


def merged(report: Report, more: Report) -> Report:
    """Return both as one; the seeds of the second follow those of the first."""
    report.seeds += more.seeds
    report.seconds += more.seconds
    report.steps += more.steps
    report.seen.update(more.seen)
    report.failures += more.failures
    return report


def main() -> int:
    """Return the exit code: 0 when all seeds were well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5000)
    count = parser.parse_args().seeds
    os.chdir(ROOT)
    first, began = first_seed(), time.monotonic()
    reports = {scenario.name: Report(scenario.name, first) for scenario in scenarios()}
    for start in range(first, first + count, PASS):
        for scenario in scenarios():
            seeds = range(start, min(start + PASS, first + count))
            report = simulate(scenario, seeds, stop=False)
            print(report, flush=True)
            for failure in report.failures[:5]:
                print(f"{failure.error}\nrun it again: {scenario.replay(failure.seed)}", flush=True)
            merged(reports[scenario.name], report)
        keep(list(reports.values()), (time.monotonic() - began) / 60)
    return int(any(report.failures for report in reports.values()))


if __name__ == "__main__":
    sys.exit(main())
