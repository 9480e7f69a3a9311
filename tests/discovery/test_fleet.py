"""A thousand extensions of five processes, two of which are killed, on real stores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
from extensions import observer
from worlds import connect, process_of, until

from osdisco.discovery import DiscoveryListener, ExtensionInfo

SIZES = 167, 166, 222, 222, 223
"""Of the processes."""
KILLED = 2
"""The first two are a third of all."""
TTL = 5


class Told(DiscoveryListener):
    """Who is there by what a listener was told."""

    def __init__(self) -> None:
        self.present: set[str] = set()
        self.twice: set[str] = set()

    def on_extensions_discovered(self, extensions: Sequence[ExtensionInfo]) -> None:
        ids = {extension.id for extension in extensions}
        self.twice |= self.present & ids
        self.present |= ids

    def on_extensions_removed(self, extensions: Sequence[ExtensionInfo]) -> None:
        ids = {extension.id for extension in extensions}
        self.twice |= ids - self.present
        self.present -= ids


REGISTER_MANY = """
import asyncio, sys, osdisco
from osdisco.discovery import DiscoveryService, ExtensionInfo

async def main(url, process, count):
    async with osdisco.connect(url) as client:
        infos = [ExtensionInfo(f"geo-{process}-{n}", "geo", "1.0.0", "10.0.0.7", 9700) for n in range(int(count))]
        services = [DiscoveryService(client, info) for info in infos]
        await asyncio.gather(*(service.start() for service in services))
        await asyncio.gather(*(service.wait_registered(60) for service in services))
        print("registered", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.osdisco("etcd", "consul")
async def test_all_are_seen_and_a_third_of_them_go_when_their_processes_are_killed(osdisco_url: str) -> None:
    url = f"{osdisco_url}{'&' if '?' in osdisco_url else '?'}ttl={TTL}s"
    async with connect(osdisco_url) as client, AsyncExitStack() as stack:
        seer = await observer(client)
        told = Told()
        seer.add_listener(told)
        members = [process_of(REGISTER_MANY, url, str(n), str(size)) for n, size in enumerate(SIZES)]
        processes = await asyncio.gather(*(stack.enter_async_context(member) for member in members))
        await until(lambda: len(seer.extensions) == sum(SIZES), 60)
        for process in processes[:KILLED]:
            process.kill()
        left = sum(SIZES[KILLED:])
        await until(lambda: len(seer.extensions) == left, TTL * client.limits.expiry_factor + 20)
        assert len(await seer.discover_extensions()) == left
        assert {id_.split("-")[1] for id_ in seer.extensions} == {"2", "3", "4"}
        await until(lambda: told.present == set(seer.extensions))
        assert not told.twice
        await seer.stop()
