"""Telling listeners: off the I/O task, in order, each on a task of its own, so that a bad one harms nobody else."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from osdisco._tasks import Supervisor, cancel
from osdisco.discovery.extension import ExtensionInfo

log = logging.getLogger("osdisco")


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
    """Listeners and their queues."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._queues: dict[asyncio.Task[None], asyncio.Queue[list[ExtensionEvent]]] = {}

    def add(self, listener: Listener, present: list[ExtensionEvent]) -> Callable[[], None]:
        """Tell `listener` what is present, then what changes; returns a function that removes it."""
        queue: asyncio.Queue[list[ExtensionEvent]] = asyncio.Queue()
        task = self._supervisor.spawn(_tell_all(listener, queue), f"listener {listener!r}")
        self._queues[task] = queue
        if present:
            queue.put_nowait(present)

        def remove() -> None:
            self._queues.pop(task, None)
            task.cancel()

        return remove

    def tell(self, events: list[ExtensionEvent]) -> None:
        """Queue events for every listener."""
        for queue in self._queues.values():
            queue.put_nowait(events)

    async def aclose(self) -> None:
        """End all listeners' tasks."""
        tasks = list(self._queues)
        self._queues.clear()
        await cancel(*tasks)


async def _tell_all(listener: Listener, queue: asyncio.Queue[list[ExtensionEvent]]) -> None:
    while True:
        events = await queue.get()
        for call in _calls(listener, events):
            try:
                result = call()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                log.exception("the listener %r failed; it is told of the next change all the same", listener)


def _calls(listener: Any, events: list[ExtensionEvent]) -> list[Callable[[], Any]]:
    """An object needs only the methods that it cares for; anything else is called with each event."""
    found = getattr(listener, "on_extensions_discovered", None)
    removed = getattr(listener, "on_extensions_removed", None)
    status = getattr(listener, "on_extension_status_changed", None)
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
