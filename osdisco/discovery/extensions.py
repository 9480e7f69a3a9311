"""The live local view of all extensions, indexed by what one looks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, Protocol
from weakref import WeakValueDictionary

from osdisco._feed import Change
from osdisco._guard import Guard
from osdisco._protection import Traits
from osdisco._staleness import Staleness
from osdisco.client import Client
from osdisco.discovery.events import ViewEvent, ViewFresh, ViewStale
from osdisco.discovery.extension import ExtensionInfo, ExtensionStatus, check_metadata, copied
from osdisco.discovery.registration import PREFIX, kind
from osdisco.discovery.table import Folded, place_of
from osdisco.discovery.versions import specifier
from osdisco.errors import ClosedError, DiscoveryError, OsdiscoError
from osdisco.names import escape

Pair = tuple[ExtensionInfo | None, ExtensionInfo | None]
"""What an extension was, and what it is."""

_Key = tuple[str, float, float]

_NONE: Final[Mapping[str, ExtensionInfo]] = {}


class Onlooker(Protocol):
    """Who shows the view to somebody, or has an extension in it."""

    def on_pairs(self, pairs: Sequence[Pair]) -> None:
        """Take what was and what is."""

    def on_own(self) -> None:
        """Learn that something stands anew, or no longer, at the own id; or that the store was seen at last."""

    def on_staleness(self, event: ViewEvent) -> None:
        """Learn that the view is stale, or fresh again."""

    def on_closed(self) -> None:
        """Learn that the client was closed, and nothing is to be waited for."""


TRAITS: Final = Traits[ExtensionInfo](
    id_of=lambda extension: extension.id,
    place_of=lambda extension: (extension.host, extension.port),
    leaving=lambda extension: extension.status is ExtensionStatus.STOPPING,
    fit=lambda extension: extension.status in (ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED),
)


class Extensions(Mapping[str, ExtensionInfo]):
    """The live local view: extensions by id. Losing the store keeps the last known, `stale` and with its `age`."""

    def __init__(self, client: Client, share: float, window: float) -> None:
        self._follower: Final = client._follow(f"{client._keys.join(PREFIX)}/", self._take, self._on_trouble)
        self._table: Final = Folded(kind(self._follower), client._keys, PREFIX)
        self._index: Final = Index()
        self._guard: Final = Guard(self, TRAITS, share, window, client.runtime.clock, self._show)
        self._onlookers: Final[dict[Onlooker, str]] = {}  # with the places of their ids in keys
        self._hearers: Final[dict[Onlooker, None]] = {}  # who wants to be told of others
        self._places: Final[dict[str, list[Onlooker]]] = {}
        self._staleness: Final = Staleness(self._follower, self._tell_staleness)
        self._now: Final = client.runtime.clock.now
        self._turned = self._now()  # when it last became stale, or fresh

    @classmethod
    def _of(cls, client: Client, share: float, window: float) -> Extensions:
        """Return the view that all services of a client share that protect it in one way.

        So a change is read and folded only once.
        """
        views = client._connection.companion(_Views, _Views)
        key = client._keys.root, share, window if share else 0.0
        return views.setdefault(key, cls(client, share, window))

    def __getitem__(self, id_: str) -> ExtensionInfo:
        held = self._guard.held.get(id_)
        return self._table[id_] if held is None else held

    def __iter__(self) -> Iterator[str]:
        return chain(self._table, self._guard.held) if self.protecting else iter(self._table)

    def __len__(self) -> int:
        return len(self._table) + len(self._guard.held)

    def __repr__(self) -> str:
        return f"<{len(self)} extensions, {'stale' if self.stale else 'fresh'}>"

    @property
    def stale(self) -> bool:
        """Whether the store may know better by now."""
        return self._follower.stale

    @property
    def age(self) -> float:
        """Seconds since the store last spoke; infinite before it ever did."""
        return self._follower.age

    @property
    def error(self) -> OsdiscoError | None:
        """What interrupted the watch last; None while it runs."""
        return self._follower.error

    @property
    def protecting(self) -> bool:
        """Whether extensions are shown although their records are gone: too many vanished at once."""
        return bool(self._guard.held)

    @property
    def protected(self) -> Mapping[str, ExtensionInfo]:
        """The extensions that are shown only by protection, by id, as they last were."""
        return self._guard.protected

    @property
    def skipped(self) -> Mapping[str, str]:
        """The keys that hold no good record now, and why."""
        return self._table.skipped

    def find_by_capability(self, capability: str) -> list[ExtensionInfo]:
        """Return the extensions that have a capability."""
        return list(self._index.capable.get(_text("a capability", capability), _NONE).values())

    def find(
        self,
        *,
        name: str | None = None,
        version: str | None = None,
        status: ExtensionStatus | None = None,
        capability: str | None = None,
        metadata: Mapping[str, str] | None = None,
        zone: str | None = None,
    ) -> list[ExtensionInfo]:
        """Return the extensions that are all of what is asked for, without I/O.

        Args:
            version: a specifier such as `>=1.2,<2`; see `osdisco.discovery.versions`.
            metadata: entries that it must have.
            zone: the same as `metadata={"zone": zone}`.

        Raises:
            DiscoveryError: a version specifier or another argument that is none, and what is allowed.
        """
        versions = None if version is None else specifier(version)
        wanted = _wanted(metadata, zone)
        if status is not None and not isinstance(status, ExtensionStatus):
            raise DiscoveryError(f"a status is one of ExtensionStatus, not {type(status).__name__}")
        return [
            one
            for one in self._candidates(name, capability)
            if (name is None or one.name == name)
            and (status is None or one.status is status)
            and wanted.items() <= one.metadata.items()
            and (versions is None or versions.matches(one.version))
        ]

    def _candidates(self, name: str | None, capability: str | None) -> Iterable[ExtensionInfo]:
        """Return few extensions that have all that will do; those of a capability have it."""
        if capability is not None:
            return self._index.capable.get(_text("a capability", capability), _NONE).values()
        if name is not None:
            return self._index.named.get(_text("a name", name), _NONE).values()
        return self.values()

    def _hear(self, onlooker: Onlooker) -> None:
        """Tell somebody of all extensions from now on, who was told only of its own: most never ask for more."""
        self._hearers[onlooker] = None

    def _attend(self, onlooker: Onlooker, id_: str | None) -> None:
        """Begin to tell somebody; begin to follow with the first."""
        self._onlookers[onlooker] = "" if id_ is None else escape(id_)
        self._places.setdefault(self._onlookers[onlooker], []).append(onlooker)
        if len(self._onlookers) == 1:
            self._begin()  # what it showed before it was closed was told to others, and is over
            self._follower.start()
            self._staleness.look()
        elif self._follower.known and onlooker in self._hearers:
            onlooker.on_pairs([(None, extension) for extension in self.values()])
        if self._staleness.stale:
            onlooker.on_staleness(self._stale())

    async def _forgo(self, onlooker: Onlooker) -> None:
        """Tell somebody no more; with the last the view ends, and shows what it last knew."""
        place = self._onlookers.pop(onlooker)
        self._hearers.pop(onlooker, None)
        self._places[place].remove(onlooker)
        if not self._places[place]:
            del self._places[place]
        if not self._onlookers:
            self._staleness.forget()
            self._guard.close()
            await self._follower.aclose()

    def _take(self, change: Change, first: bool) -> None:
        self._staleness.look()  # first that it is fresh again, then what was missed
        if first:
            self._begin()
        pairs = self._table.apply(change)
        seen = self._follower.seen_before
        for old, _ in pairs:
            if old is not None:
                old._see(seen)
        self._guard.take(pairs)
        for onlooker in list(self._onlookers) if first else self._at(change):
            onlooker.on_own()

    def _begin(self) -> None:
        """Show nothing."""
        self._table.clear()
        self._index.clear()
        self._guard.begin()

    def _show(self, pairs: Sequence[Pair]) -> None:
        for old, new in pairs:
            self._index.replace(old, new)
        for onlooker in list(self._hearers) if pairs else ():
            onlooker.on_pairs(pairs)

    def _at(self, change: Change) -> list[Onlooker]:
        """Return those at whose ids something changed."""
        touched = {place_of(key, self._table.target) for key in (*change.deletes, *change.puts)}
        return [onlooker for place in touched for onlooker in self._places.get(place, ())]

    def _stale(self) -> ViewStale:
        return ViewStale(self.age, str(self.error or "the store has been silent for too long"))

    def _tell_staleness(self, stale: bool) -> None:
        now = self._now()
        lasted, self._turned = now - self._turned, now
        self._guard.set_stale(stale)
        for onlooker in list(self._onlookers):
            onlooker.on_staleness(self._stale() if stale else ViewFresh(lasted))

    def _on_trouble(self, error: OsdiscoError) -> None:
        if not isinstance(error, ClosedError):
            self._staleness.look()
            return
        self._staleness.stop()
        for onlooker in list(self._onlookers):
            onlooker.on_closed()


class _Views(WeakValueDictionary[_Key, Extensions]):
    """The views of a connection that somebody uses."""


class Index:
    """Extensions by capability and by name."""

    def __init__(self) -> None:
        self.capable: Final[dict[str, dict[str, ExtensionInfo]]] = {}
        self.named: Final[dict[str, dict[str, ExtensionInfo]]] = {}

    def clear(self) -> None:
        """Forget all."""
        self.capable.clear()
        self.named.clear()

    def replace(self, old: ExtensionInfo | None, new: ExtensionInfo | None) -> None:
        """Let `new` stand where `old` stood."""
        if old is not None:
            kept = () if new is None else new.capabilities
            _leave(self.capable, old.id, [one for one in old.capabilities if one not in kept])
            _leave(self.named, old.id, [old.name] if new is None or new.name != old.name else [])
        if new is not None:
            for capability in new.capabilities:
                self.capable.setdefault(capability, {})[new.id] = new
            self.named.setdefault(new.name, {})[new.id] = new


def _leave(index: dict[str, dict[str, ExtensionInfo]], id_: str, keys: Iterable[str]) -> None:
    for key in keys:
        if (there := index.get(key)) is not None:
            there.pop(id_, None)
            if not there:
                del index[key]


def _text(what: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise DiscoveryError(f"{what} is text, not {type(value).__name__}")


def _wanted(metadata: Mapping[str, str] | None, zone: str | None) -> Mapping[str, str]:
    wanted = dict(copied(metadata or {})) | ({} if zone is None else {"zone": zone})
    check_metadata(wanted)
    return wanted
