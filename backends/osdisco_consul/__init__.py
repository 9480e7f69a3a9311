"""The Consul adapter of osdisco: `consul://` and `consul+https://`. Drivers load when a backend is built."""

from osdisco_consul._backend import ConsulBackend

__all__ = ["ConsulBackend"]
