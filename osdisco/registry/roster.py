"""The live table of one service: one watch and one decoding for all that look at it or register in it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from osdisco._feed import Change
from osdisco._follower import Follower
from osdisco._protection import Pairs
from osdisco._staleness import Staleness
from osdisco.client import Client
from osdisco.discovery.table import Folded
from osdisco.errors import ClosedError, DeniedError, OsdiscoError, TimedOutError, UnavailableError
from osdisco.names import escape
from osdisco.registry.definition import ServiceEndpoint
from osdisco.registry.record import table_of


class Onlooker(Protocol):
    """Who shows the table to somebody."""

    def on_pairs(self, pairs: Pairs[ServiceEndpoint]) -> None:
        """Take what was and what is; nothing when the store was seen for the first time, and is empty."""

    def on_stale(self, stale: bool) -> None:
        """Learn that the table is stale, or fresh again."""

    def on_end(self, error: OsdiscoError) -> None:
        """Learn that the client was closed, or that its permission is lost."""


class Roster(Follower):
    """The table of one service. `places` holds whom to wake when something changes at an id, by the escaped id."""

    def __init__(self, client: Client, service: str) -> None:
        self.service: Final = service
        self.table: Final[Folded[ServiceEndpoint]] = table_of(client._keys, service)
        self.onlookers: Final[dict[int, Onlooker]] = {}  # by identity: two views that show the same are two
        self.places: Final[dict[str, list[Callable[[], None]]]] = {}
        self.staleness: Final = Staleness(self, self._tell_stale)
        super().__init__(client._feeds, client._connection, self.table.target, self._take_in)

    @property
    def users(self) -> int:
        """How many look at it or are registered in it."""
        return len(self.onlookers) + sum(len(wakes) for wakes in self.places.values())

    def start(self) -> None:
        """Begin without waiting for the store."""
        super().start()
        self.staleness.look()

    async def aclose(self) -> None:
        """Stop following."""
        self.staleness.stop()
        await super().aclose()

    async def wait_known(self) -> None:
        """Wait until the store was seen, as long as one operation may take.

        Raises:
            UnavailableError: it was not, or what else kept it from being seen. DeniedError, ClosedError: at once.
        """
        try:
            await self._wait(
                lambda: self.known or isinstance(self.error, DeniedError), self._connection.options.timeout
            )
        except TimedOutError:
            raise self.error or UnavailableError(f"the store did not show {self._target} in time") from None
        if not self.known and self.error is not None:
            raise self.error

    def on_trouble(self, error: OsdiscoError) -> None:
        """Learn that the watch was interrupted."""
        super().on_trouble(error)
        if isinstance(error, ClosedError):
            self.staleness.stop()
        else:
            self.staleness.look()
        if isinstance(error, ClosedError | DeniedError):
            for onlooker in list(self.onlookers.values()):
                onlooker.on_end(error)
        if isinstance(error, ClosedError):
            self._wake(set(self.places))

    def _take_in(self, change: Change, first: bool) -> None:
        self.staleness.look()  # first that it is fresh again, then what is new
        if first:
            self.table.clear()
        pairs = self.table.apply(change)
        if pairs or first:
            for onlooker in list(self.onlookers.values()):
                onlooker.on_pairs(pairs)
        self._wake({key[len(self._target) : key.rfind("/")] for key in (*change.deletes, *change.puts)})

    def _wake(self, places: set[str]) -> None:
        for place in places & self.places.keys():
            for wake in list(self.places[place]):
                wake()

    def _tell_stale(self, stale: bool) -> None:
        for onlooker in list(self.onlookers.values()):
            onlooker.on_stale(stale)


class Rosters:
    """The rosters that are in use, one for each service."""

    def __init__(self, client: Client) -> None:
        self.client: Final = client
        self._rosters: dict[str, Roster] = {}

    def roster(self, service: str) -> Roster:
        """Return the roster of a service, which begins to follow it; whoever asks joins it, and then lets it go."""
        roster = self._rosters.get(service)
        if roster is None:
            roster = Roster(self.client, service)
            roster.start()
            self._rosters[service] = roster
        return roster

    async def let_go(self, roster: Roster) -> None:
        """Stop following the service unless somebody else uses its roster."""
        if not roster.users and self._rosters.get(roster.service) is roster:
            del self._rosters[roster.service]
            await roster.aclose()


def place_of(extension_id: str) -> str:
    """Return the segment of keys at which an id is."""
    return escape(extension_id)
