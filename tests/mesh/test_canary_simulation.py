"""Canaries by many seeds: whatever happens to those who control them, each takes single steps, and comes to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from strikes import STRIKES
from traffic import BAD, GOOD, document
from worlds import NAMESPACE

from osdisco.backend import Delete
from osdisco.mesh import CanaryController, CanaryPhase, CanaryPlan, RulesVersion, Sample, TrafficRules
from osdisco.mesh._rules_record import decode
from osdisco.mesh.canary import ELECTION
from osdisco.testing import Scenario, SimulatedProcess, Simulation, scenario

PLAN = CanaryPlan("v1", "v2", interval=1, step=10, max_weight=60, threshold=6)
SECONDS = 20.0
"""Of trouble in a seed."""
QUIET = 60.0
"""Seconds after the last fault in which every canary must have ended."""


class Play:
    """Two or three controllers, those that take the place of killed ones, and an operator who begins canaries."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.random = simulation.random
        self.good = self.random.random() < 0.5
        self.operator = simulation.process("operator")
        self.controllers: dict[SimulatedProcess, CanaryController] = {}

    async def sample(self, service: str, subset: str, window: float) -> Sample | None:
        await asyncio.sleep(self.random.uniform(0, 0.3))
        if not self.simulation.over and self.random.random() < 0.2:
            return self.random.choice([None, BAD, GOOD])
        return GOOD if self.good else BAD

    def control(self, _: SimulatedProcess | None = None) -> None:
        process = self.simulation.process()
        controller = self.controllers[process] = CanaryController(process.client, self)
        process.start(controller.run())

    def leaders(self) -> list[SimulatedProcess]:
        living = [process for process in self.controllers if process.alive]
        return [process for process in living if process.ask(getattr, self.controllers[process], "leading")]

    def unseat(self) -> bool:
        """Take `leader` away, as an operator."""
        key = f"{NAMESPACE}/election/{ELECTION}/leader"
        there = key in self.simulation.store.scan(key).items
        self.simulation.store.commit([Delete(key)], {}) if there else None
        return there

    def begin_anew(self) -> bool:
        """Begin the next one; mostly when the last is over."""
        last = self.written[-1].canary if self.written else None
        under_way = last is not None and last.running
        if not self.operator.alive or (under_way and self.random.random() < 0.9):
            return False
        self.operator.start(self._begin())
        return True

    async def _begin(self) -> None:
        them = TrafficRules(self.operator.client)
        await them.set("geo", document())
        await them.canary("geo", PLAN)
        self.simulation.seen["begun"] += 1

    @property
    def written(self) -> list[RulesVersion]:
        return [decode(value) for value in self.simulation.written("routes/geo")]

    async def end(self) -> None:
        """With everything well the last canary ends as its figures say, and nobody writes any more."""
        await self.operator.call(self._begin())
        async with asyncio.timeout(QUIET):
            while (canary := self.written[-1].canary) and canary.running:
                await asyncio.sleep(0.5)
        assert canary is not None
        assert canary.phase is (CanaryPhase.PROMOTED if self.good else CanaryPhase.ROLLED_BACK)
        versions = len(self.written)
        await asyncio.sleep(10)
        assert len(self.written) == versions
        self.check(self.written)
        left = await self.simulation.close()
        assert [key for key in left if not key.startswith("routes")] == []

    def check(self, written: list[RulesVersion]) -> None:
        """No version is written twice, and a canary takes single steps and none after its end."""
        assert [one.version for one in written] == list(range(1, len(written) + 1))
        for old, new in pairwise(written):
            if old.canary is None or new.canary is None:
                continue
            assert old.canary.running, f"{new} after the end"
            assert new.previous == old.previous
            assert new.canary.checks == old.canary.checks + 1
            self.simulation.seen["steps"] += 1
            self.simulation.seen["moved by another"] += old.by != new.by and old.by != "operator"


OFTEN = {"killed": 0.4, "begun": 0.5, "begun anew": 0.5, "unseated": 0.5, "steps": 3, "moved by another": 0.3}


@scenario(often={**STRIKES, **OFTEN})
async def canaries(simulation: Simulation) -> None:
    play = Play(simulation)
    for _ in range(simulation.random.randint(2, 3)):
        play.control()
    await simulation.trouble(
        SECONDS,
        rate=3,
        restart=lambda dead: None if dead is play.operator else play.control(),
        also={"begun anew": play.begin_anew, "unseated": play.unseat},
        victims=play.leaders,
    )
    if not play.operator.alive:
        play.operator = simulation.process("operator2")
    await play.end()


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(canaries)
