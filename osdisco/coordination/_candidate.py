"""One attempt to lead: from the entry in the queue to `leader`, or away without a trace.

The rules are those of the model-checked recipe; each comment here names the fault it prevents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from osdisco._connection import backoff
from osdisco._entries import Entry
from osdisco._feed import Change
from osdisco._records import encode
from osdisco._signal import Signal
from osdisco.backend import ABSENT, Condition, Delete, Item, Op, Put, Revision
from osdisco.client import Client
from osdisco.coordination._board import Board, Candidacy, Leadership
from osdisco.coordination._calls import NO_LEASE, in_client
from osdisco.errors import (
    ClosedError,
    ConflictError,
    DeniedError,
    IndeterminateError,
    LeaseExpiredError,
    LostError,
    OsdiscoError,
    UnavailableError,
)
from osdisco.session import Session


class Sight(Signal):
    """The one watch of an election's keys in this process, as one candidate looks at it."""

    def __init__(self, client: Client, board: Board) -> None:
        super().__init__()
        self._feeds = client._feeds
        self.feed: Final = client._feeds.subscribe(board.prefix, self)

    def on_change(self, change: Change) -> None:
        """Look again."""
        self.fire()

    def on_trouble(self, error: OsdiscoError) -> None:
        """Look again: there may be nothing to wait for any more."""
        self.fire()

    async def aclose(self) -> None:
        """Look no more."""
        await self._feeds.unsubscribe(self.feed, self)


class Tenure(Entry):
    """`leader` while it names one entry; it ends together with what was proclaimed."""

    def __init__(self, client: Client, board: Board, session: Session, entry: str, created: int) -> None:
        super().__init__(client._connection, client._keys, session, "election", board.name, "leader")
        self.said: Final = board.said(entry)
        self.created = created
        self.heir: Item | None = None  # the entry of the candidate that it is handed to
        self._board = board

    def _last_words(self) -> tuple[Sequence[Op], Mapping[str, Condition]]:
        ops: list[Op] = [Delete(self.key), Delete(self.said)]
        expect: dict[str, Condition] = {self.key: Revision(self.created)}
        if self.heir is not None:
            ops.append(Put(self._board.heir, self.heir.key.removeprefix(self._board.queue).encode()))
            expect[self.heir.key] = self.heir.unchanged  # nobody would ever lead if the heir had left
        return ops, expect

    async def _end(self) -> bool:
        stood = await super()._end()
        if not stood and self.heir is None and not self.session.lost.is_set():  # an operator took `leader` alone
            with suppress(OsdiscoError):  # else it goes with the session
                await self._connection.commit((Delete(self.said),), {})
        return stood

    async def surely_stands(self) -> bool:
        """Ask the store until it answers, or the session's end does."""
        failures = 0
        while not self.session.lost.is_set():
            try:
                return await self.stands()
            except OsdiscoError:
                await asyncio.sleep(backoff(self._connection.runtime, failures))
                failures += 1
        return False


class Candidate:
    """One entry of its own, never the session's: two candidates of one session must exclude each other."""

    def __init__(self, client: Client, board: Board, session: Session, record: Candidacy) -> None:
        self.id: Final = client.runtime.unique()
        self._client = client
        self._connection = client._connection
        self._board = board
        self._session = session
        self._record = record
        self._entry = Entry(client._connection, client._keys, session, "election", board.name, "q", self.id)

    async def elect(self, sight: Sight) -> Tenure | None:
        """Stand in the queue until we lead; None when somebody removed our entry. Outages are waited out.

        Raises:
            LostError: the session was lost.
            DeniedError: the store no longer lets us look, or lead.
            UnavailableError, IndeterminateError: the entry was not made to begin with.
        """
        await self._entry.create(encode(self._record), within=self._client.options.timeout)
        async with self._session.scope():
            leader = await self._wait_to_lead(sight)
        return None if leader is None else self._tenure(leader)

    def _tenure(self, leader: Item) -> Tenure:
        self._entry.depart()
        return Tenure(self._client, self._board, self._session, self.id, leader.created)

    async def _wait_to_lead(self, sight: Sight) -> Item | None:
        seen, again = 0, 0
        while True:
            await sight.wait_for(lambda: self._is_concerned(sight))
            leader = sight.feed.items.get(self._board.leader)
            if self._board.leads(leader, self.id):
                return leader
            if self._entry.is_missed_in(sight.feed):
                return await self._ours()  # a promotion whose answer was lost may have taken it away
            if (leader := await self._promote()) is not None:
                return leader
            again = again + 1 if sight.feed.revision == seen else 0
            seen = sight.feed.revision or 0
            await asyncio.sleep(backoff(self._connection.runtime, again))  # the watch is behind, or the store away

    def _is_concerned(self, sight: Sight) -> bool:
        """Return whether there is something to do for us."""
        feed = sight.feed
        if isinstance(feed.error, DeniedError | ClosedError):
            raise feed.error
        if feed.revision is None:
            return False
        leader = feed.items.get(self._board.leader)
        if self._board.leads(leader, self.id) or self._entry.is_missed_in(feed):
            return True
        return leader is None and self._is_next(feed.items)

    def _is_next(self, items: Mapping[str, Item]) -> bool:
        return self._entry.key in items and self._board.in_order(items)[:1] == [items[self._entry.key]]

    async def _promote(self) -> Item | None:
        """Take the lead if nobody has it. To be wrong about who is next does no harm: `leader` is made only once."""
        self._session.check()  # after the wait: what Jepsen found missing in etcd's own recipes
        runtime = self._connection.runtime
        record = Leadership(self.id, self._record.id, runtime.clock.wall(), self._session.epoch, self._record.info)
        return await in_client(self._client, self._commit_promotion(encode(record)), f"promote {self.id}")

    async def _commit_promotion(self, value: bytes) -> Item | None:
        board, entry, lease = self._board, self._entry, self._session.id
        last, expect = entry._last_words()
        ops = (Put(board.leader, value, lease), *last, Delete(board.heir))
        guards = {**expect, entry.key: Revision(entry.created), board.leader: ABSENT}
        try:
            created = (await self._connection.attempt(ops, guards))[board.leader]
        except LeaseExpiredError as exc:
            self._session._lose(NO_LEASE)
            raise LostError(NO_LEASE) from exc
        except IndeterminateError:
            return await self._ours()
        except (ConflictError, UnavailableError):
            return None
        return Item(board.leader, value, created, created, lease)

    async def _ours(self, bridged: type[OsdiscoError] = UnavailableError) -> Item | None:
        """Ask the store, until it answers, whether `leader` names us; to be of our lease is not enough."""
        failures = 0
        while True:
            try:
                leader = await self._connection.get(self._board.leader)
                return leader if self._board.leads(leader, self.id) else None
            except bridged:
                self._session.check()
                await asyncio.sleep(backoff(self._connection.runtime, failures))
                failures += 1

    def withdraw(self) -> None:
        """Give up without waiting: what a promotion under way may still make of the entry is undone, too."""
        self._entry.abandon()
        self._session.keep_until_ended(self._withdraw(), f"withdraw {self.id}")

    async def _withdraw(self) -> None:
        await self._entry.gone.wait()  # only now can no promotion apply any more
        if self._session.lost.is_set():
            return
        leader = await self._ours(OsdiscoError)
        if leader is not None:
            await self._tenure(leader).end()
