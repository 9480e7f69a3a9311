"""The roster: what is taken in reaches all who look at it, and wakes all who stand in it."""

from __future__ import annotations

import asyncio

import pytest
from extensions import registered
from worlds import World

from osdisco.discovery import DiscoveryService, ViewStale


class Mistaken:
    """An onlooker that fails at everything."""

    def _on_pairs(self, pairs: object) -> None:
        raise ValueError("a mistake")

    _on_stale = _on_end = _on_pairs


async def test_a_mistake_in_one_onlooker_is_neither_the_others_nor_that_of_who_is_to_be_woken(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    client, other = world.process(), world.process()
    seer = DiscoveryService(client)
    seer._view.join(Mistaken())  # the first to be told
    woken: list[float] = []
    told: list[type] = []

    class Listener:
        def on_view_stale(self, event: ViewStale) -> None:
            told.append(type(event))

    seer.add_listener(Listener())
    seer._view.attend("geo", lambda: woken.append(world.clock.now()))
    await seer.start()
    await seer.wait_known(5)
    before = len(woken)
    await registered(other)
    await asyncio.sleep(1)
    assert set(seer.extensions) == {"geo"}
    assert len(woken) > before
    client.backend.faults.outage()
    before = len(woken)
    await asyncio.sleep(60)
    assert told == [ViewStale]
    assert len(woken) > before
    await client.aclose()
    assert "a mistake" in caplog.text
