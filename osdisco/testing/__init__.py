"""What tests of osdisco, of backends and of users' own projects stand on. Public; loads each part when it is asked for.

* virtual time: `VirtualClock`, `VirtualLoop`, `run`
* the conformance suite of backends: `BackendSuite`, `Harness`, `UrlHarness`
* real servers: `EtcdContainer`, `ConsulContainer`, `EtcdCluster`, `ConsulCluster` in Docker; `EtcdProcess`,
  `ConsulProcess` without; `Servers` takes what there is
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osdisco.testing.certs import Certificates, make_certificates
    from osdisco.testing.clock import VirtualClock
    from osdisco.testing.clusters import ConsulCluster, EtcdCluster
    from osdisco.testing.conformance import BackendSuite, Harness, UrlHarness
    from osdisco.testing.containers import ConsulContainer, EtcdContainer
    from osdisco.testing.loop import HangError, VirtualLoop, run
    from osdisco.testing.processes import ConsulProcess, EtcdProcess
    from osdisco.testing.servers import ApiError, ConsulServer, EtcdServer, Servers

__all__ = [
    "ApiError",
    "BackendSuite",
    "Certificates",
    "ConsulCluster",
    "ConsulContainer",
    "ConsulProcess",
    "ConsulServer",
    "EtcdCluster",
    "EtcdContainer",
    "EtcdProcess",
    "EtcdServer",
    "HangError",
    "Harness",
    "Servers",
    "UrlHarness",
    "VirtualClock",
    "VirtualLoop",
    "make_certificates",
    "run",
]

_HOMES = {
    "ApiError": "servers",
    "BackendSuite": "conformance",
    "Certificates": "certs",
    "ConsulCluster": "clusters",
    "ConsulContainer": "containers",
    "ConsulProcess": "processes",
    "ConsulServer": "servers",
    "EtcdCluster": "clusters",
    "EtcdContainer": "containers",
    "EtcdProcess": "processes",
    "EtcdServer": "servers",
    "HangError": "loop",
    "Harness": "conformance",
    "Servers": "servers",
    "UrlHarness": "conformance",
    "VirtualClock": "clock",
    "VirtualLoop": "loop",
    "make_certificates": "certs",
    "run": "loop",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
