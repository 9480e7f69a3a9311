"""The page on benchmarks and its pictures are what the run that was kept says, and tell what was missed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from attrs import asdict

from benchmarks import endpoint, kv, memory, views
from benchmarks.figures import Figure
from benchmarks.plot import PLOTS
from benchmarks.report import page_with

DOCS = Path(__file__).parents[2] / "docs"
RUN = json.loads((DOCS / "benchmarks.json").read_text())
FIGURES = [Figure(**one) for one in RUN["figures"]]


def test_the_page_is_made_from_the_run() -> None:
    page = (DOCS / "benchmarks.md").read_text()
    assert page == page_with(RUN, page), "say python -m benchmarks.report docs/benchmarks.json docs/benchmarks.md"


@pytest.mark.parametrize("name", PLOTS)
def test_a_picture_is_drawn_from_the_run(name: str) -> None:
    _, draw = PLOTS[name]
    assert (DOCS / f"pictures/{name}.svg").read_text() == draw(FIGURES)


@pytest.mark.parametrize("name", PLOTS)
def test_a_picture_shows_each_figure_within_its_frame(name: str) -> None:
    figures = [
        Figure("g", "a long name & more " * 5, 0.001, "x as fast", "something", least=0.9),
        Figure("g", "just so", 0.9, "x as fast", "something", least=0.9),
        Figure("g", "far", 5000.0, "x as fast", "something", least=0.9),
    ]
    _, draw = PLOTS[name]
    picture = ElementTree.fromstring(draw(figures))
    width = float(picture.attrib["viewBox"].split()[2])
    bars = picture.findall("{*}rect")
    assert len(bars) == len(figures)
    for bar in bars:
        assert 0 < float(bar.attrib["x"]) <= float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width


def test_a_picture_of_goals_tells_what_was_missed_by_its_side_and_colour() -> None:
    kept = [Figure("g", "reached", 2.0, "s", most=4.0), Figure("g", "missed", 8.0, "s", most=4.0)]
    _, draw = PLOTS["benchmarks-goals"]
    reached, missed = ElementTree.fromstring(draw(kept)).findall("{*}rect")
    assert float(reached.attrib["x"]) == pytest.approx(
        float(missed.attrib["x"]) + float(missed.attrib["width"]), abs=0.2
    )
    assert reached.attrib["fill"] != missed.attrib["fill"]


def test_no_figure_is_told_as_reached_that_is_not() -> None:
    page = page_with({"machine": {}, "figures": [_plain("a", 2.0), _plain("b", 0.5)]}, _EMPTY)
    assert "1 of 2 figures that were to be reached are; not reached:\n\n- g: a" in page
    assert re.findall(r"^\| (\w) \|.*\| (yes|\*\*no\*\*) \|", page, re.MULTILINE) == [("a", "**no**"), ("b", "yes")]


def test_without_docker_the_failover_is_missed_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "docker_problem", lambda store: "there is no Docker")
    found = [_plain("a", 0.5), *map(asdict, endpoint.figures(1))]
    page = page_with({"machine": {}, "figures": found}, _EMPTY)
    assert "1 of 4 figures that were to be reached are; not reached:" in page
    for kind in ("etcd", "gateway", "consul"):
        assert re.search(rf"^- .*: {kind}: longest gap .* \(not measured\)$", page, re.MULTILINE)
    assert page.count("| not measured | <= 0.5 | **no** | not measured there are no clusters, because there is no") == 3
    assert [draw([Figure(**one) for one in found]) for _, draw in PLOTS.values()]


_EMPTY = "<!-- figures: begin --><!-- figures: end -->"


def _plain(name: str, value: float) -> dict[str, object]:
    return {"group": "g", "name": name, "value": value, "unit": "x", "most": 1.0}


# The parts themselves run; what they measure here is worth nothing.


async def test_the_store_in_memory_is_measured() -> None:
    figures = await memory.measure(1, 200)
    assert [figure.name for figure in figures if figure.reached is not None][:2] == ["commit", "get"]
    assert all(figure.value > 0 for figure in figures)


KINDS = {"etcd": "etcd", "etcd+http": "gateway", "consul": "consul"}


@pytest.mark.filterwarnings("ignore:Unclosed connector:ResourceWarning")  # python-consul2 says it of whatever it drops
@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_keys_and_views_are_measured_beside_others(osdisco_url: str) -> None:
    kind = KINDS[osdisco_url.partition("://")[0]]
    figures = await kv.measure(kind, osdisco_url, 1, 0.01)
    assert {figure.name for figure in figures} >= {f"{kind}: get, {kv.AT_ONCE[kind]} in flight"}
    assert {figure.against for figure in figures} == {"the bare driver", *_peer(kind)}
    figures.append(await views.measure(kind, osdisco_url, 1, 100))
    assert all(figure.value > 0 for figure in figures)


def _peer(kind: str) -> set[str]:
    return {kv._PEERS[kind][0]} if kind in kv._PEERS else set()
