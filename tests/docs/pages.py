"""What holds for the pages of every area: a test file derives a class from these, and gives it its area."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar
from uuid import uuid4

import pytest
from examples import Area, Example
from worlds import connect


async def run(area: Area, example: Example, url: str) -> None:
    """Run an example on a store."""
    async with connect(url) as client, connect(url) as other:
        await area.run(example, client, other)


class Pages:
    """Their examples run on all stores, on memory in virtual time.

    Attributes:
        area: the pages.
        frame_prints: what their frame says when it runs as it stands there.
    """

    area: ClassVar[Area]
    frame_prints: ClassVar[str] = ""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give each test of an example all of them."""
        if "example" in metafunc.fixturenames:
            metafunc.parametrize("example", self.area.examples, ids=str)

    @pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")
    async def test_an_example_shows_what_it_says(self, example: Example, osdisco_url: str) -> None:
        await run(self.area, example, osdisco_url)

    def test_the_frame_runs_as_printed(self) -> None:
        command = [sys.executable, "-c", self.area.frame.text]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        ended = (done.returncode, done.stdout, done.stderr)
        assert ended == (0, self.frame_prints, ""), ended

    def test_every_example_shows_something(self) -> None:
        silent = [str(example) for example in self.area.examples if not example.claims]
        assert silent == [], silent


class PagesWithSockets(Pages):
    """Their examples use sockets, for which time is real on memory, too."""

    async def test_an_example_shows_what_it_says_in_memory(self, example: Example) -> None:
        await run(self.area, example, f"memory://{uuid4().hex}")

    @pytest.mark.osdisco("etcd", "etcd+http", "consul")
    async def test_an_example_shows_what_it_says(self, example: Example, osdisco_url: str) -> None:
        await run(self.area, example, osdisco_url)
