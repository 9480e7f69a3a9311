"""Traffic on keys: many clients that read, write, create, compare and set, and delete the same few, and watch them.

    traffic = Traffic(random.Random(seed))
    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(traffic.work(clients[number], f"worker {number}"))
        watching = group.create_task(traffic.watcher(client).watch())
        ...                                  # break something
        traffic.over = True
        await traffic.settle(client, seconds=30)
        watching.cancel()
    assert not traffic.problems()

A key is used for as many operations as can be searched, then the next one takes its place; so it is with one on which
many outcomes are unknown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from itertools import count
from typing import Final

from attrs import define

from osdisco.backend import Item, Snapshot
from osdisco.client import Client
from osdisco.errors import ClosedError, OsdiscoError
from osdisco.runtime import Clock
from osdisco.testing.histories import History, Operation, Outcome, Recorder
from osdisco.testing.watched import Frame, Log, fold, items_of, unprefixed, watch_problems

OPERATIONS: Final = 180
"""Operations on a key, after which those that are on their way still come."""
UNKNOWN: Final = 8
"""Unknown outcomes on a key: each doubles what a search may have to try."""

_AGAIN: Final = 0.2
"""Seconds between two looks at whether everybody has seen everything, and before a broken watch is opened again."""


@define
class _Key:
    name: str
    operations: int = 0
    unknown: int = 0
    revision: int | None = None

    @property
    def used_up(self) -> bool:
        return self.operations >= OPERATIONS or self.unknown >= UNKNOWN


class Watcher:
    """Keeps what a watch shows. It resumes after an error, and for no reason at all, after the last frame's revision.

    Attributes:
        frames: all that was shown, in order; keys are names as the client has them.
        breaks: how often the store broke the watch.
        resumed: how often it was closed and opened again for no reason.
    """

    def __init__(self, client: Client, prefix: str, chance: random.Random, *, restless: float = 0.0) -> None:
        self.frames: list[Frame] = []
        self.breaks = 0
        self.resumed = 0
        self._client = client
        self._root, self._target = client._keys.root, client._keys.prefix(prefix)
        self._chance = chance
        self._restless = restless
        self._items: tuple[int, dict[str, Item]] = 0, {}

    async def watch(self, after: int | None = None) -> None:
        """Watch until cancelled or the client is closed, from a cursor on if one is given."""
        while True:
            try:
                async with aclosing(self._client.backend.watch(self._target, after=after)) as frames:
                    async for frame in frames:
                        self.frames += unprefixed([frame], self._root)
                        after = frame.revision
                        if self._chance.random() < self._restless:
                            self.resumed += 1
                            break
            except ClosedError:
                return
            except OsdiscoError:
                self.breaks += 1
                await asyncio.sleep(_AGAIN)

    @property
    def items(self) -> dict[str, Item]:
        """What the frames have led to until now."""
        place, items = self._items
        if place < len(self.frames):
            items = fold([Snapshot(items, 0), *self.frames[place:]])
            self._items = len(self.frames), items
        return items


class Traffic:
    """What happens on one prefix.

    Args:
        chance: decides what is done.
        prefix: names begin with it.
        keys: how many are used at a time.
        pause: seconds between two operations of a worker, on average.
        clock: one that all clients share; each client's own when None, which in one process is the same.

    Attributes:
        over: set it, and workers stop.
        history: what they did.
        watchers: who watches.
    """

    def __init__(
        self,
        chance: random.Random,
        *,
        prefix: str = "traffic/",
        keys: int = 4,
        pause: float = 0.02,
        clock: Clock | None = None,
    ) -> None:
        self.over = False
        self.history = History()
        self.watchers: list[Watcher] = []
        self._chance = chance
        self._prefix = prefix
        self._pause = pause
        self._clock = clock
        self._number = 0
        self._names: list[str] = []
        self._keys = [self._new_key() for _ in range(keys)]
        self._final: dict[str, Item] | None = None

    async def work(self, client: Client, who: str) -> None:
        """Do one operation after the other until all is over. One of unknown outcome goes on beside the next."""
        recorder = Recorder(client, self.history, who, clock=self._clock)
        number = 0
        while not self.over:
            number += 1
            slot = self._chance.randrange(len(self._keys))
            if self._keys[slot].used_up:
                self._keys[slot] = self._new_key()
            key = self._keys[slot]
            key.operations += 1
            done = await self._choose(recorder, key, f"{who}/{number}".encode())
            key.unknown += done.outcome is Outcome.UNKNOWN
            key.revision = done.revision or (done.seen.revision if done.seen else key.revision)
            await asyncio.sleep(self._chance.expovariate(1 / self._pause))

    def watcher(self, client: Client, *, restless: float = 0.0) -> Watcher:
        """Return one that will watch all keys by `client`.

        Args:
            client: a way to the store.
            restless: how probable it is, at each frame, that the watch is closed and opened again.
        """
        watcher = Watcher(client, self._prefix, self._chance, restless=restless)
        self.watchers.append(watcher)
        return watcher

    async def settle(self, client: Client, seconds: float) -> None:
        """Write one key more, read every key, and wait until all watchers show what the store holds.

        Each try writes another key: on one there would be too many unknown outcomes to search.

        Raises:
            TimeoutError: they do not, or the store does not answer.
        """
        recorder = Recorder(client, self.history, "the last", clock=self._clock)
        ends = (f"{self._prefix}end/{number}" for number in count())
        async with asyncio.timeout(seconds):
            await _until(lambda: _done(recorder.put(next(ends), b"the end")))
            for name in self._names:
                await _until(lambda name=name: _done(recorder.get(name)))  # type: ignore[misc]
            await _until(lambda: self._has_settled(client))

    def problems(self, log: Log | None = None) -> list[str]:
        """Return what no store that keeps the contract can have done, by the history and by all watchers.

        Args:
            log: all changes since the beginning, where the store tells them all (etcd).
        """
        shown = items_of(frame for watcher in self.watchers for frame in watcher.frames)
        found = self.history.problems(log, shown=shown)
        for number, watcher in enumerate(self.watchers):
            problems = watch_problems(watcher.frames, log=log, final=self._final)
            found += [f"watcher {number}: {problem}" for problem in problems[:5]]
        return found

    async def _has_settled(self, client: Client) -> bool:
        """What is of unknown outcome can still be applied between two looks."""
        try:
            self._final = dict((await client.scan(self._prefix)).items)
        except OsdiscoError:
            return False
        return all(watcher.items == self._final for watcher in self.watchers)

    async def _choose(self, recorder: Recorder, key: _Key, value: bytes) -> Operation:
        known = key.revision
        calls: list[tuple[float, Callable[[], Awaitable[Operation]]]] = [
            (0.35, lambda: recorder.get(key.name)),
            (0.2, lambda: recorder.put(key.name, value)),
            (0.15, lambda: recorder.create(key.name, value)),
            (0.1, lambda: recorder.delete(key.name)),
        ]
        if known is not None:
            calls += [
                (0.2, lambda: recorder.compare_and_set(key.name, value, known)),
                (0.05, lambda: recorder.delete(key.name, known)),
            ]
        (call,) = self._chance.choices([call for _, call in calls], [weight for weight, _ in calls])
        return await call()

    def _new_key(self) -> _Key:
        self._number += 1
        name = f"{self._prefix}{self._number}"
        self._names.append(name)
        return _Key(name)


async def _done(operation: Awaitable[Operation]) -> bool:
    return (await operation).outcome is Outcome.DONE


async def _until(ready: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await ready():
            return
        await asyncio.sleep(_AGAIN)
