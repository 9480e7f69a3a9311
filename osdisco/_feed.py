"""Feeds: one watch per target and process, folded into state and true differences, reopened for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Protocol

from attrs import field, frozen

from osdisco._connection import LASTING, Connection, backoff
from osdisco._tasks import cancel
from osdisco.backend import Batch, Item, Snapshot
from osdisco.errors import ClosedError, OsdiscoError, UnavailableError
from osdisco.metrics._catalog import WATCH_INTERRUPTIONS

log = logging.getLogger("osdisco")


@frozen
class Change:
    """A true difference: `deletes` (as they last were) went, then `puts` came. A key in both was made anew.

    `replaced` is what those puts overwrote that changed a key in place, so that old and new can be compared.
    `resync` tells that states in between may be missing, and is set on the first change, which holds what is there.
    """

    puts: Mapping[str, Item]
    deletes: Mapping[str, Item]
    revision: int
    resync: bool = False
    replaced: Mapping[str, Item] = field(factory=dict)


class Subscriber(Protocol):
    """Who is told by a feed."""

    def on_change(self, change: Change) -> None:
        """Take a difference; the first is everything there is."""

    def on_trouble(self, error: OsdiscoError) -> None:
        """Learn that the watch was interrupted; it is reopened, unless this is a ClosedError."""


class Feed:
    """The one watch of a target. Keys here are the store's own."""

    def __init__(self, connection: Connection, target: str) -> None:
        self.target = target
        self.items: dict[str, Item] = {}
        self.revision: int | None = None  # of the last frame; None before the first
        self.contact: float | None = None
        self.contact_before: float | None = None
        self.error: OsdiscoError | None = None
        self._connection = connection
        self._subscribers: dict[int, Subscriber] = {}
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, subscriber: Subscriber) -> None:
        """Begin to tell a subscriber; it is told at once what is known."""
        self._subscribers[id(subscriber)] = subscriber
        if self.revision is not None:
            subscriber.on_change(Change(dict(self.items), {}, self.revision, resync=True))
        if self._task is None:
            self._task = self._connection.supervisor.spawn(self._follow(), f"watch {self.target}")
            self._task.add_done_callback(self._ended)

    def unsubscribe(self, subscriber: Subscriber) -> bool:
        """Stop telling a subscriber; returns whether it was the last."""
        self._subscribers.pop(id(subscriber), None)
        return not self._subscribers

    async def aclose(self) -> None:
        """End the watch."""
        if self._task is not None:
            await cancel(self._task)

    def _ended(self, _: asyncio.Task[None]) -> None:
        """Who is still here would wait for ever: the client was closed under them."""
        self.error = ClosedError("the client is closed")
        for subscriber in list(self._subscribers.values()):
            subscriber.on_trouble(self.error)

    async def _follow(self) -> None:
        failures, now = 0, self._connection.runtime.clock.now
        while True:
            begun = now()
            try:
                frames = self._connection.backend.watch(self.target, after=self.revision)
                async with aclosing(frames):
                    async for frame in frames:
                        self._fold(frame)
                raise UnavailableError(f"the watch of {self.target} ended without a reason")
            except ClosedError:
                return
            except OsdiscoError as exc:
                self._trouble(exc)
            except Exception as exc:
                log.exception("the watch of %s failed in a way that its backend does not know", self.target)
                self._trouble(UnavailableError(f"the watch of {self.target} failed: {type(exc).__name__}"))
            failures = failures + 1 if now() - begun < LASTING else 0
            await asyncio.sleep(backoff(self._connection.runtime, failures))

    def _trouble(self, error: OsdiscoError) -> None:
        self.error = error
        self._connection.runtime.metrics.count(WATCH_INTERRUPTIONS)
        log.info("watch of %s interrupted, what is known stays: %s", self.target, error)
        for subscriber in list(self._subscribers.values()):
            subscriber.on_trouble(error)

    def _fold(self, frame: Snapshot | Batch) -> None:
        first = self.revision is None
        self.contact_before, self.contact = self.contact, self._connection.runtime.clock.now()
        self.error = None
        change = self._replace(frame) if isinstance(frame, Snapshot) else self._apply(frame)
        self.revision = frame.revision
        if change.puts or change.deletes or first:
            for subscriber in list(self._subscribers.values()):
                subscriber.on_change(change)

    def _replace(self, snapshot: Snapshot) -> Change:
        old, self.items = self.items, dict(snapshot.items)
        if not old:
            return Change(snapshot.items, {}, snapshot.revision, resync=True)
        puts = {key: item for key, item in self.items.items() if (was := old.get(key)) is None or _differs(was, item)}
        deletes = {
            key: was for key, was in old.items() if (item := self.items.get(key)) is None or item.created != was.created
        }
        replaced = {key: old[key] for key in puts if key in old and key not in deletes}
        return Change(puts, deletes, snapshot.revision, resync=True, replaced=replaced)

    def _apply(self, batch: Batch) -> Change:
        deletes = {key: self.items.pop(key) for key in batch.deletes if key in self.items}
        puts: dict[str, Item] = {}
        replaced: dict[str, Item] = {}
        for item in batch.puts:
            if (was := self.items.get(item.key)) is not None:
                if not _differs(was, item):
                    continue
                (replaced if was.created == item.created else deletes)[item.key] = was
            self.items[item.key] = puts[item.key] = item
        return Change(puts, deletes, batch.revision, replaced=replaced)


def _differs(was: Item, item: Item) -> bool:
    return was.revision != item.revision or was.lease != item.lease or was.created != item.created


class Feeds:
    """The feeds of one connection: one per target, as long as somebody looks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._feeds: dict[str, Feed] = {}
        self._families: dict[str, set[str]] = {}  # targets by the prefix that they are right under, or are

    def __len__(self) -> int:
        return len(self._feeds)

    def __contains__(self, target: str) -> bool:
        return target in self._feeds

    def others_under(self, prefix: str, key: str) -> bool:
        """Return whether the prefix, or any key right under it but this one, is followed."""
        family = self._families.get(prefix, set())
        return len(family) > (key in family)

    def subscribe(self, target: str, subscriber: Subscriber) -> Feed:
        """Join the feed of a target, opening its watch if there is none."""
        self._connection.check_open()
        feed = self._feeds.get(target)
        if feed is None:
            feed = self._feeds[target] = Feed(self._connection, target)
            self._families.setdefault(_family(target), set()).add(target)
        feed.subscribe(subscriber)
        return feed

    async def unsubscribe(self, feed: Feed, subscriber: Subscriber) -> None:
        """Leave a feed; the last one to leave closes its watch."""
        if feed.unsubscribe(subscriber) and self._feeds.get(feed.target) is feed:
            self._forget(feed.target)
            await feed.aclose()

    def leave(self, feed: Feed, subscriber: Subscriber) -> None:
        """Leave a feed without waiting until its watch is closed, for those who must go on at once."""
        if feed.unsubscribe(subscriber) and self._feeds.get(feed.target) is feed:
            self._forget(feed.target)
            self._connection.finishing.spawn(feed.aclose(), f"close the watch of {feed.target}")

    def _forget(self, target: str) -> None:
        del self._feeds[target]
        family = self._families[_family(target)]
        family.discard(target)
        if not family:
            del self._families[_family(target)]


def _family(target: str) -> str:
    return target[: target.rfind("/") + 1]


def merge(changes: Iterable[Change]) -> Change:
    """Fold changes into one true difference: what was there before the first, against what is there after the last."""
    before: dict[str, Item | None] = {}
    after: dict[str, Item | None] = {}
    revision = 0
    for change in changes:
        for key in change.deletes.keys() | change.puts.keys():
            before.setdefault(key, change.deletes.get(key) or change.replaced.get(key))
            after[key] = change.puts.get(key)
        revision = change.revision
    puts: dict[str, Item] = {}
    deletes: dict[str, Item] = {}
    replaced: dict[str, Item] = {}
    for key, was in before.items():
        now = after[key]
        if now is not None:
            puts[key] = now
        if was is not None:
            (replaced if now is not None and now.created == was.created else deletes)[key] = was
    return Change(puts, deletes, revision, resync=True, replaced=replaced)
