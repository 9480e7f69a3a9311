"""The checker of histories says what trying all orders says, and finds each kind of what must not be."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from attrs import evolve

from osdisco.backend import ABSENT, Batch, Condition, Delete, Item, Op, Put, Revision, Snapshot
from osdisco.testing.histories import KEY_MAX, History, Operation, Outcome, verdict_on
from osdisco.testing.linearizability import IMPOSSIBLE, Step, Verdict, linearizable
from osdisco.testing.watched import Log

TINY = 6_000
DONE, REFUSED, FAILED, UNKNOWN = Outcome


def item(value: bytes, revision: int, key: str = "k") -> Item:
    return Item(key, value, revision, revision)


def done(begin: float, end: float, op: Op | None = None, expect: Condition | None = None, **more: object) -> Operation:
    return Operation(who=f"w{begin}", key="k", begin=begin, end=end, op=op, expect=expect, **more)  # type: ignore[arg-type]


def put(value: bytes, begin: float, end: float, revision: int | None, **more: object) -> Operation:
    return done(begin, end, Put("k", value), revision=revision, **more)  # type: ignore[arg-type]


def get(seen: Item | None, begin: float, end: float) -> Operation:
    return done(begin, end, seen=seen)


class Register:
    """A key that does one thing at a time, and tells the truth."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.item: Item | None = None
        self.revision = 0

    def operation(self, number: int) -> tuple[Op | None, Condition | None]:
        """Return what to do next; conditions are on what may be there."""
        op = self.chance.choice([None, Put("k", b"%d" % number), Put("k", b"%d" % number), Delete("k")])
        condition = None if op is None else self.chance.choice([None, ABSENT, Revision(self.chance.randint(1, 3))])
        return op, condition

    def done(self, one: Operation) -> Operation:
        """Do it now."""
        if one.op is None:
            return evolve(one, seen=self.item)
        if not self.holds(one.expect):
            return evolve(one, outcome=REFUSED)
        if isinstance(one.op, Delete):
            self.item = None
            return one
        self.revision += 1
        self.item = item(one.op.value, self.revision)
        return evolve(one, revision=self.revision)

    def holds(self, expect: Condition | None) -> bool:
        if expect is None:
            return True
        if isinstance(expect, Revision):
            return self.item is not None and self.item.revision == expect.number
        return self.item is None


def tiny_history(chance: random.Random) -> list[Operation]:
    """Return what up to seven clients did at about the same time; in half of all cases one of them was told a lie."""
    register = Register(chance)
    points = []
    for number in range(chance.randint(2, 7)):
        begin = chance.uniform(0, 10)
        end = begin + chance.uniform(0, 4)
        op, expect = register.operation(number)
        one = Operation(who=f"w{number}", key="k", begin=begin, end=end, op=op, expect=expect)
        if op is not None and chance.random() < 0.25:
            point = chance.choice([chance.uniform(begin, begin + 10), float("inf")])
            points.append((point, evolve(one, outcome=UNKNOWN)))
        else:
            points.append((chance.uniform(begin, end), one))
    history = []
    for point, one in sorted(points, key=lambda each: each[0]):
        after = one if point == float("inf") else register.done(one)
        history.append(one if one.outcome is UNKNOWN else after)
    return lied_to(history, chance) if chance.random() < 0.5 else history


def lied_to(history: list[Operation], chance: random.Random) -> list[Operation]:
    """Let one of them see something else, be told something else, or have been at another time."""
    number = chance.randrange(len(history))
    one = history[number]
    if one.op is None and chance.random() < 0.7:
        values = [other.op.value for other in history if isinstance(other.op, Put)]
        lie = evolve(one, seen=chance.choice([None, *(known(value, history) for value in values)]))
    elif one.op is not None and one.outcome is not UNKNOWN and chance.random() < 0.5:
        told = REFUSED if one.outcome is DONE else DONE
        lie = evolve(one, outcome=told, revision=90 if told is DONE and isinstance(one.op, Put) else None)
    else:
        shift = chance.uniform(-5, 5)
        lie = evolve(one, begin=one.begin + shift, end=one.end + shift)
    return [*history[:number], lie, *history[number + 1 :]]


def known(value: bytes, history: list[Operation]) -> Item:
    return next((item(value, one.revision) for one in history if one.value == value and one.revision), item(value, 80))


def every_order(left: list[Operation], state: bytes | None, values: dict[int, bytes]) -> bool:
    """Try all orders, of all subsets of what is unknown, and remember nothing."""
    if all(one.outcome is UNKNOWN for one in left):
        return True
    for one in left:
        if any(other.outcome is not UNKNOWN and other.end < one.begin for other in left):
            continue
        rest = [other for other in left if other is not one]
        if one.op is None:
            if state == (one.seen and one.seen.value) and every_order(rest, state, values):
                return True
            continue
        if isinstance(one.expect, Revision):
            holds = state is not None and values.get(one.expect.number) == state
        else:
            holds = one.expect is None or state is None
        if holds != (one.outcome is not REFUSED):
            continue
        if every_order(rest, one.value if holds else state, values):
            return True
    return False


def values_of(history: list[Operation]) -> dict[int, bytes]:
    put = {one.revision: one.value for one in history if one.revision is not None and one.value is not None}
    return put | {one.seen.revision: one.seen.value for one in history if one.seen is not None}


def test_the_search_says_what_trying_all_orders_says() -> None:
    chance = random.Random(0)
    found: Counter[Verdict] = Counter()
    for number in range(TINY):
        history = tiny_history(chance)
        verdict = verdict_on(history)
        expected = every_order(history, None, values_of(history))
        assert (verdict is Verdict.LINEARIZABLE) == expected, "\n".join([f"history {number}", *map(str, history)])
        found[verdict] += 1
    assert found[Verdict.ILLEGAL] > TINY / 8
    assert found[Verdict.LINEARIZABLE] > TINY / 2
    assert not found[Verdict.UNDECIDED]


def test_a_whole_key_of_a_register_that_tells_the_truth_is_searched_at_once() -> None:
    chance = random.Random(1)
    register, clock, history = Register(chance), 0.0, []
    for number in range(KEY_MAX):
        clock += 1
        op, expect = register.operation(number)
        one = done(clock - chance.uniform(0, 6), clock + chance.uniform(0, 6), op, expect)
        history.append(register.done(one))
    assert verdict_on(history, budget=20_000) is Verdict.LINEARIZABLE
    last = max(history, key=lambda one: one.revision or 0)
    stale = get(None, clock + 10, clock + 11)
    after = put(b"last", clock + 8, clock + 9, 10**6)
    assert last.revision
    assert verdict_on([*history, after, stale], budget=1_000_000) is Verdict.ILLEGAL


def test_a_search_that_takes_too_long_is_undecided() -> None:
    history = [put(b"%d" % number, 0, 1, None, outcome=UNKNOWN) for number in range(30)]
    history += [get(item(b"0", 1), 2, 3), get(item(b"1", 2), 4, 5), get(item(b"0", 1), 6, 7)]
    assert verdict_on(history, budget=5_000) is Verdict.UNDECIDED
    assert "undecided" in History(history).problems(budget=5_000)[-1]


def test_the_search_is_of_any_object() -> None:
    counter = [Step[int](0, 3, lambda state: state + 1) for _ in range(3)]
    assert linearizable(counter, 0) is Verdict.LINEARIZABLE
    assert linearizable([*counter, Step(4, 5, lambda state: state if state == 2 else IMPOSSIBLE)], 0) is Verdict.ILLEGAL


GOOD = [
    put(b"a", 0, 1, 5),
    put(b"b", 2, 3, 7, expect=Revision(5)),
    put(b"x", 2.5, 4, None, expect=ABSENT, outcome=REFUSED),
    put(b"y", 2.5, 4, None, outcome=FAILED),
    put(b"c", 3.5, 5, None, outcome=UNKNOWN),
    get(item(b"b", 7), 4, 6),
    get(item(b"c", 9), 6, 8),
    done(9, 10, Delete("k"), Revision(9)),
    get(None, 11, 12),
]
LOG = [
    Snapshot({}, 4),
    Batch((item(b"a", 5),), (), 5),
    Batch((), (), 6),
    Batch((item(b"b", 7),), (), 7),
    Batch((item(b"c", 9),), (), 9),
    Batch((), ("k",), 11),
]


def test_a_good_history_has_no_problems() -> None:
    assert History(reversed(GOOD)).problems(Log(LOG), shown=[item(b"c", 9)]) == []


@pytest.mark.parametrize(
    ("place", "lie", "said"),
    [
        (5, get(item(b"y", 7), 4, 6), "no write of it was done"),
        (5, get(item(b"x", 7), 4, 6), "no write of it was done"),
        (5, get(item(b"q", 7), 4, 6), "no write of it was done"),
        (5, get(item(b"b", 6), 4, 6), "it has the revision 7"),
        (8, get(item(b"a", 5), 11, 12), "9 of this key was there before"),
        (8, get(item(b"c", 9), 11, 12), "not linearizable"),
        (6, get(None, 6, 8), "not linearizable"),
        (1, put(b"b", 2, 3, 4, expect=Revision(5)), "5 was there before it began"),
        (2, put(b"x", 0, 0.5, None, expect=ABSENT, outcome=REFUSED), ""),
        (2, put(b"x", -2, -1, None, expect=ABSENT, outcome=REFUSED), "not linearizable"),
        (1, put(b"b", 2, 3, 7, expect=Revision(3)), "not linearizable"),
        (7, done(9, 10, Delete("k"), Revision(9), outcome=REFUSED), "not linearizable"),
    ],
)
def test_a_lie_in_a_history_is_found(place: int, lie: Operation, said: str) -> None:
    problems = History([*GOOD[:place], lie, *GOOD[place + 1 :]]).problems()
    assert any(said in problem for problem in problems) if said else problems == []


@pytest.mark.parametrize(
    ("operations", "log", "said"),
    [
        (GOOD, [*LOG[:1], *LOG[2:]], "is not in the log as it was acknowledged"),
        (GOOD, [*LOG[:3], Batch((item(b"b", 8),), (), 8), *LOG[4:]], "is not in the log as it was acknowledged"),
        (GOOD, [*LOG[:2], Batch((item(b"z", 6),), (), 6), *LOG[3:]], "nobody wrote it"),
        (GOOD, [*LOG[:2], Batch((item(b"y", 6),), (), 6), *LOG[3:]], "nobody wrote it"),
        (GOOD, [*LOG[:2], Batch((), ("k",), 6), *LOG[3:]], "although its condition did not hold"),
        (GOOD, [*LOG, Batch((item(b"c", 13),), (), 13)], "was applied again at 13"),
        (GOOD, LOG[:-1], "was deleted 0 times"),
        (GOOD, [*LOG, Batch((), ("k",), 12)], "was deleted 2 times"),
        ([*GOOD[:1], evolve(GOOD[1], expect=ABSENT), *GOOD[2:]], LOG, "although its condition did not hold"),
    ],
)
def test_what_the_log_does_not_bear_out_is_found(operations: list[Operation], log: list[object], said: str) -> None:
    problems = History(operations).problems(Log(log))  # type: ignore[arg-type]
    assert any(said in problem for problem in problems), problems


def test_an_unknown_write_may_be_in_the_log_or_not() -> None:
    history = [GOOD[0], put(b"c", 3, 4, None, outcome=UNKNOWN), get(item(b"a", 5), 5, 6)]
    assert History(history).problems(Log(LOG[:2])) == []
    assert History(history).problems(Log([*LOG[:2], Batch((item(b"c", 9),), (), 9)])) == []


def test_what_a_watch_showed_is_held_against_the_writes() -> None:
    assert History(GOOD).problems(shown=[item(b"y", 8)])
    assert History(GOOD).problems(shown=[item(b"b", 8)])


def test_nothing_is_said_of_what_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="must be written once"):
        History([GOOD[0], evolve(GOOD[0], begin=5, end=6)]).problems()
    with pytest.raises(ValueError, match="at most 250"):
        History(get(None, moment, moment) for moment in range(KEY_MAX + 1)).problems()


def test_what_failed_is_not_searched_and_may_be_any_number() -> None:
    failed = [done(moment, moment, outcome=FAILED) for moment in range(2 * KEY_MAX)]
    reads = [get(None, moment, moment) for moment in range(KEY_MAX)]
    assert not History([*failed, *reads]).problems()


def test_no_two_moments_of_a_history_are_the_same() -> None:
    history = History()
    moments = [history.moment(1.0), history.moment(1.0), history.moment(0.5), history.moment(2.0)]
    assert moments == sorted(set(moments))
    assert moments[-1] == 2.0
