"""Several processes under seeded faults, for simulations of recipes: what goes wrong, and how a run ends."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import pytest
from worlds import World

from osdisco.client import Client
from osdisco.testing import run

SEEDS = int(os.environ.get("OSDISCO_TEST_SEEDS", "100"))
TTL = 4.0


class Chaos:
    """One run. `seconds` of faults among its processes, then none; `seen` counts what happened over all runs."""

    def __init__(self, seed: int, seen: Counter[str], *, seconds: float = 12.0) -> None:
        self.world = World(seed=seed, ttl=TTL)
        self.random = self.world.random
        self.seen = seen
        self.until = seconds
        self.living: list[Client] = []
        self.world.store.faults.conflate = self.random.random() < 0.5
        self.world.store.faults.expiry_factor = self.random.choice([None, 1.5, 2.0])

    @property
    def over(self) -> bool:
        """Whether no fault comes any more."""
        return self.world.clock.now() >= self.until

    def process(self) -> Client:
        """Start a process."""
        self.living.append(self.world.process(timeout=2))
        return self.living[-1]

    def trouble(self) -> None:
        """Let something go wrong for one process."""
        self.random.choice([self._lose_answer, self._lose_answer, self._come_late, self._delay, self._cut_off])()

    async def rage(self, kill: Callable[[], None] = lambda: None, *, rate: float = 3.0, deaths: float = 0.15) -> None:
        """Make trouble until the time is over, with `kill` for some of it; then everything is well again."""
        while not self.over:
            await asyncio.sleep(self.random.expovariate(rate))
            kill() if self.random.random() < deaths else self.trouble()
        for client in self.living:
            client.backend.faults.clear()

    def kill(self, client: Client) -> None:
        """Let a process end as by SIGKILL, as far as the store can tell."""
        self.living.remove(client)
        self.world.kill(client)
        self.seen["killed"] += 1

    async def close(self) -> list[str]:
        """Close everything; returns what is left in the store when all leases have ended."""
        await self.world.aclose()
        await asyncio.sleep(3 * TTL)
        return self.world.keys()

    def _faults(self) -> Client:
        return self.random.choice(self.living).backend.faults

    def _lose_answer(self) -> None:
        faults = self._faults()
        self.random.choice([faults.drop, faults.drop_answer])("commit", times=self.random.randint(1, 3))
        self.seen["lost answers"] += 1

    def _come_late(self) -> None:
        self._faults().late("commit", after=self.random.uniform(0, 2 * TTL), times=1)
        self.seen["late"] += 1

    def _delay(self) -> None:
        there, back = self.random.uniform(0, 2), self.random.uniform(0, 2)
        self._faults().delay(request=there, answer=back, times=self.random.randint(1, 10))

    def _cut_off(self) -> None:
        rule = self._faults().outage(*self.random.choice([(), ("renew",), ("watch",), ("scan", "get"), ("commit",)]))
        asyncio.get_running_loop().call_later(self.random.uniform(0, 1.5 * TTL), rule.end)
        self.seen["cut off"] += 1


def simulate(
    scenario: Callable[[Chaos], Awaitable[None]], request: pytest.FixtureRequest, often: Mapping[str, float]
) -> None:
    """Run a scenario with many seeds, or with the one of `--osdisco-seed`; it shows in a failure.

    `often` is what must have been seen in a run on average for all of them to mean something.
    """
    one = request.config.getoption("--osdisco-seed")
    seen: Counter[str] = Counter()
    logging.getLogger("osdisco").setLevel(logging.ERROR)
    try:
        for seed in range(SEEDS) if one is None else [one]:
            run(_run(scenario, seed, seen), seed=seed, limit=10_000)
    finally:
        logging.getLogger("osdisco").setLevel(logging.NOTSET)
    assert one is not None or all(seen[what] >= SEEDS * rate for what, rate in often.items()), seen


async def _run(scenario: Callable[[Chaos], Awaitable[None]], seed: int, seen: Counter[str]) -> None:
    await scenario(Chaos(seed, seen))
