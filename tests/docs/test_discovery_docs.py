"""The pages on discovery: every example runs and shows what it says, on every store, and nothing lacks one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from apis import Name, calls, lines, without_example
from examples import DOCS, Area, Example, examples_of
from worlds import connect

import osdisco.discovery
from osdisco.discovery.versions import specifier

DISCOVERY = Area("discovery", lambda client, other: {})
EXAMPLES = DISCOVERY.examples
(API,) = examples_of(DOCS / "api-discovery.md")


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
@pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
async def test_an_example_shows_what_it_says(example: Example, osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        await DISCOVERY.run(example, client, other)


def test_the_frame_runs_as_printed() -> None:
    done = subprocess.run([sys.executable, "-c", DISCOVERY.frame.text], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_example_shows_something() -> None:
    assert [str(example) for example in EXAMPLES if not example.claims] == []


INTERNAL: set[Name] = {("TtlCheck", "next_report"), ("HttpCheck", "run"), ("TcpCheck", "run")}
INTERNAL |= {("Leaving", name) for name in ("begun", "count", "hurry", "leave")}
"""For what is built on them; users have other calls."""


def test_every_public_name_has_an_example() -> None:
    """A new public method, property or field fails here until a page shows it."""
    names = [getattr(osdisco.discovery, name) for name in osdisco.discovery.__all__]
    classes = [one for one in names if isinstance(one, type) and not issubclass(one, Exception)]
    assert without_example(DISCOVERY, classes) - INTERNAL == set()


def test_every_call_of_the_api_has_an_example() -> None:
    shown = {call for example in EXAMPLES for call in calls(example.tree())}
    missing = [call for call in lines(API.tree()) if call[:2] not in shown]
    assert missing == []


def test_the_table_of_versions_is_true() -> None:
    rows = [line.split("|")[1:4] for line in (DOCS / "discovery/finding.md").read_text().splitlines() if "| `" in line]
    assert len(rows) == 7
    for asked, those, not_those in rows:
        chosen = specifier(asked.strip(" `"))
        assert [one for one in _quoted(those) + _quoted(not_those) if chosen.matches(one)] == _quoted(those)


def _quoted(cell: str) -> list[str]:
    return cell.split("`")[1::2]
