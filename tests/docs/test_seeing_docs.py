"""The page on seeing the mesh and sharing it: its examples show what they say, on every store."""

from __future__ import annotations

import asyncio
import re
from typing import get_args

from apis import Name, without_example
from examples import DOCS, Area
from pages import PagesWithSockets

from osdisco.cli.mesh import COLUMNS
from osdisco.discovery import ExtensionStatus
from osdisco.mesh import (
    AttemptFailed,
    MeshWatch,
    OpenTelemetryTracing,
    PickRefused,
    RefusedReason,
    ServiceFigures,
    Tracing,
    _gauges,
    _reports,
)
from osdisco.mesh._seeing import MeshEvent
from osdisco.serve import _envoy, _site

SEEING = Area("mesh/seeing", lambda client, other: {})
PAGE = (DOCS / "mesh/seeing.md").read_text()


class TestSeeing(PagesWithSockets):
    area = SEEING
    frame_prints = "[]\n"


KINDS, WHAT = ("Tracing", "OpenTelemetryTracing"), ("calling", "attempting", "serving")
INTERNAL: set[Name] = {(name, what) for name in KINDS for what in WHAT}
"""For the mesh alone."""


def test_every_public_name_has_an_example() -> None:
    classes = [AttemptFailed, PickRefused, OpenTelemetryTracing, Tracing, MeshWatch, ServiceFigures]
    assert without_example(SEEING, classes, asyncio.run) - INTERNAL == set()


def test_the_page_has_every_reason_and_event() -> None:
    told = set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE))
    assert told == {reason.name for reason in RefusedReason}
    for kind in get_args(MeshEvent):
        assert f"`{kind.__name__}`" in PAGE
    rows = PAGE.partition("## `osdisco mesh top`")[2].partition("## Envoy")[0]
    assert all(re.search(rf"^\\|.*`{re.escape(column)}`.*\\|", rows, re.MULTILINE) for column in COLUMNS[1:])
    assert f"the\n{_reports.SERVICES_MAX} that it calls most" in rows
    assert f"only the first {_gauges.NAMES_MAX} are told apart" in PAGE


def test_the_page_tells_envoys_words_and_bounds() -> None:
    told = {"HEALTHY", "DEGRADED", "DRAINING", "UNHEALTHY"}
    assert set(_envoy.HEALTH.values()) == told
    assert {status.name for status in ExtensionStatus} == told - {"DRAINING"} | {"STOPPING", "STARTING"}
    assert f"{_envoy.VIEWS_MAX} services are followed at once" in PAGE
    assert f"A request names 1 to {_envoy.NAMES_MAX}." in PAGE
    assert f"may take {_envoy.PATIENCE} s, for Envoy waits one second" in PAGE
    assert f'server.url + "{_site.ENDPOINTS}"' in PAGE
