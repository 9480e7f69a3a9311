"""Finds the adapter of a store by the scheme of its URL. Drivers load here and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osdisco.errors import ConfigError, nearest

if TYPE_CHECKING:
    from osdisco.backend import Backend

GROUP = "osdisco.backends"


def load_backend(scheme: str) -> type[Backend]:
    """Return the adapter class of the entry point `scheme` in the group `osdisco.backends`.

    Raises:
        ConfigError: nothing installed answers to the scheme, or its driver is missing.
    """
    from importlib.metadata import entry_points

    points = {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in points:
        raise ConfigError(
            f"no backend is installed for {scheme!a} URLs{nearest(scheme, points)}; "
            f"known are {', '.join(sorted(points)) or 'none'}"
        )
    try:
        backend: type[Backend] = points[scheme].load()
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"the backend for {scheme}:// cannot be imported: {exc}") from exc
    return backend
