"""What the page on operating tells of metrics and alerts is so, and what needs Consul or real sockets on it runs."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

import pytest
from examples import DOCS, Example
from test_discovery_docs import DISCOVERY
from worlds import World, connect

from osdisco.discovery import DiscoveryService, ExtensionInfo, ExtensionStatus
from osdisco.metrics import METRICS, Kind

PAGES = [DOCS / "discovery/operating.md", DOCS / "discovery/migration.md"]
OPERATING = PAGES[0].read_text()
REAL = [
    Example(page, page.read_text()[: match.start(1)].count("\n") + 1, page.stem, match[1].rstrip("\n"))
    for page in PAGES
    for match in re.finditer(r"```py\n(.*?)```", page.read_text(), re.DOTALL)
]
SERIES = {f"{metric.name}_total" if metric.kind is Kind.COUNTER else metric.name: metric for metric in METRICS}


@pytest.mark.parametrize("example", REAL, ids=str)
@pytest.mark.osdisco("consul")
async def test_what_needs_more_than_a_store_runs_too(example: Example, osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        names: dict[str, Any] = {"client": client, "other": other}
        await example.run(DISCOVERY.frame, names)


async def test_the_store_is_asked_for_what_the_page_says(osdisco_clock: object) -> None:
    world = World(ttl=15)
    client = world.process()
    calls = client.backend.calls  # type: ignore[attr-defined]
    calls.clear()
    async with DiscoveryService(client, ExtensionInfo(id="a", name="a", version="1", host="h", port=1)) as discovery:
        await discovery.wait_registered(5)
        await asyncio.sleep(1)
        row(calls, "to start", "1 read, 1 grant, 2 commits, 2 watches", get=1, grant=1, commit=2, watch=2)
        await asyncio.sleep(600)
        row(calls, "while nothing changes", "1 renewal every ttl/3, and nothing else", renew=120)
        await discovery.set_status(ExtensionStatus.HEALTHY)
        row(calls, "to change its status or metadata", "1 commit", commit=1)
    await client.aclose()
    row(calls, "to leave", "2 commits, 1 revocation", commit=2, revoke=1)


def row(calls: Counter[str], when: str, told: str, **counted: int) -> None:
    """Compare a row of the page with what was counted since the last one."""
    assert f"| {when} | {told} |" in OPERATING
    del calls["frames"]
    assert +calls == counted
    calls.clear()


def test_every_metric_is_on_the_page_as_it_is() -> None:
    rows = re.findall(r"^\| `(osdisco_\w+)` \| (.*?) ?\| (.*) \|$", OPERATING, re.MULTILINE)
    assert {name: (tuple(re.findall(r"`(\w+)`", labels)), told) for name, labels, told in rows} == {
        name: (metric.labels, metric.help) for name, metric in SERIES.items()
    }


def test_alerts_look_at_metrics_and_labels_that_there_are() -> None:
    expressions = re.findall(r"^ +expr: (.*)$", OPERATING, re.MULTILINE)
    assert len(expressions) == OPERATING.count("- alert:")
    for expression in expressions:
        found = re.findall(r"(osdisco_\w+)(?:\{(\w+)=)?", expression)
        assert found
        for name, label in found:
            assert name in SERIES
            assert not label or label in SERIES[name].labels
