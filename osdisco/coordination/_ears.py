"""Telling listeners of leadership, each on a task of its own: a slow or failing one harms nobody else."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

from osdisco._tasks import Supervisor
from osdisco.coordination._term import Term
from osdisco.errors import ConfigError

log = logging.getLogger("osdisco")


class LeadershipListener:
    """What can be told; any object with one of these methods will do. They may be coroutines.

    A term that is over before its listener could be told of it is left out. A coroutine `on_leadership_acquired` that
    still runs when the leadership ends is cancelled.
    """

    def on_leadership_acquired(self) -> Any:
        """We lead. What acts on that must stop when told so: better is the body of `async with campaign()`."""

    def on_leadership_lost(self) -> Any:
        """We do not lead any more: we resigned, or lost it. Always after `on_leadership_acquired`."""


Listener = object
"""An object with methods of LeadershipListener, or a function of the Term that we lead, or None."""


class Ear:
    """One listener, what it was told last, and what is true now."""

    def __init__(self, supervisor: Supervisor, listener: Listener) -> None:
        names = ("on_leadership_acquired", "on_leadership_lost")
        self._acquired, self._lost = (getattr(listener, name, None) for name in names)
        self._function = listener if self._acquired is None and self._lost is None else None
        if self._acquired is None and self._lost is None and not callable(listener):
            raise ConfigError(f"{listener!r} has none of the methods of LeadershipListener and is no function")
        self._listener = listener
        self._supervisor = supervisor
        self._told: Term | None = None
        self._now: Term | None = None
        self._telling: asyncio.Task[None] | None = None
        self._acting: asyncio.Task[None] | None = None
        self._closed = False

    def tell(self, term: Term | None) -> None:
        """Say who leads now: the term if it is ours."""
        self._now = term
        if self._acting is not None and term is not self._told:
            self._acting.cancel()
        if term is not self._told and (self._telling is None or self._telling.done()):
            self._telling = self._supervisor.spawn(self._tell(), f"tell {self._listener!r}")

    def close(self) -> None:
        """Hear no more. What the listener is doing, perhaps this very call, comes to its end."""
        self._closed = True

    async def _tell(self) -> None:
        while self._told is not self._now and not self._closed:
            self._told = None if self._told is not None else self._now
            call = self._supervisor.spawn(self._call(self._told), f"listener {self._listener!r}")
            self._acting = call if self._told is not None else None
            await asyncio.wait([call])
            self._acting = None

    async def _call(self, term: Term | None) -> None:
        try:
            result = self._calling(term)
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("the listener %r failed; it is told of the next change all the same", self._listener)

    def _calling(self, term: Term | None) -> Any:
        if callable(self._function):
            return self._function(term)
        method = self._lost if term is None else self._acquired
        return method() if method is not None else None
