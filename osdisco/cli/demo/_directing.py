"""How a story is directed: actors get orders and tell events, and the director waits for those that are to come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from osdisco.cli._errors import FailedError
from osdisco.cli._output import warn
from osdisco.cli.demo._cast import Event
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._stages import Actor
from osdisco.client import Client
from osdisco.errors import OsdiscoError


class Show(Protocol):
    """Whoever is told the story."""

    def chapter(self, title: str, text: str) -> None:
        """A part of the story begins."""

    def event(self, event: Event) -> None:
        """Something happened."""

    def wait(self, text: str) -> None:
        """Something takes its time; an empty text: it is over."""


class Directing:
    """Who directs.

    Attributes:
        waits_for: what it is waiting for, should that take too long.
        on_wait: called when it begins to wait for something else.
    """

    def __init__(self, client: Client, show: Show, facts: Facts) -> None:
        self.events: Final[asyncio.Queue[Event]] = asyncio.Queue()
        self.waits_for = "the store"
        self.on_wait: Callable[[], None] = lambda: None
        self._client = client
        self._show = show
        self._facts = facts
        self._actors: dict[str, Actor] = {}

    async def _play(self, story: Awaitable[None], keys: str) -> None:
        """Play a story; whatever becomes of it, let all actors go, and tidy up.

        Args:
            keys: what may be left in the store when that fails.
        """
        try:
            await story
        except BaseException:
            with suppress(OSError):  # the terminal may be what has gone
                self._show.wait("")
            await self._dismiss()
            try:
                await self._tidy()
            except OsdiscoError as exc:
                warn(f"{keys} may be left in {self._client.url}: {exc}")
            raise
        await self._dismiss()
        await self._tidy()

    async def _tidy(self) -> None:
        """Remove what the story leaves in the store."""

    async def _dismiss(self) -> None:
        await asyncio.gather(*(actor.aclose() for actor in self._actors.values()), return_exceptions=True)

    async def _until(self, what: str, done: Callable[[], object]) -> None:
        """Take events until `done()`; an extension that fails ends the demo."""
        self._wait_for(what)
        while not done():
            event = await self.events.get()
            if event.what == "failed":
                raise FailedError(f"{event.who}: {event.data['why']}")
            self._took(event)
            self._check_event(event)

    def _wait_for(self, what: str) -> None:
        self.waits_for = what
        self.on_wait()

    def _check_event(self, event: Event) -> None:
        """Raise FailedError for what must not happen."""

    def _tell(self, who: str, what: str, **data: Any) -> None:
        self._took(Event(self._now(), who, what, data))

    def _now(self) -> float:
        return self._client.runtime.clock.now()

    def _took(self, event: Event) -> None:
        self._facts.add(event)
        self._show.event(event)
