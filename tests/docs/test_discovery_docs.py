"""The pages on discovery: every example runs and shows what it says, on every store, and nothing lacks one."""

from __future__ import annotations

from apis import Name, calls, lines, without_example
from examples import DOCS, Area, examples_of
from pages import Pages

import osdisco.discovery
from osdisco.discovery.versions import specifier

DISCOVERY = Area("discovery", lambda client, other: {})
EXAMPLES = DISCOVERY.examples
(API,) = examples_of(DOCS / "api-discovery.md")


class TestDiscovery(Pages):
    area = DISCOVERY


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
