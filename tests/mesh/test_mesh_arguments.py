"""What a mesh cannot be made with, serve or call: refused by name, before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import pytest
from attrs import define
from mesh_town import Query, Town, echo, town
from worlds import World

from osdisco.errors import (
    ConfigError,
    RequestError,
)
from osdisco.mesh import BreakerSettings, LoadBalancer, OutlierSettings, RoundRobinLoadBalancer
from osdisco.mesh.retry import NEVER
from osdisco.registry import ServiceDefinition, ServiceEndpoint


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": ""}, "no name of a method"),
        ({"method": "a/b"}, "no name of a method"),
        ({"method": ".."}, "no name of a method"),
        ({"method": None}, "no name of a method"),
        ({"request": object()}, "cannot be encoded"),
        ({"request": float("inf")}, "cannot be encoded"),
        ({"request": b"x"}, "cannot be encoded"),
        ({"request": "\ud800"}, "lone surrogate"),
        ({"key": 7}, "key must be text"),
        ({"metadata": {"a": 1}}, "metadata must be text by name"),
        ({"metadata": [("a", "b")]}, "metadata must be text by name"),
        ({"response_type": "Hits"}, "no type that JSON can be read into"),
        ({"response_type": object()}, "no type that JSON can be read into"),
        ({"response_type": [int]}, "no type that JSON can be read into"),
        ({"metadata": {"a": "x" * 5000}}, "4096 are allowed"),
        ({"timeout": "2s"}, "timeout is a number of seconds"),
        ({"timeout": True}, "timeout is a number of seconds"),
        ({"timeout": float("nan")}, "timeout is a number of seconds"),
        ({"timeout": 10**400}, "timeout is a number of seconds"),
    ],
)
async def test_what_cannot_be_called_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], said: str, geo: Town
) -> None:
    await geo.serve({"echo": echo})
    with pytest.raises(RequestError, match=said) as caught:
        await geo.mesh().call(**{"service": "geo", "method": "echo", **arguments})
    assert not caught.value.sent
    assert geo.network.sent == []


@define
class WithoutHash(LoadBalancer):
    def select(self, endpoints: Sequence[ServiceEndpoint]) -> ServiceEndpoint:
        return endpoints[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"load_balancer": RoundRobinLoadBalancer}, "load_balancer is LoadBalancer, or None"),
        ({"load_balancer": WithoutHash()}, "has no hash"),
        ({"pool": OutlierSettings()}, "pool is PoolSettings, or None"),
        ({"circuit_breakers": BreakerSettings()}, "circuit_breakers is CircuitBreakerRegistry, or None"),
    ],
)
async def test_what_a_mesh_cannot_pick_by_is_refused(options: Any, said: str, geo: Town) -> None:
    with pytest.raises(ConfigError, match=said):
        geo.mesh(**options)


@pytest.mark.parametrize(
    ("handlers", "said"),
    [
        ({}, "handlers are functions"),
        ([echo], "handlers are functions"),
        ({"a/b": echo}, "no name of a method"),
        ({"a": 7}, "must be a function"),
        ({"a": lambda x, y: x}, "the request alone, or nothing"),
        ({"a": dict}, "cannot be seen"),
    ],
)
async def test_handlers_that_are_none_are_refused(handlers: Any, said: str, geo: Town) -> None:
    with pytest.raises(ConfigError, match=said):
        geo.mesh().serve(ServiceDefinition("geo", "1"), handlers)


class Searcher:
    """Called as an object, as a method and with something given already."""

    def __call__(self, query: Query) -> str:
        return f"object {query.text}"

    def method(self, query: Query) -> str:
        return f"method {query.text}"

    def more(self, what: str, query: Query) -> str:
        return f"{what} {query.text}"


async def test_a_handler_is_anything_that_can_be_called_and_its_request_is_what_it_says(geo: Town) -> None:
    searcher = Searcher()
    await geo.serve({"object": searcher, "method": searcher.method, "partial": partial(searcher.more, "partial")})
    mesh = geo.mesh()
    for method in ("object", "method", "partial"):
        assert await mesh.call("geo", method, {"text": "a"}) == f"{method} a"
        with pytest.raises(RequestError):
            await mesh.call("geo", method, {"text": 7})


async def test_a_request_type_that_nobody_can_find_is_refused(geo: Town) -> None:
    def search(query: Unheard) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Never called."""

    with pytest.raises(ConfigError, match="the type of the request of search cannot be used"):
        geo.mesh().serve(ServiceDefinition("geo", "1"), {"search": search})


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("inf")},
        {"timeout": 10**400},
        {"retry_policies": {"geo": 3}},
        {"retry_policies": [NEVER]},
    ],
)
async def test_a_mesh_that_cannot_be_is_refused(options: dict[str, Any], geo: Town) -> None:
    with pytest.raises(ConfigError):
        geo.mesh(**options)
