"""Who comes back under its own id is another process, also when nobody saw it go: what failed was the old one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from attrs import evolve
from fleets import Fleet
from mesh_town import INTERRUPTED, Town, town
from worlds import World, until

from osdisco.errors import ServiceMeshError
from osdisco.mesh import BreakerState, ExtensionServiceMesh, Outcome
from osdisco.registry import ServiceDefinition, ServiceRegistry

ADDRESS = "10.0.0.7:9700"
GEO = ServiceDefinition("geo", "2.1.0", ADDRESS)


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


async def judged(geo: Town) -> ExtensionServiceMesh:
    """A mesh for which the only endpoint has failed so often that its circuit is open, and it is ejected."""
    geo.network.fail(ADDRESS, INTERRUPTED)
    mesh = geo.mesh(retry_policies=None)
    for _ in range(10):
        with pytest.raises(ServiceMeshError):
            await mesh.call("geo", "who")
    assert stands(mesh) == (BreakerState.OPEN, True)
    return mesh


def stands(mesh: ExtensionServiceMesh) -> tuple[BreakerState, bool]:
    state = mesh.services["geo"].pool.states[ADDRESS]
    assert state.breaker is not None
    return state.breaker.state, state.ejected_until is not None


async def register(geo: Town, **changes: Any) -> Any:
    return await ServiceRegistry(geo.world.process()).register(ServiceDefinition("geo", "2.1.0", ADDRESS, **changes))


@pytest.mark.parametrize("changes", [{}, {"weight": 50}])
async def test_who_crashed_and_is_back_at_once_is_called_at_once(geo: Town, changes: Any) -> None:
    await register(geo)
    dead = geo.world.clients[-1]
    mesh = await judged(geo)
    geo.world.kill(dead)
    await register(geo, **changes)
    assert len(mesh.services["geo"].view) == 1, "nobody saw it go"
    await until(lambda: stands(mesh) == (BreakerState.CLOSED, False), 3)
    state = mesh.services["geo"].pool.states[ADDRESS]
    await asyncio.sleep(30)
    assert mesh.services["geo"].pool.states[ADDRESS] is state, "the old record goes later, and changes nothing"


async def test_what_one_process_changes_does_not_make_it_another(geo: Town) -> None:
    registration = await register(geo)
    mesh = await judged(geo)
    await registration.update(weight=50)
    await asyncio.sleep(1)
    assert mesh.services["geo"].pool.states[ADDRESS].weight == 50
    assert stands(mesh) == (BreakerState.OPEN, True)


async def test_who_was_away_with_the_store_is_the_same_process(geo: Town) -> None:
    await register(geo)
    client = geo.world.clients[-1]
    mesh = await judged(geo)
    before = mesh.services["geo"].pool.states[ADDRESS]
    outage = client.backend.faults.outage()  # type: ignore[attr-defined]
    await asyncio.sleep(5)
    outage.end()
    await asyncio.sleep(20)
    assert mesh.services["geo"].pool.states[ADDRESS] is before


def test_a_pool_that_is_told_of_processes_forgets_those_that_are_over() -> None:
    fleet = Fleet(2)
    fleet.call(0, Outcome.FAILED, times=10)
    first = dict(fleet.pool.states)
    for incarnations, same in (({"e0": 7}, True), ({"e0": 7, "e1": 3}, True), ({}, True), ({"e0": 8}, False)):
        fleet.pool.update(map(evolve, fleet.endpoints.values()), incarnations.get)
        assert (fleet.state(0) is first["e0"]) is same
        assert fleet.state(1) is first["e1"]
