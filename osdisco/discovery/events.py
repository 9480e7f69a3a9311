"""What happens: to records, of which extensions are one kind, and to the view of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, TypeVar

from attrs import frozen

from osdisco.discovery.extension import ExtensionInfo

R = TypeVar("R")


@frozen
class Difference(Generic[R]):
    """One record came (`old` is None), went (`new` is None) or changed."""

    old: R | None
    new: R | None

    @property
    @abstractmethod
    def id(self) -> str:
        """The id of the record."""

    @property
    def _last(self) -> R:
        """The record as it is, or as it last was."""
        known = self.old if self.new is None else self.new
        assert known is not None
        return known


@frozen
class ExtensionEvent(Difference[ExtensionInfo]):
    """One extension appeared (`old` is None), went (`new` is None) or changed."""

    @property
    def id(self) -> str:
        """The id of the extension."""
        return self._last.id

    @property
    def extension(self) -> ExtensionInfo:
        """The extension as it is, or as it last was."""
        return self._last


@frozen
class ViewStale:
    """The store may know better than the view from now on: the watch is interrupted, or silent for too long.

    Args:
        age: seconds since the store last spoke.
        reason: what interrupted it.
    """

    age: float
    reason: str


@frozen
class ViewFresh:
    """The view is again what the store has; what was missed is told next.

    Args:
        lasted: seconds for which it was stale.
    """

    lasted: float


@frozen
class ViewProtecting:
    """Too many vanished at once: some are shown on from now on, although their records are gone."""


@frozen
class ViewProtectionOver:
    """What was shown on has returned, or was let go.

    Args:
        lasted: seconds for which some were shown on.
    """

    lasted: float


@frozen
class Superseded:
    """Another process registered the own id later. This one withdraws, for good: it may as well end.

    Args:
        by: what the other one says of itself.
    """

    by: ExtensionInfo


ViewEvent = ViewStale | ViewFresh | ViewProtecting | ViewProtectionOver
"""How far the view can be trusted."""

Single = ViewEvent | Superseded
Event = ExtensionEvent | Single
