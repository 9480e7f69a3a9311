"""The page on cluster state: every example runs and shows what it says, on every store; nothing lacks one."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from apis import Name, calls, lines, without_example
from examples import DOCS, Area, Example, examples_of
from pages import PagesWithSockets

import osdisco.cluster
from osdisco.client import Client
from osdisco.cluster import _intake, _mirror, _places, _questions, listeners, service
from osdisco.metrics._catalog import METRICS
from osdisco.testing import FakeCluster


class ClusterArea(Area):
    """Its examples have a search cluster of their own, as the frame does."""

    async def run(self, example: Example, client: Client, other: Client) -> None:
        async with FakeCluster() as search:
            search.create_index("logs", shards=3, replicas=1)
            await example.run(self.frame, {"client": client, "other": other, "search": search})


CLUSTER = ClusterArea("cluster", lambda client, other: {})
EXAMPLES = CLUSTER.examples
(API,) = examples_of(DOCS / "api-cluster.md")
PAGE = (DOCS / "cluster.md").read_text()


class TestCluster(PagesWithSockets):
    area = CLUSTER


SHOWN = {"blocks", "nodes", "routing", "service", "source", "state", "status", "http_source", "listeners"}
INTERNAL: set[Name] = {("ClusterStateSource", name) for name in ("version", "state", "nodes", "settings")}
INTERNAL |= {("ClusterStateSource", name) for name in ("search_shards", "aclose")}
"""A protocol, which nothing is derived from."""


def test_every_public_name_has_an_example() -> None:
    """A new public method, property or field fails here until the page shows it."""
    names = [getattr(osdisco.cluster, name) for name in osdisco.cluster.__all__]
    classes = [one for one in names if isinstance(one, type) and one.__module__.rpartition(".")[2] in SHOWN]
    assert without_example(CLUSTER, classes, asyncio.run) - INTERNAL == set()


def test_every_change_and_metric_is_named() -> None:
    changes = {one.__name__ for one in osdisco.cluster.ClusterChange.__subclasses__()}
    assert {name for name in changes if f"`{name}`" not in PAGE} == set()
    metrics = {one.name for one in METRICS if one.name.startswith("osdisco_cluster_")}
    assert {name for name in metrics if name not in PAGE} == set()


def test_every_call_of_the_api_has_an_example() -> None:
    shown = {call for example in EXAMPLES for call in calls(example.tree())}
    missing = [call for call in lines(API.tree()) if call[:2] not in shown]
    assert missing == []


def test_the_page_says_what_is_set() -> None:
    assert f"changes within {_mirror.DEBOUNCE:g} s are one" in PAGE
    assert f"and every {_intake.NODES_EVERY:g} s |" in PAGE
    assert f"then every {_mirror.AWAY_PAUSE_MAX:g} s, and one" in PAGE
    assert f"After {_mirror.FAILURES_MAX} failures" in PAGE
    assert f"rests for {_mirror.REST:g} s" in PAGE
    assert f"for more than {service.POLLS_MISSED} polls" in PAGE
    assert f"at most {_places.PIECE_MAX // 1024} KiB" in PAGE
    assert f"`election/{_places.ELECTION.format('<name>')}/…`" in PAGE


def test_the_page_names_each_question_with_its_permission() -> None:
    said = re.findall(r"`GET (/\S+?)`", PAGE)
    asked = ("/_cluster/state/version", "/_nodes/http", "/_cluster/settings", "/{index}/_search_shards")
    assert set(asked) <= set(said)
    assert _questions.VERSION.path in asked
    assert _questions.SETTINGS.path in asked
    told = Path(osdisco.cluster.http_source.__file__).read_text()
    assert all(permission in told for permission in re.findall(r"- ((?:cluster|indices):\S+)", PAGE))


def test_every_method_of_a_listener_is_known() -> None:
    assert set(listeners.MANNERS.methods) >= set(re.findall(r"def (on_\w+)", PAGE))
