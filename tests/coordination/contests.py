"""What simulations share in which processes take turns at something that few may have at a time."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

from strikes import STRIKES
from worlds import NAMESPACE

from osdisco.backend import Delete, Op
from osdisco.errors import OsdiscoError
from osdisco.testing import SimulatedProcess, Simulation

OFTEN = {
    **STRIKES,
    "killed": 0.4,
    "lease ended": 0.2,
    "key removed": 0.2,
    "false renewals": 0.2,
    "acquired": 6,
    "written": 4,
    "cancelled": 2,
    "LostError": 0.4,
}
"""The same for contests."""


class Contest(ABC):
    """One run: turns under faults, then one more turn for everybody, and then nothing is left.

    In two of five runs leases and keys under `prefix` are also removed by hand, and the store lies about renewals: more
    may believe then, until their watch tells, which has no bound. Old holders write nothing all the same.
    """

    prefix: str
    resources: Sequence[str] = ("resource",)
    ttl = 3.0
    seconds = 8.0
    rate = 4.0

    def __init__(self, simulation: Simulation, *, operator: bool | None = None) -> None:
        self.simulation = simulation
        self.random = simulation.random
        self.seen = simulation.seen
        self.operator = self.random.random() < 0.4 if operator is None else operator
        self.tokens: list[int] = []
        self.holders: dict[Any, tuple[SimulatedProcess, float]] = {}
        self.workers: dict[asyncio.Task[None], SimulatedProcess] = {}

    @abstractmethod
    async def turn(self, process: SimulatedProcess, timeout: float | None) -> None:
        """Take one turn. Runs in the process."""

    async def run(self, processes: int) -> None:
        """Play."""
        for _ in range(processes):
            self.start()
        also = self.operations() if self.operator else {}
        await self.simulation.trouble(
            self.seconds,
            rate=self.rate,
            restart=self.restart,
            also=also,
            victims=lambda: [process for process, _ in self.holders.values()],
            lying=self.operator,
        )
        await self.end()

    def start(self) -> None:
        """Start a process with one or two workers."""
        process = self.simulation.process(ttl=self.ttl)
        for number in range(self.random.randint(1, 2)):
            self.workers[process.start(self._work(process, self.turn_of(process, number)))] = process

    def turn_of(self, process: SimulatedProcess, number: int) -> Callable[[float | None], Any]:
        """Return what one worker does again and again, with a timeout."""
        return lambda timeout: self.turn(process, timeout)

    def restart(self, dead: SimulatedProcess) -> None:
        """A process was killed: another one takes its place."""
        self.workers = {task: process for task, process in self.workers.items() if process is not dead}
        self.start()

    async def _work(self, process: SimulatedProcess, turn: Callable[[float | None], Any]) -> None:
        """Take turns until the faults are over, and then once more."""
        last = False
        while not last:
            last = self.simulation.over
            timeout = None if last else self.random.choice([None, None, 1.0, 6.0])
            task = asyncio.ensure_future(turn(timeout))
            canceller = asyncio.get_running_loop().call_later(self.random.uniform(0, 5), task.cancel)
            if last or self.random.random() < 0.7:
                canceller.cancel()
            try:
                await task
            except OsdiscoError as exc:
                self.seen[type(exc).__name__] += 1
                last = False
                await asyncio.sleep(self.random.uniform(0, 1))
            except asyncio.CancelledError:
                self.seen["cancelled"] += 1
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
            finally:
                canceller.cancel()

    @contextmanager
    def holding(self, handle: Any, process: SimulatedProcess) -> Any:
        """Count a holder in, which must be allowed to be one, and out again."""
        self.seen["acquired"] += 1
        self.check(handle, process)
        self.tokens.append(handle.token)
        self.holders[handle] = process, self.simulation.clock.now()
        try:
            yield
        finally:
            self.holders.pop(handle, None)

    def check(self, handle: Any, process: SimulatedProcess) -> None:
        """Nobody else has it; whoever had it knows that it is lost, and tokens rise."""
        assert handle.token not in self.tokens, f"{handle} for the second time"
        if self.operator:
            return
        for other, (its, since) in self.holders.items():
            self.check_excluded(handle, other, its, since)
        assert not self.tokens or handle.token > self.tokens[-1], f"{handle} after {self.tokens[-1]}"

    def check_excluded(self, handle: Any, other: Any, its: SimulatedProcess, since: float) -> None:
        """By its clock nobody paused believes in it any more, and who was not disturbed has been told."""
        assert not its.alive or not believes(other), f"{handle} while {its} believes in {other}"
        if not its.disturbed_since(since):
            assert is_told(other), f"{handle} while {its} was not told of the loss of {other}"

    def while_held(self) -> float:
        """Return how long to hold it; now and then longer than a session lives that is not renewed."""
        long = not self.simulation.over and self.random.random() < 0.15
        return self.random.uniform(1, 3) * self.ttl if long else self.random.uniform(0, 1)

    def operations(self) -> dict[str, Callable[[], object]]:
        """What an operator does."""
        return {"lease ended": self._end_lease, "key removed": self._remove_key}

    def _end_lease(self) -> bool:
        session = self.random.choice(self.simulation.living).client._sessions._shared
        return session is not None and self.simulation.store.faults.end_lease(session.id)

    def _remove_key(self) -> bool:
        keys = self.simulation.keys(self.prefix)
        if keys:
            self.simulation.store.commit([Delete(f"{NAMESPACE}/{self.random.choice(keys)}")], {})
        return bool(keys)

    async def end(self) -> None:
        """Everybody who lives gets a turn, and nothing stays."""
        done, waiting = await asyncio.wait(self.workers, timeout=10 * self.ttl + 3 * len(self.workers))
        assert not waiting, f"{len(waiting)} of {len(self.workers)} still wait: {self.simulation.keys(self.prefix)}"
        for task in done:
            task.result()
        for resource in self.resources:
            tokens = [int(value) for value in self.simulation.written(resource)]
            self.seen["written"] += len(tokens)
            self.check_written(resource, tokens)
        left = await self.simulation.close()
        assert [key for key in left if not key.startswith("resource") and not key.endswith("/limit")] == []

    def check_written(self, resource: str, tokens: list[int]) -> None:
        """No older holder wrote after a newer one."""
        assert tokens == sorted(tokens), f"an older holder wrote after a newer one: {resource}: {tokens}"


def believes(handle: Any) -> bool:
    """Return whether a holder would say so, asked now. Does not let it know by asking, as `check()` would."""
    return not is_told(handle) and handle._entry.session.valid


def is_told(handle: Any) -> bool:
    """Return whether a holder was told of the loss, or gave it up by itself."""
    return handle.lost.is_set() or handle._ending is not None


class LockContest(Contest):
    """A contest for locks that can be revoked, which an operator does."""

    @abstractmethod
    def locks(self, process: SimulatedProcess) -> list[Any]:
        """Return what can be revoked."""

    def operations(self) -> dict[str, Callable[[], object]]:
        """Also take them away from who holds them, or waits."""
        return {**super().operations(), "revoked": self._revoke}

    def _revoke(self) -> None:
        process = self.random.choice(self.simulation.living)
        lock = self.random.choice(self.locks(process))
        process.start(self._take_away(lock, self.random.choice([0, 0.3, 2.0])))

    async def _take_away(self, lock: Any, grace: float) -> None:
        queue = await lock.contenders()
        if queue:
            await lock.revoke(self.random.choice(queue).token, grace)

    async def inside(self, guard: Any, resource: Callable[[], Sequence[Op]]) -> None:
        """Hold it for a while, and write; most go when they are asked to."""
        heeds = self.random.random() < 0.7
        async with guard:
            for _ in range(self.random.randint(0, 2)):
                await asyncio.sleep(self.while_held())
                if heeds and guard.revoked.is_set():
                    self.seen["went when asked"] += 1
                    return
                await guard.commit(resource())
