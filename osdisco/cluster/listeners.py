"""What listeners of a cluster's state are, and how what happens is told to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

from attrs import frozen

from osdisco.cluster.blocks import ClusterBlocks
from osdisco.cluster.changes import ClusterChange, changes_between, each_change
from osdisco.cluster.components import StateComponent
from osdisco.cluster.metadata import ClusterMetadata
from osdisco.cluster.nodes import ClusterNodes
from osdisco.cluster.routing import RoutingTable
from osdisco.cluster.state import ClusterState
from osdisco.discovery._telling import Backlog, Manners, Reader
from osdisco.discovery.events import Difference, Single
from osdisco.errors import ClosedError


class ClusterStateListener:
    """What can be told; any object with some of these methods will do. They may be coroutines.

    The state that is there already comes first, with None for what was before.
    """

    def on_state_changed(self, old: ClusterState | None, new: ClusterState) -> Any:
        """The version rose, or it is another cluster now."""

    def on_nodes_changed(self, old: ClusterNodes | None, new: ClusterNodes) -> Any:
        """So it did, and a node came, went or changed."""

    def on_metadata_changed(self, old: ClusterMetadata | None, new: ClusterMetadata) -> Any:
        """So it did, and an index or something else that the cluster keeps is new, gone or different."""

    def on_routing_table_changed(self, old: RoutingTable | None, new: RoutingTable) -> Any:
        """So it did, and a copy of a shard came, went, moved or changed its state."""

    def on_blocks_changed(self, old: ClusterBlocks | None, new: ClusterBlocks) -> Any:
        """So it did, and the cluster refuses something else."""


@frozen
class ClusterStateEvent(Difference[ClusterState]):
    """One state followed another; `old` is None at the first. Who is slow is told of several at once."""

    new: ClusterState

    @property
    def id(self) -> str:
        """The same for all: there is one state."""
        return ""

    @property
    def changes(self) -> tuple[ClusterChange, ...]:
        """What is different, of all components that both have; nothing at the first."""
        return () if self.old is None else changes_between(self.old, self.new)


BEHIND_MAX: Final = 16
"""States that somebody slow may be behind before they are merged: each may be large, and none of them is let go of."""
SLICE: Final = 256
"""Changes after which others have their turn: to work out thousands takes longer than the loop may be held."""

_METHODS: Final = {component: f"on_{component.value}_changed" for component in StateComponent}


def _meanings(told: Sequence[ClusterStateEvent] | Single) -> Iterable[tuple[Any, ...]]:
    """Yield the names of methods with what they are given."""
    if isinstance(told, Single):
        return
    for event in told:
        if is_news(event.old, event.new):
            yield "on_state_changed", event.old, event.new
        for component, method in _METHODS.items():
            if component in event.new.components:
                old, new = _of(event.old, component), event.new.component(component)
                if old is not new:
                    yield method, old, new


def _of(state: ClusterState | None, component: StateComponent) -> Any:
    return state.component(component) if state is not None and component in state.components else None


MANNERS: Final = Manners[ClusterStateEvent](
    "ClusterStateListener", ("on_state_changed", *_METHODS.values()), _meanings, single=False, most=BEHIND_MAX
)


def is_news(old: ClusterState | None, new: ClusterState) -> bool:
    """Return whether listeners are told: the version rose, or it is another cluster."""
    return old is None or new.header.supersedes(old.header)


class Function:
    """A function as a listener."""

    def __init__(self, function: Callable[[ClusterStateEvent], Any]) -> None:
        self._function = function

    def __repr__(self) -> str:
        return repr(self._function)

    def on_state_changed(self, old: ClusterState | None, new: ClusterState) -> Any:
        """Tell the function."""
        return self._function(ClusterStateEvent(old, new))


class Hearer:
    """Somebody who is told, and the state that it was told last.

    Args:
        every: also of states of the same version, in which more is known of nodes; but not of the first one, from which
            on it is told: merged with those that follow, it would hide what changed between them.
    """

    def __init__(self, backlog: Backlog[ClusterStateEvent], *, every: bool) -> None:
        self.backlog: Final = backlog
        self._every = every
        self._last: ClusterState | None = None

    def see(self, state: ClusterState) -> None:
        """Tell it of a state, if that is news, or what it was not told yet of the same one."""
        last = self._last
        if self._every and last is None:
            self._last = state
        elif self._every or last is None or is_news(last, state) or state.components - last.components:
            self._last = state
            self.backlog.put([ClusterStateEvent(last, state)])


class Changes(AsyncIterator[ClusterChange]):
    """`async with cluster.changes() as changes`: what changes from the state at entry on, each by itself, in order.

    It ends when the service stops. Who is slow is told differences of several states at once, and nothing twice.
    """

    def __init__(self, subscribe: Callable[[Hearer], Callable[[], None]]) -> None:
        self._subscribe = subscribe
        self._reader = Reader(Backlog[ClusterStateEvent](most=BEHIND_MAX))
        self._now: Iterator[ClusterChange] = iter(())
        self._told = 0
        self._leave: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        if self._leave is not None:
            raise ClosedError("changes are entered once; ask for new ones")
        self._leave = self._subscribe(Hearer(self._reader.backlog, every=True))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._leave is not None
        self._leave()

    async def __anext__(self) -> ClusterChange:
        if self._leave is None:
            raise ClosedError("enter the changes first: async with cluster.changes() as changes")
        self._told += 1
        if self._told % SLICE == 0:
            await asyncio.sleep(0)
        while (change := next(self._now, None)) is None:
            event = await self._reader.next()
            if event is None:
                raise StopAsyncIteration
            assert isinstance(event, ClusterStateEvent)
            assert event.old is not None
            self._now = each_change(event.old, event.new)
        return change
