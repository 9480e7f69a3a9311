"""What is counted of canaries, and how they stand, as Prometheus shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from attrs import evolve
from counted import counted
from traffic import BAD, GOOD, Figures, document
from worlds import World, until

from osdisco.mesh import CanaryController, CanaryPlan, Sample, TrafficRules

PLAN = CanaryPlan("v1", "v2", interval=60, step=10, max_weight=30)

STANDING = ("weight_ratio", "failed_checks", "interval_calls", "success_ratio", "p99_seconds")


class Controlling:
    """A process that controls canaries and counts."""

    def __init__(self, world: World) -> None:
        self.client, self._registry = counted(world)
        self.figures = Figures(GOOD)
        self.controller = CanaryController(self.client, self.figures)

    def count(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"osdisco_mesh_canary_{name}", labels)

    def shown(self, name: str, **labels: str) -> float | None:
        return self.count(name, namespace="ns", service="geo", **labels)

    def standing(self) -> list[float | None]:
        return [self.shown(name) for name in STANDING]

    @property
    def leading(self) -> float | None:
        return self.count("leading", namespace="ns")


@pytest.fixture
async def rules(world: World) -> TrafficRules:
    rules = TrafficRules(world.process("operator"))
    await rules.set("geo", document())
    return rules


@pytest.fixture
async def one(world: World) -> AsyncGenerator[Controlling, None]:
    one = Controlling(world)
    async with one.controller:
        await until(lambda: one.controller.leading)
        yield one


async def test_how_a_canary_stands_is_shown_while_it_is_under_way(rules: TrafficRules, one: Controlling) -> None:
    assert (one.leading, one.standing()) == (1, [None] * 5)
    await rules.canary("geo", PLAN)
    await asyncio.sleep(5)
    assert one.standing() == [0.1, 0, None, None, None]
    assert (one.shown("phase", phase="progressing"), one.shown("phase", phase="holding")) == (1, 0)
    await asyncio.sleep(60)
    assert one.standing() == [0.2, 0, 1000, 1, 0.1]
    one.figures.now = BAD
    await asyncio.sleep(60)
    assert one.standing() == [0.2, 1, 1000, 0.9, 0.1]
    one.figures.now = Sample(0, 0.0)
    await asyncio.sleep(60)
    assert one.standing() == [0.2, 2, 0, None, None]
    await rules.promote("geo")
    await asyncio.sleep(1)
    assert (one.leading, one.standing()) == (1, [None] * 5)


async def test_verdicts_and_ends_are_counted(rules: TrafficRules, one: Controlling) -> None:
    await rules.canary("geo", PLAN)
    await asyncio.sleep(1)
    seen: list[Sample | None] = [GOOD, None, Sample(0, 0.0), BAD, Sample(1000, 100.0, 0.9), BAD]
    for sample in seen:
        one.figures.now = sample
        await asyncio.sleep(61)
    verdicts = {"good": 1, "no_figures": 1, "too_few_calls": 1, "success_rate": 2, "latency": 1}
    assert {word: one.count("checks_total", service="geo", verdict=word) for word in verdicts} == verdicts
    assert one.count("ends_total", service="geo", how="rolled_back") == 1
    await rules.canary("geo", PLAN)
    await asyncio.sleep(1)
    await rules.promote("geo")
    await asyncio.sleep(1)
    assert one.count("ends_total", service="geo", how="promoted") == 1
    await rules.rollback("geo")
    await rules.canary("geo", PLAN)
    await asyncio.sleep(1)
    await rules.set("geo", document(timeout=3))
    await asyncio.sleep(1)
    assert one.count("ends_total", service="geo", how="replaced") == 1


async def test_good_checks_of_one_that_holds_are_counted_though_nothing_is_written(
    rules: TrafficRules, one: Controlling
) -> None:
    await rules.canary("geo", evolve(PLAN, step=30, hold=True))
    await asyncio.sleep(200)
    assert one.shown("phase", phase="holding") == 1
    assert one.count("checks_total", service="geo", verdict="good") == 3


async def test_who_does_not_lead_shows_no_canary(world: World, rules: TrafficRules, one: Controlling) -> None:
    other = Controlling(world)
    async with other.controller:
        await rules.canary("geo", PLAN)
        await asyncio.sleep(100)
        assert (other.leading, other.standing()) == (0, [None] * 5)
        world.kill(one.client)
        await until(lambda: other.controller.leading, 60)
        await asyncio.sleep(5)
        assert (other.leading, other.standing()) == (1, [0.2, 0, None, None, None])
        assert (one.leading, one.standing()) == (0, [None] * 5)
    assert other.leading is None
