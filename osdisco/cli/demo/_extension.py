"""The life of one extension in the demo, written as an extension's author would write it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Self

import osdisco
from osdisco._tasks import Supervisor
from osdisco.backend import ABSENT, Item, Put
from osdisco.cli.demo._cast import BATCH, CAST, ELECTION, LEADER, LOCK, PLAN, Event
from osdisco.client import Client
from osdisco.coordination import CoordinationService, Term
from osdisco.discovery import DiscoveryListener, DiscoveryService, ExtensionInfo
from osdisco.discovery.checks import TcpCheck
from osdisco.errors import ConflictError, LostError, OsdiscoError
from osdisco.url import StoreURL

WORK: Final = 0.25
"""Seconds that a turn under the lock takes, so that one can watch."""
CHECK: Final = 0.15
"""Seconds between the checks of each extension."""
GLANCE: Final = 0.25
"""Seconds that a registration may be away without being missed: every change of the record takes a moment."""
START: Final = 20.0
"""Seconds to get registered."""

Tell = Callable[[Event], None]
Pause = Callable[[], None]
"""Returns when somebody lets this process, or thread, go on; not one line of it runs until then."""


STEPS: Final = 5
"""Steps of the event loop in which a connection that was accepted just now is there, and gone again."""


class _Service:
    """What the extension is there for: others connect to it, and its check does. `async with` opens and closes it."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen, also again, at the same port."""
        self._server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        for _step in range(STEPS):
            await asyncio.sleep(0)


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
            self.tell("discovered", extension=extension.id, now=extension.status.value)

    def on_extensions_removed(self, extensions: Sequence[ExtensionInfo]) -> None:
        for extension in extensions:
            self.tell("gone", extension=extension.id)

    def on_extension_status_changed(self, old: ExtensionInfo, new: ExtensionInfo) -> None:
        self.tell("status", extension=new.id, was=old.status.value, now=new.status.value)

    async def follow(self, discovery: DiscoveryService) -> None:
        """Tell when the registration is gone for longer than a glance, and when it is back."""
        while True:
            await asyncio.sleep(GLANCE)
            if not discovery.registered:
                view = discovery.extensions
                self.tell("unregistered", known=len(view), stale=view.stale)
                await discovery.wait_registered()
                while view.stale:  # noqa: ASYNC110 - nothing tells when it is fresh
                    await asyncio.sleep(GLANCE / 10)
                self.tell("returned")

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
    """Register, and do as told until `leave`.

    That is to `ail` and to `recover`, `turn` and `hold` under the lock, `stand` in the election, and to `pause`.
    """
    tasks = Supervisor()
    async with _Service() as service, osdisco.connect(url, name=id_) as client:
        check = TcpCheck(f"127.0.0.1:{service.port}", interval=CHECK, fall=2, rise=1)
        extension = _Extension(client, id_, tell)
        discovery = DiscoveryService(client, CAST[id_].info(service.port), checks=[check])
        discovery.add_listener(extension)
        async with discovery:
            await discovery.wait_registered(timeout=START)
            extension.tell("registered", capability=CAST[id_].capability, port=service.port)
            tasks.spawn(extension.follow(discovery), "follow the registration")
            try:
                while (order := await orders.get()) != "leave":
                    if order == "stand":
                        tasks.spawn(extension.stand(), f"stand as {ELECTION}")
                    elif order == "ail":
                        service.close()
                        extension.tell("ails")
                    elif order == "recover":
                        await service.open()
                        extension.tell("recovers")
                    elif order == "pause":
                        await extension.write_after(pause)
                    else:
                        await extension.turn(for_ever=order == "hold")
                extension.tell("leaving")
            finally:
                await tasks.aclose()
    extension.tell("left")
