"""What tests of osdisco, of backends and of users' own projects stand on. Public; loads each part when it is asked for.

* virtual time: `VirtualClock`, `VirtualLoop`, `run`
* simulation: `Simulation` with its `SimulatedProcess`es, `scenario`, `run_seed`; `FaultyBackend` around any backend
* the conformance suite of backends: `BackendSuite`, `Harness`, `UrlHarness`
* histories: `Traffic` of many clients, or your own by `Recorder`, written down in a `History` whose `problems()` says
  whether one store can have done that; `watch_problems` the same of watches; `linearizable` of any other object
* real servers: `EtcdContainer`, `ConsulContainer`, `EtcdCluster`, `ConsulCluster` in Docker; `EtcdProcess`,
  `ConsulProcess` without; `Servers` takes what there is
* a search cluster that there is not: `FakeCluster`, with each `Fault`, and its `FakeSource` in virtual time
* a network that fails: `ChaosProxy`, with a `Direction` each way
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osdisco.testing._weather import Weather
    from osdisco.testing.certs import Certificates, make_certificates
    from osdisco.testing.chaos import ChaosProxy, Direction
    from osdisco.testing.clock import VirtualClock
    from osdisco.testing.clusters import ConsulCluster, EtcdCluster
    from osdisco.testing.conformance import BackendSuite, Harness, UrlHarness
    from osdisco.testing.containers import ConsulContainer, EtcdContainer
    from osdisco.testing.faulty import FaultyBackend
    from osdisco.testing.histories import History, Operation, Recorder
    from osdisco.testing.linearizability import Step, Verdict, linearizable
    from osdisco.testing.loop import HangError, VirtualLoop, run
    from osdisco.testing.opensearch import FakeCluster, FakeSource, Fault
    from osdisco.testing.processes import ConsulProcess, EtcdProcess
    from osdisco.testing.servers import ApiError, ConsulServer, EtcdServer, Servers
    from osdisco.testing.simulation import Outcome, Scenario, SimulatedProcess, Simulation, run_seed, scenario
    from osdisco.testing.traffic import Traffic, Watcher
    from osdisco.testing.watched import Log, watch_problems

__all__ = [
    "ApiError",
    "BackendSuite",
    "Certificates",
    "ChaosProxy",
    "ConsulCluster",
    "ConsulContainer",
    "ConsulProcess",
    "ConsulServer",
    "Direction",
    "EtcdCluster",
    "EtcdContainer",
    "EtcdProcess",
    "EtcdServer",
    "FakeCluster",
    "FakeSource",
    "Fault",
    "FaultyBackend",
    "HangError",
    "Harness",
    "History",
    "Log",
    "Operation",
    "Outcome",
    "Recorder",
    "Scenario",
    "Servers",
    "SimulatedProcess",
    "Simulation",
    "Step",
    "Traffic",
    "UrlHarness",
    "Verdict",
    "VirtualClock",
    "VirtualLoop",
    "Watcher",
    "Weather",
    "linearizable",
    "make_certificates",
    "run",
    "run_seed",
    "scenario",
    "watch_problems",
]

_HOMES = {
    "ApiError": "servers",
    "BackendSuite": "conformance",
    "Certificates": "certs",
    "ChaosProxy": "chaos",
    "ConsulCluster": "clusters",
    "ConsulContainer": "containers",
    "ConsulProcess": "processes",
    "ConsulServer": "servers",
    "Direction": "chaos",
    "EtcdCluster": "clusters",
    "EtcdContainer": "containers",
    "EtcdProcess": "processes",
    "EtcdServer": "servers",
    "FakeCluster": "opensearch",
    "FakeSource": "opensearch",
    "Fault": "opensearch",
    "FaultyBackend": "faulty",
    "HangError": "loop",
    "Harness": "conformance",
    "History": "histories",
    "Log": "watched",
    "Operation": "histories",
    "Outcome": "simulation",
    "Recorder": "histories",
    "Scenario": "simulation",
    "Servers": "servers",
    "SimulatedProcess": "simulation",
    "Simulation": "simulation",
    "Step": "linearizability",
    "Traffic": "traffic",
    "UrlHarness": "conformance",
    "Verdict": "linearizability",
    "VirtualClock": "clock",
    "VirtualLoop": "loop",
    "Watcher": "traffic",
    "Weather": "_weather",
    "linearizable": "linearizability",
    "make_certificates": "certs",
    "run": "loop",
    "run_seed": "simulation",
    "scenario": "simulation",
    "watch_problems": "watched",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
