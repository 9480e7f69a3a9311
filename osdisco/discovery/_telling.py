"""Telling what happens: off the I/O task, in order, and whoever is slow is told the difference.

Each listener runs on a task of its own, so that a bad one harms nobody else.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final, Generic, TypeVar

from attrs import frozen

from osdisco._tasks import Supervisor, cancel
from osdisco.discovery.events import (
    Difference,
    Single,
    ViewEvent,
    ViewFresh,
    ViewProtecting,
    ViewProtectionOver,
    ViewStale,
)
from osdisco.errors import ClosedError, ConfigError, OsdiscoError

D = TypeVar("D", bound=Difference[Any])

log = logging.getLogger("osdisco")

PENDING_MAX: Final = 1024
"""Changes that somebody slow may be behind before they are merged into one."""

Listener = object
"""An object with some of the methods that its kind of listener has, or a function."""

_ASPECTS: Final = {
    ViewStale: (ViewStale, True),
    ViewFresh: (ViewStale, False),
    ViewProtecting: (ViewProtecting, True),
    ViewProtectionOver: (ViewProtecting, False),
}
"""What of the view an event is about, and whether that is so from now on."""


class Backlog(Generic[D]):
    """What somebody was not told yet, in order: changes that came at once, and between them single events.

    Args:
        bridges: lost permission does not end it.
        most: changes that it holds before they are merged; PENDING_MAX when None.
    """

    def __init__(self, *, bridges: bool = True, most: int | None = None) -> None:
        self.bridges: Final = bridges
        self._most = most
        self.closed = False
        self.error: OsdiscoError | None = None
        self._pending: deque[Sequence[D] | Single] = deque()
        self._known: set[type] = set()  # which aspects of the view its reader knows to hold
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, told: Sequence[D] | Single) -> None:
        """Queue changes that came at once, or one event. What comes after the end is told to nobody."""
        if self.closed:
            return
        self._pending.append(told)
        if len(self._pending) > (PENDING_MAX if self._most is None else self._most):
            self._pending = deque(_merged(self._pending))
        self._woken.set()

    def close(self, error: OsdiscoError | None = None) -> None:
        """Let there come no more; whoever reads it to its end is raised `error`, if there is one."""
        if not self.closed:
            self.closed, self.error = True, error
        self._woken.set()

    async def wait(self) -> bool:
        """Wait until there is something; returns whether there is, and not the end."""
        while not self._pending and not self.closed:
            self._woken.clear()
            await self._woken.wait()
        return bool(self._pending)

    def take(self) -> Sequence[D] | Single:
        """Take what came first; nothing when it is what its reader knows of the view already."""
        told = self._pending.popleft()
        if isinstance(told, ViewEvent):
            aspect, holds = _ASPECTS[type(told)]
            if holds is (aspect in self._known):
                return ()
            (self._known.add if holds else self._known.discard)(aspect)
        return told


def _merged(pending: Iterable[Sequence[D] | Single]) -> list[Sequence[D] | Single]:
    """Fold all changes into one, after how the view is in the end."""
    changes: list[Sequence[D]] = []
    view: dict[type, Single] = {}
    others: list[Single] = []
    for told in pending:
        if isinstance(told, ViewEvent):
            view[_ASPECTS[type(told)][0]] = told
        elif isinstance(told, Single):
            others.append(told)
        else:
            changes.append(told)
    return [*view.values(), merge(changes), *others]


def merge(batches: Iterable[Sequence[D]]) -> list[D]:
    """Fold changes into one for each id: what was before the first, against what is after the last."""
    before: dict[str, Any] = {}
    last: dict[str, D] = {}
    for event in chain.from_iterable(batches):
        before.setdefault(event.id, event.old)
        last[event.id] = event
    return [type(event)(before[id_], event.new) for id_, event in last.items() if before[id_] != event.new]


class Reader(Generic[D]):
    """Reads a backlog event by event."""

    def __init__(self, backlog: Backlog[D]) -> None:
        self.backlog: Final = backlog
        self._now: deque[D | Single] = deque()

    async def next(self) -> D | Single | None:
        """Return the next event; None at the end. Raises the error that it ended with."""
        while not self._now:
            if not await self.backlog.wait():
                if self.backlog.error is not None:
                    raise self.backlog.error
                return None
            told = self.backlog.take()
            self._now.extend([told] if isinstance(told, Single) else told)
        return self._now.popleft()


@frozen
class Manners(Generic[D]):
    """How listeners of one kind are told.

    Args:
        what: what they are called, for errors.
        methods: the names of all methods that one may have.
        meanings: returns the names of methods with what they are given.
        single: whether a function is told of single events, too.
        most: changes that a slow one may be behind before they are merged; PENDING_MAX when None.
    """

    what: str
    methods: Sequence[str]
    meanings: Callable[[Sequence[D] | Single], Iterable[tuple[Any, ...]]]
    single: bool
    most: int | None = None

    def check(self, listener: Listener) -> None:
        """Raise ConfigError for what cannot be told."""
        if not callable(listener) and not any(hasattr(listener, name) for name in self.methods):
            raise ConfigError(f"{listener!r} has none of the methods of {self.what} and is no function")

    def calls(self, listener: Any, told: Sequence[D] | Single) -> Iterable[Callable[[], Any]]:
        """Return the calls that tell a listener: an object needs only those methods that it cares for."""
        methods = {name: method for name in self.methods if (method := getattr(listener, name, None)) is not None}
        if methods:
            return [_bound(methods[name], *given) for name, *given in self.meanings(told) if name in methods]
        if isinstance(told, Single):
            return [_bound(listener, told)] if self.single else []
        return [_bound(listener, event) for event in told]


def _bound(function: Any, *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


class Audience(Generic[D]):
    """All who are told by one object."""

    def __init__(self, supervisor: Supervisor, manners: Manners[D]) -> None:
        self._supervisor = supervisor
        self._manners = manners
        self._backlogs: list[Backlog[D]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def needed(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._backlogs)

    def add(self, listener: Listener) -> Backlog[D]:
        """Begin to tell a listener, on a task of its own, what is put into the backlog, until that is closed.

        Raises:
            ConfigError: it has none of the methods and cannot be called.
        """
        self._manners.check(listener)
        ear = _Ear(listener, self._manners)
        task = self._supervisor.spawn(ear.listen(), f"listener {listener!r}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return ear.backlog

    def follow(self, backlog: Backlog[D], first: Iterable[Sequence[D] | Single] = ()) -> Callable[[], None]:
        """Put `first`, and from now on everything, into a backlog; returns a function that ends it."""
        for told in first:
            backlog.put(told)
        self._backlogs.append(backlog)

        def leave() -> None:
            backlog.close()
            if backlog in self._backlogs:
                self._backlogs.remove(backlog)

        return leave

    def put(self, told: Sequence[D] | Single) -> None:
        """Tell all."""
        for backlog in self._backlogs:
            backlog.put(told)

    def end(self, error: OsdiscoError) -> None:
        """Tell no more, for the client was closed; or those alone who do not bridge a loss of permission."""
        for backlog in self._backlogs:
            if isinstance(error, ClosedError) or not backlog.bridges:
                backlog.close(error)
        self._drop_closed()

    def close(self) -> None:
        """Tell no more; iterators end once they have told what came before."""
        for backlog in self._backlogs:
            backlog.close()
        self._drop_closed()

    def _drop_closed(self) -> None:
        self._backlogs = [backlog for backlog in self._backlogs if not backlog.closed]

    async def aclose(self) -> None:
        """Close, and end all listeners' tasks."""
        self.close()
        await cancel(*self._tasks)


class _Ear(Generic[D]):
    """One listener."""

    def __init__(self, listener: Listener, manners: Manners[D]) -> None:
        self.backlog: Final = Backlog[D](most=manners.most)
        self._listener = listener
        self._manners = manners

    async def listen(self) -> None:
        """Tell it, until it is to hear no more. What it is doing then, perhaps closing its ear, comes to its end."""
        while await self.backlog.wait() and not self.backlog.closed:
            for call in self._manners.calls(self._listener, self.backlog.take()):
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
