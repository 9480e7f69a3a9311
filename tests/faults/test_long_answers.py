"""Answers that take long hold up no renewal: those have connections of their own."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from network import STORES, TTL, ways

from osdisco.errors import OsdiscoError
from osdisco.session import SessionState
from osdisco.testing import Servers

READS = 120
"""More than there are connections for them."""


@pytest.mark.fault("F10")
@pytest.mark.parametrize("store", STORES)
async def test_a_session_lives_on_while_large_answers_trickle_in(
    store: str, osdisco_servers: Servers, seed: int
) -> None:
    async with ways(store, osdisco_servers.url(store), seed=seed, alone=True) as there:
        await there.clean.put("large", bytes(100_000))
        client = await there.client()
        session = await client.session()
        there.bad.to_client.bandwidth = 10_000
        reads = [asyncio.create_task(_read(client)) for _ in range(READS)]
        await asyncio.sleep(TTL + 0.5)
        assert not session.lost.is_set(), f"seed {seed}"
        assert session.state is SessionState.CONNECTED, f"seed {seed}"
        assert sum(read.done() for read in reads) == 0, "the answers did not take long enough to show anything"
        there.bad.heal()
        await asyncio.gather(*reads)


async def _read(client: object) -> None:
    with suppress(OsdiscoError):
        await client.get("large", timeout=20)  # type: ignore[attr-defined]
