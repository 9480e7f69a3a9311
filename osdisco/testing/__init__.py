"""What tests of osdisco, of backends and of users' own projects stand on. Public; loads each part when it is asked for.

* virtual time: `VirtualClock`, `VirtualLoop`, `run`
* simulation: `Simulation` with its `SimulatedProcess`es, `scenario`, `run_seed`; `FaultyBackend` around any backend
* the conformance suite of backends: `BackendSuite`, `Harness`, `UrlHarness`
* real servers: `EtcdContainer`, `ConsulContainer`, `EtcdCluster`, `ConsulCluster` in Docker; `EtcdProcess`,
  `ConsulProcess` without; `Servers` takes what there is
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osdisco.testing._weather import Weather
    from osdisco.testing.certs import Certificates, make_certificates
    from osdisco.testing.clock import VirtualClock
    from osdisco.testing.clusters import ConsulCluster, EtcdCluster
    from osdisco.testing.conformance import BackendSuite, Harness, UrlHarness
    from osdisco.testing.containers import ConsulContainer, EtcdContainer
    from osdisco.testing.faulty import FaultyBackend
    from osdisco.testing.loop import HangError, VirtualLoop, run
    from osdisco.testing.processes import ConsulProcess, EtcdProcess
    from osdisco.testing.servers import ApiError, ConsulServer, EtcdServer, Servers
    from osdisco.testing.simulation import Outcome, Scenario, SimulatedProcess, Simulation, run_seed, scenario

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
    "FaultyBackend",
    "HangError",
    "Harness",
    "Outcome",
    "Scenario",
    "Servers",
    "SimulatedProcess",
    "Simulation",
    "UrlHarness",
    "VirtualClock",
    "VirtualLoop",
    "Weather",
    "make_certificates",
    "run",
    "run_seed",
    "scenario",
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
    "FaultyBackend": "faulty",
    "HangError": "loop",
    "Harness": "conformance",
    "Outcome": "simulation",
    "Scenario": "simulation",
    "Servers": "servers",
    "SimulatedProcess": "simulation",
    "Simulation": "simulation",
    "UrlHarness": "conformance",
    "VirtualClock": "clock",
    "VirtualLoop": "loop",
    "Weather": "_weather",
    "make_certificates": "certs",
    "run": "loop",
    "run_seed": "simulation",
    "scenario": "simulation",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
