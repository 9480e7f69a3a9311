"""The life of one extension in the demo, written as an extension's author would write it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import osdisco
from osdisco._tasks import Supervisor
from osdisco.backend import ABSENT, Item, Put
from osdisco.cli.demo._cast import BATCH, CAST, ELECTION, LEADER, LOCK, PLAN, Event
from osdisco.client import Client
from osdisco.coordination import CoordinationService, Term
from osdisco.discovery import DiscoveryListener, DiscoveryService, ExtensionInfo
from osdisco.errors import ConflictError, LostError, OsdiscoError
from osdisco.url import StoreURL

WORK: Final = 0.25
"""Seconds that a turn under the lock takes, so that one can watch."""
START: Final = 20.0
"""Seconds to get registered."""

Tell = Callable[[Event], None]
Pause = Callable[[], None]
"""Returns when somebody lets this process, or thread, go on; not one line of it runs until then."""


class _Extension(DiscoveryListener):
    def __init__(self, client: Client, id_: str, tell: Tell) -> None:
        self._client = client
        self._id = id_
        self._tell_event = tell
        self._lock = CoordinationService(client).lock(LOCK)
        self._election = CoordinationService(client).election(ELECTION)
        self._election.add_listener(self._on_turn)

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
        async with self._lock as guard:
            self.tell("acquired", token=guard.token)
            number, batch, last = await self._next(BATCH, guard.token)
            await guard.commit([batch], expect={BATCH: last.unchanged if last else ABSENT})
            self.tell("wrote", token=guard.token, batch=number)
            await asyncio.sleep(3600 if for_ever else WORK)
            self.tell("releasing", token=guard.token)

    async def stand(self) -> None:
        await self._or_tell(self._election.participate())

    async def _on_turn(self, term: Term | None) -> None:
        if term is not None:
            self.tell("elected", token=term.token)
            await self._or_tell(self._lead(term))

    async def _lead(self, term: Term) -> None:
        number, plan, _ = await self._next(PLAN, term.token)
        await term.commit([plan])
        await term.proclaim({"plan": number})
        self.tell("planned", token=term.token, plan=number)

    async def write_after(self, pause: Pause) -> None:
        """Be paused as any code can be, between any two lines: here with a write of the leader's at hand."""
        term, leader = self._election.term, await self._client.get(LEADER)
        assert term is not None
        assert leader is not None
        number, plan, _ = await self._next(PLAN, term.token)
        self.tell("paused", token=term.token, plan=number)
        pause()
        self.tell("woke", is_leader=self._election.is_leader)
        try:
            await term.commit([plan])
            self.tell("late plan written", by="its own term")
        except LostError as exc:
            self.tell("late plan refused by itself", said=str(exc))
        await self._write_past_its_own_check(plan, leader)

    async def _write_past_its_own_check(self, plan: Put, leader: Item) -> None:
        """Send what `term.commit` sends, as if the pause had come after its look at the clock."""
        try:
            await self._client.commit([plan], expect={leader.key: leader.unchanged})
            self.tell("late plan written", by="the store")
        except ConflictError as exc:
            self.tell("late plan refused by the store", said=str(exc))

    async def _next(self, key: str, token: int) -> tuple[int, Put, Item | None]:
        """Return what is to be written next, and what stands there now."""
        last = await self._client.get(key)
        number = json.loads(last.value)["number"] + 1 if last else 1
        return number, Put(key, json.dumps({"number": number, "by": self._id, "token": token}).encode()), last

    async def _or_tell(self, work: Awaitable[None]) -> None:
        try:
            await work
        except LostError:  # who participates stands again by itself
            pass
        except OsdiscoError as exc:
            self.tell("failed", why=str(exc))


async def live(url: StoreURL, id_: str, orders: asyncio.Queue[str], tell: Tell, pause: Pause) -> None:
    """Register, and do as told: `turn` and `hold` under the lock, `stand` in the election, `pause`; until `leave`."""
    standing = Supervisor()
    async with osdisco.connect(url, name=id_) as client:
        extension = _Extension(client, id_, tell)
        discovery = DiscoveryService(client, CAST[id_].info)
        discovery.add_listener(extension)
        async with discovery:
            await discovery.wait_registered(timeout=START)
            extension.tell("registered", capability=CAST[id_].capability, port=CAST[id_].port)
            try:
                while (order := await orders.get()) != "leave":
                    if order == "stand":
                        standing.spawn(extension.stand(), f"stand as {ELECTION}")
                    elif order == "pause":
                        await extension.write_after(pause)
                    else:
                        await extension.turn(for_ever=order == "hold")
                extension.tell("leaving")
            finally:
                await standing.aclose()
    extension.tell("left")
