"""The queue that contenders stand in: entries under a prefix, in the order in which they were made.

A waiter follows only what it waits for, so that one departure wakes one waiter. Entries of one process wait for each
other without the store, so that a process has one watch for each queue, however many wait in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from attrs import field, frozen

from osdisco._connection import backoff
from osdisco._entries import TOMBSTONES, Entry, in_order
from osdisco._epoch import EPOCH_MAX
from osdisco._feed import Change, Feed
from osdisco._living import living
from osdisco._records import decode, encode, encode_readable
from osdisco._signal import Signal
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.coordination._calls import checked_info
from osdisco.coordination._handle import token_of
from osdisco.errors import ClosedError, DeniedError, LostError, OsdiscoError, RecordError, UnavailableError
from osdisco.session import Session

T = TypeVar("T")

log = logging.getLogger("osdisco")

_NO_TIME: Final = b'"since":null'


@frozen
class Contender:
    """One place in a queue.

    `since` is seconds since the epoch, by the owner's clock; None when the entry is not osdisco's, whose owner is then
    the end of its key. `holds` tells that it has what the others wait for, `shared` that it is a reader.
    """

    owner: str
    info: Mapping[str, Any]
    token: int
    since: float | None = None
    holds: bool = False
    shared: bool = False


@frozen
class EntryRecord:
    """What an entry holds. The epoch is its session's, so that others can tell its token."""

    owner: str
    since: float | None = None
    epoch: int = 0
    info: Mapping[str, Any] = field(factory=dict)


def contender(item: Item, *, holds: bool = False, shared: bool = False) -> Contender:
    """Read an entry; what another tool wrote there has no record of ours, and is shown by its key."""
    try:
        record = decode(item.value, EntryRecord)
    except RecordError:
        record = EntryRecord(item.key.rpartition("/")[2])
    return Contender(record.owner, record.info, token_of(record.epoch, item.created), record.since, holds, shared)


class Places:
    """Where entries of one kind and name are made. The first of `segments` is the kind, the second the name."""

    def __init__(
        self, client: Client, session: Session | None, *segments: str, mark: str = "", info: Mapping[str, Any]
    ) -> None:
        longest = f"{mark}{'0' * 32}"
        client._keys.join(TOMBSTONES, "revoke", *segments, longest, "0" * 32)  # refuses now what is too long for keys
        self.name: Final = segments[1]
        self.prefix: Final = client._keys.join(*segments[:2]) + "/"
        self._client = client
        self._session = session
        self._segments = segments
        self._mark = mark
        self._info = checked_info(info)
        if info:  # refuses now what others could not read
            encode_readable(EntryRecord(client.runtime.name, client.runtime.clock.wall(), EPOCH_MAX, self._info))
        self._records: dict[int, tuple[bytes, bytes]] = {}

    async def session(self) -> Session:
        """Return what the entries hang on."""
        return self._session or await self._client.shared_session()

    async def enqueue(self, queue: Queue | None = None) -> Entry:
        """Take a place, in a `queue` with a look at who is there if that can tell whose turn it is.

        Whoever fails or is cancelled from now on must abandon it.
        """
        session = await self.session()
        # An id of its own for every attempt, never the lease's: two locks on one session must exclude each other.
        number = self._mark + self._client.runtime.unique()
        client, prefix = self._client, "" if queue is None else self.prefix
        entry = Entry(client._connection, client._keys, session, *self._segments, number, queue=prefix)
        # Who comes behind others of this process must wait for them anyway: nothing that it saw now would count then.
        look = queue is not None and not queue.has_ours_in_the_way()
        await entry.create(self.record(session), within=client.options.timeout, look=look)
        return entry

    def record(self, session: Session) -> bytes:
        """Return what an entry of ours holds. Raises RecordError when the info is no JSON, or too large.

        Only the time differs from one to the next, so only that is written anew.
        """
        runtime = self._client.runtime
        head, tail = self._records.get(session.epoch) or self._record_around_time(session.epoch)
        return b"%b%r%b" % (head, runtime.clock.wall(), tail)

    def _record_around_time(self, epoch: int) -> tuple[bytes, bytes]:
        whole = encode(EntryRecord(self._client.runtime.name, None, epoch, self._info))
        head, _, tail = whole.partition(_NO_TIME)  # in a string its quotes would be escaped, so this is the field
        self._records[epoch] = head + _NO_TIME[:-4], tail
        return self._records[epoch]


class Queue:
    """One queue. `prefix` is the store's own and ends in `/`; `blocks` tells which of the entries before it must go."""

    def __init__(self, client: Client, prefix: str, blocks: Callable[[Item], bool] = lambda _: True) -> None:
        self._client = client
        self._connection = client._connection
        self._prefix: Final = prefix
        self._blocks = blocks

    async def entries(self) -> list[Item]:
        """Return all entries in order, foreign tools' too. Linearizable."""
        return in_order((await self._connection.scan(self._prefix)).items)

    async def ahead(self, entry: Entry) -> list[Item]:
        """Return what is before ours and in its way; none when it is our turn. Raises LostError when ours is gone.

        What was `seen` there in passing counts, too, once, if it shows ours: nothing comes before ours later.
        """
        seen, entry.seen = entry.seen, None
        queue = in_order(seen) if seen is not None and entry.is_in(seen) else await self.entries()
        entry.session.check()  # after the wait: what Jepsen found missing in etcd's own lock
        return [item for item in before(entry, queue) if self._blocks(item)]

    async def wait_for_turn(self, entry: Entry) -> None:
        """Wait until nothing is in the way of ours. An outage of the store is waited out.

        Raises:
            LostError: the session, or the place in the queue, was lost.
            DeniedError: the store no longer lets us look.
        """
        waits = Waits(self._client, self._prefix)
        async with entry.session.scope():
            while True:
                while (nearer := self._ours_before(entry)) is not None:  # before that is gone there is nothing to see
                    entry.seen = await nearer.follow()  # what was seen before the wait is over
                ahead = await bridged(self._client, lambda: self.ahead(entry))
                if not ahead:
                    return
                await waits.until_one_is_gone(ahead)

    def has_ours_in_the_way(self) -> bool:
        """Return whether this process has, or is making, any entry that would have to go before a new one's turn."""
        return any(self._blocks(other.as_made()) for other in living(self._connection).under(self._prefix))

    def _ours_before(self, entry: Entry) -> Entry | None:
        """Return the last of this process's own entries that must go before it can be the turn of this one."""
        others = living(self._connection).before(entry)
        return next((other for other in others if self._blocks(other.as_made())), None)


def before(entry: Entry, queue: Sequence[Item]) -> Sequence[Item]:
    """Return what is before an entry in its queue. Raises LostError when it is not in it."""
    for place, item in enumerate(queue):
        if item.key == entry.key and item.created == entry.created:
            return queue[:place]
    raise LostError("the place in the queue is gone: somebody removed it")


async def bridged(client: Client, look: Callable[[], Awaitable[T]]) -> T:
    """Look until the store can be reached."""
    failures = 0
    while True:
        try:
            return await look()
        except UnavailableError:
            await asyncio.sleep(backoff(client.runtime, failures))
            failures += 1


class Waits:
    """One waiter's waits for what is before it, each after a look at the queue."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._awaited: Item | None = None
        self._again = 0

    async def until_one_is_gone(self, ahead: Sequence[Item]) -> None:
        """Wait until one entry is gone without which it cannot be our turn; then it may still be another's."""
        self._again = self._again + 1 if self._awaited in ahead else 0
        if self._again:  # the watch is behind what we looked at
            await asyncio.sleep(backoff(self._client.runtime, self._again))
        ours = living(self._client._connection)
        for item in reversed(ahead):
            entry = ours.get(item.key)
            if entry is not None and entry.created == item.created:  # else it may still be made anew, behind ours
                self._awaited = item
                await entry.gone.wait()
                return
        self._await(ahead[-1])
        await until_gone(self._client, [ahead[-1]], within=self._prefix)

    async def until_any_is_gone(self, items: Sequence[Item], prefix: str) -> None:
        """Wait until any of several entries under `prefix`, others' or ours, is gone."""
        self._again = self._again + 1 if self._awaited in items else 0
        if self._again:
            await asyncio.sleep(backoff(self._client.runtime, self._again))
        self._await(items[0])
        await until_gone(self._client, items, within=prefix)

    def _await(self, item: Item) -> None:
        if item.lease is None and not self._again:
            log.warning("waiting for %a, which is not osdisco's and hangs on no lease: it ends by hand only", item.key)
        self._awaited = item


async def until_gone(client: Client, items: Sequence[Item], *, within: str | None = None) -> None:
    """Wait until one of the items is absent, or was made anew. Raises DeniedError, ClosedError.

    A second watch of a process under the prefix `within` is one of all of it, so that there are never more.
    """
    bell = _Bell()
    feed = client._feeds.subscribe(_target(client, items, within), bell)
    try:
        await bell.wait_for(lambda: _is_gone(feed, items))
    finally:
        client._feeds.leave(feed, bell)


def _is_gone(feed: Feed, items: Sequence[Item]) -> bool:
    if isinstance(feed.error, DeniedError | ClosedError):
        raise feed.error
    if feed.revision is None:
        return False
    seen = (feed.items.get(item.key) for item in items)
    return any(now is None or now.created != item.created for now, item in zip(seen, items, strict=True))


def _target(client: Client, items: Sequence[Item], within: str | None) -> str:
    """Return what to watch: the key, all of its queue, or all of its kind when the store takes no more watches."""
    target, feeds = items[0].key, client._feeds
    if within is not None and (len(items) > 1 or feeds.others_under(within, target)):
        target = within
    if target in feeds or len(feeds) < client.limits.watches_max:
        return target
    root = client._keys.root
    return root + target[len(root) :].partition("/")[0] + "/"


class _Bell(Signal):
    """What a feed rings."""

    def on_change(self, change: Change) -> None:
        self.fire()

    def on_trouble(self, error: OsdiscoError) -> None:
        self.fire()
