"""The story of the demo: gives the orders, watches what comes of them, and checks what osdisco promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final, Protocol

from osdisco.backend import Delete, Item, Put
from osdisco.cli._errors import FailedError
from osdisco.cli._output import warn
from osdisco.cli.demo._cast import BATCH, CAST, LOCK, ROUNDS, VICTIM, Event
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._stages import Actor
from osdisco.client import Client
from osdisco.coordination import Fence
from osdisco.errors import ConflictError, OsdiscoError, StaleTokenError

SURVIVORS: Final = tuple(id_ for id_ in CAST if id_ != VICTIM)
SUSPENSE: Final = 0.4
"""Seconds before the kill, so that one can see who waits."""


class Show(Protocol):
    """Whoever is told the story."""

    def chapter(self, title: str, text: str) -> None:
        """A part of the story begins."""

    def event(self, event: Event) -> None:
        """Something happened."""

    def wait(self, text: str) -> None:
        """Something takes its time; an empty text: it is over."""


class Director:
    """Plays the story with the actors that `start` makes."""

    def __init__(self, client: Client, show: Show, facts: Facts) -> None:
        self.events: Final[asyncio.Queue[Event]] = asyncio.Queue()
        self.waits_for = "the store"
        self._client = client
        self._show = show
        self._facts = facts
        self._actors: dict[str, Actor] = {}

    async def play(self, start: Callable[[str], Any]) -> None:
        """Play all of it. `start(id)` is awaited for an Actor. Raises FailedError when a promise was broken."""
        try:
            await self._register(start)
            await self._take_turns()
            entry = await self._crash()
            await self._fail_over(entry)
            await self._say_goodbye()
        except BaseException:
            with suppress(OSError):  # the terminal may be what has gone
                self._show.wait("")
            await self._dismiss()
            try:
                await self._tidy()
            except OsdiscoError as exc:
                warn(f"the key {BATCH!a} may be left in {self._client.url}: {exc}")
            raise
        await self._dismiss()
        await self._tidy()
        await self._check_nothing_left()

    async def _dismiss(self) -> None:
        await asyncio.gather(*(actor.aclose() for actor in self._actors.values()), return_exceptions=True)

    async def _register(self, start: Callable[[str], Any]) -> None:
        self._show.chapter(
            "Register", "Each puts its record under a lease that it keeps alive, and watches the others."
        )
        for id_ in CAST:
            actor = self._actors[id_] = await start(id_)
            self._tell(id_, "started", place=actor.place)
        await self._until("all extensions to find each other", self._all_found)

    def _all_found(self) -> bool:
        return all(
            self._facts.seen("discovered", id_, extension=other) for id_ in CAST for other in CAST if other != id_
        ) and all(self._facts.seen("registered", id_) for id_ in CAST)

    async def _take_turns(self) -> None:
        text = f"The lock '{LOCK}' is a fair queue. Each holder gets a higher token, and writes only while it holds."
        self._show.chapter("Take turns", text)
        for _ in range(ROUNDS):
            for actor in self._actors.values():
                actor.order("turn")
        await self._until("everybody's turns", lambda: len(self._facts.all("releasing")) == ROUNDS * len(CAST))

    async def _crash(self) -> Item:
        self._show.chapter("Crash", f"{VICTIM} dies while it holds the lock and the others wait for it.")
        prefix = f"lock/{LOCK}/"
        async with self._client.view(prefix) as queue:
            self._actors[VICTIM].order("hold")
            await self._until(f"{VICTIM} to hold the lock", lambda: self._facts.seen("wrote", VICTIM, n=ROUNDS + 1))
            for id_ in SURVIVORS:
                self._actors[id_].order("turn")
            async with asyncio.timeout(20):
                await queue.until(lambda entries: len(entries) == len(CAST))
            entry = min(queue.values(), key=lambda item: item.created)
        await self._until(
            "the others to wait", lambda: all(self._facts.seen("waiting", i, n=ROUNDS + 1) for i in SURVIVORS)
        )
        await asyncio.sleep(SUSPENSE)
        self._actors[VICTIM].crash()
        self._tell(VICTIM, "killed", place=self._actors[VICTIM].place)
        return entry

    async def _fail_over(self, entry: Item) -> None:
        facts = self._facts
        self._show.chapter("Fail over", "Nobody was told. The store ends the lease, and with it all that hung on it.")
        self._show.wait(f"the lease of {VICTIM} runs out: {facts.ttl:g} to {facts.ttl_late:g} s")
        await self._until(f"the others to see {VICTIM} go", self._failed_over)
        self._show.wait("")
        await self._until("their turns", lambda: all(facts.seen("releasing", i, n=ROUNDS + 1) for i in SURVIVORS))
        self._check_tokens()
        await self._write_late(entry)
        self._refuse_old_token()

    def _failed_over(self) -> bool:
        all_see_it = all(self._facts.seen("gone", id_, extension=VICTIM) for id_ in SURVIVORS)
        return all_see_it and self._facts.next_holder is not None

    def _check_tokens(self) -> None:
        tokens = self._facts.tokens
        if tokens != sorted(set(tokens)):
            raise FailedError(f"the fencing tokens did not rise: {tokens}")

    async def _write_late(self, entry: Item) -> None:
        """Send what the killed holder's guarded write would send, had it been delayed until now."""
        before = await self._client.get(BATCH)
        try:
            await self._client.commit([Put(BATCH, b"too late")], expect={entry.key: entry.unchanged})
        except ConflictError as exc:
            self._tell(VICTIM, "late write refused", said=str(exc), token=self._facts.killed_token)
        else:
            raise FailedError("a write of the killed holder was applied after the lock had gone to another")
        if await self._client.get(BATCH) != before:
            raise FailedError("a write that was refused changed something all the same")

    def _refuse_old_token(self) -> None:
        fence = Fence()
        fence.admit(self._facts.tokens[-1])
        try:
            fence.admit(self._facts.killed_token)
        except StaleTokenError as exc:
            self._tell(VICTIM, "token refused", said=str(exc), token=self._facts.killed_token)
        else:
            raise FailedError("a fence admitted the killed holder's token after a newer one")

    async def _say_goodbye(self) -> None:
        self._show.chapter("Goodbye", "Who leaves properly is seen to go at once.")
        first, last = SURVIVORS
        self._actors[first].order("leave")
        await self._until(f"{last} to see {first} leave", lambda: self._facts.seen("gone", last, extension=first))
        self._actors[last].order("leave")
        await self._until("both to end", lambda: all(self._facts.seen("left", id_) for id_ in SURVIVORS))

    async def _until(self, what: str, done: Callable[[], object]) -> None:
        """Take events until `done()`; an extension that fails ends the demo."""
        self.waits_for = what
        while not done():
            event = await self.events.get()
            if event.what == "failed":
                raise FailedError(f"{event.who}: {event.data['why']}")
            self._took(event)

    def _tell(self, who: str, what: str, **data: Any) -> None:
        self._took(Event(self._client.runtime.clock.now(), who, what, data))

    def _took(self, event: Event) -> None:
        self._facts.add(event)
        self._show.event(event)

    async def _tidy(self) -> None:
        """Remove the one key of the demo that hangs on no lease."""
        await self._client.commit([Delete(BATCH)])

    async def _check_nothing_left(self) -> None:
        left: Collection[str] = (await self._client.scan()).items.keys()
        if left:
            raise FailedError(f"left behind in {self._client.url}: {', '.join(sorted(left))}")
