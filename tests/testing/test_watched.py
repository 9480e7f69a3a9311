"""What watches must not do is found in their frames."""

from __future__ import annotations

import pytest

from osdisco.backend import Batch, Item, Snapshot
from osdisco.testing.watched import Frame, Log, fold, items_of, watch_problems


def item(key: str, revision: int, created: int = 0) -> Item:
    return Item(key, b"%d" % revision, created or revision, revision)


EMPTY = Snapshot({}, 1)
LOG = [
    EMPTY,
    Batch((item("a", 2),), (), 2),
    Batch((item("b", 3),), (), 3),
    Batch((item("a", 4, 2), item("c", 4)), (), 4),
    Batch((), ("b",), 6),
    Batch((item("b", 7),), (), 7),
]
FINAL = {"a": item("a", 4, 2), "b": item("b", 7), "c": item("c", 4)}
AT_3 = Snapshot({"a": item("a", 2), "b": item("b", 3)}, 3)
AT_5 = Snapshot({"a": item("a", 4, 2), "b": item("b", 3), "c": item("c", 4)}, 5)


@pytest.mark.parametrize(
    "frames",
    [
        LOG,
        [*LOG[:2], Batch((), (), 2), *LOG[2:]],
        [*LOG, Batch((), (), 9)],
        [AT_3, *LOG[3:]],
        [EMPTY, AT_3, Batch((), (), 3), AT_5, Batch((), (), 5), *LOG[4:]],  # compaction
        [*LOG[:4], AT_5, *LOG[4:]],
        [Snapshot(FINAL, 7)],
    ],
)
def test_what_a_watch_may_show(frames: list[Frame]) -> None:
    assert watch_problems(frames, log=Log(LOG), final=FINAL) == []
    assert fold(frames) == FINAL


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "begins with a snapshot"),
        (LOG[1:], "begins with a snapshot"),
        (LOG[:-1], "1 changes were not shown"),
        ([*LOG[:2], *LOG[3:]], "comes next"),
        ([*LOG[:3], LOG[2], *LOG[3:]], "or again"),
        ([*LOG[:2], LOG[3], LOG[2], *LOG[4:]], "behind the bookmark"),
        ([*LOG[:2], Batch((), (), 3), *LOG[2:]], "behind the bookmark 3"),
        ([*LOG[:4], Batch((), (), 6), *LOG[4:]], "a bookmark of 6 before"),
        ([*LOG[:3], Batch((item("a", 4, 2),), (), 4), Batch((item("c", 4),), (), 4), *LOG[4:]], "comes next"),
        ([*LOG[:4], Batch((), ("a",), 5), *LOG[4:]], "comes next"),
        ([*LOG[:4], *LOG[5:]], "comes next"),
        ([*LOG, Batch((item("b", 9, 7),), (), 9)], "is not in the log"),
        ([EMPTY, Snapshot({"a": item("a", 2)}, 3), *LOG[3:]], "is not what was there"),
        ([EMPTY, Snapshot(AT_3.items, 5), *LOG[4:]], "is not what was there"),
        ([*LOG[:4], AT_3, *LOG[3:]], "after 4"),
        ([*LOG[:4], Snapshot(AT_3.items, 4), *LOG[4:]], "shows"),
        ([*LOG[:3], Batch((item("a", 9), item("c", 4)), (), 4), *LOG[4:]], "before its time"),
    ],
)
def test_what_a_watch_must_not_show(frames: list[Frame], said: str) -> None:
    problems = watch_problems(frames, log=Log(LOG), final=FINAL)
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([EMPTY, AT_3, AT_5], "1 other keys than the store"),
        ([EMPTY, AT_5, Snapshot(AT_3.items, 6), Snapshot(FINAL, 7)], "after 4"),
        ([EMPTY, Snapshot({}, 3), AT_3, Snapshot(FINAL, 7)], "behind the bookmark 3"),
        ([EMPTY, AT_5, AT_3, Snapshot(FINAL, 7)], "at 3 of 2 items after 5"),
    ],
)
def test_a_watch_that_conflates_must_keep_to_the_order_and_arrive(frames: list[Frame], said: str) -> None:
    assert watch_problems([EMPTY, AT_3, Snapshot(FINAL, 7)], final=FINAL) == []
    problems = watch_problems(frames, final=FINAL)
    assert any(said in problem for problem in problems), problems


def test_a_log_knows_every_state() -> None:
    log = Log([*LOG[:3], Batch((), (), 3), *LOG[3:]])
    assert log.state(3) == AT_3.items
    assert log.state(5) == AT_5.items
    assert log.state(7) == FINAL
    assert (log.before("b", 7), log.before("b", 6), log.before("a", 2)) == (None, item("b", 3), None)
    assert log.deletes == {"b": 1}


@pytest.mark.parametrize("frames", [[AT_3], [EMPTY, EMPTY], [EMPTY, LOG[2], LOG[1]], [EMPTY, LOG[1], LOG[1]]])
def test_a_log_has_everything_once(frames: list[Frame]) -> None:
    with pytest.raises(ValueError, match="log"):
        Log(frames)


def test_each_version_that_was_shown_once() -> None:
    assert sorted(one.revision for one in items_of([EMPTY, AT_3, *LOG[3:]])) == [2, 3, 4, 4, 7]
