"""Extensions, and a listener that remembers: what tests of discovery use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worlds import World

from osdisco._keys import Keyspace
from osdisco.backend import Item, Limits
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionEvent, ExtensionInfo
from osdisco.discovery.registration import fold

REGISTRATION = '{"extension":{"id":"geo","name":"geo","version":"1","host":"h","port":9700},"incarnation":0}'

LIMITS = Limits(ttl_min=1, ttl_max=60, expiry_factor=1)


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


class History:
    """What anybody could have read of an extension after each change of the store, without what is the same again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._write = world.store._write
        self._last: ExtensionInfo | None = None
        self.shown: list[ExtensionInfo] = []
        world.store._write = self._recording  # type: ignore[method-assign]

    @property
    def statuses(self) -> list[str]:
        return [extension.status.value for extension in self.shown]

    def _recording(self, after: Mapping[str, Item | None]) -> None:
        self._write(after)
        now = fold(Keyspace("ns/", LIMITS), self._world.store.scan("ns/ext/")).get("geo")
        if now is not None and now != self._last:
            self.shown.append(now)
        self._last = now
