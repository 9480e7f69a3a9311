"""A world in virtual time, and what was counted in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from worlds import World

from osdisco.testing import VirtualClock


@pytest.fixture
async def world(osdisco_clock: VirtualClock) -> AsyncGenerator[World, None]:
    world = World()
    yield world
    await world.aclose()
