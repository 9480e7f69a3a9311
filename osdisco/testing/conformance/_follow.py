"""Follows a watch and folds its frames, holding each one to the rules that every frame must keep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Self

from osdisco.backend import Backend, Batch, Item, Snapshot

Names = dict[str, Item]


class Follower:
    """An open watch. `items` is what its frames fold to, by name below the root; `states` is all that it went through,
    and `times` when, on the loop's clock.

    A broken rule, or an error of the watch, is raised by what waits next, or at exit.
    """

    def __init__(
        self, backend: Backend, target: str, root: str, settle: float, after: int | None, known: Mapping[str, Item]
    ) -> None:
        self.frames: list[Snapshot | Batch] = []
        self.states: list[Names] = []
        self.times: list[float] = []
        self._forgiven = False
        self._backend = backend
        self._target = target
        self._root = root
        self._settle = settle
        self._after = after
        self._known = dict(known)
        self._news = asyncio.Event()
        self._go = asyncio.Event()

    @property
    def items(self) -> Names:
        """What is there now, by name."""
        return {key[len(self._root) :]: item for key, item in self._known.items()}

    async def __aenter__(self) -> Self:
        self._go.set()
        self._task = asyncio.create_task(self._read(), name=f"follow {self._target}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if exc is None:
            self._raise()

    def pause(self) -> None:
        """Stop reading frames: a slow consumer."""
        self._go.clear()

    def resume(self) -> None:
        """Read on."""
        self._go.set()

    async def ready(self) -> None:
        """Wait for the first frame."""
        await self.until(lambda _: bool(self.frames), "the first frame")

    async def until(self, holds: Callable[[Names], bool], what: str) -> None:
        """Wait until the state is as it should be; fail with what it is instead."""
        try:
            async with asyncio.timeout(self._settle):
                while not holds(self.items):
                    self._raise()
                    assert not self._task.done(), f"the watch ended before {what}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"waited {self._settle} s for {what}; the watch shows {self.items}, last frames {self.frames[-3:]}"
            ) from None

    async def until_same(self, expected: Mapping[str, Item]) -> None:
        """Wait until the state is `expected`, to the last revision."""
        try:
            await self.until(lambda items: items == expected, "the same as a scan shows")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{differences(expected, self.items)}") from None

    async def ended(self) -> BaseException | None:
        """Wait until the watch ends; returns its error, which is not raised again."""
        done, _ = await asyncio.wait([self._task], timeout=self._settle)
        assert done, "the watch goes on"
        self._forgiven = True
        return self._task.exception()

    def _raise(self) -> None:
        if not self._task.done() or self._task.cancelled() or self._forgiven:
            return
        error = self._task.exception()
        if error is not None:
            raise error

    async def _read(self) -> None:
        try:
            async with aclosing(self._backend.watch(self._target, after=self._after)) as frames:
                async for frame in frames:
                    self._take(frame)
                    await self._go.wait()
        finally:
            self._news.set()

    def _take(self, frame: Snapshot | Batch) -> None:
        if not self.frames and self._after is None:
            assert isinstance(frame, Snapshot), f"S6.1: the first frame is no Snapshot: {frame}"
        self._check(frame)
        self._known = folded(self._known, frame)
        self.frames.append(frame)
        self.times.append(asyncio.get_running_loop().time())
        self.states.append(self.items)
        self._news.set()

    def _check(self, frame: Snapshot | Batch) -> None:
        puts = list(frame.items.values() if isinstance(frame, Snapshot) else frame.puts)
        if isinstance(frame, Snapshot):
            assert all(key == item.key for key, item in frame.items.items()), f"keys and items differ: {frame}"
        else:
            keys = [item.key for item in puts]
            assert len(keys) == len(set(keys)), f"a key is put twice in one frame: {frame}"
        for key in [item.key for item in puts] + list(frame.deletes if isinstance(frame, Batch) else ()):
            assert key == self._target or (self._target.endswith("/") and key.startswith(self._target)), (
                f"{key!a} is not under the target {self._target!a}"
            )
        for item in puts:
            assert 0 < item.created <= item.revision <= frame.revision, f"revisions out of order: {item} in {frame}"
            known = self._known.get(item.key)
            assert known is None or known.revision <= item.revision, f"S6.3: went backwards: {known} -> {item}"


def folded(state: Mapping[str, Item], frame: Snapshot | Batch) -> dict[str, Item]:
    """Return the state after a frame (S6.1)."""
    if isinstance(frame, Snapshot):
        return dict(frame.items)
    after = {key: item for key, item in state.items() if key not in frame.deletes}
    return after | {item.key: item for item in frame.puts}


def differences(expected: Mapping[str, Item], actual: Mapping[str, Item]) -> str:
    """Tell, a line each, what is missing, too much or other."""
    lines = [f"missing: {name}" for name in expected.keys() - actual.keys()]
    lines += [f"too much: {name}: {actual[name]}" for name in actual.keys() - expected.keys()]
    lines += [
        f"other: {name}: {expected[name]} expected, {actual[name]} found"
        for name in expected.keys() & actual.keys()
        if expected[name] != actual[name]
    ]
    return "\n".join(sorted(lines))
