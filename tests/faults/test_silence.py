"""How long a watch really waits at an endpoint that has fallen silent, with nothing else to tell it."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from network import LATE, STORES, ways

from osdisco.backend import WATCH_SILENCE


@pytest.mark.fault("F14", on=STORES)
async def test_silence_is_noticed_in_time_and_the_endpoint_changed(urls: dict[str, str], seed: int) -> None:
    """On all stores at the same time: all that happens is that they wait."""

    async def seen_after(store: str) -> float:
        async with ways(store, urls[store], seed=seed, alone=False) as there:
            client = await there.client()
            now = client.runtime.clock.now
            async with client.view("live/") as view:
                await there.clean.put("live/first", b"")
                await view.until(lambda items: "live/first" in items, timeout=10)
                assert there.good is not None
                assert there.good.accepted == 0
                there.bad.hold()
                silent = now()
                for number in count():
                    await there.clean.put("live/k", b"%d" % number)
                    await asyncio.sleep(0.2)
                    if "live/k" in view:
                        assert there.good.accepted > 0
                        return now() - silent
                    assert now() - silent < 2 * WATCH_SILENCE
        raise AssertionError

    for store, seconds in zip(STORES, await asyncio.gather(*map(seen_after, STORES)), strict=True):
        assert seconds < WATCH_SILENCE + LATE, f"{store}, seed {seed}"
