"""The live table of extensions: records of the store, one per process, folded to one extension per id."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from attrs import frozen

from osdisco._feed import Change
from osdisco._records import decode
from osdisco.backend import Item
from osdisco.discovery.extension import ExtensionInfo
from osdisco.discovery.listeners import ExtensionEvent
from osdisco.errors import OsdiscoError
from osdisco.view import View

log = logging.getLogger("osdisco")


@frozen
class Registration:
    """What stands in the store under `ext/<id>/<process>`.

    `incarnation` is the creation revision of the process's first record; 0 in that very record, whose own then counts.
    It is kept over every re-registration, so that an old process that returns after an outage never wins back.
    """

    extension: ExtensionInfo
    incarnation: int = 0


@frozen
class _Record:
    extension: ExtensionInfo
    rank: tuple[int, int]


def read(item: Item) -> _Record | None:
    """Read one record; a malformed one of another writer is reported and skipped."""
    try:
        registration = decode(item.value, Registration)
    except OsdiscoError as exc:
        log.warning("skipped the registration at %s: %s", item.key, exc)
        return None
    return _Record(registration.extension, (registration.incarnation or item.created, item.created))


def fold(items: Mapping[str, Item]) -> dict[str, ExtensionInfo]:
    """Return the extension that counts for each id: the newest incarnation."""
    best: dict[str, _Record] = {}
    for item in items.values():
        record = read(item)
        if record is not None and (record.extension.id not in best or record.rank > best[record.extension.id].rank):
            best[record.extension.id] = record
    return {id_: record.extension for id_, record in sorted(best.items())}


class Extensions(Mapping[str, ExtensionInfo]):
    """The live local view: extensions by id. Losing the store keeps the last known, `stale` and with its `age`."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._records: dict[str, dict[str, _Record]] = {}
        self._ids: dict[str, str] = {}  # of each record's key
        self._current: dict[str, ExtensionInfo] = {}

    def __getitem__(self, id_: str) -> ExtensionInfo:
        return self._current[id_]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current)

    def __len__(self) -> int:
        return len(self._current)

    @property
    def stale(self) -> bool:
        """Whether the store may know better by now."""
        return self._view.stale

    @property
    def age(self) -> float:
        """Seconds since the store last spoke; infinite before it ever did."""
        return self._view.age

    def apply(self, change: Change) -> list[ExtensionEvent]:
        """Take a change of the records; returns what it means, extension by extension."""
        touched = {id_ for key in change.deletes if (id_ := self._drop(key)) is not None}
        for key, item in change.puts.items():
            if (record := read(item)) is not None:
                touched |= {self._drop(key) or record.extension.id, record.extension.id}
                self._records.setdefault(record.extension.id, {})[key] = record
                self._ids[key] = record.extension.id
        return [event for id_ in sorted(touched) if (event := self._settle(id_)) is not None]

    def _drop(self, key: str) -> str | None:
        id_ = self._ids.pop(key, None)
        if id_ is not None:
            del self._records[id_][key]
        return id_

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
