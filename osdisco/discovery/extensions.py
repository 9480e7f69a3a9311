"""The live local view of all extensions, indexed by what one looks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from weakref import WeakValueDictionary

from osdisco._protection import Pairs, Traits
from osdisco.client import Client
from osdisco.discovery._filter import Filter
from osdisco.discovery._live import Hearer, LiveView
from osdisco.discovery._roster import Roster
from osdisco.discovery.events import ExtensionEvent
from osdisco.discovery.extension import ExtensionInfo, ExtensionStatus
from osdisco.discovery.registration import PREFIX, kind
from osdisco.errors import DiscoveryError

_Key = tuple[str, float, float]

_NONE: Final[Mapping[str, ExtensionInfo]] = {}

TRAITS: Final = Traits[ExtensionInfo](
    id_of=lambda extension: extension.id,
    place_of=lambda extension: (extension.host, extension.port),
    leaving=lambda extension: extension.status is ExtensionStatus.STOPPING,
    fit=lambda extension: extension.status in (ExtensionStatus.HEALTHY, ExtensionStatus.DEGRADED),
)


class Extensions(LiveView[ExtensionInfo]):
    """The live local view: extensions by id. Losing the store keeps the last known, `stale` and with its `age`."""

    def __init__(self, client: Client, share: float, window: float) -> None:
        super().__init__(client, Roster.of(client, kind, PREFIX), TRAITS, ExtensionEvent, share, window)
        self._index: Final = Index()
        self._users: Final[set[Hearer]] = set()

    @classmethod
    def _of(cls, client: Client, share: float, window: float) -> Extensions:
        """Return the view that all services of a client share that protect it in one way.

        So a change is folded and indexed only once.
        """
        views = client._connection.companion(_Views, _Views)
        key = client._keys.root, share, window if share else 0.0
        view = views.get(key)
        if view is None:
            view = views[key] = cls(client, share, window)
        return view

    def __repr__(self) -> str:
        return f"<{len(self)} extensions, {'stale' if self.stale else 'fresh'}>"

    def find_by_capability(self, capability: str) -> list[ExtensionInfo]:
        """Return the extensions that have a capability."""
        if not isinstance(capability, str):
            raise DiscoveryError(f"a capability is text, not {type(capability).__name__}")
        return list(self._index.capable.get(capability, _NONE).values())

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
        meant = Filter.of_extensions(
            name=name, version=version, status=status, capability=capability, metadata=metadata, zone=zone
        )
        return list(filter(meant, self._candidates(name, capability)))

    def _candidates(self, name: str | None, capability: str | None) -> Iterable[ExtensionInfo]:
        """Return few extensions that have all that will do."""
        if capability is not None:
            return self._index.capable.get(capability, _NONE).values()
        if name is not None:
            return self._index.named.get(name, _NONE).values()
        return self.values()

    def _hear(self, hearer: Hearer) -> None:
        """Tell somebody of all extensions from now on: most who use the view never ask for more than their own."""
        self._hearers[hearer] = None

    def _unhear(self, hearer: Hearer) -> None:
        """Tell somebody no more."""
        self._hearers.pop(hearer, None)

    def _attend(self, user: Hearer) -> None:
        """Begin to follow with the first who uses it; who comes later, and hears, is told what is there."""
        if not self._users:
            self._follow()
        elif user in self._hearers:
            for told in self._present():
                user.put(told)
        self._users.add(user)

    async def _forgo(self, user: Hearer) -> None:
        """Tell somebody no more; with the last the view ends, and shows what it last knew."""
        self._unhear(user)
        self._users.discard(user)
        if not self._users:
            await self._unfollow()

    def _on_pairs(self, pairs: Pairs[ExtensionInfo]) -> None:
        """Take what was and what is from the roster; who is gone was last seen by what the store said before."""
        seen = self._roster.seen_before
        for old, _ in pairs:
            if old is not None:
                old._see(seen)
        super()._on_pairs(pairs)

    def _forget(self) -> None:
        self._index.clear()

    def _note(self, changes: Pairs[ExtensionInfo]) -> None:
        for old, new in changes:
            self._index.replace(old, new)


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
