"""The live table of extensions: records of the store, one per process, folded to one extension per id."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Set
from typing import Final

from attrs import frozen

from osdisco._feed import Change
from osdisco._records import decode
from osdisco.backend import Item
from osdisco.discovery.extension import ExtensionInfo
from osdisco.discovery.listeners import ExtensionEvent
from osdisco.errors import RecordError
from osdisco.view import View

log = logging.getLogger("osdisco")

PREFIX: Final = "ext"


@frozen
class Registration:
    """What stands in the store under `ext/<id>/<process>.<number>`.

    `incarnation` is the creation revision of the process's first record; 0 in that very record, whose own then counts.
    It is kept over every re-registration, so that an old process that returns after an outage never wins back.
    """

    extension: ExtensionInfo
    incarnation: int = 0


@frozen
class _Record:
    extension: ExtensionInfo
    rank: tuple[int, int]


def fold(items: Mapping[str, Item]) -> dict[str, ExtensionInfo]:
    """Return the extension that counts for each id: the newest incarnation."""
    best: dict[str, _Record] = {}
    for item in items.values():
        try:
            record = _read(item)
        except RecordError as exc:
            _report(item, exc)
            continue
        id_ = record.extension.id
        if id_ not in best or record.rank > best[id_].rank:
            best[id_] = record
    return {id_: record.extension for id_, record in sorted(best.items())}


class Extensions(Mapping[str, ExtensionInfo]):
    """The live local view: extensions by id. Losing the store keeps the last known, `stale` and with its `age`."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._records: dict[str, dict[str, _Record]] = {}
        self._current: dict[str, ExtensionInfo] = {}
        self._skipped: dict[str, str] = {}

    def __getitem__(self, id_: str) -> ExtensionInfo:
        return self._current[id_]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current)

    def __len__(self) -> int:
        return len(self._current)

    def __repr__(self) -> str:
        return f"<{len(self)} extensions, {'stale' if self.stale else 'fresh'}>"

    @property
    def stale(self) -> bool:
        """Whether the store may know better by now."""
        return self._view.stale

    @property
    def age(self) -> float:
        """Seconds since the store last spoke; infinite before it ever did."""
        return self._view.age

    @property
    def skipped(self) -> Mapping[str, str]:
        """The keys that hold no good record now, and why."""
        return dict(self._skipped)

    def rival(self, id_: str, ours: Set[str]) -> int:
        """Return the incarnation of the newest process with this id that is not ours; 0 when there is none."""
        records = self._records.get(id_, {}).items()
        return max((record.rank[0] for key, record in records if _process_of(key) not in ours), default=0)

    def apply(self, change: Change) -> list[ExtensionEvent]:
        """Take a change of the records; returns what it means, extension by extension."""
        touched = change.deletes.keys() | change.puts.keys()
        for key in touched:
            self._records.get(_id_of(key), {}).pop(key, None)
            self._skipped.pop(key, None)
        for key, item in change.puts.items():
            try:
                self._records.setdefault(_id_of(key), {})[key] = _read(item)
            except RecordError as exc:
                self._skipped[key] = str(exc)
                _report(item, exc)
        ids = sorted({_id_of(key) for key in touched})
        return [event for id_ in ids if (event := self._settle(id_)) is not None]

    def _settle(self, id_: str) -> ExtensionEvent | None:
        records = self._records.get(id_)
        old = self._current.get(id_)
        new = max(records.values(), key=lambda record: record.rank).extension if records else None
        if new is None:
            self._records.pop(id_, None)
            self._current.pop(id_, None)
        else:
            self._current[id_] = new
        return None if old == new else ExtensionEvent(old=old, new=new)


def _read(item: Item) -> _Record:
    """Read one record. Raises RecordError for what another writer put there and is none."""
    registration = decode(item.value, Registration)
    if registration.extension.id != _id_of(item.key):
        raise RecordError("the id in it is not the one in its key")
    return _Record(registration.extension, (registration.incarnation or item.created, item.created))


def _report(item: Item, why: RecordError) -> None:
    log.warning("skipped the registration at %r: %s", item.key, why)


def _id_of(name: str) -> str:
    return name.removeprefix(f"{PREFIX}/").rpartition("/")[0]


def _process_of(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]
