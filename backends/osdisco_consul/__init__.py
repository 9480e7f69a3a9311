"""The Consul adapter of osdisco: `consul://` and `consul+https://`. Drivers load when a backend is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osdisco_consul._backend import ConsulBackend

if TYPE_CHECKING:
    from osdisco_consul.catalog import ConsulCatalog

__all__ = ["ConsulBackend", "ConsulCatalog"]


def __getattr__(name: str) -> Any:
    """Load the catalog when it is asked for: it needs discovery, which a backend does not."""
    if name != "ConsulCatalog":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from osdisco_consul.catalog import ConsulCatalog

    return ConsulCatalog
