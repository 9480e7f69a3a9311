"""Following a target: what views and tables have in common. Losing the store takes nothing away; it is told how old."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Final, Self

from osdisco._connection import Connection
from osdisco._feed import Change, Feed, Feeds
from osdisco._signal import Signal
from osdisco.backend import WATCH_SILENCE
from osdisco.errors import ClosedError, DeniedError, OsdiscoError, TimedOutError, UnavailableError

log = logging.getLogger("osdisco")

Take = Callable[[Change, bool], None]
"""Takes a change, in the store's own keys, and whether it is the first since the start: that one holds everything."""


class Follower:
    """Follows a target, survives outages of the store, and hands every change to `take`. Enter, await or start it.

    Args:
        trouble: told whenever the watch is interrupted, at last by ClosedError.
    """

    def __init__(
        self,
        feeds: Feeds,
        connection: Connection,
        target: str,
        take: Take,
        trouble: Callable[[OsdiscoError], None] = lambda error: None,
    ) -> None:
        self._feeds: Final = feeds
        self._connection: Final = connection
        self._target: Final = target
        self._take: Final = take
        self._trouble: Final = trouble
        self._feed: Feed | None = None
        self._known = False
        self._seen: float | None = None  # when it was closed
        self._signal: Final = Signal()

    @property
    def known(self) -> bool:
        """Whether the store was seen at all; before that there is nothing because nothing is known."""
        return self._known

    @property
    def revision(self) -> int:
        """The revision of the state shown; 0 before anything is known."""
        return 0 if self._feed is None or self._feed.revision is None else self._feed.revision

    @property
    def age(self) -> float:
        """Seconds since the store last spoke on this watch; infinite before it ever did."""
        contact = self._feed.contact if self._feed else None
        return float("inf") if contact is None else self._connection.runtime.clock.now() - contact

    @property
    def seen(self) -> float | None:
        """When the store last spoke on this watch, in seconds since the epoch; None before it ever did."""
        return self._wall(self._feed.contact) if self._feed else self._seen

    @property
    def seen_before(self) -> float | None:
        """The same, without the frame that is being taken: what it shows to be gone was last known then."""
        return self._wall(self._feed.contact_before) if self._feed else self._seen

    def _wall(self, at: float | None) -> float | None:
        clock = self._connection.runtime.clock
        return None if at is None else clock.wall() - (clock.now() - at)

    @property
    def error(self) -> OsdiscoError | None:
        """What interrupted the watch last; None while it runs."""
        return self._feed.error if self._feed else None

    @property
    def stale(self) -> bool:
        """Whether the store may hold something else by now: the watch is interrupted or silent for too long."""
        return self._feed is None or self.error is not None or self.age > WATCH_SILENCE

    def shows(self, key: str) -> bool:
        """Return whether one of the store's own keys is there, as far as this watch knows."""
        return self._feed is not None and key in self._feed.items

    def start(self) -> None:
        """Begin without waiting for the store: nothing is known, and all is stale, until it is reached."""
        if self._feed is None:
            self._known = False
            self._feed = self._feeds.subscribe(self._target, self)

    async def aclose(self) -> None:
        """Stop following. What was shown stays readable, and stale."""
        if (feed := self._feed) is not None:
            self._seen = self.seen
            self._feed = None
            self._signal.fire()
            await self._feeds.unsubscribe(feed, self)

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> Self:
        """Start, and wait for the first state as long as one operation may take."""
        self.start()
        try:
            await self.wait_known()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def wait_known(self) -> None:
        """Wait until the store was seen, as long as one operation may take.

        Raises:
            UnavailableError: it was not, or what else kept it from being seen. DeniedError, ClosedError: at once.
        """
        try:
            await self._wait(
                lambda: self._known or isinstance(self.error, DeniedError), self._connection.options.timeout
            )
        except TimedOutError:
            raise self.error or UnavailableError(f"the store did not show {self._target} in time") from None
        if not self._known and self.error is not None:
            raise self.error

    async def _wait(self, done: Callable[[], object], timeout: float | None) -> None:
        def closed_or_done() -> object:
            if self._feed is None or isinstance(self.error, ClosedError):
                raise ClosedError(f"the view of {self._target} is closed")
            return done()

        try:
            await self._signal.wait_for(closed_or_done, timeout)
        except TimeoutError:
            raise TimedOutError(f"nothing fitting came under {self._target} within {timeout} s") from None

    def on_change(self, change: Change) -> None:
        """Take a difference from the feed, which others follow, too: a mistake in handling it is not theirs."""
        first, self._known = not self._known, True
        try:
            self._take(change, first)
        except Exception:
            log.exception("a change of %s could not be taken; what follows is", self._target)
        self._signal.fire()

    def on_trouble(self, error: OsdiscoError) -> None:
        """Learn that the feed was interrupted."""
        self._trouble(error)
        self._signal.fire()
