"""Revocation: anybody may ask a holder to give back what it holds, and takes it away when the grace is over.

A request stands beside the queue, under `revoke/` and the path of the entry that it means, leased to whoever asks. The
old holder may believe in its lock until its watch tells it: then only tokens and guarded commits protect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from sys import float_info
from typing import Final

from attrs import frozen

from osdisco._entries import Entry
from osdisco._feed import Change, Feed
from osdisco._loss import Revocation
from osdisco._records import decode, encode
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.coordination._calls import delete_as_it_is, in_client
from osdisco.coordination._contend import until_gone
from osdisco.errors import ConfigError, InvalidNameError, OsdiscoError, RecordError
from osdisco.names import unescape
from osdisco.session import Session

REVOKE: Final = "revoke"


@frozen
class RevocationRecord:
    """What a request holds."""

    owner: str
    grace: float
    since: float


class Requests:
    """What is asked of one holder. All holders of a process share one watch, opened when the first one looks."""

    def __init__(self, client: Client, entries: Sequence[Entry]) -> None:
        self.revoked: Final = Revocation()
        self._client = client
        self._entries = entries
        self._meant: set[str] = set()
        self._feed: Feed | None = None

    def follow(self) -> None:
        """Begin to listen."""
        if self._feed is None and not self._client._connection.closed:
            root = self._client._keys.root
            folder = f"{root}{REVOKE}/"
            self._meant = {folder + entry.key[len(root) :] for entry in self._entries}
            self._feed = self._client._feeds.subscribe(folder, self)

    def forget(self) -> None:
        """Listen no more."""
        feed, self._feed = self._feed, None
        if feed is not None:
            self._client._feeds.leave(feed, self)

    def on_change(self, change: Change) -> None:
        """Take a difference from the feed."""
        for key, item in change.puts.items():
            if key.rpartition("/")[0] in self._meant:
                self.revoked.set(_reason(item))

    def on_trouble(self, error: OsdiscoError) -> None:
        """A request that cannot be seen is followed by the removal, which is noticed otherwise."""


def _reason(item: Item) -> str:
    try:
        record = decode(item.value, RevocationRecord)
    except RecordError:
        return "somebody wants it back"
    return f"{record.owner} wants it back, and takes it away after {record.grace:g} s"


def checked_grace(grace: float) -> float:
    """Return seconds. Raises ConfigError unless they are a finite number, zero or more."""
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= float_info.max:
        raise ConfigError("a grace is a number of seconds, zero or more")
    return float(grace)


async def revoke(client: Client, session: Session, item: Item, grace: float) -> None:
    """Ask the holder of an entry to give it back, and take it away when the grace is over; gone when this returns."""
    if grace:
        async with _asked(client, session, item, grace):
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await until_gone(client, [item])
    await in_client(client, delete_as_it_is(client, item), f"revoke {item.key}")


@asynccontextmanager
async def _asked(client: Client, session: Session, item: Item, grace: float) -> AsyncGenerator[None, None]:
    """Let a request stand for the time of a block. Foreign entries, whose holders would not see it, have none."""
    try:
        path = [unescape(segment) for segment in item.key[len(client._keys.root) :].split("/")]
        request = Entry(client._connection, client._keys, session, REVOKE, *path, client.runtime.unique())
    except InvalidNameError:
        yield
        return
    runtime = client.runtime
    record = encode(RevocationRecord(runtime.name, grace, runtime.clock.wall()))
    try:
        await request.create(record, within=client.options.timeout)
        yield
    finally:
        request.abandon()
