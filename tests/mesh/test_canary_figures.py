"""How calls to a canary went, by what callers publish: seldom, only while it matters, and summed up rightly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given, strategies as st
from traffic import document
from worlds import World, until

from osdisco.backend import Delete, Put
from osdisco.client import Client
from osdisco.mesh import CallFigures, CallSummaries, CanaryPlan, RulesView, Sample, TrafficRules
from osdisco.mesh._histogram import BOUNDS, SIZE, bucket_of, quantile

PLAN = CanaryPlan("v1", "v2")


class Caller:
    """A process that calls."""

    def __init__(self, world: World) -> None:
        self.client: Client = world.process()
        self.view: RulesView = TrafficRules(self.client).view()
        self.summaries = CallSummaries(self.client, self.view)

    async def __aenter__(self) -> Caller:
        await self.view
        await self.summaries.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.summaries.__aexit__(None, None, None)
        await self.view.aclose()

    def call(self, count: int, *, failed: int = 0, seconds: float = 0.02, subset: str = "v2") -> None:
        for number in range(count):
            self.summaries.count("geo", subset, ok=number >= failed, seconds=seconds)


async def begun(world: World) -> TrafficRules:
    them = TrafficRules(world.process("operator"))
    await them.set("geo", document())
    await them.canary("geo", PLAN)
    return them


async def test_figures_are_what_came_of_all_callers_since_they_were_asked_for_last(world: World) -> None:
    await begun(world)
    figures = CallFigures(world.process())
    async with Caller(world) as ann, Caller(world) as bob:
        ann.call(50, failed=50)
        await asyncio.sleep(11)
        assert await figures.sample("geo", "v2", 60) is None  # it marks the beginning
        ann.call(90, failed=3)
        bob.call(10, seconds=0.45)
        bob.call(500, failed=500, subset="v1")
        await asyncio.sleep(11)
        sample = await figures.sample("geo", "v2", 60)
        assert sample is not None
        assert (sample.calls, sample.success_rate) == (100, 97.0)
        assert sample.p99 == pytest.approx(0.49)
        assert await figures.sample("geo", "v2", 60) == Sample(0, 0.0)


async def test_without_a_canary_nothing_is_counted_and_nothing_written(world: World) -> None:
    them = TrafficRules(world.process())
    await them.set("geo", document())
    async with Caller(world) as ann:
        ann.call(10)
        assert ann.summaries._told == {}
        await asyncio.sleep(60)
        assert world.keys("calls/") == []
        await them.canary("geo", PLAN)
        await until(lambda: ann.view["geo"].canary)
        ann.call(10)
        await until(lambda: world.keys("calls/"), 20)
        await them.promote("geo")
        await until(lambda: not world.keys("calls/"), 20)
        assert ann.summaries._told == {}


async def test_it_is_written_seldom_and_only_when_something_is_new(world: World) -> None:
    await begun(world)
    async with Caller(world) as ann:
        written: list[bytes] = []
        world.process()
        for _ in range(600):
            ann.call(1)
            await asyncio.sleep(0.1)
            for key in world.keys("calls/"):
                value = world.store.scan(f"ns/{key}").items[f"ns/{key}"].value
                if value not in written[-1:]:
                    written.append(value)
        assert 5 <= len(written) <= 13
        await asyncio.sleep(11)
        calls = ann.client.backend.calls["commit"]
        await asyncio.sleep(60)
        assert ann.client.backend.calls["commit"] == calls


async def test_what_a_caller_counted_goes_with_it_and_returns_after_a_lost_session(world: World) -> None:
    await begun(world)
    async with Caller(world) as ann:
        ann.call(1)
        await until(lambda: world.keys("calls/"), 20)
        session = await ann.client.shared_session()
        world.store.faults.end_lease(session.id)
        await until(lambda: not world.keys("calls/"))
        await until(lambda: session.lost.is_set(), 20)
        ann.call(1)
        await until(lambda: world.keys("calls/"), 30)
    assert world.keys("calls/") == []


async def test_what_was_counted_before_a_session_was_lost_is_not_counted_again(world: World) -> None:
    await begun(world)
    figures = CallFigures(world.process())
    async with Caller(world) as ann, Caller(world) as bob:
        ann.call(10_000)
        await asyncio.sleep(11)
        await figures.sample("geo", "v2", 60)
        session = await ann.client.shared_session()
        world.store.faults.end_lease(session.id)
        await until(lambda: session.lost.is_set(), 20)
        bob.call(10)
        await asyncio.sleep(11)
        assert await figures.sample("geo", "v2", 60) == Sample(10, 100.0, pytest.approx(0.0199))
        ann.call(10, failed=10)
        await asyncio.sleep(30)
        sample = await figures.sample("geo", "v2", 60)
        assert sample is not None
        assert (sample.calls, sample.success_rate) == (10, 0.0)


async def test_a_canary_that_follows_on_another_is_counted_anew(world: World) -> None:
    them = await begun(world)
    figures = CallFigures(world.process())
    async with Caller(world) as ann:
        ann.call(100, failed=90)
        await asyncio.sleep(11)
        await figures.sample("geo", "v2", 60)
        await them.rollback("geo")
        await until(lambda: not world.keys("calls/"), 20)
        await them.canary("geo", PLAN)
        await until(lambda: ann.view["geo"].canary.running)  # type: ignore[union-attr]
        await figures.sample("geo", "v2", 60)
        ann.call(200, failed=90)
        await asyncio.sleep(11)
        sample = await figures.sample("geo", "v2", 60)
        assert sample is not None
        assert (sample.calls, sample.success_rate) == (200, 55.0)


async def test_callers_that_are_gone_are_not_remembered_for_ever(world: World) -> None:
    await begun(world)
    figures = CallFigures(world.process())
    async with Caller(world) as ann:
        ann.call(1)
        await asyncio.sleep(11)
        await figures.sample("geo", "v2", 60)
    await asyncio.sleep(1000)
    await figures.sample("geo", "v2", 60)
    assert figures._seen["geo", "v2"] == {}


async def test_the_store_may_be_away(world: World) -> None:
    await begun(world)
    async with Caller(world) as ann:
        cut = ann.client.backend.faults.outage()
        ann.call(5)
        await asyncio.sleep(60)
        assert world.keys("calls/") == []
        cut.end()
        await until(lambda: world.keys("calls/"), 60)


TOOK = ",".join(["1"] * SIZE)
BROKEN = [b"{", b"{}", b'{"caller":"x","subsets":{"v2":{"calls":1,"took":[1]}}}']
BROKEN += [f'{{"caller":"x","subsets":{{"v2":{{"calls":{n},"took":[{TOOK}]}}}}}}'.encode() for n in ("-7", "9" * 400)]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
async def test_what_others_write_there_is_left_out(world: World, broken: bytes) -> None:
    await begun(world)
    figures = CallFigures(world.process())
    world.store.commit([Put("ns/calls/geo/x", broken)], {})
    async with Caller(world) as ann:
        await figures.sample("geo", "v2", 60)
        ann.call(5)
        await asyncio.sleep(11)
        assert await figures.sample("geo", "v2", 60) == Sample(5, 100.0, pytest.approx(0.0199))
    world.store.commit([Delete("ns/calls/geo/x")], {})


# Histograms


def test_a_quantile_of_nothing_is_unknown_and_of_what_takes_too_long_infinite() -> None:
    counts = [0] * SIZE
    assert quantile(counts, 0.99) is None
    counts[bucket_of(1000.0)] = 1
    assert quantile(counts, 0.99) == inf


@given(st.lists(st.floats(0, 60), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(seconds: Sequence[float], share: float) -> None:
    counts = [0] * SIZE
    for one in seconds:
        counts[bucket_of(one)] += 1
    told = quantile(counts, share)
    assert told is not None
    ordered = sorted(seconds)
    rank = -(-len(ordered) * share // 1)
    true = ordered[int(rank) - 1]
    place = bucket_of(true)
    if place == len(BOUNDS):
        assert told == inf
    else:
        assert (BOUNDS[place - 1] if place else 0.0) <= told <= BOUNDS[place] + 1e-9
