"""The queue that contenders stand in: entries under a prefix, in the order in which they were made.

A waiter follows only what it waits for, so that one departure wakes one waiter. Entries of one process wait for each
other without the store, so that a process has one watch for each queue, however many wait in it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from osdisco._connection import backoff
from osdisco._entries import Entry, in_order, living
from osdisco._feed import Change, Feed
from osdisco._signal import Signal
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.errors import DeniedError, LostError, OsdiscoError, UnavailableError


class Queue:
    """One queue. `prefix` is the store's own and ends in `/`."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._connection = client._connection
        self._prefix: Final = prefix

    async def entries(self) -> list[Item]:
        """Return all entries in order, foreign tools' too. Linearizable."""
        return in_order((await self._connection.scan(self._prefix)).items)

    async def ahead(self, entry: Entry) -> list[Item]:
        """Return the entries before ours; none when it is our turn. Raises LostError when ours is gone."""
        queue = await self.entries()
        entry.session.check()  # after the wait: what Jepsen found missing in etcd's own lock
        for place, item in enumerate(queue):
            if item.key == entry.key and item.created == entry.created:
                return queue[:place]
        raise LostError("the place in the queue is gone: somebody removed it")

    async def wait_for_turn(self, entry: Entry) -> None:
        """Wait until no entry is before ours. An outage of the store is waited out.

        Raises:
            LostError: the session, or the place in the queue, was lost.
            DeniedError: the store no longer lets us look.
        """
        before, again = None, 0
        async with entry.session.scope():
            while ahead := await self._look(entry):
                again = again + 1 if ahead[-1] == before else 0
                if again:  # the watch is behind what we looked at
                    await asyncio.sleep(backoff(self._connection.runtime, again))
                before = ahead[-1]
                await self._follow(ahead)

    async def _look(self, entry: Entry) -> list[Item]:
        failures = 0
        while True:
            try:
                return await self.ahead(entry)
            except UnavailableError:
                await asyncio.sleep(backoff(self._connection.runtime, failures))
                failures += 1

    async def _follow(self, ahead: list[Item]) -> None:
        """Wait until one entry is gone without which it cannot be our turn; then it may still be another's."""
        ours = living(self._connection)
        for item in reversed(ahead):
            if (entry := ours.get(item.key)) is not None:
                await entry.gone.wait()
                return
        await until_gone(self._client, ahead[-1].key, ahead[-1].created)


async def until_gone(client: Client, key: str, created: int) -> None:
    """Wait until a key that was made at `created` is absent, or was made anew. Raises DeniedError."""
    bell = _Bell()
    feed = client._feeds.subscribe(_target(client, key), bell)
    try:
        await bell.wait_for(lambda: _is_gone(feed, key, created))
    finally:
        await client._feeds.unsubscribe(feed, bell)


def _is_gone(feed: Feed, key: str, created: int) -> bool:
    if isinstance(feed.error, DeniedError):
        raise feed.error
    item = feed.items.get(key)
    return feed.revision is not None and (item is None or item.created != created)


def _target(client: Client, key: str) -> str:
    """Return what to watch: the key, or all keys of its kind when the store takes no more watches."""
    if len(client._feeds) < client.limits.watches_max:
        return key
    root = client._keys.root
    return root + key[len(root) :].partition("/")[0] + "/"


class _Bell(Signal):
    """What a feed rings."""

    def on_change(self, change: Change) -> None:
        self.fire()

    def on_trouble(self, error: OsdiscoError) -> None:
        self.fire()
