"""Telling listeners: off the I/O task, in order, each on a task of its own, so that a bad one harms nobody else."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final

from attrs import frozen

from osdisco._tasks import Supervisor, cancel
from osdisco.discovery.extension import ExtensionInfo
from osdisco.errors import ConfigError

log = logging.getLogger("osdisco")

PENDING_MAX: Final = 1024
"""Changes that a slow listener may be behind before they are merged into one."""


@frozen
class ExtensionEvent:
    """One extension appeared (`old` is None), went (`new` is None) or changed."""

    old: ExtensionInfo | None
    new: ExtensionInfo | None

    @property
    def extension(self) -> ExtensionInfo:
        """The extension as it is, or as it last was."""
        known = self.new or self.old
        assert known is not None
        return known


class DiscoveryListener:
    """What can be told; any object with some of these methods will do. They may be coroutines."""

    def on_extensions_discovered(self, extensions: Sequence[ExtensionInfo]) -> Any:
        """Extensions appeared; those that are there already come first, when the listener is added."""

    def on_extensions_removed(self, extensions: Sequence[ExtensionInfo]) -> Any:
        """Extensions are gone: they left, or their lease ran out."""

    def on_extension_status_changed(self, old: ExtensionInfo, new: ExtensionInfo) -> Any:
        """An extension changed its status."""


Listener = object
"""An object with some methods of DiscoveryListener, or a function of ExtensionEvent."""


class Dispatcher:
    """All listeners."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._ears: dict[asyncio.Task[None], _Ear] = {}

    def add(self, listener: Listener, present: list[ExtensionEvent]) -> Callable[[], None]:
        """Tell `listener` what is present, then what changes; returns a function that removes it.

        Raises:
            ConfigError: it has none of the methods and cannot be called.
        """
        if not callable(listener) and not any(_methods(listener)):
            raise ConfigError(f"{listener!r} has none of the methods of DiscoveryListener and is no function")
        ear = _Ear(listener)
        task = self._supervisor.spawn(ear.listen(), f"listener {listener!r}")
        self._ears[task] = ear
        task.add_done_callback(lambda task: self._ears.pop(task, None))
        if present:
            ear.tell(present)
        return ear.close

    def tell(self, events: list[ExtensionEvent]) -> None:
        """Queue events for every listener."""
        for ear in self._ears.values():
            ear.tell(events)

    async def aclose(self) -> None:
        """End all listeners' tasks."""
        await cancel(*self._ears)


class _Ear:
    """One listener, and what it was not told yet."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._pending: deque[list[ExtensionEvent]] = deque()
        self._woken = asyncio.Event()
        self._closed = False

    def tell(self, events: list[ExtensionEvent]) -> None:
        self._pending.append(events)
        if len(self._pending) > PENDING_MAX:
            self._pending = deque([merge(self._pending)])
        self._woken.set()

    def close(self) -> None:
        """Hear no more. What the listener is doing, perhaps this very call, comes to its end."""
        self._closed = True
        self._woken.set()

    async def listen(self) -> None:
        while not self._closed:
            await self._woken.wait()
            self._woken.clear()
            while self._pending:
                for call in _calls(self._listener, self._pending.popleft()):
                    if not self._closed:
                        await self._call(call)

    async def _call(self, call: Callable[[], Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            result = call()
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and task.cancelling():
                raise
            log.exception("the listener %r failed; it is told of the next change all the same", self._listener)


def merge(batches: Iterable[list[ExtensionEvent]]) -> list[ExtensionEvent]:
    """Fold events into one for each extension: what was before the first, against what is after the last."""
    before: dict[str, ExtensionInfo | None] = {}
    after: dict[str, ExtensionInfo | None] = {}
    for event in chain.from_iterable(batches):
        before.setdefault(event.extension.id, event.old)
        after[event.extension.id] = event.new
    return [ExtensionEvent(before[id_], new) for id_, new in after.items() if before[id_] != new]


def _methods(listener: Any) -> tuple[Any, Any, Any]:
    """Return the methods of DiscoveryListener that it has: an object needs only those that it cares for."""
    found = getattr(listener, "on_extensions_discovered", None)
    removed = getattr(listener, "on_extensions_removed", None)
    return found, removed, getattr(listener, "on_extension_status_changed", None)


def _calls(listener: Any, events: list[ExtensionEvent]) -> list[Callable[[], Any]]:
    found, removed, status = _methods(listener)
    if found is None and removed is None and status is None:
        return [_bound(listener, event) for event in events]
    calls: list[Callable[[], Any]] = []
    if removed and (gone := [event.old for event in events if event.new is None]):
        calls.append(_bound(removed, gone))
    if found and (new := [event.new for event in events if event.old is None]):
        calls.append(_bound(found, new))
    for old, now in ((event.old, event.new) for event in events if status):
        if old and now and old.status is not now.status:
            calls.append(_bound(status, old, now))
    return calls


def _bound(function: Any, *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)
