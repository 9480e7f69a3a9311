"""Blocks: what the cluster refuses, as a whole or for an index."""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from osdisco.cluster._fields import Fields, numbered
from osdisco.cluster._table import Table


@frozen
class Block:
    """One reason to refuse requests.

    Args:
        id: what kind it is: 4 closed, 5 read-only, 12 read-only until the disk has room again, 2 no cluster manager.
        levels: what it refuses: `read`, `write`, `metadata_read`, `metadata_write`, `create_index`.
        retryable: whether it goes away by itself.
    """

    id: int
    description: str = ""
    levels: frozenset[str] = frozenset()
    retryable: bool = False


class ClusterBlocks(Table[tuple[Block, ...]]):
    """The blocks of indices, by the indices' names; an index without any is not in it. `everywhere`: those of all."""

    __slots__ = ("everywhere",)

    def __init__(self, items: dict[str, tuple[Block, ...]], everywhere: tuple[Block, ...] = ()) -> None:
        super().__init__(items)
        self.everywhere: Final = everywhere

    def of(self, index: str) -> tuple[Block, ...]:
        """Return all that an index is under: the blocks of the whole cluster, and its own."""
        return self.everywhere + self.get(index, ())

    def write_blocked(self, index: str) -> bool:
        """Return whether documents of an index cannot be written now."""
        return self.blocked(index, "write")

    def read_blocked(self, index: str) -> bool:
        """Return whether an index cannot be searched now."""
        return self.blocked(index, "read")

    def blocked(self, index: str, level: str) -> bool:
        """Return whether an index is under a block of a level. An index that does not exist has none of its own."""
        return any(level in block.levels for block in self.of(index))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClusterBlocks):
            return NotImplemented
        return self._items == other._items and self.everywhere == other.everywhere


def blocks_of(_: str, given: Any, place: str) -> tuple[Block, ...]:
    """Read the blocks of an index, or of the cluster, from their part; sorted by id. Raises ClusterDocumentError."""
    fields = Fields(given, place)
    found = [_block(numbered(id_, fields.at(id_)), Fields(one, fields.at(id_))) for id_, one in fields.items()]
    return tuple(sorted(found, key=lambda block: block.id))


def _block(id_: int, fields: Fields) -> Block:
    return Block(id_, fields.text("description"), frozenset(fields.texts("levels")), fields.flag("retryable"))
