"""Getting blobs out of the store: some at a time, each checked by its address before anybody sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from osdisco._connection import Connection
from osdisco._tasks import cancel
from osdisco.cluster._aside import aside
from osdisco.cluster._head import Address, Blob
from osdisco.cluster._pack import expand
from osdisco.cluster._places import Places
from osdisco.errors import ClusterDocumentError

AT_ONCE: Final = 8
"""Blobs that are asked for at a time."""


class BlobMissingError(ClusterDocumentError):
    """A piece of a blob is not there: it was collected, or never put."""


class Fetcher:
    """Fetches blobs of one mirror."""

    def __init__(self, connection: Connection, places: Places) -> None:
        self._connection = connection
        self._places = places

    async def all(self, blobs: Iterable[Blob]) -> Mapping[Address, bytes]:
        """Return the texts of all blobs, or nothing: the first failure ends it.

        Raises:
            BlobMissingError: a piece is not there.
            ClusterDocumentError: a blob is not what its address and its sizes say.
            UnavailableError, DeniedError: the store could not be asked.
        """
        wanted, found = list(blobs), dict[Address, bytes]()
        left, spawn = iter(wanted), self._connection.supervisor.spawn
        workers = min(AT_ONCE, len(wanted))
        tasks = [spawn(self._some(left, found), "fetch the state of the cluster") for _ in range(workers)]
        try:
            for task in tasks:
                await task
        finally:
            await cancel(*tasks)
        return found

    async def _some(self, left: Iterator[Blob], found: dict[Address, bytes]) -> None:
        for blob in left:
            found[blob.address] = await self.one(blob)

    async def one(self, blob: Blob) -> bytes:
        """Return the text of a blob. Raises as `all` does."""
        data = bytearray()
        for number in range(blob.pieces):
            data += await self._piece(blob, number)
            if len(data) > blob.size:
                raise ClusterDocumentError(f"{blob.name} is larger than the {blob.size} bytes that its head says")
        return await aside(blob.raw, partial(expand, bytes(data), blob.raw, blob.sha))

    async def _piece(self, blob: Blob, number: int) -> bytes:
        item = await self._connection.get(self._places.piece(blob.address, number))
        if item is None:
            raise BlobMissingError(f"{blob.name}: piece {number} of {blob.pieces} is not there")
        return item.value
