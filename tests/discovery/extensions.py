"""Extensions, and a listener that remembers: what tests of discovery use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionEvent, ExtensionInfo

REGISTRATION = '{"extension":{"id":"geo","name":"geo","version":"1","host":"h","port":9700},"incarnation":0}'


def info(id_: str = "geo", **changes: Any) -> ExtensionInfo:
    return ExtensionInfo(**{"id": id_, "name": "geo", "version": "1.0.0", "host": "10.0.0.7", "port": 9700, **changes})


async def registered(client: Client, id_: str = "geo", **changes: Any) -> DiscoveryService:
    """Start a service, which its client's end stops, and wait until it is registered."""
    service = await DiscoveryService(client, info(id_, **changes)).start()
    await service.wait_registered(5)
    return service


async def observer(client: Client) -> DiscoveryService:
    service = await DiscoveryService(client).start()
    await service.wait_known(5)
    return service


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something holds; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class Diary:
    """Listens, and keeps what it was told as short text."""

    def __init__(self, service: DiscoveryService) -> None:
        self.lines: list[str] = []
        self.remove = service.add_listener(self._write)

    def _write(self, event: ExtensionEvent) -> None:
        old, new = event.old, event.new
        if old is None:
            self.lines.append(f"+{new.id} {new.status.value}")
        elif new is None:
            self.lines.append(f"-{old.id} {old.status.value}")
        else:
            self.lines.append(f"{new.id} {old.status.value}>{new.status.value}")
