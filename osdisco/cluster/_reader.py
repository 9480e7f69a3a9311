"""The reader: watches the head, fetches what is new of what it was asked for, and shows a state when all is there.

What was shown stays until something better is there: a head that cannot be used, and why, is told beside it.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from attrs import frozen

from osdisco._connection import backoff
from osdisco._feed import Change
from osdisco._follower import Follower
from osdisco._signal import Signal
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.cluster._aside import aside
from osdisco.cluster._build import StateBuilder
from osdisco.cluster._fetch import BlobMissingError, Fetcher
from osdisco.cluster._head import Blob, Head
from osdisco.cluster._places import Places
from osdisco.cluster.components import StateComponent
from osdisco.cluster.state import ClusterState
from osdisco.errors import ClosedError, ClusterDocumentError, OsdiscoError, RecordError

log = logging.getLogger("osdisco")

SPREAD_FROM: Final = 256 * 1024
"""Bytes to be fetched from which on readers do not all begin at once."""
SPREAD: Final = 0.5
"""Seconds over which they begin."""

Show = Callable[[ClusterState], None]


class ReaderState(enum.Enum):
    """What a reader does."""

    WAITING = "waiting"
    FETCHING = "fetching"
    FAILED = "failed"


@frozen
class Unusable:
    """The newest head, and why it could not be used, since when."""

    reason: str
    since: float


class Reader:
    """Shows the states of one mirror.

    Args:
        show: called with each state, which is whole; in the loop, and must be quick.
        raw: keep what the cluster said, too.
        trouble: told whenever the watch of the head is interrupted, at last by ClosedError.

    Attributes:
        state: what it does.
        head: of what is shown; None before anything is.
        unusable: why what is shown is not the newest; None while it is, or is about to be.
    """

    def __init__(
        self,
        client: Client,
        places: Places,
        show: Show,
        *,
        raw: bool = False,
        trouble: Callable[[OsdiscoError], None] = lambda error: None,
    ) -> None:
        self.state = ReaderState.WAITING
        self.head: Head | None = None
        self.unusable: Unusable | None = None
        self.bytes_fetched = 0
        self._client = client
        self._places = places
        self._show = show
        self._builder = StateBuilder(raw=raw)
        self._fetcher = Fetcher(client._connection, places)
        self._signal = Signal()
        self._newest: Item | None = None
        self._asked: frozenset[StateComponent] = frozenset()
        self._done: tuple[int, frozenset[StateComponent]] | None = None  # revision and components that are shown
        self.follower: Final[Follower] = client._follow(places.head, self._take, trouble)

    def ask(self, components: frozenset[StateComponent]) -> None:
        """Show these components from now on."""
        self._asked = components
        self._signal.fire()

    def _take(self, change: Change, first: bool) -> None:
        if (item := change.puts.get(self._places.head)) is not None:
            if change.resync or self._is_newer(item):  # a store that was restored shows earlier revisions anew
                self._newest = item
        elif first or self._places.head in change.deletes:
            self._newest = None
            if self.head is not None:
                self._fail("the mirror's head was removed from the store")
        self._signal.fire()

    def _is_newer(self, item: Item) -> bool:
        """Return whether a head is not before one that `_look_again` found, of which the watch comes to tell later."""
        newest = self._newest
        return newest is None or item.revision >= newest.revision or item.created != newest.created

    async def run(self) -> None:
        """Show what is new, again and again."""
        failures = 0
        while True:
            self.state = ReaderState.WAITING
            await self._signal.wait_for(self._has_work)
            self.state = ReaderState.FETCHING
            try:
                await self._work()
            except ClosedError:
                raise
            except OsdiscoError as exc:
                self.state = ReaderState.FAILED
                self._fail(f"the state could not be fetched: {exc}")
                await asyncio.sleep(backoff(self._client.runtime, failures))
                failures += 1
            else:
                failures = 0

    def _has_work(self) -> bool:
        return self._newest is not None and self._done != (self._newest.revision, self._asked)

    async def _work(self) -> None:
        """Do what the newest head asks for; whatever is wrong with it is told, and the next one waited for."""
        item, asked = self._newest, self._asked
        assert item is not None
        try:
            head = self._usable(Head.parse(item.value))
            state = await self._assemble(head, asked)
        except BlobMissingError as exc:
            if not await self._look_again(item):
                self._give_up(item, asked, exc)
        except (RecordError, ClusterDocumentError) as exc:
            self._give_up(item, asked, exc)
        except OsdiscoError:
            raise
        except Exception as exc:
            log.exception("the newest state of the cluster failed in a way that its reader does not know")
            self._give_up(item, asked, exc)
        else:
            self._done, self.head, self.unusable = (item.revision, asked), head, None
            self._show(state)

    def _usable(self, head: Head) -> Head:
        """Return a head that is not before what is shown. Raises RecordError."""
        shown = self.head
        if shown is not None and shown.cluster_uuid == head.cluster_uuid and head.order < shown.order:
            raise RecordError(f"the head fell from version {shown.version} back to {head.version}")
        return head

    def _give_up(self, item: Item, asked: frozenset[StateComponent], exc: Exception) -> None:
        """Keep what is shown, and do not try this head again."""
        log.warning("the newest state of the cluster cannot be used, the last one stays: %s", exc)
        self._done = item.revision, asked
        self._fail(str(exc) or type(exc).__name__)

    def _fail(self, reason: str) -> None:
        if self.unusable is None:
            self.unusable = Unusable(reason, self._client.runtime.clock.now())
        else:
            self.unusable = Unusable(reason, self.unusable.since)

    async def _look_again(self, item: Item) -> bool:
        """Return whether another head is there by now: what is missing of this one was collected."""
        now = await self._client._connection.get(self._places.head)
        if now is None or now.revision == item.revision:
            return False
        if self._is_newer(now):
            self._newest = now
        return True

    async def _assemble(self, head: Head, asked: frozenset[StateComponent]) -> ClusterState:
        """Fetch what is not here, and build the state. Nothing of it is shown before all is there."""
        wanted: dict[StateComponent, list[Blob]] = {}
        for component in sorted(asked):
            if component not in head.components:
                raise RecordError(f"the head has no {component.value}")
            wanted[component] = list(head.blobs(component))
        missing = self._missing(wanted)
        await self._spread(sum(blob.size for blob in missing))
        texts = await self._fetcher.all(missing)
        self.bytes_fetched += sum(blob.size for blob in missing)
        given = {
            component: [(blob.sha, texts.get(blob.address)) for blob in blobs] for component, blobs in wanted.items()
        }
        size = sum(blob.raw for blob in missing)
        return await aside(size, partial(self._builder.build, head.header, given))

    def _missing(self, wanted: Mapping[StateComponent, list[Blob]]) -> list[Blob]:
        missing = []
        for component, blobs in wanted.items():
            needed = set(self._builder.needs(component, [blob.sha for blob in blobs]))
            missing += [blob for blob in blobs if blob.sha in needed]
        return missing

    async def _spread(self, size: int) -> None:
        if size > SPREAD_FROM:
            await asyncio.sleep(self._client.runtime.random.uniform(0, SPREAD))
