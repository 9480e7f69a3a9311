"""The table of records by its rules, with records of a few characters: `<incarnation> <id> <what it says>`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from osdisco._feed import Change
from osdisco._folded import Folded, Kind, Standing
from osdisco._keeper import Rival
from osdisco._keys import Keyspace
from osdisco.backend import Item, Limits
from osdisco.errors import RecordError

KEYS = Keyspace("ns/", Limits(ttl_min=1, ttl_max=60, expiry_factor=1))


def read(value: bytes) -> tuple[tuple[str, str], int]:
    try:
        incarnation, id_, said = value.decode().split(" ")
        return (id_, said), int(incarnation)
    except ValueError:
        raise RecordError("no record") from None


KIND = Kind("record", read, lambda record: record[0])


def folded() -> Folded[tuple[str, str]]:
    return Folded(KIND, KEYS, "svc", "a/b")


def put(key: str, value: str, created: int) -> dict[str, Item]:
    key = f"ns/svc/a=2Fb/{key}"
    return {key: Item(key, value.encode(), created, created)}


def change(puts: dict[str, Item] | None = None, deletes: dict[str, Item] | None = None) -> Change:
    return Change(puts or {}, deletes or {}, 1)


def test_of_one_id_the_newest_incarnation_counts_and_the_older_again_when_it_goes() -> None:
    table = folded()
    old, new = put("geo/p.1", "0 geo old", 5), put("geo/q.1", "0 geo new", 9)
    assert table.apply(change(old)) == [(None, ("geo", "old"))]
    assert table.apply(change(new)) == [(("geo", "old"), ("geo", "new"))]
    again = put("geo/p.2", "5 geo again", 12)
    assert table.apply(change(again, old)) == []
    assert dict(table) == {"geo": ("geo", "new")}
    assert table.apply(change(None, new)) == [(("geo", "new"), ("geo", "again"))]
    assert table.apply(change(None, again)) == [(("geo", "again"), None)]
    assert dict(table) == {}


def test_a_change_that_touches_several_keys_of_an_id_is_told_as_one() -> None:
    table = folded()
    first = put("geo/p.1", "0 geo first", 5)
    table.apply(change(first))
    assert table.apply(change(put("geo/p.2", "5 geo second", 6), first)) == [(("geo", "first"), ("geo", "second"))]
    assert table.apply(change(put("geo/p.3", "5 geo second", 7), put("geo/p.2", "", 6))) == []


def test_rivals_are_the_records_of_other_processes_which_are_confirmed_when_they_tell_their_incarnation() -> None:
    table = folded()
    table.apply(change(put("geo/p.1", "0 geo x", 5) | put("geo/q.1", "0 geo x", 7) | put("geo/r.1", "3 geo x", 8)))
    p, q, r = (
        Rival(f"ns/svc/a=2Fb/geo/{one}.1", *said) for one, *said in (("p", 5, False), ("q", 7, False), ("r", 3, True))
    )
    assert sorted(table.rivals("geo", "p")) == [q, r]
    assert sorted(table.rivals("geo", "q")) == [p, r]
    assert sorted(table.rivals("geo", "s")) == [p, q, r]
    assert not table.rivals("none", "p")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("geo/p.1", "rubbish"),
        ("knn/p.1", "0 geo x"),
        ("geo", "0 geo x"),
        ("geo/x/p.1", "0 geo x"),
        ("=zz/p", "0 geo x"),
    ],
)
def test_what_is_no_record_of_its_place_is_skipped_until_it_is_mended_or_gone(key: str, value: str) -> None:
    table = folded()
    assert table.apply(change(put(key, value, 5))) == []
    assert dict(table) == {}
    assert len(table.skipped) == 1
    table.apply(change(None, put(key, value, 5)))
    assert not table.skipped


def test_a_record_that_becomes_bad_takes_nobodys_place() -> None:
    table = folded()
    table.apply(change(put("geo/p.1", "0 geo x", 5)))
    assert table.apply(change(put("geo/p.1", "rubbish", 5))) == [(("geo", "x"), None)]
    assert table.skipped == {"svc/a/b/geo/p.1": "no record"}
    assert table.apply(change(put("geo/p.1", "0 geo y", 5))) == [(None, ("geo", "y"))]
    assert not table.skipped


@pytest.mark.parametrize("order", ["rising", "falling"])
def test_who_writes_thousands_of_records_of_one_id_holds_nobody_up(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record is compared with all others, neither when they come nor when they go, the best of them first."""
    compared, rank = 0, Standing.rank.fget
    assert rank is not None

    def counted(one: Standing[tuple[str, str]]) -> object:
        nonlocal compared
        compared += 1
        return rank(one)

    monkeypatch.setattr(Standing, "rank", property(counted))
    count, table = 2000, folded()
    numbers = range(1, count + 1) if order == "rising" else range(count, 0, -1)
    records = {number: put(f"geo/p{number}.1", f"0 geo {number}", number) for number in numbers}
    everything = {key: item for record in records.values() for key, item in record.items()}
    assert table.apply(change(everything)) == [(None, ("geo", str(count)))]
    assert [one.created for one in table.standing("geo")] == list(range(count, 0, -1))
    for number in range(count, 1, -1):
        assert table.apply(change(None, records[number])) == [(("geo", str(number)), ("geo", str(number - 1)))]
    assert table.apply(change(None, records[1])) == [(("geo", "1"), None)]
    assert compared < 50 * count


KEYS_OF = st.sampled_from(["a/p.1", "a/q.1", "a/q.2", "b/p.1"])
STEPS = st.lists(
    st.tuples(st.dictionaries(KEYS_OF, st.integers(0, 9), max_size=3), st.sets(KEYS_OF, max_size=2)), max_size=8
)


@given(STEPS)
@settings(deadline=None)
def test_the_table_is_what_a_fold_of_all_that_stands_would_be(steps: list[tuple[dict[str, int], set[str]]]) -> None:
    table, standing, revision = folded(), dict[str, Item](), 0
    known: dict[str, tuple[str, str]] = {}
    for puts, deletes in steps:
        gone = {key: item for key in deletes if (item := standing.pop(f"ns/svc/a=2Fb/{key}", None)) is not None}
        gone = {item.key: item for item in gone.values()}
        come: dict[str, Item] = {}
        for key, incarnation in puts.items():
            revision += 1
            come |= put(key, f"{incarnation} {key[0]} {revision}", revision)
        standing |= come
        for old, new in table.apply(change(come, gone)):
            id_ = (old or new or ("", ""))[0]
            assert known.get(id_) == old
            known |= {id_: new} if new else {}
            if new is None:
                del known[id_]
        fresh = folded()
        fresh.apply(change(standing))
        assert dict(table) == dict(fresh) == known
