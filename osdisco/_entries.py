"""Entries: leased keys of one attempt each, made, replaced and removed so that no fault leaves one behind.

Places in queues and records of extensions are entries. One is written once, and everything about it is guarded by its
creation revision, because `HeldBy` does not identify a tenure. The rules are those of the model-checked recipes; each
comment here names the fault it prevents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Final

from attrs import evolve

from osdisco._connection import Connection, backoff
from osdisco._feed import Feed
from osdisco._keys import Keyspace
from osdisco._living import PLACE, living
from osdisco._signal import Once
from osdisco._tasks import Errand
from osdisco.backend import ABSENT, Condition, Delete, Item, Op, Put, Revision
from osdisco.errors import (
    ConflictError,
    IndeterminateError,
    LeaseExpiredError,
    LostError,
    OsdiscoError,
    UnavailableError,
)
from osdisco.session import Session

TOMBSTONES: Final = "x"

_NO_LEASE: Final = "the store no longer knows the session's lease"


class Entry:
    """One leased key. `created` is 0 until it is known to stand; `gone` is set when it is over, or seen to be.

    Of an entry in a `queue`, which is a prefix, `seen` may tell what stood there when it was made, and `left_behind`
    what stood there when it went: the commits tell that without another request.
    """

    def __init__(
        self, connection: Connection, keys: Keyspace, session: Session, *segments: str, queue: str = ""
    ) -> None:
        self.key: Final = keys.join(*segments)
        self.session: Final = session
        self.created = 0
        self.gone: Final = Once()
        self._tombstone = keys.join(TOMBSTONES, *segments)
        self._connection = connection
        self._living = living(connection)
        self._unaccounted = 0  # creates whose outcome is unknown: they may still apply
        self._creating: Errand[None] | None = None
        self._ended = False
        self._removed = False
        self._shown = False
        self.seen: Mapping[str, Item] | None = None
        self.left_behind: Mapping[str, Item] | None = None
        self._queue = queue
        self._also: Sequence[str] = ()
        self._followers = 0

    @property
    def may_still_come(self) -> bool:
        """Whether a create of it may still be under way."""
        return self._unaccounted > 0

    async def create(
        self, value: bytes, *, instead_of: Sequence[Entry] = (), within: float = inf, look: bool = False
    ) -> None:
        """Put the entry into the store, in one commit with the removal of the entries `instead_of`, for good.

        The mutation runs in a task of the client, so that cancelling the caller never cuts it on the wire; whoever is
        cancelled or fails leaves the removal behind as a task that the session waits for. While the outcome is unknown
        it is tried again, for `within` seconds.

        Raises:
            LostError: the session was lost.
            UnavailableError: it was not made.
            IndeterminateError: whether it was made stayed unknown; it is being removed.
        """
        self.session.check()
        self._living.add(self)
        ops: list[Op] = [Put(self.key, value, self.session.id)]
        expect: dict[str, Condition] = {self.key: ABSENT, self._tombstone: ABSENT}
        for entry in instead_of:
            last, held = entry._last_words()
            ops += (evolve(op, lease=self.session.id) if isinstance(op, Put) else op for op in last)
            expect |= held
        deadline = self._connection.runtime.clock.now() + within
        work = self._create(ops, expect, deadline, self._queue if look else "")
        self._creating = Errand(work, self._connection.finishing.spawn, f"create {self.key}")
        try:
            await self._creating.wait()
            self._creating.task.result()
            self._creating = None
        except BaseException:
            self.abandon()
            raise
        for entry in instead_of:
            entry.depart()

    async def _create(self, ops: Sequence[Op], expect: Mapping[str, Condition], deadline: float, look: str) -> None:
        failures = 0
        while not self._ended:
            self.session.check()
            try:
                if await self._attempt(ops, expect, look):
                    return
            except ConflictError:
                # Ours was made and removed again, or one that it replaces has its tombstone already. The removals hang
                # on no condition, and stay: another that it replaces may stand all the same.
                ops = [ops[0], *(op for op in ops if isinstance(op, Delete))]
                expect = {self.key: ABSENT, self._tombstone: ABSENT}
            except UnavailableError:
                if not self._unaccounted:  # proven: nothing of it can ever apply
                    raise
            if self._connection.runtime.clock.now() >= deadline:
                raise IndeterminateError("whether the entry was made stayed unknown; it is being removed")
            await asyncio.sleep(backoff(self._connection.runtime, failures))
            failures += 1
        raise LostError("the entry was given up")

    async def _attempt(self, ops: Sequence[Op], expect: Mapping[str, Condition], look: str) -> bool:
        try:
            revisions, self.seen = await self._connection.attempt_and_look(ops, expect, look)
            self._is_made(revisions[self.key])
            return True
        except LeaseExpiredError as exc:
            self.session._lose(_NO_LEASE)
            raise LostError(_NO_LEASE) from exc
        except IndeterminateError:
            self._unaccounted += 1
            return await self._find()
        except ConflictError:
            if await self._find():
                return True  # our own earlier attempt came through
            raise

    async def _find(self) -> bool:
        """Look whether an attempt with a lost answer made the entry."""
        item = await self._connection.get(self.key)
        if item is None or item.lease != self.session.id:
            return False
        self._is_made(item.created)
        self._unaccounted = max(self._unaccounted - 1, 0)
        return True

    def _is_made(self, created: int) -> None:
        self.created = created
        self._living.place(self)

    async def stands(self) -> bool:
        """Ask the store whether the entry is there as it was made."""
        item = await self._connection.get(self.key)
        if item is not None and item.created == self.created:
            return True
        self.depart()
        if self._unaccounted:  # a create that is still under way would make it again, for nobody
            self.abandon()
        return False

    def is_missed_in(self, feed: Feed) -> bool:
        """Return whether a feed shows that the entry is gone. One that never showed it may be older than it.

        Revisions alone do not tell: on Consul that of a snapshot falls when the last traces of what was deleted go.
        """
        stands = self.is_in(feed.items)
        self._shown = self._shown or stands or (feed.revision or 0) >= self.created
        return self._shown and not stands

    def is_in(self, items: Mapping[str, Item]) -> bool:
        """Return whether it is among items as it was made."""
        item = items.get(self.key)
        return item is not None and item.created == self.created

    def as_made(self) -> Item:
        """Return what stands in the store, by its creation; its value is left out."""
        return Item(self.key, b"", self.created, self.created, self.session.id)

    async def follow(self) -> Mapping[str, Item] | None:
        """Wait until it is gone; returns what it left behind, if that was seen, which may be older than who waits."""
        self._followers += 1
        try:
            await self.gone.wait()
        finally:
            self._followers -= 1
        return self.left_behind

    def depart(self) -> None:
        """Take the entry for gone: whoever waits for it in this process looks again."""
        self._living.remove(self)
        self.gone.set()

    def abandon(self) -> None:
        """Give the entry up without waiting: it is removed as soon as its creation is decided."""
        self._ended = True  # stops a create that is being repeated
        if not self._removed:  # also when whoever was ending it is cancelled
            self._removed = True
            self.session.keep_until_ended(self._abandon(), f"abandon {self.key}")

    async def _abandon(self) -> None:
        if self._creating is not None:
            await self._creating.wait()
        await self.end()

    async def leave(self) -> None:
        """Abandon the entry and wait until it is gone, at most as long as one operation may take."""
        self.abandon()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._connection.options.timeout):
                await self.gone.wait()

    async def end(self, also: Sequence[str] = ()) -> bool:
        """Remove the entry; returns whether it still stood, as far as that can be known.

        Repeats until the outcome is definite or the session's end takes care of it. The keys in `also`, which are
        others', are deleted with it, while it stands.
        """
        self._ended, self._also = True, also
        try:
            stood = await self._end()
            self._removed = True
            return stood
        finally:
            self.depart()

    async def _end(self) -> bool:
        if not self.created and not self._unaccounted:
            return False  # it never came to be, and no late answer can make it
        failures, unknown, stood = 0, False, self.created > 0
        look = self._look_for_the_next()
        while not self.session.lost.is_set():
            ops, expect = self._last_words()
            try:
                if stood:
                    ops, expect = [*ops, *map(Delete, self._also)], {self.key: Revision(self.created), **expect}
                _, self.left_behind = await self._connection.attempt_and_look(ops, expect, look)
                return stood or unknown
            except ConflictError:
                if not stood or not self._unaccounted:
                    return unknown
                stood = False  # it was removed; the tombstone is needed all the same
                continue
            except LeaseExpiredError:
                self.session._lose(_NO_LEASE)
                break
            except IndeterminateError:
                unknown = True
            except OsdiscoError:
                pass  # not applied: the store is away, or does not let us look
            look = ""  # going must not depend on it
            await asyncio.sleep(backoff(self._connection.runtime, failures))
            failures += 1
        return False

    def _look_for_the_next(self) -> str:
        """Return what to look at in going: somebody of this process waits for us, and then for none of it before us."""
        return self._queue if self._followers and next(self._living.before(self), None) is None else ""

    def _last_words(self) -> tuple[Sequence[Op], Mapping[str, Condition]]:
        if not self._unaccounted:
            return (Delete(self.key),), {}
        # A create that is still under way would come after the removal and block everybody: the tombstone refuses it.
        return (Put(self._tombstone, b"", self.session.id), Delete(self.key)), {self._tombstone: ABSENT}


def in_order(items: Mapping[str, Item]) -> list[Item]:
    """Return entries in the order of the queue: the one that etcd's own tools use."""
    return sorted(items.values(), key=PLACE)
