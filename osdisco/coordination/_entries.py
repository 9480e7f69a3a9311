"""Entries of contenders: created, ended and abandoned so that no fault leaves one behind.

An entry is written once, and everything about it is guarded by its creation revision, because `HeldBy` does not
identify a tenure. The rules are those of the model-checked recipes; each comment here names the fault it prevents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from osdisco._connection import Connection, backoff
from osdisco._keys import Keyspace
from osdisco.backend import ABSENT, Condition, Delete, Item, Op, Put, Revision
from osdisco.errors import ConflictError, IndeterminateError, LeaseExpiredError, LostError, OsdiscoError
from osdisco.session import Session

TOMBSTONES: Final = "x"


class Entry:
    """One leased key of one attempt. `created` is 0 until it is known to stand."""

    def __init__(self, connection: Connection, keys: Keyspace, session: Session, *segments: str) -> None:
        self.key: Final = keys.join(*segments)
        self.session: Final = session
        self.created = 0
        self._tombstone = keys.join(TOMBSTONES, *segments)
        self._connection = connection
        self._unaccounted = 0  # creates whose outcome is unknown: they may still apply
        self._creating: asyncio.Task[None] | None = None
        self._ended = False

    async def create(self, info: bytes) -> None:
        """Put the entry into the store.

        The mutation runs in a task of the client, so that cancelling the caller never cuts it on the wire; whoever is
        cancelled or fails leaves the removal behind as a task that the session waits for.

        Raises:
            LostError: the session was lost.
        """
        self.session.check()
        self._creating = self._connection.finishing.spawn(self._create(info), f"create {self.key}")
        try:
            await asyncio.shield(self._creating)
        except BaseException:
            self.abandon()
            raise

    async def _create(self, info: bytes) -> None:
        put = (Put(self.key, info, self.session.id),)
        expect: Mapping[str, Condition] = {self.key: ABSENT, self._tombstone: ABSENT}
        failures = 0
        while not self._ended:
            self.session.check()
            try:
                self.created = (await self._connection.commit(put, expect))[self.key]
                return
            except LeaseExpiredError as exc:
                raise LostError("the store no longer knows the session's lease") from exc
            except IndeterminateError:
                self._unaccounted += 1
            except ConflictError:
                pass  # our own earlier attempt came through, or the entry was ended meanwhile
            if await self._find():
                return
            await asyncio.sleep(backoff(self._connection.runtime, failures))
            failures += 1
        raise LostError("the entry was given up")

    async def _find(self) -> bool:
        """Look whether an attempt with a lost answer made the entry."""
        item = await self._connection.get(self.key)
        if item is None or item.lease != self.session.id:
            return False
        self.created = item.created
        self._unaccounted -= 1
        return True

    def abandon(self) -> None:
        """Give the entry up without waiting: it is removed as soon as its creation is decided."""
        if not self._ended:
            self._ended = True  # stops a create that is being repeated
            self.session.keep_until_ended(self._abandon(), f"abandon {self.key}")

    async def _abandon(self) -> None:
        if self._creating is not None and not self._creating.done():
            await asyncio.wait([self._creating])
        await self.end()

    async def end(self, ops: Sequence[Op] = (), *, patient: bool = True) -> bool:
        """Remove the entry, with other ops in the same commit; returns whether it still stood.

        Repeats until the outcome is definite or the session's end takes care of it.
        """
        self._ended = True
        if not self.created and self._unaccounted <= 0:
            return False  # it never came to be, and no late answer can make it
        failures, unknown = 0, False
        while not self.session.lost.is_set():
            commit, expect = self._last_words(ops)
            try:
                await self._connection.commit(commit, expect)
                return True
            except ConflictError:
                return unknown or self._unaccounted > 0
            except LeaseExpiredError:
                return False
            except IndeterminateError:
                unknown = True
            except OsdiscoError:
                if not patient:
                    raise
            await asyncio.sleep(backoff(self._connection.runtime, failures))
            failures += 1
        return False

    def _last_words(self, ops: Sequence[Op]) -> tuple[Sequence[Op], Mapping[str, Condition]]:
        if self.created and self._unaccounted <= 0:
            return (Delete(self.key), *ops), {self.key: Revision(self.created)}
        # A create that is still under way would come after the removal and block everybody: the tombstone refuses it.
        mark = Put(self._tombstone, b"", self.session.id)
        return (mark, Delete(self.key), *ops), {self._tombstone: ABSENT}


def in_order(items: Mapping[str, Item]) -> list[Item]:
    """Return entries in the order of the queue: the one that etcd's own tools use."""
    return sorted(items.values(), key=lambda item: (item.created, item.key))
