"""A seeded part of `make leaks`: cycles of all that a client does leave nothing, though a third of them is cut."""

from __future__ import annotations

import asyncio
import secrets
import socket
from typing import Any

import pytest
from cycles import TRANSPORTS, Before, Cycles, Place, Work, enough

import osdisco
from osdisco.testing import Servers

CYCLES = 100
WARM_UP = 30
"""Before the count: the first ones start what stays, such as the threads of gRPC."""


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_cycles_leave_nothing(transport: str, request: pytest.FixtureRequest, seed: int) -> None:
    servers: Servers = Servers() if transport == "memory" else request.getfixturevalue("osdisco_servers")
    cycles = Cycles(Place.of(transport, servers, f"leaks-{secrets.token_hex(8)}"), seed)
    await cycles.run(WARM_UP)
    before = await Before.now(cycles.place)
    await cycles.run(CYCLES)
    left = await before.left()
    assert not left, f"seed {seed}: {left}"
    assert enough(cycles.counts), cycles.counts


async def keep_open(url: str, work: Work, number: int) -> None:
    KEPT.append(client := osdisco.connect(url))
    await work(client, number)


async def keep_a_session(url: str, work: Work, number: int) -> None:
    KEPT.append(client := osdisco.connect(url))
    await client.session()


async def keep_a_key(url: str, work: Work, number: int) -> None:
    async with osdisco.connect(url) as client:
        await client.put(f"left/{number}", b"")


async def keep_a_task(url: str, work: Work, number: int) -> None:
    KEPT.append(asyncio.create_task(asyncio.sleep(3600), name="somebody's"))


async def keep_a_socket(url: str, work: Work, number: int) -> None:
    KEPT.extend(socket.socketpair())


async def keep_a_thread(url: str, work: Work, number: int) -> None:
    await asyncio.to_thread(lambda: None)


KEPT: list[Any] = []


@pytest.mark.parametrize(
    ("bad", "kinds"),
    [
        (keep_open, {"sockets", "descriptors"}),
        (keep_a_session, {"leases", "keys", "tasks"}),
        (keep_a_key, {"keys"}),
        (keep_a_task, {"tasks"}),
        (keep_a_socket, {"sockets", "descriptors"}),
        (keep_a_thread, {"threads"}),
    ],
)
async def test_what_is_left_is_seen(bad: Any, kinds: set[str], osdisco_servers: Servers) -> None:
    """Cycles that leave something behind, which proves that those above leave nothing."""
    place = Place.of("etcd+http", osdisco_servers, f"leaks-{secrets.token_hex(8)}")
    before = await Before.now(place)
    await Cycles(place, 0, bad).run(3)
    left = await before.left(0)
    for one in KEPT:
        if isinstance(one, osdisco.Client):
            await one.aclose()
        elif isinstance(one, asyncio.Task):
            one.cancel()
        else:
            one.close()
    KEPT.clear()
    async with osdisco.connect(place.url) as client:
        for key in (await client.scan()).items:
            await client.delete(key)
    assert kinds <= (+left.counts).keys(), left
    assert all(kind in str(left) for kind in kinds)
