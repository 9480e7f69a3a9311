"""Calls by HTTP on every store, while endpoints and the store get into trouble: no call that can be saved is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from attrs import frozen
from real_town import AT_ONCE, DRAIN, IDEMPOTENT, Town, half_open, kill, load, more, outage_of, slow, who
from worlds import until

from osdisco.errors import CircuitOpenError, RemoteError
from osdisco.mesh import BreakerSettings, BreakerState, CircuitBreakerRegistry, OutlierSettings, PoolSettings
from osdisco.mesh.retry import NEVER
from osdisco.registry import ServiceDefinition
from osdisco.testing import ChaosProxy


@frozen
class Hits:
    names: tuple[str, ...]
    total: int


@pytest.fixture
async def geo(store_url: str) -> AsyncGenerator[Town, None]:
    async with AsyncExitStack() as stack:
        yield Town(store_url, stack)


async def test_a_call_from_one_process_to_another(geo: Town) -> None:
    async def search(query: dict[str, Any]) -> Hits:
        return Hits((query["q"],), 1)

    server = await geo.serve({"search": search})
    mesh = await geo.mesh()
    assert await mesh.call("geo", "search", {"q": "é"}, response_type=Hits, timeout=5) == Hits(("é",), 1)
    assert server.registration.registered
    assert server.methods == ("search",)


async def test_the_address_that_others_need_is_found_when_none_is_given(geo: Town) -> None:
    mesh = await geo.mesh()
    async with mesh.serve(ServiceDefinition("geo", "1"), {"who": who}, host="0.0.0.0", drain=AT_ONCE) as server:
        assert server.address == f"127.0.0.1:{server.port}"
        assert await (await geo.mesh()).call("geo", "who") == "me"


TROUBLES: dict[str, Callable[[ChaosProxy], None]] = {
    "killed": kill,
    "paused": ChaosProxy.hold,
    "half-open": half_open,
    "silent": ChaosProxy.blackhole,
    "reset again and again": ChaosProxy.reset,
    "slow": slow,
}
FAULTS = {"killed": "F13", "paused": "F18", "slow": "F18"}


@pytest.mark.parametrize(
    "trouble", [pytest.param(name, marks=pytest.mark.fault(FAULTS.get(name, "F17"))) for name in TROUBLES]
)
async def test_one_of_three_endpoints_in_trouble_costs_no_idempotent_call(trouble: str, geo: Town) -> None:
    mesh = await geo.three()
    async with load(mesh) as results:
        await more(results, 100)
        TROUBLES[trouble](geo.proxies[0])
        await more(results, 500)
        geo.proxies[0].heal()
        await more(results, 100)
    assert set(results) == {"me"}


async def test_an_endpoint_that_fails_every_call_costs_no_idempotent_one(geo: Town) -> None:
    async def fail() -> None:
        raise RemoteError("Broken", "every time")

    await geo.serve({"who": fail})
    for _ in range(2):
        await geo.serve()
    mesh = await geo.mesh(retry_policies=IDEMPOTENT)
    async with load(mesh) as results:
        await more(results, 300)
    assert set(results) == {"me"}


async def test_a_rolling_restart_costs_no_call_idempotent_or_not(geo: Town) -> None:
    for _ in range(3):
        await geo.serve(drain=DRAIN)
    mesh = await geo.mesh(retry_policies=NEVER)
    async with load(mesh, "add") as results:
        await more(results, 100)
        for server in list(geo.servers):
            await server.aclose()
            await geo.serve(drain=DRAIN)
            await more(results, 50)
    assert set(results) == {"me"}


async def back(proxy: ChaosProxy) -> None:
    """Let an endpoint be well again, and wait until it is called."""
    accepted = proxy.accepted
    proxy.heal()
    await until(lambda: proxy.accepted > accepted, 20)


@pytest.mark.fault("F13")
async def test_endpoints_that_crash_one_after_the_other_cost_no_idempotent_call(geo: Town) -> None:
    soon = {
        "pool": PoolSettings(outliers=OutlierSettings(base_ejection=0.3)),
        "circuit_breakers": CircuitBreakerRegistry(BreakerSettings(open_for=0.3)),
    }
    mesh = await geo.three(**soon)
    async with load(mesh) as results:
        for proxy in geo.proxies:
            await more(results, 100)
            kill(proxy)
            await more(results, 200)
            proxy.heal()
            await back(proxy)
    assert set(results) == {"me"}


@pytest.mark.fault("F14")
async def test_when_the_store_is_away_for_the_caller_calls_go_on(geo: Town, store_url: str) -> None:
    await geo.serve()
    async with outage_of(store_url) as store:
        client = await geo.client(store.url)
        mesh = await geo.mesh(client)
        assert await mesh.call("geo", "who") == "me"
        store.begin(client)
        async with load(mesh) as results:
            await more(results, 300)
            await asyncio.sleep(2)
            await more(results, 100)
        assert set(results) == {"me"}
        store.end()
        await geo.serve()
        await until(lambda: len(mesh.services["geo"].view) == 2, 30)


@pytest.mark.fault("F4")
async def test_when_the_store_is_away_for_all_calls_go_on_and_then_all_are_there_again(store_url: str) -> None:
    """Once longer than leases live, by `OSDISCO_TEST_AWAY=60`: who serves is registered anew then."""
    async with outage_of(store_url) as store, AsyncExitStack() as stack:
        geo = Town(store.url, stack)
        mesh = await geo.three()
        store.begin(*geo.clients)
        async with load(mesh, "add", callers=4, pause=0.01) as results:
            await asyncio.sleep(float(os.environ.get("OSDISCO_TEST_AWAY", "10")))
            await more(results, 100)
            store.end()
            await geo.serve()
            await until(lambda: len(mesh.services["geo"].view) == 4, 60)
            await more(results, 100)
        assert set(results) == {"me"}
        assert all(server.registration.registered for server in geo.servers)


async def test_when_all_of_a_service_fail_its_own_breaker_says_so_and_lets_go_when_they_are_well(geo: Town) -> None:
    whole = BreakerSettings(window=10, minimum=10, open_for=0.5, permits=2)
    breakers = CircuitBreakerRegistry(BreakerSettings(window=1000, minimum=1000), whole={"geo": whole})
    mesh = await geo.three(circuit_breakers=breakers, pool=PoolSettings(panic=1))
    for proxy in geo.proxies:
        kill(proxy)
    async with load(mesh, "add", pause=0.01) as results:
        await until(lambda: any(isinstance(one, CircuitOpenError) for one in results), 20)
        for proxy in geo.proxies:
            proxy.heal()
        results.clear()
        await until(lambda: results[-20:] == ["me"] * 20, 20)
    assert mesh.circuit_breakers.breaker("geo").state is BreakerState.CLOSED
