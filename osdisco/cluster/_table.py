"""Read-only mappings that answer questions, by indexes which the first question builds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

NO_TEXTS: Final[Mapping[str, str]] = MappingProxyType({})


def read_only(items: dict[K, V]) -> Mapping[K, V]:
    """Return a view of a dict through which it cannot be changed; whoever made the dict gives it away."""
    return MappingProxyType(items)


class Table(Mapping[str, V]):
    """A mapping that never changes. Whoever makes one gives the dict away."""

    __slots__ = ("_items", "_memo")

    def __init__(self, items: dict[str, V]) -> None:
        self._items: Final = items
        self._memo: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}>"

    def _once(self, question: str, answer: Callable[[], T]) -> T:
        """Return the answer to a question, worked out when it is first asked."""
        if self._memo is None:
            self._memo = {}
        if question not in self._memo:
            self._memo[question] = answer()
        found: T = self._memo[question]
        return found

    def _grouped(self, question: str, keys_of: Callable[[V], Iterable[K]]) -> Mapping[K, tuple[V, ...]]:
        """Return the values by each of their keys."""
        return self._once(question, lambda: grouped(self._items.values(), keys_of))


def grouped(values: Iterable[V], keys_of: Callable[[V], Iterable[K]]) -> Mapping[K, tuple[V, ...]]:
    """Return values by each of their keys."""
    found: dict[K, list[V]] = {}
    for value in values:
        for key in keys_of(value):
            found.setdefault(key, []).append(value)
    return read_only({key: tuple(some) for key, some in found.items()})
