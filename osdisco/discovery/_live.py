"""A live view of records: what extensions and endpoints of services have in common.

Losing the store takes nothing away: what was there last is shown, and `stale`. Of those that vanish without having said
so, too many at once, some are shown on, and it is `protecting`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Generic, Protocol, TypeVar

from osdisco._guard import Guard
from osdisco._protection import Pairs, Traits
from osdisco.client import Client
from osdisco.discovery._roster import Roster
from osdisco.discovery.events import (
    Difference,
    Single,
    ViewEvent,
    ViewFresh,
    ViewProtecting,
    ViewProtectionOver,
    ViewStale,
)
from osdisco.errors import OsdiscoError

R = TypeVar("R")

Told = Sequence[Difference[Any]] | Single


class Hearer(Protocol):
    """Who is told what happens."""

    def put(self, told: Any) -> None:
        """Take changes that came at once, or one event."""

    def end(self, error: OsdiscoError) -> None:
        """Learn that the client was closed, or that its permission is lost."""


class LiveView(Mapping[str, R], Generic[R]):
    """What a roster holds, protected, while it is followed; and afterwards as it last was.

    Args:
        event: makes what is told of one change.
        share, window: of the protection; see `osdisco._protection`.
    """

    def __init__(
        self,
        client: Client,
        roster: Roster[R],
        traits: Traits[R],
        event: Callable[[R | None, R | None], Difference[R]],
        share: float,
        window: float,
    ) -> None:
        clock = client.runtime.clock
        self._roster: Final = roster
        self._event = event
        self._guard: Final = Guard(self, traits, share, window, clock, self._show)
        self._following = False
        self._records: Mapping[str, R] = {}
        self._hearers: dict[Hearer, None] = {}
        self._told_protecting = False
        self._stale_for, self._protecting_for = _Lap(clock.now), _Lap(clock.now)

    def __getitem__(self, id_: str) -> R:
        held = self._guard.held.get(id_)
        return self._records[id_] if held is None else held

    def __iter__(self) -> Iterator[str]:
        return chain(self._records, self._guard.held) if self.protecting else iter(self._records)

    def __len__(self) -> int:
        return len(self._records) + len(self._guard.held)

    @property
    def known(self) -> bool:
        """Whether the store was seen at all; before that the view is empty because nothing is known."""
        return self._following and self._roster.known

    @property
    def stale(self) -> bool:
        """Whether the store may know better by now."""
        return not self._following or self._roster.stale

    @property
    def age(self) -> float:
        """Seconds since the store last spoke; infinite before it ever did, and when closed."""
        return self._roster.age if self._following else float("inf")

    @property
    def error(self) -> OsdiscoError | None:
        """What interrupted the watch last; None while it runs."""
        return self._roster.error if self._following else None

    @property
    def protecting(self) -> bool:
        """Whether some are shown although their records are gone: too many vanished at once."""
        return bool(self._guard.held)

    @property
    def protected(self) -> Mapping[str, R]:
        """Those that are shown only by protection, by id, as they last were."""
        return self._guard.protected

    @property
    def skipped(self) -> Mapping[str, str]:
        """The keys that hold no good record now, and why."""
        return self._roster.table.skipped if self._following else {}

    def _follow(self) -> None:
        """Begin to follow, and tell what is there. Raises ClosedError."""
        self._roster.join(self)
        self._following, self._records = True, self._roster.table
        self._told_protecting = False
        self._guard.begin()
        self._forget()
        self._on_pairs([(None, record) for record in self._roster.table.values()])
        if self._roster.staleness.stale:
            self._on_stale(True)

    async def _unfollow(self) -> None:
        """Follow no more, and stay as it is now. May be called twice."""
        if self._following:
            self._following, self._records = False, dict(self._records)
            self._guard.close()
            await self._roster.leave(self)

    def _present(self) -> list[Any]:
        """Return what somebody new is told: what is there, and then how the view is."""
        told: list[Told] = [self._differences([(None, one) for one in self.values()])] if self else []
        if self._following and self._roster.staleness.stale:
            told.append(self._stale())
        return [*told, ViewProtecting()] if self.protecting else told

    def _forget(self) -> None:
        """Forget what was made of the records: what comes next is everything."""

    def _note(self, changes: Pairs[R]) -> None:
        """Take what changes in what is shown, before it is told."""

    def _on_pairs(self, pairs: Pairs[R]) -> None:
        """Take what was and what is from the roster."""
        self._guard.take(pairs)

    def _on_stale(self, stale: bool) -> None:
        """Learn that the store was lost, or is there again. Nothing is let go meanwhile."""
        self._guard.set_stale(stale)
        lasted = self._stale_for.turn()
        self._tell(self._stale() if stale else ViewFresh(lasted))

    def _on_end(self, error: OsdiscoError) -> None:
        """Learn that the client was closed, or that its permission is lost."""
        for hearer in list(self._hearers):
            hearer.end(error)

    def _stale(self) -> ViewStale:
        return ViewStale(self.age, str(self.error or "the store has been silent for too long"))

    def _show(self, changes: Pairs[R]) -> None:
        self._note(changes)
        turned = self._turned()
        if isinstance(turned, ViewProtecting):
            self._tell(turned)
        if changes and self._hearers:
            self._tell(self._differences(changes))
        if isinstance(turned, ViewProtectionOver):
            self._tell(turned)

    def _turned(self) -> ViewEvent | None:
        """Return whether protection has begun, or ended."""
        if self.protecting is self._told_protecting:
            return None
        self._told_protecting = self.protecting
        lasted = self._protecting_for.turn()
        return ViewProtecting() if self.protecting else ViewProtectionOver(lasted)

    def _differences(self, changes: Pairs[R]) -> list[Difference[R]]:
        """Return changes as they are told: who went, then who changed, then who came."""
        return sorted((self._event(*pair) for pair in changes), key=lambda one: (one.old is None) - (one.new is None))

    def _tell(self, told: Told) -> None:
        for hearer in list(self._hearers):
            hearer.put(told)


class _Lap:
    """The seconds between one turn and the next."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since = now()

    def turn(self) -> float:
        since, self._since = self._since, self._now()
        return self._since - since
