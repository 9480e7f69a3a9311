"""What happened so far, and what follows from it: the demo's measurements."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from osdisco.cli.demo._cast import Event


class Hold(NamedTuple):
    """A time during which one extension held the lock; `until` is when it died with it, or began to give it back."""

    who: str
    since: float
    until: float
    died: bool


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

    @property
    def tokens(self) -> list[int]:
        """The fencing tokens, in the order of the holders."""
        return [event.data["token"] for event in sorted(self.all("acquired"), key=lambda event: event.at)]

    @property
    def killed(self) -> Event:
        """The kill."""
        return self.all("killed")[0]

    @property
    def killed_token(self) -> int:
        """The token with which the killed one held the lock."""
        token: int = self.all("acquired", self.killed.who)[-1].data["token"]
        return token

    @property
    def next_holder(self) -> Event | None:
        """The first to get the lock after the kill."""
        after = [event for event in self.all("acquired") if event.at > self.killed.at]
        return min(after, key=lambda event: event.at, default=None)

    @property
    def holds(self) -> list[Hold]:
        """Who held the lock, and when."""
        return list(self._holds())

    def _holds(self) -> Iterator[Hold]:
        ends = sorted([*self.all("releasing"), *self.all("killed")], key=lambda event: event.at)
        for taken in sorted(self.all("acquired"), key=lambda event: event.at):
            end = next((event for event in ends if event.who == taken.who and event.at >= taken.at), None)
            if end is not None:
                yield Hold(taken.who, taken.at, end.at, end.what == "killed")

    def summary(self) -> dict[str, Any]:
        """Return the measurements; times in seconds."""
        killed, following = self.killed, self.next_holder
        holds = self.holds
        handovers = [
            later.since - earlier.until
            for earlier, later in pairwise(holds)
            if not earlier.died and later.since - earlier.until < 0.2  # else nobody was waiting
        ]
        registered = {event.who: event.at for event in self.all("registered")}
        found = [event.at - registered[event.data["extension"]] for event in self.all("discovered")]
        leaving = {event.who: event.at for event in self.all("leaving")}
        left = [event for event in self.all("gone") if event.data["extension"] in leaving]
        return {
            "ttl": self.ttl,
            "all_found_after": max(event.at for event in self.all("discovered")) - self.start,
            "found_after_registration": max(0.0, median(found)),
            "handover": median(handovers),
            "crash_seen_after": {e.who: e.at - killed.at for e in self.all("gone", extension=killed.who)},
            "lock_taken_over_after": following and following.at - killed.at,
            "killed_token": self.killed_token,
            "next_token": following and following.data["token"],
            "goodbye_seen_after": max((e.at - leaving[e.data["extension"]] for e in left), default=None),
            "took": self.events[-1].at - self.start,
        }
