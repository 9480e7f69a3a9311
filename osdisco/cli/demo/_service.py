"""The lives of those who call each other in the demo, written as an extension's author would write them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

import osdisco
from osdisco._tasks import Supervisor
from osdisco.cli.demo._cast import CALLER, CANARY, INSTANCES, SERVICE, Event
from osdisco.cli.demo._extension import Pause, Tell
from osdisco.client import Client
from osdisco.discovery.leaving import Drain
from osdisco.errors import ServiceMeshError
from osdisco.mesh.canary import CanaryController
from osdisco.mesh.handlers import incoming
from osdisco.mesh.mesh import ExtensionServiceMesh
from osdisco.mesh.retry import RetryPolicy
from osdisco.registry.definition import ServiceDefinition
from osdisco.url import StoreURL

AT_ONCE: Final = 4
"""Calls under way."""
PAUSE: Final = 0.02
"""Seconds between two calls of one kind."""
TIMEOUT: Final = 2.0
"""Seconds for a call. An attempt gets half of what is left, so that a second one can follow."""
SLOW: Final = 0.25
"""Seconds that the new version takes for an answer."""
TELL: Final = 0.1
"""Seconds between two tellings of how many calls there were."""
DRAIN: Final = Drain(propagation=0.1, grace=2)


class _Caller:
    """Calls the service all the time, and tells how that went."""

    def __init__(self, client: Client, mesh: ExtensionServiceMesh, tell: Tell) -> None:
        self._now = client.runtime.clock.now
        self._mesh = mesh
        self._tell_event = tell
        self._by: Counter[str] = Counter()
        self._again = self._failed = 0

    def tell(self, what: str, **data: Any) -> None:
        self._tell_event(Event(self._now(), CALLER, what, data))

    async def call(self) -> None:
        while True:
            try:
                answer = await self._mesh.call(SERVICE, "locate", {"place": "Oslo"}, timeout=TIMEOUT)
                self._by[answer["by"]] += 1
                self._again += answer["attempt"] > 1
            except ServiceMeshError as exc:
                self._failed += 1
                self.tell("call failed", said=str(exc))
            await asyncio.sleep(PAUSE)

    async def sum_up(self) -> None:
        while True:
            await asyncio.sleep(TELL)
            sums = {"calls": self._by.total(), "failed": self._failed, "again": self._again}
            self.tell("called", **sums, by=dict(self._by))


async def _search(client: Client, orders: asyncio.Queue[str], tell: Tell) -> None:
    """Call until told to leave, and stand for who judges canaries."""
    tasks = Supervisor()
    policy = RetryPolicy(idempotent=["locate"])
    async with ExtensionServiceMesh(client, retry_policies=policy) as mesh, CanaryController(client):
        caller = _Caller(client, mesh, tell)
        try:
            for number in range(AT_ONCE):
                tasks.spawn(caller.call(), f"call {number}")
            tasks.spawn(caller.sum_up(), "tell of the calls")
            await orders.get()
        finally:
            await tasks.aclose()


async def _serve(client: Client, id_: str, orders: asyncio.Queue[str], tell: Tell) -> None:
    """Serve until told to leave."""
    version = INSTANCES[id_].version

    async def locate(query: Any) -> dict[str, Any]:
        request = incoming()
        assert request is not None
        await asyncio.sleep(SLOW if id_ == CANARY.id else 0)
        return {"place": query["place"], "at": [59.91, 10.75], "by": id_, "attempt": request.attempt}

    async with ExtensionServiceMesh(client) as mesh:
        definition = ServiceDefinition(SERVICE, version, extension_id=id_)
        async with mesh.serve(definition, {"locate": locate}, drain=DRAIN) as server:
            data = {"service": SERVICE, "version": version, "address": server.address}
            tell(Event(client.runtime.clock.now(), id_, "serves", data))
            await orders.get()


async def live(url: StoreURL, id_: str, orders: asyncio.Queue[str], tell: Tell, pause: Pause) -> None:
    """Call, or serve, until `leave`."""
    async with osdisco.connect(url, name=id_) as client:
        await (_search(client, orders, tell) if id_ == CALLER else _serve(client, id_, orders, tell))
        ended = Event(client.runtime.clock.now(), id_, "ended", {})
    tell(ended)
