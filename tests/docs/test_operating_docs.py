"""What the page on operating tells of metrics and alerts is so, and what needs Consul or real sockets on it runs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from examples import DOCS, Example
from test_discovery_docs import DISCOVERY
from worlds import connect

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


def test_every_metric_is_on_the_page_as_it_is() -> None:
    rows = re.findall(r"^\| `(osdisco_\w+)` \| (.*?) ?\| (.*) \|$", OPERATING, re.MULTILINE)
    assert {name: (tuple(re.findall(r"`(\w+)`", labels)), told) for name, labels, told in rows} == {
        name: (metric.labels, metric.help) for name, metric in SERIES.items()
    }


def test_alerts_look_at_metrics_and_labels_that_there_are() -> None:
    expressions = re.findall(r"^ +expr: (.*)$", OPERATING, re.MULTILINE)
    assert len(expressions) == OPERATING.count("- alert:")
    for expression in expressions:
        ((name, label),) = re.findall(r"(osdisco_\w+)(?:\{(\w+)=)?", expression)
        assert name in SERIES
        assert not label or label in SERIES[name].labels
