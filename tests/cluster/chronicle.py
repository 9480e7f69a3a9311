"""What happened in a run, and the rules that it must have kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

from attrs import frozen

from osdisco.backend import Item

WHAT = ("lock", "term")
GONE = ("killed", "stopped")


@frozen(kw_only=True)
class Event:
    """Something that a process said, or that was done to it; `at` seconds on the clock that all share."""

    at: float
    who: str
    kind: str
    what: str = ""
    token: int = 0
    number: int = 0
    revision: int = 0
    believed: float = 0.0
    by: str = ""
    reason: str = ""


class Chronicle:
    """The events of all processes."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events = list(events)

    def of(self, *kinds: str, what: str = "", who: str = "", since: float = 0.0) -> Iterator[Event]:
        """Iterate over some events."""
        for event in self.events:
            if event.kind in kinds and what in ("", event.what) and who in ("", event.who) and event.at >= since:
                yield event

    def counts(self) -> Counter[str]:
        """Return how often what happened."""
        return Counter(event.kind for event in self.events)

    def gaps(self, kind: str, what: str, who: str) -> Iterator[tuple[float, float]]:
        """Iterate over the pairs of moments at which a process said something twice in a row."""
        return pairwise(event.at for event in self.of(kind, what=what, who=who))

    def problems(self, log: Mapping[str, Item]) -> list[str]:
        """Return what is wrong, given what the store holds under `log/`."""
        found: list[str] = []
        for what in WHAT:
            items = {key: item for key, item in log.items() if key.startswith(f"log/{what}/")}
            for rule in _RULES:
                found += rule(self, what, items)
        return found + [f"a late write applied: {event}" for event in self.of("applied late")]

    def gone(self, who: str, begin: float = 0.0) -> float | None:
        """Return when a process was killed or stopped, first after `begin`."""
        return next((event.at for event in self.of(*GONE, who=who, since=begin)), None)


def _one_holder_a_token(chronicle: Chronicle, what: str, _: Mapping[str, Item]) -> Iterator[str]:
    for token, times in Counter(event.token for event in chronicle.of("acquired", what=what)).items():
        if times > 1:
            yield f"{what}: {times} processes got the token {token}"


def _tokens_rise(chronicle: Chronicle, what: str, _: Mapping[str, Item]) -> Iterator[str]:
    """A lock's token is the place in the queue, so that this is FIFO, too."""
    turns = sorted(chronicle.of("acquired", what=what), key=lambda event: event.at)
    for one, two in pairwise(turn for turn in turns if not _told_late(chronicle, turn)):
        if two.token <= one.token:
            yield f"{what}: {two} after {one}"


def _told_late(chronicle: Chronicle, turn: Event) -> bool:
    """Whether the process was stopped before it could say that it had its turn."""
    told = [event.at for event in chronicle.of("stopped", "continued", who=turn.who) if event.at <= turn.at]
    return bool(told) and turn.at - max(told) < 0.5


def _one_believes(chronicle: Chronicle, what: str, _: Mapping[str, Item]) -> Iterator[str]:
    """Who holds knows of its loss before the next one holds, unless it stood still."""
    ends = {event.token: event.believed for event in chronicle.of("ended", what=what)}
    turns = sorted(chronicle.of("acquired", what=what), key=lambda event: event.at)
    for one, two in pairwise(turn for turn in turns if not _told_late(chronicle, turn)):
        gone = chronicle.gone(one.who, one.at)
        until = min(ends.get(one.token, gone or one.at), gone or float("inf"))
        if two.at < until:
            yield f"{what}: {two} while {one} believed in its own for {until - two.at:.3f} s more"


def _no_old_write_after_a_newer(chronicle: Chronicle, what: str, log: Mapping[str, Item]) -> Iterator[str]:
    places = sorted((item.created, *_place(key), item.value.decode()) for key, item in log.items())
    owners = {event.token: event.who for event in chronicle.of("acquired", what=what)}
    for (_, *one, _), (_, *two, _) in pairwise(places):
        if two <= one:
            yield f"{what}: the record {two} (token, number) was written after {one}"
    for _, token, _, owner in places:
        if owners.get(token, owner) != owner:
            yield f"{what}: {owner} wrote with the token {token} of {owners[token]}"


def _no_write_lost(chronicle: Chronicle, what: str, log: Mapping[str, Item]) -> Iterator[str]:
    written = {_place(key): item.created for key, item in log.items()}
    for event in chronicle.of("wrote", what=what):
        if written.get((event.token, event.number)) != event.revision:
            yield f"{what}: {event} is not in the store as it was acknowledged"


def _stopped_ones_do_nothing(chronicle: Chronicle, what: str, _: Mapping[str, Item]) -> Iterator[str]:
    """Who held when it was stopped for long learns of its loss before it does anything else."""
    for stop in chronicle.of("stopped", what=what):
        late = [*chronicle.of("writes", "ended", "refused", what=what, who=stop.who, since=stop.at)]
        late = [event for event in late if event.token == stop.token]
        if [(event.kind, event.by) for event in late] != [("ended", ""), ("refused", "handle"), ("refused", "store")]:
            yield f"{what}: after {stop} came {late}"


def _place(key: str) -> tuple[int, int]:
    token, number = key.split("/")[2:]
    return int(token), int(number)


_RULES: tuple[Callable[[Chronicle, str, Mapping[str, Item]], Iterator[str]], ...] = (
    _one_holder_a_token,
    _tokens_rise,
    _one_believes,
    _no_old_write_after_a_newer,
    _no_write_lost,
    _stopped_ones_do_nothing,
)
