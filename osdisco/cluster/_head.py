"""What the mirror keeps in the store beside its blobs: the head that all readers watch, and the writer's journal.

Both are written by others, and so believed in nothing: what a head says of sizes is bounded before any is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Self

from attrs import evolve, field, frozen

from osdisco._records import decode
from osdisco.cluster._pack import TEXT_MAX
from osdisco.cluster.state import NUMBER_MAX, StateHeader
from osdisco.errors import RecordError

FORMAT: Final = 1
"""Of heads, journals and blobs; what is written in a newer one is not guessed at."""

PIECES_MAX: Final = 1024
"""Pieces of one blob."""
STATE_MAX: Final = 512 * 1024 * 1024
"""Bytes of the text of all blobs of one head."""

_ADDRESS: Final = re.compile(r"[0-9a-f]{64}\Z")
_COMPONENT: Final = re.compile(r"[a-z_]{1,32}\Z")

Address = tuple[str, str]
"""A component and the sha256 of a text: what a blob is called."""

Sizes = tuple[int, ...]
"""Pieces, bytes as they are in the store, and bytes of the text."""


class FormatError(RecordError):
    """Written in a newer format, by a newer osdisco: it is right, and not for us to change."""


@frozen
class Blob:
    """A blob that a head refers to. `size` is in bytes as it is in the store, `raw` of its text."""

    component: str
    sha: str
    pieces: int
    size: int
    raw: int

    @property
    def address(self) -> Address:
        """What it is called."""
        return self.component, self.sha

    @property
    def name(self) -> str:
        """What it is called, for messages."""
        return f"{self.component}/{self.sha[:8]}"


@frozen
class _Written:
    """The one field that every format has."""

    format: int


@frozen
class Head:
    """The state that the mirror shows.

    `seq` rises with every head. `observed_at` is seconds since the epoch, by the writer's clock. `components` are
    blobs by component and sha256, each with its sizes.
    """

    format: int
    seq: int
    version: int
    state_uuid: str
    term: int
    cluster_name: str
    cluster_uuid: str
    cluster_manager_node: str | None
    observed_at: float
    components: Mapping[str, Mapping[str, Sizes]]

    @classmethod
    def of(cls, header: StateHeader, seq: int, components: Iterable[str], blobs: Iterable[Blob]) -> Self:
        """Return the head of a state that is in these blobs; a component without any is known to be empty."""
        known: dict[str, dict[str, Sizes]] = {component: {} for component in components}
        for blob in blobs:
            known[blob.component][blob.sha] = blob.pieces, blob.size, blob.raw
        fields = {name: getattr(header, name) for name in _SCALARS}
        return cls(format=FORMAT, seq=seq, components=known, **fields)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a head.

        Raises:
            FormatError: written in a newer format.
            RecordError: what is wrong with which field.
        """
        check_format(data, "head")
        head = decode(data, cls)
        numbers = head.seq, head.version, head.term
        if not head.cluster_uuid or not all(0 <= number <= NUMBER_MAX for number in numbers):
            raise RecordError("a head without a cluster's uuid, or whose seq, version or term no cluster can have")
        _check_sizes(head)
        return head

    @property
    def order(self) -> tuple[int, int]:
        """What only rises within one `cluster_uuid`."""
        return self.term, self.version

    @property
    def header(self) -> StateHeader:
        """The state's own fields."""
        return StateHeader(**{name: getattr(self, name) for name in _SCALARS})

    def blobs(self, component: str | None = None) -> Iterator[Blob]:
        """Yield the blobs of all components, or of one."""
        for name, blobs in self.components.items():
            if component in (None, name):
                for sha, (pieces, size, raw) in blobs.items():
                    yield Blob(name, sha, pieces, size, raw)


_SCALARS: Final = (
    "version",
    "state_uuid",
    "term",
    "cluster_name",
    "cluster_uuid",
    "cluster_manager_node",
    "observed_at",
)


def check_format(data: bytes, what: str) -> None:
    """Raise RecordError for what is no record, and FormatError for what is written in another format."""
    found = decode(data, _Written).format
    if found != FORMAT:
        raise FormatError(f"the mirror's {what} is in format {found}, and this osdisco reads {FORMAT}: update it")


def _check_sizes(head: Head) -> None:
    total = 0
    for component, blobs in head.components.items():
        if not _COMPONENT.match(component):
            raise RecordError(f"components: {component[:40]!a} is the name of none")
        for sha, sizes in blobs.items():
            _check_blob(f"components: {component}/{sha[:8]!a}", sha, sizes)
            total += sizes[2]
    if total > STATE_MAX:
        raise RecordError(f"components: {total} bytes of text; {STATE_MAX} are allowed")


def _check_blob(what: str, sha: str, sizes: Sizes) -> None:
    if not _ADDRESS.match(sha):
        raise RecordError(f"{what}: not a sha256")
    if len(sizes) != 3:
        raise RecordError(f"{what}: {len(sizes)} sizes where three belong")
    pieces, size, raw = sizes
    if not 0 < pieces <= min(PIECES_MAX, size) or not 0 < size <= TEXT_MAX or not 0 < raw <= TEXT_MAX:
        raise RecordError(f"{what}: of {pieces} pieces, {size} bytes and {raw} bytes of text; no blob is that")


Marks = tuple[int, ...]
"""Pieces, and the seq of the last head that referred to the blob; 0 when none ever did."""

_Marked = Mapping[str, Mapping[str, Marks]]


@frozen
class Journal:
    """What the writer must not forget: blobs that are on their way, and those that no head refers to any more.

    A blob is in the store only while the head or the journal names it, so that whoever leads next finds all that is
    left of a writer that died at any step, without ever listing what is there. `number` rises with each write, for a
    store may leave a revision as it is when the same bytes are written again.
    """

    format: int = FORMAT
    number: int = 0
    pending: _Marked = field(factory=dict)
    garbage: _Marked = field(factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a journal. Raises FormatError and RecordError as for a head."""
        check_format(data, "journal")
        journal = decode(data, cls)
        for blobs in (journal.pending, journal.garbage):
            for component, marked in blobs.items():
                _check_marks(component, marked)
        return journal

    def next(self, pending: Mapping[Address, Marks], garbage: Mapping[Address, Marks]) -> Self:
        """Return the one that is written after this one."""
        return evolve(self, number=self.number + 1, pending=_nested(pending), garbage=_nested(garbage))


def _check_marks(component: str, marked: Mapping[str, Marks]) -> None:
    if not _COMPONENT.match(component):
        raise RecordError(f"{component[:40]!a} is the name of no component")
    for sha, marks in marked.items():
        if not _ADDRESS.match(sha) or len(marks) != 2 or not 0 < marks[0] <= PIECES_MAX or marks[1] < 0:
            raise RecordError(f"{component}/{sha[:8]!a} is marked as no blob can be")


def _nested(blobs: Mapping[Address, Marks]) -> _Marked:
    nested: dict[str, dict[str, Marks]] = {}
    for (component, sha), marks in blobs.items():
        nested.setdefault(component, {})[sha] = marks
    return nested


def flat(blobs: _Marked) -> dict[Address, Marks]:
    """Return by address what a journal has by component and sha256."""
    return {(component, sha): marks for component, marked in blobs.items() for sha, marks in marked.items()}
