"""Calls as rules say: whole meshes, a router, and canaries that are judged by what calls came to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from mesh_town import Town, town
from traffic import document, splits
from worlds import World, until

from osdisco.errors import NoHealthyEndpointsError, OverloadedError, RemoteError
from osdisco.mesh import CanaryController, CanaryPhase, CanaryPlan, CanaryState, ExtensionServiceMesh, TrafficRules

PLAN = CanaryPlan("v1", "v2", interval=30, step=25, max_weight=50, threshold=2)


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


class Geo:
    """A version of the service: counts what it was asked, and may fail or be slow."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.asked: list[Any] = []
        self.fails = False
        self.delay = 0.0

    async def search(self, request: Any) -> str:
        self.asked.append(request)
        await asyncio.sleep(self.delay)
        if self.fails:
            raise RemoteError("Broken", "it fails")
        return self.version


async def serve(town: Town, version: str) -> Geo:
    """Serve a version of `geo` from a process of its own."""
    geo = Geo(version)
    await town.serve({"search": geo.search}, definition={"version": version})
    return geo


async def following(town: Town, **fields: Any) -> tuple[ExtensionServiceMesh, TrafficRules]:
    """Return a caller that follows rules of geo, and the operator's hands on them."""
    rules = TrafficRules(town.world.process("operator"))
    await rules.set("geo", document(**fields))
    return town.mesh(rules=True), rules


async def answers(mesh: ExtensionServiceMesh, count: int = 40) -> Counter[str]:
    return Counter([await mesh.call("geo", "search", number, key=f"user-{number}") for number in range(count)])


async def test_calls_go_to_the_subset_that_rules_say_and_fail_over_when_it_is_empty(geo: Town) -> None:
    await serve(geo, "1.0.0")
    two = await serve(geo, "2.0.0")
    caller, rules = await following(geo, match=[{"metadata": {"tester": {"present": True}}, "subset": "v2"}])
    assert await answers(caller) == {"1.0.0": 40}
    assert await caller.call("geo", "search", 0, metadata={"Tester": "me"}) == "2.0.0"
    await rules.set("geo", document(splits=splits(v1=50, v2=50)))
    await asyncio.sleep(1)
    assert set(await answers(caller)) == {"1.0.0", "2.0.0"}
    assert len(two.asked) > 5
    empty = {"subsets": {"v9": {"version": ">=9"}, "v1": {"version": "<2"}}, "default_subset": "v9"}
    await rules.set("geo", empty)
    await asyncio.sleep(1)
    with pytest.raises(NoHealthyEndpointsError, match="v9"):
        await caller.call("geo", "search", 0)
    await rules.set("geo", {**empty, "failover": {"*": [{"subset": "v1"}]}})
    await asyncio.sleep(1)
    assert await answers(caller) == {"1.0.0": 40}


async def test_limits_faults_and_copies(geo: Town) -> None:
    await serve(geo, "1.0.0")
    two = await serve(geo, "2.0.0")
    match = [{"metadata": {"chaos": "yes"}, "fault": {"status": 503}}]
    caller, rules = await following(geo, mirror={"subset": "v2"}, match=match)
    assert await answers(caller, 5) == {"1.0.0": 5}
    await until(lambda: len(two.asked) == 5)
    with pytest.raises(RemoteError, match="InjectedFault"):
        await caller.call("geo", "search", 0, metadata={"chaos": "yes"})
    await rules.set("geo", document(rate_limit={"per_second": 1, "burst": 3}))
    await asyncio.sleep(1)
    assert await answers(caller, 3) == {"1.0.0": 3}
    with pytest.raises(OverloadedError) as told:
        await caller.call("geo", "search", 0)
    assert 0 < (told.value.retry_after or 0) <= 1


class Traffic:
    """Somebody who calls all the time, a controller, and a canary that they decide about."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.came_to: Counter[str] = Counter()

    async def decide(self, **fields: Any) -> CanaryState:
        caller, rules = await following(self.town, **fields)
        calling = asyncio.ensure_future(self._call(caller))
        async with CanaryController(self.town.world.process()), rules.view() as view:
            await rules.canary("geo", PLAN)
            await until(lambda: view["geo"].canary and not view["geo"].canary.running, 600)
        calling.cancel()
        await asyncio.wait([calling])
        state = view["geo"].canary
        assert state is not None
        return state

    async def _call(self, caller: ExtensionServiceMesh) -> None:
        number = 0
        while True:
            number += 1
            try:
                self.came_to[await caller.call("geo", "search", number, key=f"user-{number}")] += 1
            except (RemoteError, NoHealthyEndpointsError) as exc:
                self.came_to[type(exc).__name__] += 1
            await asyncio.sleep(0.2)


async def test_a_canary_that_serves_well_is_promoted(geo: Town) -> None:
    await serve(geo, "1.0.0")
    await serve(geo, "2.0.0")
    state = await Traffic(geo).decide()
    assert state.phase is CanaryPhase.PROMOTED
    assert "100.00 %" in state.last


async def test_a_canary_that_fails_is_rolled_back_and_callers_are_well_again(geo: Town) -> None:
    await serve(geo, "1.0.0")
    (await serve(geo, "2.0.0")).fails = True
    traffic = Traffic(geo)
    state = await traffic.decide()
    assert state.phase is CanaryPhase.ROLLED_BACK
    assert traffic.came_to["1.0.0"] > traffic.came_to["RemoteError"] > 0


async def test_a_canary_that_is_slow_is_rolled_back(geo: Town) -> None:
    await serve(geo, "1.0.0")
    (await serve(geo, "2.0.0")).delay = 0.7
    state = await Traffic(geo).decide()
    assert state.phase is CanaryPhase.ROLLED_BACK
    assert "ms are allowed" in state.last


async def test_a_canary_that_nobody_serves_is_not_promoted_by_those_who_answer_in_its_place(geo: Town) -> None:
    await serve(geo, "1.0.0")
    traffic = Traffic(geo)
    state = await traffic.decide(failover={"*": [{"subset": "v1"}]})
    assert state.phase is CanaryPhase.ROLLED_BACK
    assert set(traffic.came_to) == {"1.0.0"}
