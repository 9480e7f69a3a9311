"""What happened so far, and what follows from it: the demo's measurements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Final, NamedTuple

from osdisco.cli.demo._cast import Event

WAITING: Final = 0.2
"""Seconds between two holders in which somebody was waiting, on a machine that is not busy."""

CUT: Final = ("killed", "paused")
"""How ownership ends when its owner can no longer give it back."""


class Span(NamedTuple):
    """A time during which one extension held the lock, or led; until it was `CUT` short or began to give it back."""

    who: str
    since: float
    until: float
    end: str

    @property
    def cut(self) -> bool:
        """Whether its owner could not give it back."""
        return self.end in CUT


class Facts:
    """All events, in the order in which they were told."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.ttl = 0.0
        self.ttl_late = 0.0
        self.events: list[Event] = []

    def add(self, event: Event) -> None:
        """Remember an event."""
        self.events.append(event)

    def all(self, what: str, who: str | None = None, **data: Any) -> list[Event]:
        """Return the events that fit."""
        return [
            event
            for event in self.events
            if event.what == what
            and (who is None or event.who == who)
            and all(event.data.get(name) == value for name, value in data.items())
        ]

    def seen(self, what: str, who: str, n: int = 1, **data: Any) -> bool:
        """Whether at least `n` events fit."""
        return len(self.all(what, who, **data)) >= n

    def seen_after(self, earlier: Event, what: str, who: str, **data: Any) -> bool:
        """Whether an event that fits happened after `earlier`."""
        return any(event.at > earlier.at for event in self.all(what, who, **data))

    def is_back(self, who: str) -> bool:
        """Whether the last that it told of its registration is that it stands.

        It may stand again before we know that the store is there.
        """
        kinds = ("registered", "unregistered", "returned")
        told = [event.what for event in self.events if event.who == who and event.what in kinds]
        return told[-1:] not in ([], ["unregistered"])

    def status(self, who: str, extension: str) -> str | None:
        """Return how somebody saw an extension last."""
        seen = (e for e in reversed(self.events) if e.who == who and e.what in ("discovered", "status"))
        return next((event.data["now"] for event in seen if event.data["extension"] == extension), None)

    @property
    def tokens(self) -> list[int]:
        """The fencing tokens, in the order of the holders."""
        return [event.data["token"] for event in _in_time(self.all("acquired"))]

    @property
    def terms(self) -> list[Event]:
        """Who was elected, in order."""
        return _in_time(self.all("elected"))

    @property
    def leader(self) -> str | None:
        """Who leads, and has written its plan."""
        newest = self.terms[-1:]
        return next((event.who for event in newest if self.seen("planned", event.who, token=event.data["token"])), None)

    @property
    def killed(self) -> Event:
        """The kill."""
        return self.all("killed")[0]

    @property
    def paused(self) -> Event:
        """The pause of the leader."""
        return self.all("paused")[0]

    @property
    def killed_token(self) -> int:
        """The token with which the killed one held the lock."""
        token: int = self.all("acquired", self.killed.who)[-1].data["token"]
        return token

    @property
    def next_holder(self) -> Event | None:
        """The first to get the lock after the kill."""
        return next((event for event in _in_time(self.all("acquired")) if event.at > self.killed.at), None)

    @property
    def holds(self) -> list[Span]:
        """Who held the lock, and when."""
        return list(self._spans("acquired", "releasing", "killed"))

    @property
    def handover(self) -> float:
        """Seconds from one holder to the next, the median of those in which somebody was waiting."""
        gaps = [later.since - earlier.until for earlier, later in pairwise(self.holds) if not earlier.cut]
        return median([gap for gap in gaps if gap < WAITING] or [min(gaps)])

    @property
    def leads(self) -> list[Span]:
        """Who led, and when."""
        return list(self._spans("elected", "leaving", *CUT))

    def _spans(self, begin: str, *ends: str) -> Iterator[Span]:
        ending = _in_time([event for what in ends for event in self.all(what)])
        for taken in _in_time(self.all(begin)):
            end = next((event for event in ending if event.who == taken.who and event.at >= taken.at), None)
            if end is not None:
                yield Span(taken.who, taken.at, end.at, end.what)

    def led_after(self, end: Event) -> float:
        """Return the seconds that passed until the next one led."""
        return next(event.at for event in self.terms if event.at > end.at) - end.at

    def summary(self) -> dict[str, Any]:
        """Return the measurements; times in seconds."""
        took = {"took": self.events[-1].at - self.start}
        return self._discovery() | self._lock() | self._election() | self._calls() | took

    def _discovery(self) -> dict[str, Any]:
        killed = self.killed
        registered = {event.who: event.at for event in self.all("registered")}
        found = [event for event in self.all("discovered") if event.at < self._first_trouble]
        leaving = {event.who: event.at for event in self.all("leaving")}
        goodbyes = [(event.at, leaving.get(event.data["extension"], event.at)) for event in self.all("gone")]
        return {
            "ttl": self.ttl,
            "all_found_after": max(event.at for event in found) - self.start,
            "found_after_registration": max(
                0.0, median(event.at - registered[event.data["extension"]] for event in found)
            ),
            "crash_seen_after": {
                e.who: e.at - killed.at for e in self.all("gone", extension=killed.who) if e.at > killed.at
            },
            "illness_seen_after": self._seen_after("ails", "unhealthy"),
            "recovery_seen_after": self._seen_after("recovers", "healthy"),
            "returned_after": self.returned_after,
            "goodbye_seen_after": max((seen - left for seen, left in goodbyes if seen > left), default=None),
        }

    @property
    def _first_trouble(self) -> float:
        return min(event.at for event in (*self.all("stopped"), self.killed))

    def _seen_after(self, what: str, status: str) -> float:
        (turned,) = self.all(what)
        return max(e.at for e in self.all("status", extension=turned.who, now=status) if e.at > turned.at) - turned.at

    @property
    def returned_after(self) -> float | None:
        """Seconds from the store's return until the last was registered again; None when it did not stop."""
        started = self.all("started again")
        if not started:
            return None
        last = max(event.at for event in self.all("returned") if event.at < self.killed.at)
        return max(0.0, last - started[0].at)

    def _lock(self) -> dict[str, Any]:
        following = self.next_holder
        return {
            "handover": self.handover,
            "lock_taken_over_after": following and following.at - self.killed.at,
            "killed_token": self.killed_token,
            "next_token": following and following.data["token"],
        }

    def _election(self) -> dict[str, Any]:
        (woke,), (refused,) = self.all("woke"), self.all("late plan refused by itself")
        return {
            "terms": [{"who": event.who, "token": event.data["token"]} for event in self.terms],
            "leader_killed_next_after": self.led_after(self.killed),
            "leader_paused_next_after": self.led_after(self.paused),
            "leader_left_next_after": self.led_after(self.all("leaving")[0]),
            "paused_for": woke.at - self.paused.at,
            "refused_by_itself_after": refused.at - woke.at,
        }

    def _calls(self) -> dict[str, Any]:
        """Return how the calls went; nothing when there were none."""
        told, canary = self.all("called"), self.all("canary")
        if not told or not canary:
            return {}
        sums = told[-1].data
        return {
            "calls": sums["calls"],
            "calls_failed": sums["failed"],
            "calls_made_again": sums["again"],
            "calls_of_canary": sums["by"].get(canary[0].who, 0),
            "canary_rolled_back_after": canary[-1].at - canary[0].at,
        }


def _in_time(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event.at)
