"""What listeners of discovery are, and how what happens is told to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from osdisco.discovery._telling import Manners
from osdisco.discovery.events import (
    Difference,
    ExtensionEvent,
    Single,
    Superseded,
    ViewFresh,
    ViewProtecting,
    ViewProtectionOver,
    ViewStale,
)
from osdisco.discovery.extension import ExtensionInfo


class ViewListener:
    """What all who listen to a view can be told of it."""

    def on_view_stale(self, event: ViewStale) -> Any:
        """The store may know better than the view from now on. What it shows stays."""

    def on_view_fresh(self, event: ViewFresh) -> Any:
        """The view is again what the store has."""

    def on_view_protecting(self, event: ViewProtecting) -> Any:
        """Too many vanished at once, and some of them are shown on."""

    def on_view_protection_over(self, event: ViewProtectionOver) -> Any:
        """What was shown on has returned, or was let go."""


class DiscoveryListener(ViewListener):
    """What can be told; any object with some of these methods will do. They may be coroutines."""

    def on_extensions_discovered(self, extensions: Sequence[ExtensionInfo]) -> Any:
        """Extensions appeared; those that are there already come first, when the listener is added."""

    def on_extensions_removed(self, extensions: Sequence[ExtensionInfo]) -> Any:
        """Extensions are gone: they left, or their lease ran out."""

    def on_extension_status_changed(self, old: ExtensionInfo, new: ExtensionInfo) -> Any:
        """An extension changed its status."""

    def on_superseded(self, event: Superseded) -> Any:
        """Another process registered the own id later; this one is out for good."""


_SINGLES: Final = {
    ViewStale: "on_view_stale",
    ViewFresh: "on_view_fresh",
    ViewProtecting: "on_view_protecting",
    ViewProtectionOver: "on_view_protection_over",
    Superseded: "on_superseded",
}


def methods_of(kind: type) -> tuple[str, ...]:
    """Return the names of the methods that listeners of a kind may have."""
    return tuple(name for name in dir(kind) if name.startswith("on_"))


def meanings(
    told: Sequence[Difference[Any]] | Single, *, discovered: str, removed: str, changed: str
) -> Iterable[tuple[Any, ...]]:
    """Yield the names of methods with what they are given: who is gone, who is new, and what changed."""
    if isinstance(told, Single):
        yield _SINGLES[type(told)], told
        return
    if gone := [event.old for event in told if event.new is None]:
        yield removed, gone
    if new := [event.new for event in told if event.old is None]:
        yield discovered, new
    for event in told:
        if event.old is not None and event.new is not None:
            yield changed, event.old, event.new


def _meanings(told: Sequence[ExtensionEvent] | Single) -> Iterable[tuple[Any, ...]]:
    for name, *given in meanings(
        told,
        discovered="on_extensions_discovered",
        removed="on_extensions_removed",
        changed="on_extension_status_changed",
    ):
        if name != "on_extension_status_changed" or given[0].status is not given[1].status:
            yield name, *given


MANNERS: Final = Manners[ExtensionEvent]("DiscoveryListener", methods_of(DiscoveryListener), _meanings, single=False)
