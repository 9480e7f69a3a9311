"""A term of leadership."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from osdisco._feed import Change, Feed
from osdisco._records import encode_readable
from osdisco.backend import ABSENT, HeldBy, Item, Put, Revision
from osdisco.client import Client
from osdisco.coordination._board import Board, Said
from osdisco.coordination._calls import NO_LEASE, checked_info
from osdisco.coordination._candidate import Tenure
from osdisco.coordination._handle import Handle
from osdisco.errors import (
    ConflictError,
    CoordinationError,
    IndeterminateError,
    LeaseExpiredError,
    LostError,
    OsdiscoError,
)


class Term(Handle):
    """Leadership that is held. Entered with `async with`, the body is cancelled before the store can give it away.

    `token` is higher than that of every earlier term, `lost` says whether and why it was lost, and `over` is set when
    it was lost or given up.
    """

    def __init__(self, client: Client, board: Board, tenure: Tenure, on_turn: Callable[[], None]) -> None:
        self.over: Final = asyncio.Event()
        self._tenure = tenure
        self._board = board
        self._on_turn = on_turn
        self._has_said = False
        self._leaving = False
        self._feed: Feed | None = None
        super().__init__(client, f"the leadership of {board.name!a}", tenure)
        self._feed = client._feeds.subscribe(board.prefix, self)
        self._look()

    @property
    def leading(self) -> bool:
        """Whether it is still ours, as far as this process can know. No I/O."""
        try:
            self.check()
        except LostError:
            return False
        return True

    async def proclaim(self, info: Mapping[str, Any]) -> None:
        """Let observers see `info` instead of what was campaigned with.

        After an IndeterminateError it may still come to be seen, within this term, and later than what is proclaimed
        after it.

        Raises:
            LostError: the leadership is not ours any more; nothing was applied.
            RecordError: `info` is not JSON, or too large.
        """
        self.check()
        value = encode_readable(Said(checked_info(info)))
        try:
            await self._proclaim(value)
        except ConflictError:
            await self._raise_if_gone()
            self._has_said = not self._has_said  # an answer was lost, or somebody deleted the key
            await self._proclaim(value)

    async def _proclaim(self, value: bytes) -> None:
        key, lease = self._tenure.said, self._tenure.session.id
        guards = {self._tenure.key: Revision(self._tenure.created), key: HeldBy(lease) if self._has_said else ABSENT}
        try:
            await self._client._connection.commit([Put(key, value, lease)], guards)
        except LeaseExpiredError as exc:
            self._tenure.session._lose(NO_LEASE)
            raise LostError(NO_LEASE) from exc
        self._has_said = True

    async def resign(self) -> None:
        """Give the leadership up; calling it again waits for the same.

        Raises:
            LostError: it was not ours any more.
            IndeterminateError: the store did not confirm it in time; it goes on in the background, and the leadership
                ends with the session at the latest.
        """
        await self._give_up()

    async def transfer(self, candidate_id: str) -> None:
        """Give the leadership up to a candidate that waits for it.

        Raises:
            CoordinationError: no such candidate waits; the leadership is still ours.
            LostError: it was not ours any more.
            IndeterminateError: as for `resign`.
        """
        self.check()
        items = (await self._client._connection.scan(self._board.prefix)).items
        heirs = (item for item in self._board.in_order(items) if self._is_of(candidate_id, item))
        heir = next(heirs, None)
        if heir is None:
            raise CoordinationError(f"no candidate {candidate_id!a} waits for {self._what}; look again")
        self.check()
        handing = self._begin(self._transfer(candidate_id, heir))
        if not await handing.wait(self._client.options.timeout):
            raise IndeterminateError(f"handing over {self._what} is not confirmed; it is tried on")
        handing.task.result()
        self.lost.raise_if_set()

    def _is_of(self, candidate_id: str, item: Item) -> bool:
        record = self._board.candidacy(item)
        return record is not None and record.id == candidate_id

    async def _transfer(self, candidate_id: str, heir: Item) -> None:
        self._on_turn()
        self._tenure.heir = heir
        done = await self._tenure.end()
        if await self._tenure.surely_stands():
            self._tenure.heir = None
            if self._leaving:
                await self._end()
                raise CoordinationError(f"the candidate {candidate_id!a} has left; {self._what} is nobody's now")
            self._resume()
            raise CoordinationError(f"the candidate {candidate_id!a} has left; {self._what} is still ours")
        if not done:
            self._lose(self._tenure.session.lost.reason or "its entry in the store was gone when it was handed over")
        self._finish()

    async def _given_up(self) -> bool:
        self._leaving = True  # should a handover under way fail, nobody is there any more to lead
        return await super()._given_up()

    def _resume(self) -> None:
        self._ending = None
        self._forget = self._tenure.session.lost.call(self._lose)
        self._look()
        self._on_turn()

    async def _end(self) -> None:
        self._on_turn()  # who listens hears of it before anybody else can lead
        await super()._end()
        self._finish()

    def _lose(self, reason: str) -> None:
        super()._lose(reason)
        self._finish()

    def _finish(self) -> None:
        self.over.set()
        self._on_turn()
        feed, self._feed = self._feed, None
        if feed is not None:
            self._client._feeds.leave(feed, self)

    def on_change(self, change: Change) -> None:
        """Take a difference from the feed."""
        self._look()

    def on_trouble(self, error: OsdiscoError) -> None:
        """What cannot be watched is not lost by that: the session still is followed."""

    def _look(self) -> None:
        if self._ending is None and self._feed is not None and self._tenure.is_missed_in(self._feed):
            self._lose("`leader` in the store is gone: revoked, or removed by an operator")
