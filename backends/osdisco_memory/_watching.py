"""What lets watches wait without tasks: the recent history, who follows what, and one alarm for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from osdisco.backend import Batch, Item

Changes = Mapping[str, Item | None]
"""What one revision did: the new item of each key, None where it was deleted."""

_OVERHEAD = 200  # bytes of one change besides its key and value, roughly


class History:
    """The changes of the latest revisions, bounded by bytes: what lies before is compacted."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._changes: dict[int, tuple[Changes, int]] = {}  # each with its size
        self.first = 1

    def add(self, revision: int, changes: Changes) -> None:
        """Append; revisions come without gaps."""
        size = _size(changes)
        self._changes[revision] = changes, size
        self._size += size
        while self._size > self._size_max and self.first < revision:
            self._size -= self._changes.pop(self.first)[1]
            self.first += 1

    def forget(self, revision: int) -> None:
        """Compact everything up to and including `revision`."""
        self._changes.clear()
        self._size = 0
        self.first = revision + 1

    def batch(self, target: str, revision: int) -> Batch | None:
        """Return what one revision did under the target, if anything."""
        touched = [(k, item) for k, item in self._changes[revision][0].items() if covers(target, k)]
        if not touched:
            return None
        puts = tuple(item for _, item in touched if item is not None)
        return Batch(puts, tuple(key for key, item in touched if item is None), revision)


def _size(changes: Changes) -> int:
    return sum(_OVERHEAD + len(key) + (len(item.value) if item else 0) for key, item in changes.items())


def covers(target: str, key: str) -> bool:
    """Return whether a watch of `target`, a key or a prefix, sees `key`."""
    return key.startswith(target) if is_prefix(target) else key == target


def is_prefix(target: str) -> bool:
    """Return whether a target is a prefix (K2)."""
    return not target or target.endswith("/")


class Subscription:
    """One open watch. `next` is the first revision that it has not seen and that touches it; None: it is up to date."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.next: int | None = None
        self.resync = True
        self.loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Let the watch look again; callable from any thread."""
        if self.loop is asyncio._get_running_loop():
            self._woken.set()
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._woken.set)

    async def wait(self, seconds: float) -> None:
        """Wait to be woken, at most so long. Needs no task."""
        timer = self.loop.call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
            self._woken.clear()
        finally:
            timer.cancel()


class Subscriptions:
    """All open watches by their target, so that a change finds its own without asking the others."""

    def __init__(self) -> None:
        self._by_target: dict[str, dict[Subscription, None]] = {}

    def __iter__(self) -> Iterator[Subscription]:
        return iter([sub for subs in self._by_target.values() for sub in subs])

    def add(self, sub: Subscription) -> None:
        """Register an open watch."""
        self._by_target.setdefault(sub.target, {})[sub] = None

    def remove(self, sub: Subscription) -> None:
        """Forget it."""
        subs = self._by_target[sub.target]
        del subs[sub]
        if not subs:
            del self._by_target[sub.target]

    def touched(self, changes: Changes) -> list[Subscription]:
        """Return those that see any of the changes."""
        if not self._by_target:
            return []
        targets = dict.fromkeys(target for key in changes for target in _targets(key))
        return [sub for target in targets for sub in self._by_target.get(target, ())]


def _targets(key: str) -> Iterator[str]:
    yield ""
    yield key
    at = key.find("/")
    while at >= 0:
        yield key[: at + 1]
        at = key.find("/", at + 1)


class Alarms:
    """Rings in every loop that waits when the store's next moment has come: one timer a loop, none if nobody waits."""

    def __init__(self, until: Callable[[], float | None], ring: Callable[[], None]) -> None:
        self._until = until
        self._ring = ring
        self._waiting: dict[asyncio.AbstractEventLoop, int] = {}
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}

    def enter(self) -> None:
        """Count one more that waits in the running loop."""
        loop = asyncio.get_running_loop()
        self._waiting[loop] = self._waiting.get(loop, 0) + 1
        if self._waiting[loop] == 1:
            self._set(loop)

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count one less."""
        self._waiting[loop] -= 1
        if not self._waiting[loop]:
            del self._waiting[loop]
            self._unset(loop)

    def reset(self) -> None:
        """The next moment changed."""
        for loop in list(self._waiting):
            if loop is asyncio._get_running_loop():
                self._set(loop)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(self._set, loop)

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        self._unset(loop)
        seconds = self._until()
        if seconds is not None and loop in self._waiting:
            self._timers[loop] = loop.call_later(max(seconds, 0.001), self._rung, loop)

    def _unset(self, loop: asyncio.AbstractEventLoop) -> None:
        timer = self._timers.pop(loop, None)
        if timer is not None:
            timer.cancel()

    def _rung(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ring()
        self._set(loop)
