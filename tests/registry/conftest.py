"""A world in virtual time for each test of the registry."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from worlds import World

from osdisco.testing import VirtualClock


@pytest.fixture
async def world(osdisco_clock: VirtualClock) -> AsyncGenerator[World, None]:
    """A store with processes. Nothing may be left in it once they are closed."""
    world = World()
    yield world
    await world.aclose()
    left = world.keys("svc/") + world.keys("x/")
    assert not left, f"left behind: {left}"
