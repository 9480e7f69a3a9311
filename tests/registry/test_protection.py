"""Panic protection by its rules, as a machine without clock or store."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

import pytest
from attrs import evolve, frozen
from hypothesis import given, settings, strategies as st

from osdisco._protection import Pairs, Protection, Traits

WINDOW = 30.0


@frozen
class One:
    id: str
    place: str
    leaving: bool = False
    fit: bool = True


TRAITS = Traits[One](
    id_of=lambda one: one.id, place_of=lambda one: one.place, leaving=lambda one: one.leaving, fit=lambda one: one.fit
)


class Store:
    """Records that come and go, what protection shows of them, and what its rules say about that.

    Every step checks what has to hold at any time, against a history that is kept here in the simplest way.
    """

    def __init__(self, share: float) -> None:
        self.protection = Protection(TRAITS, share, WINDOW)
        self.now = 0.0
        self.live: dict[str, One] = {}
        self.shown: dict[str, One] = {}
        self.gone: dict[str, tuple[float, One]] = {}
        self.sizes: list[tuple[float, int]] = []  # until when so many were there

    @property
    def held(self) -> set[str]:
        return set(self.protection.held)

    @property
    def recent(self) -> int:
        sizes = [size for until, size in self.sizes if until >= self.now - WINDOW]
        return min(len(self.live) + len(self.gone), max([len(self.live), *sizes]))

    @property
    def floor(self) -> int:
        return ceil(round(self.protection.share * self.recent, 9))

    def come(self, *ones: One) -> None:
        self._change({one.id: one for one in ones})

    def go(self, ids: Iterable[str]) -> None:
        self._change(dict.fromkeys(ids))

    def leave(self, ids: Iterable[str]) -> None:
        ids = list(ids)
        self._change({id_: evolve(self.live[id_], leaving=True) for id_ in ids})
        self.go(ids)

    def wait(self, seconds: float) -> None:
        """Let time pass, and what is to be done in it be done when it says."""
        end = self.now + seconds
        while (at := self.protection.next_at) is not None and at <= end:
            assert at >= self.now
            self.now = at
            self._end_window()
            self._show(self.protection.advance(self.now))
        self.now = end
        self._end_window()

    def _change(self, changes: dict[str, One | None]) -> None:
        pairs = [(self.live.get(id_), new) for id_, new in changes.items() if self.live.get(id_) != new]
        self.sizes.append((self.now, len(self.live)))
        for id_, new in changes.items():
            self._remember(id_, new)
        self._show(self.protection.apply(pairs, self.now))

    def _remember(self, id_: str, new: One | None) -> None:
        if new is not None:
            self.live[id_] = new
            self._returned(new.place)
            self.gone.pop(id_, None)
            return
        old = self.live.pop(id_)
        if not old.leaving and old.place not in {one.place for one in self.live.values()}:
            self._returned(old.place)
            self.gone[id_] = (self.now, old)

    def _returned(self, place: str) -> None:
        self.gone = {id_: (at, one) for id_, (at, one) in self.gone.items() if one.place != place}

    def _end_window(self) -> None:
        self.gone = {id_: (at, one) for id_, (at, one) in self.gone.items() if at + WINDOW > self.now}

    def _show(self, pairs: Pairs[One]) -> None:
        before = dict(self.shown)
        for was, now in pairs:
            known = now or was
            assert known is not None
            assert self.shown.get(known.id) == was != now
            if now is None:
                del self.shown[known.id]
            else:
                self.shown[known.id] = now
        self._check(before)

    def _check(self, before: dict[str, One]) -> None:
        assert self.shown == {**self.protection.held, **self.live}
        assert not self.held & self.live.keys()
        assert self.protection.recent == self.recent or not self.protection.share
        assert self.held <= self.gone.keys(), "what is held vanished without a word, and that within the window"
        assert self.held <= before.keys(), "what was taken away does not come back"
        assert not self.held or len(self.shown) <= self.recent, "never more than there were"
        if (before.keys() - self.shown.keys()) & self.gone.keys():
            assert len(self.shown) >= self.floor, "a panic takes nothing away below the share"
        if self.held:
            assert len(self.shown) <= max(self.floor, len(self.live)), "no more is held than it takes"


def some(count: int, start: int = 0) -> list[One]:
    return [One(f"{n:04}", f"host-{n}") for n in range(start, start + count)]


def ids(ones: Iterable[One]) -> list[str]:
    return [one.id for one in ones]


# The rules


def test_few_that_vanish_go_at_once() -> None:
    store = Store(0.5)
    store.come(*some(10))
    store.go(ids(some(5)))
    assert len(store.shown) == 5
    assert not store.held


def test_of_too_many_that_vanish_at_once_the_share_is_held_for_a_window() -> None:
    store = Store(0.5)
    store.come(*some(10))
    store.go(ids(some(8)))
    assert len(store.shown) == 5
    assert store.held == {"0005", "0006", "0007"}
    store.wait(WINDOW - 0.1)
    assert len(store.shown) == 5
    store.wait(0.2)
    assert store.shown == store.live
    assert not store.held


def test_all_that_vanish_do_not_leave_nothing_behind() -> None:
    store = Store(0.5)
    store.come(*some(1))
    store.go(["0000"])
    assert list(store.shown) == ["0000"]


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_that_they_vanish_one_after_the_other_makes_no_difference(steps: int) -> None:
    store = Store(0.5)
    store.come(*some(16))
    for step in range(steps):
        store.go(ids(some(16 // steps, start=step * 16 // steps)))
        store.wait(1)
    assert len(store.shown) == 8
    store.wait(WINDOW)
    assert store.shown == {}


def test_who_says_that_it_leaves_is_not_held_and_counts_no_more() -> None:
    store = Store(0.5)
    store.come(*some(10))
    store.leave(ids(some(8)))
    assert len(store.shown) == 2
    store.go(["0008"])
    assert list(store.shown) == ["0009"]


def test_what_returns_ends_the_protection_the_oldest_first() -> None:
    store = Store(0.5)
    store.come(*some(10))
    store.go(ids(some(10)))
    assert store.held == {"0005", "0006", "0007", "0008", "0009"}
    store.come(*some(2))
    assert store.held == {"0007", "0008", "0009"}
    store.come(*some(3, start=7))
    assert store.shown == store.live
    assert not store.held


def test_what_returns_with_other_data_is_shown_with_it() -> None:
    store = Store(1.0)
    store.come(*some(2))
    store.go(ids(some(2)))
    moved = One("0001", "elsewhere")
    store.come(moved)
    assert store.shown["0001"] == moved
    assert store.held == {"0000"}


def test_what_returns_at_its_place_under_another_id_is_not_shown_twice() -> None:
    store = Store(1.0)
    store.come(*some(4))
    store.go(["0000"])
    store.come(One("new", "host-0"))
    assert "0000" not in store.shown
    assert not store.held


def test_what_was_there_under_another_id_before_it_vanished_is_not_held() -> None:
    """A process was killed and started anew with another id; the old record ends with its lease."""
    store = Store(1.0)
    store.come(*some(4))
    store.come(*(One(f"new-{n}", f"host-{n}") for n in range(4)))
    store.go(ids(some(4)))
    assert sorted(store.shown) == ["new-0", "new-1", "new-2", "new-3"]


def test_what_was_taken_away_before_the_panic_stays_away() -> None:
    store = Store(0.5)
    store.come(*some(10))
    store.go(ids(some(4)))
    store.wait(1)
    store.go(ids(some(6, start=4)))
    assert len(store.shown) == 5
    assert store.held == {"0005", "0006", "0007", "0008", "0009"}


def test_what_was_not_fit_is_let_go_first() -> None:
    store = Store(0.5)
    store.come(*some(5), *(evolve(one, fit=False) for one in some(5, start=5)))
    store.go(ids(some(10)))
    assert store.held == set(ids(some(5)))


def test_those_that_crash_and_start_anew_under_other_names_are_no_panic() -> None:
    """However often: there were never more than ten."""
    store = Store(0.5)
    store.come(*some(10))
    for round_ in range(1, 6):
        for n in range(10):
            store.go([next(iter(store.live))])
            store.come(One(f"{round_}-{n}", f"other-{round_}-{n}"))
    assert store.shown == store.live


def test_how_many_there_were_longer_ago_than_a_window_does_not_count() -> None:
    store = Store(0.5)
    store.come(*some(10))
    store.leave(ids(some(6)))
    store.wait(WINDOW + 1)
    for round_ in range(2):
        for n in range(4):
            store.go([next(iter(store.live))])
            store.come(One(f"{round_}-{n}", f"other-{round_}-{n}"))
    assert store.shown == store.live


def test_what_returned_and_vanished_again_is_the_last_to_go() -> None:
    store = Store(0.5)
    store.come(*some(8))
    store.go(ids(some(6)))
    assert store.held == {"0004", "0005"}
    store.come(*some(1, start=4))
    store.go(["0004"])
    assert store.held == {"0004", "0005"}
    store.come(One("new", "other"))
    assert store.held == {"0004"}


def test_one_that_comes_and_goes_all_the_time_leaves_nothing_behind() -> None:
    store = Store(1.0)
    store.come(*some(8))
    store.go(ids(some(4)))
    for _ in range(1000):
        store.go(["0007"])
        store.come(*some(1, start=7))
    assert len(store.protection._order) <= 16


def test_slow_deaths_are_no_panic() -> None:
    store = Store(0.5)
    store.come(*some(64))
    for one in some(64):
        store.go([one.id])
        store.wait(WINDOW)
        assert store.shown == store.live


def test_off_means_off() -> None:
    store = Store(0)
    store.come(*some(10))
    store.go(ids(some(10)))
    assert store.shown == {}
    assert store.protection.next_at is None


# Whatever happens

NAMES = [f"id-{n}" for n in range(12)]
PLACES = [f"host-{n}" for n in range(10)]
SHARES = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
COME = st.tuples(
    st.just("come"),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(PLACES), st.booleans(), st.booleans()), max_size=6),
)
GO = st.tuples(st.sampled_from(["go", "leave"]), st.sets(st.sampled_from(NAMES), max_size=12))
WAIT = st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 10.0, WINDOW, 2 * WINDOW]))
STEPS = st.lists(st.one_of(COME, GO, WAIT), max_size=30)


def play(store: Store, steps: list[tuple[str, object]]) -> None:
    for what, argument in steps:
        if what == "come":
            store.come(*{name: One(name, *rest) for name, *rest in argument}.values())  # type: ignore[attr-defined]
        elif what == "wait":
            store.wait(argument)  # type: ignore[arg-type]
        else:
            getattr(store, what)(sorted(argument & store.live.keys()))  # type: ignore[operator]


@settings(max_examples=150, deadline=None)
@given(SHARES, STEPS)
def test_whatever_happens_the_rules_hold_and_in_the_end_the_store_is_shown(
    share: float, steps: list[tuple[str, object]]
) -> None:
    store = Store(share)
    play(store, steps)  # checks at every step
    store.wait(WINDOW)
    assert store.shown == store.live
    assert not store.held
    assert store.protection.next_at is None


@settings(max_examples=100, deadline=None)
@given(SHARES, st.lists(st.sets(st.integers(0, 39)), max_size=12), st.integers(1, 40))
def test_those_that_vanish_within_a_window_never_take_it_below_the_share(
    share: float, batches: list[set[int]], size: int
) -> None:
    store = Store(share)
    store.come(*some(size))
    for batch in batches:
        store.go([f"{n:04}" for n in sorted(batch) if f"{n:04}" in store.live])
        store.wait(2)
        assert len(store.shown) >= share * size - 1e-9


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_off_shows_the_store_at_every_step(steps: list[tuple[str, object]]) -> None:
    store = Store(0)
    for step in steps:
        play(store, [step])
        assert store.shown == store.live
