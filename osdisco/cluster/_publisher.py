"""Publishing a state, step by step, so that a writer that dies at any of them leaves nothing torn and nothing for good.

1. The journal names the blobs that are new. 2. Their pieces are put. 3. Head and journal are written in one commit: the
new blobs are shown, and what is no longer referred to is garbage, which is removed later. Readers know of step 3 alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from attrs import evolve

from osdisco.backend import Delete
from osdisco.client import Client
from osdisco.cluster._aside import aside
from osdisco.cluster._fetch import Fetcher
from osdisco.cluster._head import Address, Blob, Head, Marks
from osdisco.cluster._ledger import GUARDS, Ledger
from osdisco.cluster._pack import Pack, compress
from osdisco.cluster._places import Places, batches, runs
from osdisco.cluster.state import StateHeader
from osdisco.coordination import Term
from osdisco.errors import ClusterDocumentError

KEPT_SECONDS: Final = 60.0
"""For which garbage is kept, by the clock of the present leader: a slow reader may still fetch it."""
KEPT_HEADS: Final = 3
"""Heads of which no blob is garbage that is removed in time."""
WAITING_MAX: Final = 512
"""Blobs that the journal names at most: the oldest garbage is removed early, for the journal must fit into a key."""

Texts = Mapping[str, Sequence[Pack]]
"""A state in packs, by component."""


class Publisher:
    """What one term of leadership writes.

    Everything raises what `Ledger.write` does. Called again after that it reads what has become of it, and goes on.
    """

    def __init__(self, client: Client, places: Places, term: Term) -> None:
        self.ledger: Final = Ledger(client, places, term)
        self._places = places
        self._limits = client.limits
        self._now = client.runtime.clock.now
        self._fetcher = Fetcher(client._connection, places)
        self._sure: dict[Address, Blob] = {}  # in the store as they should be, seen or put by this term
        self._since: dict[Address, float] = {}  # when this term first knew it to be garbage

    async def publish(self, header: StateHeader, texts: Texts) -> bool:
        """Let the head show a state; returns False when it would fall back, and does nothing then.

        Raises:
            FormatError: a newer osdisco has written what is there.
        """
        await self.know()
        if not _may_follow(self.ledger.head, header):
            return False
        seq = self.ledger.seq + 1
        blobs, mended = await self._stored(texts)
        head = Head.of(header, seq, texts, blobs.values())
        if mended or not _shows_the_same(self.ledger.head, head):
            await self._point(head)
        return True

    def doubt(self) -> None:
        """Look anew at what is there before the next write: somebody may have damaged it by hand."""
        self.ledger.known = False

    async def know(self) -> None:
        """Read what is there, unless it is known. What was put before an answer was lost counts as not put."""
        if not self.ledger.known:
            self._sure.clear()
            await self.ledger.read()
            for address in self.ledger.garbage:
                self._since.setdefault(address, self._now())

    async def _stored(self, texts: Texts) -> tuple[dict[Address, Blob], bool]:
        """Put what is not there; returns all blobs of the state, and whether the head named some that were not there.

        Readers that missed them wait for another head.
        """
        wanted = {(component, pack.sha): pack for component, packs in texts.items() for pack in packs}
        shown = {blob.address: blob for blob in self.ledger.head.blobs()} if self.ledger.head else {}
        await self._verify([blob for address, blob in shown.items() if address in wanted and address not in self._sure])
        missing = {address: pack for address, pack in wanted.items() if address not in self._sure}
        size = sum(len(pack.text) for pack in missing.values())
        data = await aside(size, partial(_compressed, missing))
        new = {address: self._blob(address, data[address], missing[address]) for address in missing}
        if names := {address: blob for address, blob in new.items() if address not in shown}:
            await self._name(names, len(shown.keys() - wanted.keys()))
        await self._put(data)
        self._sure |= new
        return {address: self._sure[address] for address in wanted}, not shown.keys().isdisjoint(missing)

    async def _verify(self, blobs: Iterable[Blob]) -> None:
        """Look whether blobs that an earlier term has put are what its head says; those that are not are put anew."""
        for blob in blobs:
            try:
                await self._fetcher.one(blob)
            except ClusterDocumentError:
                continue
            self._sure[blob.address] = blob

    def _blob(self, address: Address, data: bytes, pack: Pack) -> Blob:
        pieces = len(self._places.cut(address, data))
        return Blob(*address, pieces, len(data), len(pack.text))

    async def _name(self, new: Mapping[Address, Blob], dropped: int) -> None:
        """Let the journal name what comes, before it comes."""
        await self._make_room(len(new) + dropped, new)
        garbage = dict(self.ledger.garbage)
        pending: dict[Address, Marks] = {}
        for address, blob in new.items():
            pieces, seq = garbage.pop(address, (0, 0))
            pending[address] = max(pieces, blob.pieces), seq
        await self.ledger.write(pending=pending, garbage=garbage)

    async def _put(self, data: Mapping[Address, bytes]) -> None:
        puts = [put for address, one in data.items() for put in self._places.cut(address, one)]
        for batch in batches(puts, self._limits.ops_max - GUARDS, self._limits.value_max):
            await self.ledger.write(batch)

    async def _point(self, head: Head) -> None:
        """Let the head be this one."""
        old, shown = self.ledger.head, {blob.address for blob in head.blobs()}
        garbage = {address: marks for address, marks in self.ledger.garbage.items() if address not in shown}
        if old is not None:
            garbage |= {blob.address: (blob.pieces, old.seq) for blob in old.blobs() if blob.address not in shown}
        await self.ledger.write(garbage=garbage, head=head)
        self._sure = {address: blob for address, blob in self._sure.items() if address in shown}
        now = self._now()
        self._since = {address: self._since.get(address, now) for address in garbage}

    async def collect(self) -> None:
        """Remove the garbage that no reader can be after any more."""
        await self.know()
        await self._remove([address for address in self.ledger.garbage if self._is_due(address)])

    def _is_due(self, address: Address) -> bool:
        _, seq = self.ledger.garbage[address]
        if seq == 0:  # no head ever referred to it
            return True
        old = self._now() - self._since.setdefault(address, self._now()) >= KEPT_SECONDS
        return old and self.ledger.seq - seq >= KEPT_HEADS

    async def _make_room(self, more: int, spared: Mapping[Address, Blob]) -> None:
        waiting = [address for address in self.ledger.garbage if address not in spared]
        waiting.sort(key=lambda address: (self.ledger.garbage[address][1], self._since.get(address, 0.0)))
        await self._remove(waiting[: max(0, len(waiting) + more - WAITING_MAX)])

    async def _remove(self, addresses: Iterable[Address]) -> None:
        """Remove blobs, each from the journal in the same commit as its last piece."""
        keys = [(key, address) for address in addresses for key in self._keys(address)]
        for run in runs(keys, self._limits.ops_max - GUARDS - 1):
            deletes = [Delete(key) for key, _ in run]
            gone = {address for key, address in run if key == self._keys(address)[-1]}
            garbage = {address: marks for address, marks in self.ledger.garbage.items() if address not in gone}
            await self.ledger.write(deletes, garbage=garbage)
            for address in gone:
                self._since.pop(address, None)

    def _keys(self, address: Address) -> list[str]:
        return self._places.pieces(address, self.ledger.garbage[address][0])


def _may_follow(head: Head | None, header: StateHeader) -> bool:
    """Nothing goes down: what is known of nodes may change in one version, and another cluster begins anew."""
    if head is None or head.cluster_uuid != header.cluster_uuid:
        return True
    order = header.term, header.version
    return order > head.order or (order == head.order and header.state_uuid == head.state_uuid)


def _shows_the_same(head: Head | None, other: Head) -> bool:
    if head is None:
        return False
    one, two = (evolve(each, seq=0, observed_at=0.0) for each in (head, other))
    return one == two


def _compressed(packs: Mapping[Address, Pack]) -> dict[Address, bytes]:
    return {address: compress(pack.text) for address, pack in packs.items()}
