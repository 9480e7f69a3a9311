"""The same rules on every store: few tests, for what only a real server can get wrong."""

from __future__ import annotations

import asyncio

import pytest
from traffic import GOOD, Figures, document, splits
from worlds import connect, until

from osdisco.backend import Put
from osdisco.errors import ConflictError
from osdisco.mesh import CallFigures, CallSummaries, CanaryController, CanaryPhase, CanaryPlan, TrafficRules

ALL = pytest.mark.osdisco("memory", "etcd", "etcd+http", "consul")


@ALL
async def test_rules_are_written_followed_and_rolled_back(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        them = TrafficRules(client)
        async with TrafficRules(other).view() as view:
            await them.set("geo/ü", document(splits=splits(v1=90, v2=10)), expect=0)
            for seconds in range(1, 13):
                await them.set("geo/ü", document(timeout=seconds))
            with pytest.raises(ConflictError):
                await them.set("geo/ü", document(), expect=1)
            assert (await them.rollback("geo/ü")).rules.timeout == 11
            await until(lambda: view.router.route("geo/ü").timeout == 11)
            assert len(await them.history("geo/ü")) == 10
            await other.commit([Put("routes/maps", b"{")])
            await until(lambda: "maps" in view.problems)
            assert await them.remove("geo/ü")
            await until(lambda: not view)


@ALL
async def test_writers_race_and_none_is_lost(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        work = [TrafficRules(one).set("geo", document(timeout=n + 1)) for n, one in enumerate([client, other] * 3)]
        assert sorted(one.version for one in await asyncio.gather(*work)) == [1, 2, 3, 4, 5, 6]


@ALL
async def test_a_canary_is_promoted_by_what_callers_publish(osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other, connect(osdisco_url) as operator:
        them = TrafficRules(operator)
        await them.set("geo", document())
        plan = CanaryPlan("v1", "v2", interval=1, step=50, max_weight=50, threshold=20)
        view = await TrafficRules(other).view()
        async with CanaryController(client), CallSummaries(other, view) as summaries:
            await them.canary("geo", plan)
            async with asyncio.timeout(30):
                while (version := await them.get("geo")) and version.canary and version.canary.running:
                    summaries.count("geo", "v2", ok=True, seconds=0.01)
                    await asyncio.sleep(0.05)
            assert version is not None
            assert version.canary is not None
            assert version.canary.phase is CanaryPhase.PROMOTED
            assert version.rules.default_subset == "v2"
        await view.aclose()
        assert (await operator.scan("calls/")).items == {}


@ALL
async def test_of_two_controllers_one_moves_a_canary(osdisco_url: str) -> None:
    figures = Figures(GOOD)
    async with connect(osdisco_url) as one, connect(osdisco_url) as two, connect(osdisco_url) as operator:
        them = TrafficRules(operator)
        await them.set("geo", document())
        async with CanaryController(one, figures) as first, CanaryController(two, figures) as second:
            await them.canary("geo", CanaryPlan("v1", "v2", interval=1, step=50, max_weight=100))
            await until(lambda: first.leading or second.leading)
            assert not (first.leading and second.leading)
            async with asyncio.timeout(30):
                while (version := await them.get("geo")) and version.canary and version.canary.running:
                    await asyncio.sleep(0.1)
        assert version is not None
        assert [one.version for one in await them.history("geo")] == [version.version, 2, 1]
        assert version.version == 4  # set, begun, 100 %, promoted
        assert await CallFigures(one).sample("geo", "v2", 1) is None
