"""Clocks that jump or drift, on real stores: a session believes its own, and ends before the store ends its lease."""

from __future__ import annotations

import asyncio

import pytest
from network import STORES, TTL, ways

import osdisco
from osdisco.errors import LostError
from osdisco.runtime import SystemClock


class Clock(SystemClock):
    """The system's, with a rate and a jump."""

    def __init__(self) -> None:
        self.rate, self.ahead, self.begun = 1.0, 0.0, super().now()

    def now(self) -> float:
        return self.begun + (super().now() - self.begun) * self.rate + self.ahead

    def real(self, moment: float) -> float:
        """Return when the system's clock shows what this one calls `moment`."""
        return self.begun + (moment - self.ahead - self.begun) / self.rate


@pytest.mark.fault("F15", on=STORES)
@pytest.mark.parametrize("rate", [0.95, 1.05])
async def test_a_session_outlives_a_clock_that_drifts(rate: float, urls: dict[str, str]) -> None:
    async def lives(store: str) -> None:
        clock = Clock()
        clock.rate = rate
        async with osdisco.connect(f"{urls[store]}?ttl={TTL:g}s", clock=clock) as client:
            session = await client.session()
            await session.put("mine", b"")
            await asyncio.sleep(1.5 * TTL)
            session.check()
            assert await client.get("mine") is not None, store

    await asyncio.gather(*map(lives, STORES))


@pytest.mark.fault("F15", on=STORES)
async def test_a_session_that_cannot_be_renewed_ends_before_the_store_gives_its_key_away(
    urls: dict[str, str], seed: int
) -> None:
    """Given a clock that is slow, or fast, the deadline is early enough by the store's."""

    async def ends(store: str, rate: float) -> None:
        clock = Clock()
        clock.rate = rate
        async with ways(store, urls[store], seed=seed, alone=True) as there:
            session = await (await there.client(clock)).session()
            opened = there.clean.runtime.clock.now()
            assert clock.real(session.deadline) < opened + TTL, f"{store}, {rate}: valid for longer than it was granted"
            mine = f"slow/{rate}"
            await session.put(mine, b"")
            there.bad.hold()
            while await there.clean.get(mine) is not None:
                await asyncio.sleep(0.02)
            assert not session.valid, f"{store}, {rate}"
            assert session.lost.is_set(), f"{store}, {rate}"

    await asyncio.gather(*(ends(store, rate) for store in STORES for rate in (0.95, 1.05)))


@pytest.mark.fault("F15", on=STORES)
async def test_a_clock_that_jumps_over_the_deadline_loses_the_session_at_the_next_check(
    urls: dict[str, str],
) -> None:
    async def lost(store: str) -> None:
        clock = Clock()
        async with osdisco.connect(f"{urls[store]}?ttl={TTL:g}s", clock=clock) as client:
            session = await client.session()
            clock.ahead = TTL
            with pytest.raises(LostError):
                session.check()
            assert session.lost.is_set()
            again = await client.shared_session()
            assert again.id != session.id, store
            again.check()

    await asyncio.gather(*map(lost, STORES))
