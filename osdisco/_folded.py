"""Live tables of records that processes keep in the store, folded to the newest process for each id."""

from __future__ import annotations

import logging
import re
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from attrs import define, frozen

from osdisco._feed import Change
from osdisco._keeper import Rival, incarnation_of, process_of
from osdisco._keys import Keyspace
from osdisco.backend import Item
from osdisco.errors import InvalidNameError, RecordError
from osdisco.names import escape, unescape

R = TypeVar("R")

log = logging.getLogger("osdisco")


@frozen
class Kind(Generic[R]):
    """What a table holds.

    Args:
        what: one of them, for the log.
        read: turns a value of the store into a record and its mark, see `Keeper.mark`; raises RecordError.
        id_of: returns a record's id.
    """

    what: str
    read: Callable[[bytes], tuple[R, int]]
    id_of: Callable[[R], str]


@define(eq=False)  # not frozen: that takes five times as long to make, and there are many
class Standing(Generic[R]):
    """A record as it stands in the store under one process's key, with its mark."""

    key: str
    record: R
    mark: int
    created: int

    @property
    def incarnation(self) -> int:
        """Of its process; never 0."""
        return incarnation_of(self.mark, self.created)

    @property
    def rank(self) -> tuple[int, int, str]:
        """The highest one counts; no two of an id have the same."""
        return self.incarnation, self.created, self.key


class _Several(Generic[R]):
    """The records of an id that several processes have. Any writer can make them many: none of it looks at all."""

    def __init__(self, *standing: Standing[R]) -> None:
        self.ordered: Final = sorted(standing, key=_rank)  # the one that counts last
        self._by_key = {one.key: one for one in standing}

    def add(self, one: Standing[R]) -> None:
        self._by_key[one.key] = one
        insort(self.ordered, one, key=_rank)

    def remove(self, key: str) -> None:
        one = self._by_key.pop(key, None)
        if one is not None:
            del self.ordered[bisect_left(self.ordered, one.rank, key=_rank)]


def _rank(one: Standing[Any]) -> tuple[int, int, str]:
    return one.rank


class Folded(Mapping[str, R]):
    """Records under `<place…>/<id>/<process>.<n>` by id: of several processes with one id the newest incarnation's.

    It takes the store's own keys, as a Follower hands them on.
    """

    def __init__(self, kind: Kind[R], keys: Keyspace, *place: str) -> None:
        self.target: Final = keys.join(*place) + "/"
        self._kind = kind
        self._keys = keys
        self._best: dict[str, Standing[R]] = {}
        self._several: dict[str, _Several[R]] = {}
        self._skipped: dict[str, str] = {}
        self.successions = 0
        """How often a process took the place of another one with the very same record, of which no pair tells."""

    def __getitem__(self, id_: str) -> R:
        return self._best[id_].record

    def __iter__(self) -> Iterator[str]:
        return iter(self._best)

    def __len__(self) -> int:
        return len(self._best)

    @property
    def skipped(self) -> Mapping[str, str]:
        """The names of the keys that hold no good record now, and why."""
        return {self._name(key): why for key, why in self._skipped.items()}

    def incarnation(self, id_: str) -> int | None:
        """Return that of the process whose record counts; None without one."""
        best = self._best.get(id_)
        return None if best is None else best.incarnation

    def rivals(self, id_: str, process: str) -> list[Rival]:
        """Return the records of other processes with this id."""
        others = (one for one in self._standing(id_) if process_of(one.key) != process)
        return [Rival.of(one.key, one.mark, one.created) for one in others]

    def standing(self, id_: str) -> list[Standing[R]]:
        """Return all records of an id, the one that counts first."""
        return list(reversed(self._standing(id_)))

    def apply(self, change: Change) -> list[tuple[R | None, R | None]]:
        """Take a change of the records; returns what was and what is, for each id for which that differs, in order."""
        before: dict[str, Standing[R] | None] = {}
        for key in change.deletes:
            self._remove(key, before)
        anew = not (self._best or self._skipped)
        for key, item in change.puts.items():
            if not anew:
                self._remove(key, before)
            self._add(item, before)
        pairs = []
        for id_ in sorted(before):
            old, best = before[id_], self._best.get(id_)
            if old is None or best is None:
                if old is not best:
                    pairs.append((_record(old), _record(best)))
            elif old.record != best.record:
                pairs.append((old.record, best.record))
            elif old is not best and old.incarnation != best.incarnation:
                self.successions += 1
        return pairs

    def clear(self) -> None:
        """Forget all, because what comes next is everything."""
        self._best.clear()
        self._several.clear()
        self._skipped.clear()

    def _add(self, item: Item, before: dict[str, Standing[R] | None]) -> None:
        try:
            id_, new = self._read(item)
        except RecordError as exc:
            self._skipped[item.key] = str(exc)
            log.warning("skipped the %s at %r: %s", self._kind.what, self._name(item.key), exc)
            return
        best = self._best.get(id_)
        if best is None:
            before.setdefault(id_, None)
            self._best[id_] = new
        else:
            before.setdefault(id_, best)
            several = self._several.get(id_)
            if several is None:
                several = self._several[id_] = _Several(best)
            several.add(new)
            self._best[id_] = several.ordered[-1]

    def _remove(self, key: str, before: dict[str, Standing[R] | None]) -> None:
        self._skipped.pop(key, None)
        id_ = _id_in(place_of(key, self.target))
        best = self._best.get(id_)
        if best is None:
            return
        before.setdefault(id_, best)
        several = self._several.get(id_)
        if several is not None:
            several.remove(key)
            self._best[id_] = several.ordered[-1]
            if len(several.ordered) == 1:
                del self._several[id_]
        elif best.key == key:
            del self._best[id_]

    def _standing(self, id_: str) -> Sequence[Standing[R]]:
        """Return all records of an id, the one that counts last."""
        if id_ in self._several:
            return self._several[id_].ordered
        return [self._best[id_]] if id_ in self._best else []

    def _read(self, item: Item) -> tuple[str, Standing[R]]:
        key = item.key
        plain = _PLAIN.fullmatch(key, len(self.target))  # as nearly all are: nothing in it is escaped
        if plain is None and self._keys.name(key) is None:
            raise RecordError("the key is none that osdisco writes")
        record, mark = self._kind.read(item.value)
        id_ = self._kind.id_of(record)
        if (id_ if plain is not None else escape(id_)) != place_of(key, self.target):
            raise RecordError("the id in it is not the one in its key")
        return id_, Standing(key, record, mark, item.created)

    def _name(self, key: str) -> str:
        return self._keys.name(key) or key


_PLAIN: Final = re.compile(r"(?!\.{1,2}/)[A-Za-z0-9_.-]{1,255}/(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,255}")


def _record(standing: Standing[R] | None) -> R | None:
    return None if standing is None else standing.record


def place_of(key: str, target: str) -> str:
    """Return the escaped id that a key below a target tells of."""
    return key[len(target) : key.rfind("/")]


def _id_in(place: str) -> str:
    """Return the id that a key tells of; for a foreign writer's key a text that no id is."""
    try:
        return unescape(place)
    except InvalidNameError:
        return ""
