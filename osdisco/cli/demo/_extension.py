"""The life of one extension in the demo, written as an extension's author would write it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import osdisco
from osdisco.backend import ABSENT, Put
from osdisco.cli.demo._cast import BATCH, CAST, LOCK, Event
from osdisco.client import Client
from osdisco.coordination import CoordinationService, LockGuard
from osdisco.discovery import DiscoveryListener, DiscoveryService, ExtensionInfo
from osdisco.url import StoreURL

WORK: Final = 0.25
"""Seconds that a turn under the lock takes, so that one can watch."""
START: Final = 20.0
"""Seconds to get registered."""

Tell = Callable[[Event], None]


class _Extension(DiscoveryListener):
    def __init__(self, client: Client, id_: str, tell: Tell) -> None:
        self._client = client
        self._id = id_
        self._tell_event = tell

    def tell(self, what: str, **data: Any) -> None:
        self._tell_event(Event(self._client.runtime.clock.now(), self._id, what, data))

    def on_extensions_discovered(self, extensions: Sequence[ExtensionInfo]) -> None:
        for extension in extensions:
            self.tell("discovered", extension=extension.id)

    def on_extensions_removed(self, extensions: Sequence[ExtensionInfo]) -> None:
        for extension in extensions:
            self.tell("gone", extension=extension.id)

    async def turn(self, *, for_ever: bool) -> None:
        self.tell("waiting")
        async with CoordinationService(self._client).lock(LOCK) as guard:
            self.tell("acquired", token=guard.token)
            self.tell("wrote", token=guard.token, batch=await self._write_next_batch(guard))
            await asyncio.sleep(3600 if for_ever else WORK)
            self.tell("releasing", token=guard.token)

    async def _write_next_batch(self, guard: LockGuard) -> int:
        last = await self._client.get(BATCH)
        number = json.loads(last.value)["batch"] + 1 if last else 1
        value = json.dumps({"batch": number, "by": self._id, "token": guard.token}).encode()
        await guard.commit([Put(BATCH, value)], expect={BATCH: last.unchanged if last else ABSENT})
        return number


async def live(url: StoreURL, id_: str, orders: asyncio.Queue[str], tell: Tell) -> None:
    """Register, and do as told: `turn` and `hold` under the lock, until `leave`."""
    async with osdisco.connect(url, name=id_) as client:
        extension = _Extension(client, id_, tell)
        discovery = DiscoveryService(client, CAST[id_].info)
        discovery.add_listener(extension)
        async with discovery:
            await discovery.wait_registered(timeout=START)
            extension.tell("registered", capability=CAST[id_].capability, port=CAST[id_].port)
            while (order := await orders.get()) != "leave":
                await extension.turn(for_ever=order == "hold")
            extension.tell("leaving")
    extension.tell("left")
