"""The rules by which a storm is judged notice what they are there for."""

from __future__ import annotations

import pytest
from chronicle import Chronicle, Event

from osdisco.backend import Item

GOOD = (
    Event(at=1.0, who="a", kind="acquired", what="lock", token=10),
    Event(at=1.1, who="a", kind="writes", what="lock", token=10),
    Event(at=1.2, who="a", kind="wrote", what="lock", token=10, revision=11),
    Event(at=1.3, who="a", kind="stopped", what="lock", token=10),
    Event(at=5.0, who="b", kind="acquired", what="lock", token=12),
    Event(at=5.1, who="b", kind="wrote", what="lock", token=12, revision=20),
    Event(at=5.2, who="b", kind="ended", what="lock", token=12, believed=5.2),
    Event(at=6.0, who="a", kind="continued"),
    Event(at=6.1, who="a", kind="ended", what="lock", token=10, believed=1.2),
    Event(at=6.2, who="a", kind="refused", what="lock", token=10, by="handle"),
    Event(at=6.3, who="a", kind="refused", what="lock", token=10, by="store"),
)


def record(owner: str, token: int, number: int, revision: int) -> tuple[str, Item]:
    key = f"log/lock/{token:020}/{number:06}"
    return key, Item(key, owner.encode(), revision, revision)


LOG = (record("a", 10, 0, 11), record("b", 12, 0, 20))


def test_a_good_chronicle_has_no_problems() -> None:
    assert not Chronicle(GOOD).problems(dict(LOG))


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Event(at=7.0, who="c", kind="acquired", what="lock", token=12), "2 processes got the token 12"),
        (Event(at=7.0, who="c", kind="acquired", what="lock", token=11), "token=11"),
        (Event(at=5.15, who="c", kind="acquired", what="lock", token=13), "believed in its own"),
        (Event(at=7.0, who="b", kind="wrote", what="lock", token=12, number=1, revision=30), "as it was acknowledged"),
        (Event(at=7.0, who="b", kind="wrote", what="lock", token=12, number=0, revision=21), "as it was acknowledged"),
        (Event(at=6.05, who="a", kind="writes", what="lock", token=10, number=1), "came"),
        (Event(at=6.4, who="a", kind="applied late", what="lock", token=10), "a late write applied"),
    ],
)
def test_an_event_that_must_not_be(event: Event, said: str) -> None:
    events = sorted((*GOOD, event), key=lambda event: event.at)
    assert any(said in problem for problem in Chronicle(events).problems(dict(LOG)))


@pytest.mark.parametrize("missing", GOOD[-3:], ids=lambda event: f"{event.kind} {event.by}")
def test_who_was_stopped_must_learn_of_it(missing: Event) -> None:
    assert Chronicle(event for event in GOOD if event is not missing).problems(dict(LOG))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (record("a", 10, 1, 21), "was written after"),
        (record("b", 12, 2, 19), "was written after"),
        (record("b", 10, 1, 12), "of a"),
    ],
)
def test_a_record_that_must_not_be(written: tuple[str, Item], said: str) -> None:
    assert any(said in problem for problem in Chronicle(GOOD).problems(dict((*LOG, written))))


def test_a_record_that_is_lost() -> None:
    assert Chronicle(GOOD).problems(dict(LOG[:1]))
