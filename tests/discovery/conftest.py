"""A world in virtual time for each test, and extensions to register in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from probers import Net
from worlds import World

from osdisco.discovery.probing import HttpProbe
from osdisco.testing import VirtualClock


@pytest.fixture
async def world(osdisco_clock: VirtualClock) -> AsyncGenerator[World, None]:
    """A store with processes. Nothing may be left in it once they are closed."""
    world = World()
    yield world
    await world.aclose()
    left = [key for prefix in ("ext/", "probe/", "svc/", "svcprobe/", "x/") for key in world.keys(prefix)]
    assert not left, f"left behind: {left}"


@pytest.fixture
def net(world: World, monkeypatch: pytest.MonkeyPatch) -> Net:
    """What probes reach instead of sockets."""
    net = Net(world)

    async def run(self: HttpProbe) -> None:
        await net.run(self)

    monkeypatch.setattr(HttpProbe, "run", run)
    return net
