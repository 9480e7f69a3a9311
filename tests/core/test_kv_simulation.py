"""Reads, writes and watches of many clients under faults and seeds are those of one store, as told by their history.

The control must fail: the same run on a store whose reads are a little old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from osdisco.backend import Batch, Item
from osdisco.testing import Scenario, SimulatedProcess, Simulation, scenario
from osdisco.testing.histories import Outcome
from osdisco.testing.simulation import outcome_of
from osdisco.testing.traffic import Traffic, Watcher
from osdisco.testing.watched import Log, unprefixed
from osdisco_memory import MemoryStore

SECONDS = 6
STALE_SEEDS = 20


class Logged:
    """All that a store writes under a prefix, as it writes it."""

    def __init__(self, store: MemoryStore, root: str) -> None:
        self.batches: list[Batch] = []
        self._root = root
        self._store = store
        self._write = store._write
        store._write = self.write  # type: ignore[method-assign]

    def write(self, after: Mapping[str, Item | None]) -> None:
        before, there = self._store.revision, dict(self._store._items)
        self._write(after)
        if self._store.revision > before:
            puts = tuple(item for item in after.values() if item is not None and there.get(item.key) is not item)
            deletes = tuple(key for key, item in after.items() if item is None and key in there)
            self.batches.append(Batch(_under(self._root, puts), _under(self._root, deletes), self._store.revision))

    @property
    def log(self) -> Log:
        return Log(unprefixed(self.batches, "ns/"))


def _under(root: str, of: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one for one in of if (one.key if isinstance(one, Item) else one).startswith(root))


class Crowd:
    """Processes with two workers and a watcher each; who is killed is followed by another one."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.traffic = Traffic(simulation.random, keys=3, pause=0.1, clock=simulation.clock)
        self.logged = Logged(simulation.store, "ns/traffic/")
        self.watchers: dict[SimulatedProcess, Watcher] = {}
        self.workers: list[tuple[SimulatedProcess, asyncio.Task[None]]] = []

    def start(self, name: str = "") -> None:
        process = self.simulation.process(name)
        self.watchers[process] = watcher = self.traffic.watcher(process.client, restless=0.02)
        process.start(watcher.watch())
        for number in range(2):
            work = process.start(self.traffic.work(process.client, f"{process.name}.{number}"))
            self.workers.append((process, work))

    def replace(self, dead: SimulatedProcess) -> None:
        self.traffic.watchers.remove(self.watchers.pop(dead))
        self.start()

    async def run(self) -> None:
        for name in "abc":
            self.start(name)
        await self.simulation.trouble(SECONDS, restart=self.replace)
        self.traffic.over = True
        working = [work for process, work in self.workers if process.alive]
        assert not (await asyncio.wait(working, timeout=60))[1], "workers do not end"
        process = self.simulation.process("last")
        await process.call(self.traffic.settle(process.client, 60))
        self.simulation.seen.update(self.traffic.history.counts())
        self.simulation.seen["resumed"] += sum(watcher.resumed for watcher in self.watchers.values())
        self.simulation.seen["broken"] += sum(watcher.breaks for watcher in self.watchers.values())
        problems = self.traffic.problems(None if self.simulation.store.faults.conflate else self.logged.log)
        assert not problems, "\n".join(problems)


OFTEN = {"done": 60, "refused": 10, "unknown": 2, "failed": 1, "resumed": 1, "broken": 1, "killed": 0.3, "resync": 0.5}


@scenario(often=OFTEN)
async def kv(simulation: Simulation) -> None:
    await Crowd(simulation).run()


def test_reads_writes_and_watches_are_those_of_one_store(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(kv)


async def stale_kv(simulation: Simulation) -> None:
    """Reads show what was there two seconds ago at most, as etcd's serializable reads and Consul's stale ones do."""
    store, get = simulation.store, simulation.store.get
    told: dict[str, tuple[float, Item | None]] = {}

    def stale(key: str) -> Item | None:
        at, item = told.get(key, (-1.0, None))
        if store.time() - at > 2:
            item = get(key)
            told[key] = store.time(), item
        return item

    store.get = stale  # type: ignore[method-assign]
    await Crowd(simulation).run()


def test_stale_reads_are_noticed_in_nearly_every_run() -> None:
    errors = [outcome_of(stale_kv, seed).error for seed in range(STALE_SEEDS)]
    assert all(error is None or "not linearizable" in error for error in errors), errors
    assert errors.count(None) <= STALE_SEEDS // 10


def test_outcomes_have_the_names_that_are_counted() -> None:
    assert {outcome.value for outcome in Outcome} < OFTEN.keys()
