"""Head and journal as one term of leadership knows them, and the only way in which it writes.

Every write is guarded by the leadership and by head and journal being as they were known, so whatever arrives late, of
an earlier leader or of an attempt whose answer was lost, is refused as soon as either was written again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from osdisco._records import encode
from osdisco.backend import ABSENT, Condition, Item, Op, Put, Revision
from osdisco.client import Client
from osdisco.cluster._head import Address, FormatError, Head, Journal, Marks, flat
from osdisco.cluster._places import Places
from osdisco.coordination import Term
from osdisco.errors import RecordError

R = TypeVar("R")

log = logging.getLogger("osdisco")

GUARDS: Final = 3
"""Conditions of every write: of the leadership, the head and the journal."""


class Ledger:
    """What stands in the store. `known` is False until it was read, and again from a write until its answer.

    Attributes:
        head: the present one; None before the first, and in the place of one that nobody can read.
        garbage: blobs that no head refers to any more, with what the journal has marked.
    """

    def __init__(self, client: Client, places: Places, term: Term) -> None:
        self.known = False
        self.head: Head | None = None
        self.garbage: dict[Address, Marks] = {}
        self._journal = Journal()
        self._guards: dict[str, Condition] = {}
        self._connection = client._connection
        self._places = places
        self._term = term

    @property
    def seq(self) -> int:
        """The highest seq of any head that is known of."""
        marked = max((seq for _, seq in self.garbage.values()), default=0)
        return max(marked, self.head.seq if self.head else 0)

    async def read(self) -> None:
        """Read both anew. What was on its way, or in a head that somebody removed, is garbage from now on.

        Raises:
            FormatError: a newer osdisco has written them; they are not to be touched.
        """
        journal = await self._connection.get(self._places.journal)
        head = await self._connection.get(self._places.head)
        before = {blob.address: (blob.pieces, self.head.seq) for blob in self.head.blobs()} if self.head else {}
        self.head = _read(head, Head.parse)
        self._journal = _read(journal, Journal.parse) or Journal()
        self._guards = {self._places.journal: _unchanged(journal), self._places.head: _unchanged(head)}
        shown = {blob.address for blob in self.head.blobs()} if self.head else set()
        waiting = {**before, **flat(self._journal.garbage), **flat(self._journal.pending)}
        self.garbage = {address: marks for address, marks in waiting.items() if address not in shown}
        self.known = True

    async def write(
        self,
        ops: Sequence[Op] = (),
        *,
        pending: Mapping[Address, Marks] | None = None,
        garbage: Mapping[Address, Marks] | None = None,
        head: Head | None = None,
    ) -> None:
        """Apply ops, and with `garbage` write the journal, with `head` also the head, in one commit.

        Raises:
            LostError: the leadership is not ours any more. ConflictError: somebody else has written.
            RecordError: a head or a journal that is too large.
            UnavailableError, IndeterminateError, DeniedError: as for every commit. Read again before the next.
        """
        written: dict[str, Any] = {}
        if garbage is not None:
            written[self._places.journal] = self._journal.next(pending or {}, garbage)
        if head is not None:
            written[self._places.head] = head
        puts = [Put(key, encode(record)) for key, record in written.items()]
        self.known = False
        revisions = await self._term._commit_keys([*ops, *puts], self._guards)
        self._wrote(written, garbage, revisions)

    def _wrote(
        self, written: Mapping[str, Any], garbage: Mapping[Address, Marks] | None, revisions: Mapping[str, int]
    ) -> None:
        self._journal = written.get(self._places.journal, self._journal)
        self.head = written.get(self._places.head, self.head)
        self.garbage = self.garbage if garbage is None else dict(garbage)
        self._guards |= {key: Revision(revisions[key]) for key in written}
        self.known = True


def _unchanged(item: Item | None) -> Condition:
    return ABSENT if item is None else item.unchanged


def _read(item: Item | None, parse: Callable[[bytes], R]) -> R | None:
    """Return a record; None for none, and for what is none: that is written over."""
    if item is None:
        return None
    try:
        return parse(item.value)
    except FormatError:
        raise
    except RecordError as exc:
        log.error("%s holds what no mirror has written, and is written anew: %s", item.key, exc)
        return None
