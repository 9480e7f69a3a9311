"""Panic protection: too many that vanish at once are more likely a mistake of ours than so many deaths.

Leases end together when the store was restored from a backup, when an operator deleted a prefix, or when a network
parts half of the processes from the store, and most of those behind them go on serving. So a view takes only some of
them away at once, and holds the others back until they return or a window is over. Eureka's
self-preservation does that in the server, where a client's own trouble is not seen, and without an end; the thresholds
of Nacos and Envoy are about health, not about membership.

A machine without clock or tasks: whoever drives it says what changed and when. Its rules:

1. `recent` is what is there now and what vanished within the window without a word, but never more than were there
   together within the window. Who says that it leaves (STOPPING) is not part of it any more when it goes.
2. Of what is there and what is held, at least `share` of `recent` is shown, rounded up. What is held are of those that
   vanished the ones that were fit last, and of these the last to go.
3. Only what is shown can be held: what was taken away comes back by its own record alone.
4. What returns under its id, or at its place under another, is held no longer.
5. Nothing is held for longer than the window. It only delays: what is quiet for a window is shown as the store has it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from math import ceil, inf
from typing import Final, Generic, TypeVar

from attrs import frozen

R = TypeVar("R")

Pairs = list[tuple["R | None", "R | None"]]
"""What was and what is, for each id for which that differs."""


@frozen
class Traits(Generic[R]):
    """What protection has to know of records. `place_of` tells two ids apart from one that was given a new one."""

    id_of: Callable[[R], str]
    place_of: Callable[[R], Hashable]
    leaving: Callable[[R], bool]
    fit: Callable[[R], bool]


@frozen
class _Gone(Generic[R]):
    at: float
    number: int
    record: R


class Protection(Generic[R]):
    """What is shown of a table of records that change.

    Args:
        share: of the recent size, from 0 (off) to 1.
        window: seconds for which what vanished may be held.
    """

    def __init__(self, traits: Traits[R], share: float, window: float) -> None:
        self.share: Final = share
        self.window: Final = window
        self._traits = traits
        self._live = 0
        self._places: Counter[Hashable] = Counter()  # of what is there
        self._gone: dict[str, _Gone[R]] = {}  # what vanished without a word within the window, the oldest first
        self._gone_from: dict[Hashable, str] = {}
        self._held: dict[str, R] = {}
        self._order: list[tuple[bool, int, str]] = []  # heap: which of the held goes first; some are gone from there
        self._sizes: deque[tuple[float, int]] = deque()  # until when so many were there; only falling sizes are kept
        self._numbers = count()

    @property
    def held(self) -> Mapping[str, R]:
        """What is shown although its record is gone, by id, as it last was."""
        return self._held

    @property
    def recent(self) -> int:
        """How many there are and were of late, without those who said that they go."""
        together = max(self._live, self._sizes[0][1]) if self._sizes else self._live
        return min(self._live + len(self._gone), together)

    @property
    def next_at(self) -> float | None:
        """When `advance` is to be called; None while nothing is held."""
        return self._window_ends_at if self._held else None

    @property
    def _window_ends_at(self) -> float:
        return next(iter(self._gone.values())).at + self.window if self._gone else inf

    def apply(self, pairs: Pairs[R], now: float) -> Pairs[R]:
        """Take what changed in the table; returns what changes in what is shown."""
        if not self.share:
            return pairs
        self._remember_size(now)
        before = {self._id_of(old, new): old for old, new in pairs}
        before |= {id_: self._held[id_] for id_ in before.keys() & self._held.keys()}
        let_go: dict[str, R] = {}
        for old, new in pairs:
            if new is not None:
                self._let_in(old, new, let_go)
            elif old is not None:
                self._take_away(old, now)
        self._settle(now, let_go)
        after = {self._id_of(old, new): new for old, new in pairs}
        after |= {id_: self._held[id_] for id_ in after.keys() & self._held.keys()}
        changes = [(was, after[id_]) for id_, was in before.items() if was != after[id_]]
        return changes + [(record, None) for id_, record in let_go.items() if id_ not in before]

    def advance(self, now: float) -> Pairs[R]:
        """Let go what was held for long enough; returns what changes in what is shown."""
        let_go: dict[str, R] = {}
        self._settle(now, let_go)
        return [(record, None) for record in let_go.values()]

    def _id_of(self, old: R | None, new: R | None) -> str:
        known = old if new is None else new
        assert known is not None
        return self._traits.id_of(known)

    def _let_in(self, old: R | None, new: R, let_go: dict[str, R]) -> None:
        if old is None:
            self._live += 1
        else:
            self._leave_place(self._traits.place_of(old))
        place = self._traits.place_of(new)
        self._places[place] += 1
        self._forget(self._traits.id_of(new), let_go)
        self._forget(self._gone_from.get(place), let_go)

    def _take_away(self, record: R, now: float) -> None:
        """Hold it, unless it went as it had said, or is there under another id; `_settle` sees what is too much."""
        self._live -= 1
        place, id_ = self._traits.place_of(record), self._traits.id_of(record)
        self._leave_place(place)
        if self._traits.leaving(record) or place in self._places:
            return
        number = next(self._numbers)
        self._gone[id_] = _Gone(now, number, record)
        self._gone_from[place] = id_
        self._held[id_] = record
        heappush(self._order, (self._traits.fit(record), number, id_))

    def _leave_place(self, place: Hashable) -> None:
        self._places[place] -= 1
        if not self._places[place]:
            del self._places[place]

    def _forget(self, id_: str | None, let_go: dict[str, R]) -> None:
        """Count it no more among those that vanished, and hold it no longer."""
        if id_ is None or id_ not in self._gone:
            return
        del self._gone_from[self._traits.place_of(self._gone.pop(id_).record)]
        if id_ in self._held:
            let_go[id_] = self._held.pop(id_)

    def _settle(self, now: float, let_go: dict[str, R]) -> None:
        """Hold nothing for longer than the window, and no more than it takes to show the share."""
        while self._window_ends_at <= now:
            self._forget(next(iter(self._gone)), let_go)
        while self._sizes and self._sizes[0][0] < now - self.window:
            self._sizes.popleft()
        wanted = max(0, ceil(round(self.share * self.recent, 9)) - self._live)
        while len(self._held) > wanted:
            _, number, id_ = heappop(self._order)
            if id_ in self._held and self._gone[id_].number == number:
                let_go[id_] = self._held.pop(id_)
        if len(self._order) > 2 * len(self._held):  # the rest is of those that were let go otherwise
            self._order = [one for one in self._order if one[2] in self._held and self._gone[one[2]].number == one[1]]
            heapify(self._order)

    def _remember_size(self, now: float) -> None:
        while self._sizes and self._sizes[-1][1] <= self._live:
            self._sizes.pop()
        self._sizes.append((now, self._live))
