"""What probes reach."""

from __future__ import annotations

import pytest
from probers import Net
from worlds import World

from osdisco.discovery.probing import HttpProbe


@pytest.fixture
def net(world: World, monkeypatch: pytest.MonkeyPatch) -> Net:
    """What probes reach instead of sockets."""
    net = Net(world)

    async def run(self: HttpProbe) -> None:
        await net.run(self)

    monkeypatch.setattr(HttpProbe, "run", run)
    return net
