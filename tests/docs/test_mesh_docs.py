"""The page on the mesh: every example runs and shows what it says, on every store, by real HTTP; nothing lacks one."""

from __future__ import annotations

import asyncio
from inspect import signature
from itertools import chain
from pathlib import Path

from apis import Name, calls, lines, without_example
from examples import DOCS, Area, examples_of
from pages import PagesWithSockets

import osdisco
import osdisco.mesh
from osdisco.mesh import ServiceServer


class OnePage(Area):
    """The pages below have frames of their own."""

    @property
    def pages(self) -> list[Path]:
        return [DOCS / f"{self.name}.md"]


MESH = OnePage("mesh", lambda client, other: {})
EXAMPLES = MESH.examples
(API,) = examples_of(DOCS / "api-mesh.md")

SHOWN = {
    f"osdisco.mesh.{name}"
    for name in ("deadline", "handlers", "hedging", "mesh", "retry", "serving", "tls", "transport")
}


class TestMesh(PagesWithSockets):
    area = MESH


INTERNAL: set[Name] = {("Transport", name) for name in ("send", "listen", "aclose")}
INTERNAL |= {("Listener", name) for name in ("port", "aclose")}
"""Protocols, which nothing is derived from: the page has a class with their methods."""
INTERNAL |= {("HttpTransport", name) for name in ("send", "listen")}
INTERNAL |= {("ExtensionServiceMesh", "add_listener")}  # it has its example on the page on seeing
"""For the mesh."""


def test_every_public_name_has_an_example() -> None:
    """A new public method, property or field fails here until the page shows it."""
    names = [getattr(osdisco.mesh, name) for name in osdisco.mesh.__all__]
    classes = [one for one in names if isinstance(one, type) and one.__module__ in SHOWN]
    assert ServiceServer in classes
    assert without_example(MESH, classes, asyncio.run) - INTERNAL == set()


def test_every_call_of_the_api_has_an_example() -> None:
    below = [Area(f"mesh/{page}", lambda client, other: {}).examples for page in ("balancing", "routing", "seeing")]
    shown = {call for example in (*EXAMPLES, *chain(*below)) for call in calls(example.tree())}
    missing = [call for call in lines(API.tree()) if call[:2] not in shown]
    assert missing == []


SPECIFIED = [
    *("ExtensionServiceMesh", "ServiceRegistry", "ServiceDefinition", "ServiceEndpoint", "LoadBalancer"),
    *("RoundRobinLoadBalancer", "CircuitBreakerRegistry", "RetryPolicy", "ServiceMeshError", "ServiceNotFoundError"),
    *("NoHealthyEndpointsError", "CircuitOpenError", "DeadlineExceededError", "RemoteError"),
]
SIGNATURES = [
    (osdisco.ExtensionServiceMesh, ["client"], ["load_balancer", "retry_policies", "circuit_breakers"]),
    (osdisco.ExtensionServiceMesh.call, ["mesh", "geo", "search", {}], ["response_type", "timeout", "key", "metadata"]),
    (osdisco.ExtensionServiceMesh.call, ["mesh", "geo", "search"], ["idempotent"]),
    (osdisco.ExtensionServiceMesh.serve, ["mesh", "definition", {}], ["host", "port"]),
    (osdisco.ExtensionServiceMesh.register_service, ["mesh", "definition"], []),
    (osdisco.LoadBalancer.select, ["balancer", []], []),
]
"""What is called by which arguments, and by which keywords."""


def test_the_names_and_signatures_of_the_specification_are_there() -> None:
    assert [name for name in SPECIFIED if not hasattr(osdisco, name)] == []
    for call, arguments, keywords in SIGNATURES:
        signature(call).bind(*arguments, **dict.fromkeys(keywords))
