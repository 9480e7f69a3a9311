"""The canary controller in virtual time: who moves it, when, and that it comes to its end through any loss."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from attrs import evolve
from traffic import BAD, GOOD, Figures, document, rules
from worlds import NAMESPACE, World, until

from osdisco.backend import Delete, Put
from osdisco.client import Client
from osdisco.mesh import CanaryController, CanaryPhase, CanaryPlan, CanaryState, Sample, TrafficRules
from osdisco.mesh.canary import ELECTION

PLAN = CanaryPlan("v1", "v2", interval=60, step=10, max_weight=30)


class Stage:
    """Rules of a service with a canary, seen by an operator."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = world.process("operator")
        self.rules = TrafficRules(self.client)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Stage:
        await self.rules.set("geo", document())
        self.view = await self._stack.enter_async_context(self.rules.view())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def controller(self, figures: Figures | None, client: Client | None = None) -> CanaryController:
        controller = CanaryController(client or self.world.process(), figures)
        return await self._stack.enter_async_context(controller)

    @property
    def state(self) -> CanaryState:
        canary = self.view["geo"].canary
        assert canary is not None
        return canary

    async def until_weight(self, weight: float, seconds: float = 70) -> None:
        await until(lambda: self.state.weight == weight, seconds)


@pytest.fixture
async def stage(world: World) -> Stage:
    return Stage(world)


async def test_a_good_canary_gets_more_at_each_interval_until_it_is_promoted(stage: Stage) -> None:
    async with stage:
        figures = Figures(GOOD)
        controller = await stage.controller(figures)
        began = stage.world.clock.now()
        await stage.rules.canary("geo", PLAN)
        for number, weight in enumerate([20, 30, 100], 1):
            await asyncio.sleep(began + 60 * number - 1 - stage.world.clock.now())
            assert stage.state.weight < weight
            await stage.until_weight(weight, 3)
        assert stage.state.phase is CanaryPhase.PROMOTED
        assert stage.view["geo"].rules.default_subset == "v2"
        assert controller.leading
        asked = len(figures.asked)
        await asyncio.sleep(600)
        assert len(figures.asked) == asked  # nobody asks any more


async def test_a_bad_canary_is_rolled_back_after_five_failed_checks_by_itself(stage: Stage) -> None:
    async with stage:
        await stage.controller(Figures(BAD))
        began = stage.world.clock.now()
        await stage.rules.canary("geo", PLAN)
        await until(lambda: not stage.state.running, 400)
        assert stage.world.clock.now() - began == pytest.approx(300, abs=3)
        assert (stage.state.phase, stage.state.failed) == (CanaryPhase.ROLLED_BACK, 5)
        assert stage.view["geo"].rules == rules()
        assert "90.00 %" in stage.view["geo"].why


@pytest.mark.parametrize("missing", [None, Sample(0, 0.0), OSError("no route to Prometheus")])
async def test_without_figures_it_does_not_advance_and_is_rolled_back(
    stage: Stage, missing: Sample | Exception | None
) -> None:
    async with stage:
        await stage.controller(Figures(missing))
        await stage.rules.canary("geo", PLAN)
        await asyncio.sleep(250)
        assert (stage.state.phase, stage.state.weight, stage.state.failed) == (CanaryPhase.PROGRESSING, 10, 4)
        await until(lambda: stage.state.phase is CanaryPhase.ROLLED_BACK, 70)


async def test_figures_that_never_come_are_as_none(stage: Stage) -> None:
    class Hanging(Figures):
        async def sample(self, service: str, subset: str, window: float) -> Sample | None:
            await asyncio.sleep(1e6)
            return GOOD

    async with stage:
        await stage.controller(Hanging())
        await stage.rules.canary("geo", PLAN)
        await until(lambda: stage.state.phase is CanaryPhase.ROLLED_BACK, 500)


async def test_figures_that_nobody_knows_the_beginning_of_decide_nothing(stage: Stage) -> None:
    async with stage:
        figures = Figures(OSError("no route to Prometheus"))
        await stage.controller(figures)
        await stage.rules.canary("geo", PLAN)
        await until(lambda: figures.asked)
        figures.now = GOOD  # of a canary before, or of the time of another leader, as far as anybody knows
        await until(lambda: stage.state.checks == 1, 70)
        assert (stage.state.weight, stage.state.failed, stage.state.last) == (10, 1, "no figures")
        await stage.until_weight(20)


@pytest.mark.parametrize("junk", [{"calls": 1}, "good", True, Sample(10, None), Sample("1", 100.0), Sample(1, 1, [])])  # type: ignore[arg-type]
async def test_figures_of_any_kind_end_no_controller(stage: Stage, junk: Any) -> None:
    async with stage:
        figures = Figures(junk)
        controller = await stage.controller(figures)
        await stage.rules.canary("geo", PLAN)
        await asyncio.sleep(130)
        assert (controller.leading, stage.state.weight, stage.state.failed) == (True, 10, 2)
        figures.now = GOOD
        await stage.until_weight(20, 140)


async def test_one_that_recovers_goes_on(stage: Stage) -> None:
    async with stage:
        figures = Figures(BAD)
        await stage.controller(figures)
        await stage.rules.canary("geo", PLAN)
        await until(lambda: stage.state.failed == 3, 200)
        figures.now = GOOD
        await until(lambda: stage.state.phase is CanaryPhase.PROMOTED, 200)
        assert stage.state.failed == 3


async def test_one_that_holds_waits_for_the_operator_and_is_written_no_more(stage: Stage) -> None:
    async with stage:
        await stage.controller(Figures(GOOD))
        await stage.rules.canary("geo", evolve(PLAN, hold=True))
        await until(lambda: stage.state.phase is CanaryPhase.HOLDING, 200)
        version = stage.view["geo"].version
        await asyncio.sleep(600)
        assert stage.view["geo"].version == version
        await stage.rules.promote("geo")
        await stage.until_weight(100, 1)


async def test_when_the_leader_is_killed_the_next_goes_on_where_it_was(stage: Stage) -> None:
    async with stage:
        figures = Figures(BAD)
        first, second = stage.world.process("first"), stage.world.process("second")
        one = await stage.controller(figures, first)
        await until(lambda: one.leading)
        two = await stage.controller(figures, second)
        await stage.rules.canary("geo", PLAN)
        await until(lambda: stage.state.failed == 2, 130)
        assert stage.view["geo"].by == "first"
        stage.world.kill(first)
        killed = stage.world.clock.now()
        await until(lambda: stage.state.failed == 3, 200)
        took = stage.world.clock.now() - killed
        assert 60 < took < 60 + 5 * stage.world.ttl  # the new leader has waited an interval of its own
        assert two.leading
        assert stage.view["geo"].by == "second"
        figures.now = GOOD
        await until(lambda: stage.state.phase is CanaryPhase.PROMOTED, 300)
        assert stage.state.failed == 3


async def test_of_many_would_be_controllers_one_acts(stage: Stage) -> None:
    async with stage:
        all_ = [await stage.controller(Figures(GOOD)) for _ in range(4)]
        await stage.rules.canary("geo", PLAN)
        await until(lambda: not stage.state.running, 300)
        assert stage.state.checks == 3
        assert stage.view["geo"].version == 2 + 3
        assert [one.leading for one in all_].count(True) == 1


async def test_a_leader_whose_place_was_taken_writes_nothing_although_it_does_not_know(stage: Stage) -> None:
    async with stage:
        client = stage.world.process("old")
        old = await stage.controller(Figures(GOOD), client)
        await until(lambda: old.leading)
        new = await stage.controller(Figures(GOOD))
        await stage.rules.canary("geo", PLAN)
        await asyncio.sleep(50)
        client.backend.faults.delay("watch", answer=40, key="election/")
        stage.world.store.commit([Delete(f"{NAMESPACE}/election/{ELECTION}/leader")], {})
        await until(lambda: new.leading)
        assert old.leading
        await asyncio.sleep(30)
        assert stage.state.checks == 0
        await stage.until_weight(20, 40)
        assert stage.view["geo"].by != "old"


async def test_an_answer_that_is_lost_makes_no_step_twice(stage: Stage) -> None:
    async with stage:
        client = stage.world.process()
        controller = await stage.controller(Figures(GOOD), client)
        await until(lambda: controller.leading)
        await stage.rules.canary("geo", PLAN)
        await asyncio.sleep(50)
        lost = client.backend.faults.drop_answer("commit", key="routes/geo")
        await stage.until_weight(20, 20)
        await asyncio.sleep(20)
        lost.end()
        assert stage.state.weight == 20
        await stage.until_weight(30, 60)


async def test_a_right_that_is_missing_for_a_while_ends_no_controller(stage: Stage) -> None:
    async with stage:
        client = stage.world.process()
        denied = client.backend.faults.deny("commit")
        await stage.controller(Figures(GOOD), client)
        await stage.rules.canary("geo", PLAN)
        await asyncio.sleep(200)
        assert stage.state.checks == 0
        denied.end()
        await stage.until_weight(20, 70)
        with client.backend.faults.deny("commit", key="routes/"):
            await asyncio.sleep(130)
            assert stage.state.weight == 20
        await stage.until_weight(30, 70)


async def test_rules_that_an_operator_sets_meanwhile_stay(stage: Stage) -> None:
    async with stage:
        await stage.controller(Figures(GOOD))
        await stage.rules.canary("geo", PLAN)
        await asyncio.sleep(30)
        await stage.rules.set("geo", document(timeout=7))
        await asyncio.sleep(300)
        assert stage.view["geo"].rules == rules(timeout=7)


async def test_the_next_canary_of_a_service_begins_its_own_interval(stage: Stage) -> None:
    async with stage:
        await stage.controller(Figures(GOOD))
        await stage.rules.canary("geo", PLAN)
        await asyncio.sleep(55)
        await stage.rules.rollback("geo")
        await stage.rules.canary("geo", PLAN)
        await asyncio.sleep(50)
        assert stage.state.weight == 10
        await stage.until_weight(20, 15)


async def test_a_check_that_was_under_way_does_not_move_the_next_canary(stage: Stage) -> None:
    go = asyncio.Event()

    class Slow(Figures):
        async def sample(self, service: str, subset: str, window: float) -> Sample | None:
            found = await super().sample(service, subset, window)
            if len(self.asked) == 2:
                await go.wait()
            return found

    async with stage:
        figures = Slow(GOOD)
        await stage.controller(figures)
        await stage.rules.canary("geo", PLAN)
        await until(lambda: len(figures.asked) == 2, 65)
        await stage.rules.rollback("geo")
        await stage.rules.canary("geo", PLAN)
        go.set()
        await asyncio.sleep(30)
        assert stage.state.checks == 0


async def test_canaries_of_several_services_go_on_side_by_side(stage: Stage) -> None:
    async with stage:
        await stage.controller(Figures(GOOD))
        await stage.rules.set("maps", document())
        await stage.rules.canary("geo", PLAN)
        await asyncio.sleep(20)
        await stage.rules.canary("maps", evolve(PLAN, interval=30))
        await until(lambda: all(not (one.canary and one.canary.running) for one in stage.view.values()), 300)
        assert {one.rules.default_subset for one in stage.view.values()} == {"v2"}


async def test_a_canary_that_cannot_be_moved_keeps_no_other_from_it(stage: Stage) -> None:
    """Somebody wrote it past osdisco, under a name so long that there is no key for its history."""
    async with stage:
        await stage.controller(Figures(GOOD))
        await stage.rules.canary("geo", PLAN)
        value = stage.world.store.scan(f"{NAMESPACE}/routes/geo").items[f"{NAMESPACE}/routes/geo"].value
        name = "=D0=B6" * 83
        stage.world.store.commit([Put(f"{NAMESPACE}/routes/{name}", value)], {})
        await until(lambda: len(stage.view) == 2)
        await until(lambda: stage.state.phase is CanaryPhase.PROMOTED, 300)


async def test_while_the_store_is_away_nothing_moves_and_then_it_goes_on(stage: Stage) -> None:
    async with stage:
        client = stage.world.process()
        await stage.controller(Figures(GOOD), client)
        await stage.rules.canary("geo", PLAN)
        await stage.until_weight(20)
        cut = client.backend.faults.outage()
        await asyncio.sleep(200)
        assert stage.state.weight == 20
        cut.end()
        await until(lambda: stage.state.phase is CanaryPhase.PROMOTED, 300)
