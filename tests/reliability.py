"""Which fault each test holds, on which store, and how often it passed: `make faults`, docs/reliability.md and .json.

    python tests/reliability.py [--rounds 3] [pytest's arguments …]     run the marked tests, and keep what was seen
    python tests/reliability.py --write                                 only write the page anew from the data
    python tests/reliability.py --list FILE                             only write what there is to run into a file

A test says what it holds by `@pytest.mark.fault("F16")`, also on one of its parameters. Its store is the one that
`osdisco_url` or another parameter names, or `on="consul"` in the mark. Rows of tests that were not run stay.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import asdict, frozen

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs/reliability.json"
PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- written by tests/reliability.py -->", "<!-- up to here -->"

STORES = ("memory", "etcd", "etcd+http", "consul")
_SAME = {"grpc": "etcd", "gateway": "etcd+http", "etcds": "etcd", "etcd+https": "etcd+http", "consul+https": "consul"}

CLASSES = {
    "F1": "a server is killed",
    "F2": "a server is paused",
    "F3": "a server is cut off from all others",
    "F4": "its network is down",
    "F5": "it hears nobody",
    "F6": "nobody hears it",
    "F7": "two parts that share one member",
    "F8": "the majority is lost",
    "F9": "a quarter of the packets is lost",
    "F10": "bandwidth is short",
    "F11": "all servers are restarted, one after the other",
    "F12": "a client is paused for longer than its ttl",
    "F13": "a client is killed",
    "F14": "a client is cut off",
    "F15": "a client's clock jumps or drifts",
    "F16": "an answer is lost",
    "F17": "a connection is reset, half-open or breaks off in an answer",
    "F18": "answers are late, or come byte by byte",
    "F19": "history is compacted, or the index goes back",
    "F20": "a login expires, or a role changes",
    "F21": "a record is broken",
}

_ONE_STORE = "the store in memory has no members and no packets"
CANNOT = {(name, "memory"): _ONE_STORE for name in ("F3", "F5", "F6", "F7", "F9", "F10", "F11")}
CANNOT["F20", "memory"] = "it has no users; refusals are simulated in the tests of each recipe"
"""What cannot happen, and why."""


@frozen
class Row:
    """What one test, with all of its cases, has shown of a class of faults on a store, and when it was last run."""

    fault: str
    store: str
    test: str
    cases: int
    passed: int
    failed: int
    date: str


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


class Keeper:
    """A plugin of pytest that counts the outcomes of marked tests, and adds them to a file in the end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._passed: Counter[tuple[str, str, str, str]] = Counter()
        self._failed: Counter[tuple[str, str, str, str]] = Counter()

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == "fault" and (report.failed or (report.passed and report.when == "call")):
                counts = self._failed if report.failed else self._passed
                counts[(*str(value).split(" "), report.nodeid)] += 1  # type: ignore[index]

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        if not (self._passed or self._failed):
            return
        cases: dict[tuple[str, str, str], set[str]] = {}
        passed: Counter[tuple[str, str, str]] = Counter()
        failed: Counter[tuple[str, str, str]] = Counter()
        for *key, node in self._passed | self._failed:
            short = (*key, node.partition("[")[0])
            cases.setdefault(short, set()).add(node)  # type: ignore[arg-type]
            passed[short] += self._passed[(*key, node)]  # type: ignore[index]
            failed[short] += self._failed[(*key, node)]  # type: ignore[index]
        rows = [Row(*key, len(nodes), passed[key], failed[key], today()) for key, nodes in cases.items()]
        write(self._file, added(read(self._file), rows))


def mark(items: Iterable[pytest.Item]) -> None:
    """Let the reports of marked tests carry what they hold."""
    for item in items:
        item.user_properties += [("fault", f"{name} {store}") for name, store in _held(item)]


def _held(item: pytest.Item) -> Iterator[tuple[str, str]]:
    for marker in item.iter_markers("fault"):
        for store in _stores_of(item, marker.kwargs.get("on")):
            assert store in STORES, f"{item.nodeid}: {store!r} is none of {STORES}"
            for name in marker.args:
                assert (name, store) not in CANNOT, f"{item.nodeid}: {name} cannot happen on {store}"
                yield name, store


class Lister:
    """A plugin of pytest that only says what the marked tests hold: how many cases of which test."""

    def __init__(self) -> None:
        self.cases: Counter[tuple[str, str, str]] = Counter()

    @pytest.hookimpl
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.cases.update((*held, item.nodeid.partition("[")[0]) for held in set(_held(item)))


def listed() -> list[Row]:
    """Return a row for each test that holds a class on a store by now, without any run. In a process of its own."""
    lister = Lister()
    with redirect_stdout(sys.stderr):
        code = pytest.main(["--collect-only", "-qq", "-m", "fault", "--all-faults", "-p", "no:cacheprovider"], [lister])
    if code:
        raise SystemExit(f"the tests cannot be listed: {code}")
    return [Row(*key, cases, 0, 0, "") for key, cases in lister.cases.items()]


def _stores_of(item: pytest.Item, on: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if on is not None:
        return (on,) if isinstance(on, str) else on
    callspec = getattr(item, "callspec", None)
    values = [_SAME.get(value, value) for value in (callspec.params.values() if callspec else ()) if _is_text(value)]
    named = tuple(dict.fromkeys(value for value in values if value in STORES))
    return named or ("consul" if "tests/consul" in item.nodeid else "memory",)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def read(file: Path) -> list[Row]:
    """Return the rows of a file; none if there is no file."""
    return [Row(**row) for row in json.loads(file.read_text())] if file.exists() else []


def write(file: Path, rows: Iterable[Row]) -> None:
    """Write rows, in an order that stays."""
    ordered = sorted(rows, key=lambda row: (int(row.fault[1:]), STORES.index(row.store), row.test))
    file.write_text("[\n" + ",\n".join(json.dumps(asdict(row)) for row in ordered) + "\n]\n")


def added(rows: Iterable[Row], more: Iterable[Row]) -> list[Row]:
    """Return rows with the counts of others added."""
    known = {(row.fault, row.store, row.test): row for row in rows}
    for row in more:
        key = (row.fault, row.store, row.test)
        was = known.get(key, Row(*key, 0, 0, 0, ""))
        counts = max(was.cases, row.cases), was.passed + row.passed, was.failed + row.failed
        known[key] = Row(*key, *counts, max(was.date, row.date))
    return list(known.values())


def replaced(rows: Iterable[Row], seen: Sequence[Row]) -> list[Row]:
    """Return rows in which the tests that were run stand as they were seen; what is there no more is left out."""
    run = {row.test for row in seen}
    return [row for row in rows if row.test not in run and exists(row.test)] + list(seen)


def exists(test: str) -> bool:
    """Return whether there is such a test."""
    file, _, name = test.partition("::")
    path = ROOT / file
    return path.exists() and re.search(rf"def {name.rpartition('::')[2]}\b", path.read_text()) is not None


def page(rows: Sequence[Row]) -> str:
    """Return the part of the page that is made from the data."""
    lines = [f"| | fault | {' | '.join(STORES)} |", "|---|---|" + "---|" * len(STORES)]
    for name, what in CLASSES.items():
        lines.append(f"| {name} | {what} | {' | '.join(_cell(rows, name, store) for store in STORES)} |")
    lines += ["", "What cannot happen:", ""]
    for reason in dict.fromkeys(CANNOT.values()):
        names = [f"{name} on {store}" for (name, store), why in CANNOT.items() if why == reason]
        lines.append(f"- {', '.join(names)}: {reason}.")
    for name, what in CLASSES.items():
        lines += [
            "",
            f"### {name}: {what}",
            "",
            "| test | store | cases | passed | last run |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| `{row.test.removeprefix('tests/')}` | {row.store} | {row.cases} | {_passed(row)} | {row.date} |"
            for row in rows
            if row.fault == name
        ]
    return "\n".join(lines)


def _cell(rows: Sequence[Row], fault: str, store: str) -> str:
    if (fault, store) in CANNOT:
        return "–"
    found = [row for row in rows if (row.fault, row.store) == (fault, store)]
    if not found:
        return "none yet"
    passed, failed = sum(row.passed for row in found), sum(row.failed for row in found)
    return f"{sum(row.cases for row in found)} cases, {_share(passed, failed)}"


def _passed(row: Row) -> str:
    return _share(row.passed, row.failed)


def _share(passed: int, failed: int) -> str:
    return f"{passed}/{passed + failed}" if not failed else f"**{passed}/{passed + failed}**"


def write_page(rows: Sequence[Row]) -> None:
    """Put the data's part into the page."""
    PAGE.write_text(with_part(PAGE.read_text(), page(rows)))


def with_part(text: str, part: str) -> str:
    """Return the page with another part made from data."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{part}\n\n{END}{rest.partition(END)[2]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 when all passed in every round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--list", type=Path, metavar="FILE")
    options, rest = parser.parse_known_args(arguments)
    code = 0
    if options.list:
        write(options.list, listed())
        return 0
    if not options.write:
        with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
            seen = Path(folder, "seen.json")
            codes = [_round(seen, rest) for _ in range(options.rounds)]
            code = next((code for code in codes if code), 0)
            write(DATA, replaced(read(DATA), read(seen)))
    write_page(read(DATA))
    return code


def _round(seen: Path, rest: list[str]) -> int:
    command: list[Any] = [sys.executable, "-m", "pytest", "-m", "fault", "--all-faults", f"--reliability={seen}", *rest]
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
