"""Backends by scheme, through entry points: ours and third parties' are found in the same way, and loaded when used."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from osdisco.backend import Backend
from osdisco.errors import ConfigError, nearest

GROUP = "osdisco.backends"


def load_backend(scheme: str) -> type[Backend]:
    """Return the backend class for a URL's scheme.

    Raises:
        ConfigError: no such scheme (with the known ones and the nearest match), or its package cannot be loaded.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    point = found.get(scheme)
    if point is None:
        known = ", ".join(f"{name}://" for name in sorted(found)) or "none: osdisco is not installed, only on the path"
        raise ConfigError(f"unknown scheme {scheme!a}{nearest(scheme, found)}; known are {known}")
    return _load(point)


def _load(point: EntryPoint) -> type[Backend]:
    try:
        backend = point.load()
    except ImportError as exc:
        raise ConfigError(f"the backend of {point.name}:// cannot be loaded from {point.value}: {exc}") from exc
    if not (isinstance(backend, type) and issubclass(backend, Backend)):
        raise ConfigError(f"the entry point {point.value} of {point.name}:// is not a subclass of osdisco.Backend")
    return backend
