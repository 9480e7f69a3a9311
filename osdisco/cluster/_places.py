"""Where a mirror's things are in the store, and how texts are cut into pieces that any store takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from osdisco._keys import Keyspace
from osdisco.backend import Put
from osdisco.cluster._head import PIECES_MAX, Address
from osdisco.coordination._board import Board
from osdisco.errors import ConfigError, InvalidNameError

T = TypeVar("T")

PIECE_MAX: Final = 256 * 1024
"""Bytes of one piece, where the store takes as much."""

ELECTION: Final = "cluster-mirror:{}"
"""Who wins it mirrors the cluster of that name."""


class Places:
    """The keys of the mirror called `cluster`, as the store has them.

    Raises:
        ConfigError: a name that cannot be a segment of a key.
    """

    def __init__(self, keys: Keyspace, cluster: str) -> None:
        try:
            self.head: Final = keys.join("cluster", cluster, "head")
            self.journal: Final = keys.join("cluster", cluster, "journal")
            self._blobs: Final = keys.join("cluster", cluster, "blob") + "/"
            self.board: Final = Board(keys, ELECTION.format(cluster))
            keys.join("cluster", cluster, "blob", "c" * 32, "0" * 64, str(PIECES_MAX))  # refuses what becomes too long
        except InvalidNameError as exc:
            raise ConfigError(f"the mirror cannot be called {str(cluster)[:40]!a}: {exc}") from None
        self.piece_max: Final = min(PIECE_MAX, keys.limits.value_max)

    def piece(self, address: Address, number: int) -> str:
        """Return the key of a blob's piece; they are counted from 0."""
        component, sha = address
        return f"{self._blobs}{component}/{sha}/{number}"

    def pieces(self, address: Address, count: int) -> list[str]:
        """Return the keys of all pieces of a blob."""
        return [self.piece(address, number) for number in range(count)]

    def cut(self, address: Address, data: bytes) -> list[Put]:
        """Return what puts a blob into the store."""
        parts = [data[start : start + self.piece_max] for start in range(0, len(data), self.piece_max)]
        return [Put(self.piece(address, number), part) for number, part in enumerate(parts)]


def batches(puts: Iterable[Put], ops: int, size: int) -> Iterator[list[Put]]:
    """Yield what goes into one commit each: at most `ops` of them, and `size` bytes."""
    batch: list[Put] = []
    held = 0
    for put in puts:
        if batch and (len(batch) == ops or held + len(put.value) > size):
            yield batch
            batch, held = [], 0
        batch.append(put)
        held += len(put.value)
    if batch:
        yield batch


def runs(things: list[T], length: int) -> Iterator[list[T]]:
    """Yield the things in runs of at most `length`."""
    for start in range(0, len(things), length):
        yield things[start : start + length]
