"""Whether operations that overlapped can have come from an object that does one thing at a time.

The search of Wing & Gong with Lowe's memory of what was tried ("Testing for Linearizability", 2017), laid out as in
porcupine (https://github.com/anishathalye/porcupine). It is of any object: a `Step` says what one operation does to it.

    steps = [Step(begin=0, end=2, apply=lambda state: 1), Step(begin=1, end=None, apply=lambda state: 2)]
    assert linearizable(steps, 0) is Verdict.LINEARIZABLE
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from typing import Final, Generic, Literal, TypeVar

from attrs import frozen

S = TypeVar("S", bound=Hashable)

BUDGET: Final = 1_000_000
"""Steps that a search may try. Without unknown outcomes hardly any history needs so many."""


class Impossible(Enum):
    """What `Step.apply` says of a state in which the operation cannot have had the answer that it had."""

    IMPOSSIBLE = "impossible"


IMPOSSIBLE: Final = Impossible.IMPOSSIBLE


class Verdict(Enum):
    """What a search found. `UNDECIDED`: the budget was used up; count it as a failure."""

    LINEARIZABLE = "linearizable"
    ILLEGAL = "not linearizable"
    UNDECIDED = "undecided"


@frozen
class Step(Generic[S]):
    """One operation.

    Attributes:
        begin, end: when it was asked for and answered, on a clock that all share. `end` is None when nobody knows
            whether it took place: it may have, at any time after `begin`, or never.
        apply: the state after it, or `IMPOSSIBLE`.
    """

    begin: float
    end: float | None
    apply: Callable[[S], S | Literal[Impossible.IMPOSSIBLE]]


def linearizable(steps: Sequence[Step[S]], initial: S, *, budget: int = BUDGET) -> Verdict:
    """Return whether the steps can have taken place one after the other, each between its begin and its end.

    Args:
        steps: in any order; those at the same moment count as overlapping.
        initial: the state before all of them. States are hashed and compared.
        budget: how many steps to try before giving up.
    """
    search = _Search(steps, initial)
    while search.waiting:
        if budget == 0:
            return Verdict.UNDECIDED
        budget -= 1
        if not search.advance():
            return Verdict.ILLEGAL
    return Verdict.LINEARIZABLE


class _Search(Generic[S]):
    """A path through the orders that are possible. `_chain` holds the begins and ends that are not on it yet.

    Each step is tried that begins before the first end in the chain. When that end is reached, no other step can come
    before it, so the last one taken was a mistake. A step without an end need not be taken.
    """

    def __init__(self, steps: Sequence[Step[S]], initial: S) -> None:
        self._steps = steps
        self._chain = _Chain(steps)
        self._node = self._chain.first
        self._state = initial
        self._taken = 0  # a bit for each step
        self._path: list[tuple[int, S]] = []
        self._tried = {(0, initial)}
        self.waiting = sum(step.end is not None for step in steps)

    def advance(self) -> bool:
        """Try one step more or one less; returns False when all orders have been tried."""
        number = self._chain.begin_of(self._node)
        if number is None:
            return self._back()
        after = self._steps[number].apply(self._state)
        taken = self._taken | 1 << number
        if after is IMPOSSIBLE or (taken, after) in self._tried:
            self._node = self._chain.after(self._node)
            return True
        self._tried.add((taken, after))
        self._path.append((number, self._state))
        self._taken, self._state = taken, after
        self.waiting -= self._steps[number].end is not None
        self._chain.take_out(number)
        self._node = self._chain.first
        return True

    def _back(self) -> bool:
        if not self._path:
            return False
        number, self._state = self._path.pop()
        self._taken &= ~(1 << number)
        self.waiting += self._steps[number].end is not None
        self._chain.put_back(number)
        self._node = self._chain.after(self._chain.begins[number])
        return True


class _Chain:
    """Begins and ends in the order of time, doubly linked, so that one goes out and comes back where it was."""

    def __init__(self, steps: Sequence[Step[S]]) -> None:
        begins = [(step.begin, 0, number) for number, step in enumerate(steps)]
        ends = [(step.end, 1, number) for number, step in enumerate(steps) if step.end is not None]
        events = sorted([*begins, *ends])  # at one moment begins come first: those overlap
        self._begin_of = [None, *(number if is_end == 0 else None for _, is_end, number in events)]
        self.begins = {number: place for place, (_, is_end, number) in enumerate(events, 1) if not is_end}
        self._ends = {number: place for place, (_, is_end, number) in enumerate(events, 1) if is_end}
        size = len(events) + 1
        self._next: list[int] = [*range(1, size), 0]
        self._before: list[int] = [size - 1, *range(size - 1)]

    @property
    def first(self) -> int:
        """The first of those that are in it."""
        return self._next[0]

    def after(self, node: int) -> int:
        """Return the one behind; the chain ends with 0."""
        return self._next[node]

    def begin_of(self, node: int) -> int | None:
        """Return the number of the step that begins there; None for an end, and for the end of the chain."""
        return self._begin_of[node]

    def take_out(self, number: int) -> None:
        """Take out a step's begin, then its end."""
        for node in (self.begins[number], self._ends.get(number)):
            if node is not None:
                self._next[self._before[node]], self._before[self._next[node]] = self._next[node], self._before[node]

    def put_back(self, number: int) -> None:
        """Undo the last `take_out`."""
        for node in (self._ends.get(number), self.begins[number]):
            if node is not None:
                self._next[self._before[node]] = self._before[self._next[node]] = node
