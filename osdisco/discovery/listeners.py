"""Telling listeners: off the I/O task, in order, each on a task of its own, so that a bad one harms nobody else."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from osdisco._tasks import Supervisor, cancel
from osdisco.discovery.events import Backlog, ExtensionEvent, Single, Superseded, ViewFresh, ViewStale
from osdisco.discovery.extension import ExtensionInfo
from osdisco.errors import ConfigError

log = logging.getLogger("osdisco")


class DiscoveryListener:
    """What can be told; any object with some of these methods will do. They may be coroutines."""

    def on_extensions_discovered(self, extensions: Sequence[ExtensionInfo]) -> Any:
        """Extensions appeared; those that are there already come first, when the listener is added."""

    def on_extensions_removed(self, extensions: Sequence[ExtensionInfo]) -> Any:
        """Extensions are gone: they left, or their lease ran out."""

    def on_extension_status_changed(self, old: ExtensionInfo, new: ExtensionInfo) -> Any:
        """An extension changed its status."""

    def on_view_stale(self, event: ViewStale) -> Any:
        """The store may know better than the view from now on. What it shows stays."""

    def on_view_fresh(self, event: ViewFresh) -> Any:
        """The view is again what the store has."""

    def on_superseded(self, event: Superseded) -> Any:
        """Another process registered the own id later; this one is out for good."""


METHODS: Final = tuple(name for name in vars(DiscoveryListener) if name.startswith("on_"))

_SINGLES: Final = {ViewStale: "on_view_stale", ViewFresh: "on_view_fresh", Superseded: "on_superseded"}

Listener = object
"""An object with some methods of DiscoveryListener, or a function of ExtensionEvent."""


class Dispatcher:
    """All who are told."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._backlogs: list[Backlog] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def needed(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._backlogs)

    def add(self, listener: Listener) -> Backlog:
        """Begin to tell a listener, on a task of its own, what is put into the backlog, until that is closed.

        Raises:
            ConfigError: it has none of the methods and cannot be called.
        """
        if not callable(listener) and not any(hasattr(listener, name) for name in METHODS):
            raise ConfigError(f"{listener!r} has none of the methods of DiscoveryListener and is no function")
        ear = _Ear(listener)
        task = self._supervisor.spawn(ear.listen(), f"listener {listener!r}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return ear.backlog

    def follow(self, backlog: Backlog) -> Callable[[], None]:
        """Put everything into a backlog from now on; returns a function that ends it."""
        self._backlogs.append(backlog)

        def leave() -> None:
            backlog.close()
            if backlog in self._backlogs:
                self._backlogs.remove(backlog)

        return leave

    def tell(self, told: Sequence[ExtensionEvent] | Single) -> None:
        """Queue events for all."""
        for backlog in self._backlogs:
            backlog.put(told)

    def close(self) -> None:
        """Tell no more; iterators end once they have told what came before."""
        for backlog in self._backlogs:
            backlog.close()

    async def aclose(self) -> None:
        """Close, and end all listeners' tasks."""
        self.close()
        await cancel(*self._tasks)


class _Ear:
    """One listener."""

    def __init__(self, listener: Listener) -> None:
        self.backlog = Backlog()
        self._listener = listener

    async def listen(self) -> None:
        """Tell it, until it is to hear no more. What it is doing then, perhaps closing its ear, comes to its end."""
        while await self.backlog.wait() and not self.backlog.closed:
            for call in _calls(self._listener, self.backlog.take()):
                if not self.backlog.closed:
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


def _calls(listener: Any, told: Sequence[ExtensionEvent] | Single) -> Iterable[Callable[[], Any]]:
    """Return the calls that tell a listener: an object needs only those methods that it cares for."""
    methods = {name: method for name in METHODS if (method := getattr(listener, name, None)) is not None}
    if not methods:
        return [] if isinstance(told, Single) else [_bound(listener, event) for event in told]
    return [_bound(methods[name], *given) for name, *given in _meanings(told) if name in methods]


def _meanings(told: Sequence[ExtensionEvent] | Single) -> Iterable[tuple[Any, ...]]:
    """Return the names of methods with what they are given."""
    if isinstance(told, Single):
        yield _SINGLES[type(told)], told
        return
    if gone := [event.old for event in told if event.new is None]:
        yield "on_extensions_removed", gone
    if new := [event.new for event in told if event.old is None]:
        yield "on_extensions_discovered", new
    for old, now in ((event.old, event.new) for event in told):
        if old and now and old.status is not now.status:
            yield "on_extension_status_changed", old, now


def _bound(function: Any, *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)
