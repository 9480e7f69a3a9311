"""Many processes, faults and seeds: what holds of locks and permits of all kinds, and that they go on afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from contests import OFTEN, LockContest
from worlds import NAMESPACE

from osdisco.backend import Condition, Op, Put
from osdisco.coordination import CoordinationService
from osdisco.testing import Scenario, SimulatedProcess, Simulation, run_seed, scenario

OFTEN_LOCKS = {**OFTEN, "revoked": 0.2}


class Mutex(LockContest):
    """Holders exclude each other, come in the order of the queue (their tokens rise), and write in that order."""

    prefix = "lock/"

    def locks(self, process: SimulatedProcess) -> list[Any]:
        return [CoordinationService(process.client).lock("job")]

    async def turn(self, process: SimulatedProcess, timeout: float | None) -> None:
        (lock,) = self.locks(process)
        guard = await (lock.try_acquire() if self.random.random() < 0.2 else lock.acquire(timeout=timeout))
        if guard is not None:
            with self.holding(guard, process):
                await self.inside(guard, lambda: [Put("resource", b"%d" % guard.token)])


@scenario(often=OFTEN_LOCKS)
async def mutex(simulation: Simulation) -> None:
    await Mutex(simulation).run(simulation.random.randint(2, 4))


class ReadWrite(LockContest):
    """Readers share, writers exclude everybody; a writer waits for all before it, and a reader for the writers."""

    prefix = "rw/"
    resources = ("resource-True", "resource-False")

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self.writes: dict[int, bool] = {}

    def locks(self, process: SimulatedProcess) -> list[Any]:
        lock = CoordinationService(process.client).rwlock("catalog")
        return [lock.read(), lock.write()]

    async def turn(self, process: SimulatedProcess, timeout: float | None) -> None:
        writes = self.random.random() < 0.4
        lock = self.locks(process)[writes]
        guard = await (lock.try_acquire() if self.random.random() < 0.2 else lock.acquire(timeout=timeout))
        if guard is None:
            return
        self.writes[guard.token] = writes
        with self.holding(guard, process):
            await self.inside(guard, lambda: [Put(f"resource-{writes}", b"%d" % guard.token)])

    def check(self, handle: Any, process: SimulatedProcess) -> None:
        assert handle.token not in self.tokens, f"{handle} for the second time"
        if self.operator:
            return
        writes = self.writes[handle.token]
        for other, (its, since) in self.holders.items():
            if writes or self.writes[other.token]:
                self.check_excluded(handle, other, its, since)
            else:
                self.seen["shared"] += believes_beside(other, its)
        before = [token for token in self.tokens if writes or self.writes[token]]
        assert not before or handle.token > max(before), f"{handle} came before its turn: {before}"

    def check_written(self, resource: str, tokens: list[int]) -> None:
        """Readers write side by side, to show that they could."""
        if resource == "resource-True":
            super().check_written(resource, tokens)


def believes_beside(other: Any, its: SimulatedProcess) -> bool:
    return its.alive and not other.lost.is_set()


@scenario(often={**OFTEN_LOCKS, "shared": 0.5})
async def rwlock(simulation: Simulation) -> None:
    await ReadWrite(simulation).run(simulation.random.randint(2, 4))


class Permits(LockContest):
    """Never more holders than permits, by the store and by what holders believe; the head of the queue comes next."""

    prefix = "sem/"

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self.limit = self.random.randint(1, 3)
        self.check_commits()

    def locks(self, process: SimulatedProcess) -> list[Any]:
        return [CoordinationService(process.client).semaphore("merges", limit=self.limit)]

    async def turn(self, process: SimulatedProcess, timeout: float | None) -> None:
        (semaphore,) = self.locks(process)
        quick = self.random.random() < 0.2
        guard = await (semaphore.try_acquire() if quick else semaphore.acquire(timeout=timeout))
        if guard is not None:
            with self.holding(guard, process):
                await self.inside(guard, lambda: [Put("resource", b"%d" % guard.token)])

    def check(self, handle: Any, process: SimulatedProcess) -> None:
        assert handle.token not in self.tokens, f"{handle} for the second time"
        if not self.operator:
            others = [(other, its, since) for other, (its, since) in self.holders.items() if its.alive]
            self.seen["shared"] += bool(others)
            if len(others) >= self.limit:
                self.check_some_gone(handle, others)

    def check_some_gone(self, handle: Any, others: list[tuple[Any, SimulatedProcess, float]]) -> None:
        """As many of the others as there are too many were told, or know it by their clock if they were disturbed."""
        gone = 0
        for other, its, since in others:
            try:
                self.check_excluded(handle, other, its, since)
            except AssertionError:
                continue
            gone += 1
        assert len(others) - gone < self.limit, f"{handle} beside {others}, with {self.limit} permits"

    def check_written(self, resource: str, tokens: list[int]) -> None:
        """Holders write side by side."""

    def check_commits(self) -> None:
        """Look at every commit."""
        store = self.simulation.store
        commit = store.commit

        def checking(ops: Sequence[Op], expect: Mapping[str, Condition]) -> Mapping[str, int]:
            queue = {key: item.created for key, item in store.scan(f"{NAMESPACE}/sem/merges/q/").items.items()}
            revisions = commit(ops, expect)
            holders = store.scan(f"{NAMESPACE}/sem/merges/h/").items
            assert len(holders) <= self.limit, f"{self.limit} permits, held: {holders}"
            for op in ops:
                if isinstance(op, Put) and op.key in holders:
                    place = op.key.replace("/h/", "/q/")
                    assert place == min(queue, key=lambda key: queue[key]), f"{place} came before its turn: {queue}"
            return revisions

        store.commit = checking  # type: ignore[method-assign]


@scenario(often={**OFTEN_LOCKS, "shared": 0.5})
async def semaphore(simulation: Simulation) -> None:
    await Permits(simulation).run(simulation.random.randint(2, 4))


class Several(LockContest):
    """Of each lock there is one holder, whoever takes how many at once; all or none, and nobody waits in a circle."""

    prefix = "lock/"
    names = "abc"
    resources = tuple(f"resource-{name}" for name in names)

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self.latest: dict[str, int] = {}

    def locks(self, process: SimulatedProcess) -> list[Any]:
        return [CoordinationService(process.client).lock(name) for name in self.names]

    async def turn(self, process: SimulatedProcess, timeout: float | None) -> None:
        names = self.random.sample(self.names, self.random.randint(1, 3))
        locks = CoordinationService(process.client).multilock(names)
        guard = await (locks.try_acquire() if self.random.random() < 0.2 else locks.acquire(timeout=timeout))
        if guard is not None:
            with self.holding(guard, process):
                written = [Put(f"resource-{name}", b"%d" % token) for name, token in guard.tokens.items()]
                await self.inside(guard, lambda: written)

    def check(self, handle: Any, process: SimulatedProcess) -> None:
        self.seen["several"] += len(handle.tokens) > 1
        for other, (its, since) in self.holders.items():
            if not self.operator and handle.tokens.keys() & other.tokens.keys():
                self.check_excluded(handle, other, its, since)
        for name, token in handle.tokens.items():
            latest = self.latest.get(name, 0)
            assert self.operator or token > latest, f"{handle} after {latest} held {name}"
            self.latest[name] = token


@scenario(often={**OFTEN_LOCKS, "several": 3})
async def multilock(simulation: Simulation) -> None:
    await Several(simulation).run(simulation.random.randint(2, 4))


class Crowd(Mutex):
    """Processes die all the time."""

    def operations(self) -> dict[str, Callable[[], object]]:
        return {"killed": self._kill}

    def _kill(self) -> None:
        process = self.random.choice(self.simulation.living)
        process.kill()
        self.restart(process)


async def crowd(simulation: Simulation) -> None:
    await Crowd(simulation, operator=True).run(70)
    assert simulation.seen["acquired"] >= 100, simulation.seen
    assert simulation.seen["killed"] >= 1, simulation.seen


@pytest.mark.fault("F4", "F12", "F13", "F14", "F15", "F16", "F18", "F19")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", [mutex, rwlock, semaphore, multilock], ids=lambda scenario: scenario.name)
def test_whatever_happens(scenario: Scenario, osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(scenario)


def test_a_hundred_acquirers_with_random_kills() -> None:
    run_seed(crowd, 3)
