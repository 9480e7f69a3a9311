"""The page on seeing the mesh and sharing it: its examples show what they say, on every store."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import pytest
from examples import DOCS, Area, Example
from worlds import connect

from osdisco.discovery import ExtensionStatus
from osdisco.serve import _envoy, _site

SEEING = Area("mesh/seeing", lambda client, other: {})
PAGE = (DOCS / "mesh/seeing.md").read_text()


@pytest.mark.parametrize("example", SEEING.examples, ids=str)
async def test_an_example_shows_what_it_says_in_memory(example: Example) -> None:
    url = f"memory://{uuid4().hex}"
    async with connect(url) as client, connect(url) as other:
        await SEEING.run(example, client, other)


@pytest.mark.parametrize("example", SEEING.examples, ids=str)
@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_an_example_shows_what_it_says(example: Example, osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        await SEEING.run(example, client, other)


def test_the_frame_runs_as_printed() -> None:
    done = subprocess.run([sys.executable, "-c", SEEING.frame.text], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_every_example_shows_something() -> None:
    assert [str(example) for example in SEEING.examples if not example.claims] == []


def test_the_page_tells_envoys_words_and_bounds() -> None:
    told = {"HEALTHY", "DEGRADED", "DRAINING", "UNHEALTHY"}
    assert set(_envoy.HEALTH.values()) == told
    assert {status.name for status in ExtensionStatus} == told - {"DRAINING"} | {"STOPPING", "STARTING"}
    assert f"{_envoy.VIEWS_MAX} services are followed at once" in PAGE
    assert f'server.url + "{_site.ENDPOINTS}"' in PAGE
