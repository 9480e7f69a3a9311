"""Following a cluster, and standing for its mirror, told document by document: for commands, and for the demo."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Final

from osdisco._tasks import cancel
from osdisco.cli.cluster._documents import Document, change_document, counts, header_document
from osdisco.client import Client
from osdisco.cluster import (
    ClusterChange,
    ClusterReplaced,
    ClusterState,
    ClusterStateService,
    ClusterStateSource,
    MirrorState,
    MirrorStatus,
    StateComponent,
)
from osdisco.cluster.listeners import Changes
from osdisco.errors import ClusterError

LOOK: Final = 0.1
"""Seconds between two looks at what nobody tells: whether it is stale, and how a candidate does."""
FIRST: Final = 1.0
"""Seconds for a first state to come before it is told that there is none."""

Tell = Callable[[Document], None]


async def follow(client: Client, name: str, components: Iterable[StateComponent], tell: Tell) -> None:
    """Tell what is there, what changes, and when what is shown begins and ends to be old; until it is cancelled.

    `state` comes first, and after another cluster took the place of the old one. `version` comes with each that is
    seen, with the bytes that were fetched so far, also when nothing of it was asked for here.
    """
    async with ClusterStateService(client, cluster=name) as service:
        service.follow(components)
        async with service.changes() as changes:
            await _Following(client, service, frozenset(components), tell).run(changes)


class _Following:
    """One who follows a cluster: told of changes, and looks at what nobody tells."""

    def __init__(
        self, client: Client, service: ClusterStateService, components: frozenset[StateComponent], tell: Tell
    ) -> None:
        self._clock = client.runtime.clock
        self._service = service
        self._components = components
        self._tell = tell
        self._state: ClusterState | None = None
        self._stale_since: float | None = None
        self._begun = client.runtime.clock.now()

    async def run(self, changes: Changes) -> None:
        """Follow until cancelled."""
        next_ = asyncio.ensure_future(anext(changes))
        try:
            while True:
                await asyncio.wait([next_], timeout=LOOK)
                self._look_for_a_version()
                self._look_how_old()
                if next_.done():
                    self._change(next_.result())
                    next_ = asyncio.ensure_future(anext(changes))
        finally:
            await cancel(next_)

    def _look_how_old(self) -> None:
        service, since = self._service, self._stale_since
        if self._state is None and self._clock.now() - self._begun < FIRST:
            return
        if (reason := service.stale_reason) is not None and since is None:
            self._stale_since = self._clock.now()
            self._say("stale", {"age": service.age if isfinite(service.age) else None, "reason": reason})
        elif reason is None and since is not None:
            self._stale_since = None
            self._say("fresh", {"lasted": self._clock.now() - since})

    def _look_for_a_version(self) -> None:
        if not (shown := _known(self._service, self._components)):
            return
        before, self._state = self._state, shown
        if before is None:
            self._whole(shown)
        if before is None or before.state_uuid != shown.state_uuid:
            fetched = self._service.mirror.fetched
            self._say("version", {"version": shown.version, "term": shown.term, "fetched": fetched})

    def _change(self, change: ClusterChange) -> None:
        content = change_document(change)
        self._say(content.pop("event"), {"version": self._service.state.version} | content)
        if isinstance(change, ClusterReplaced):
            self._whole(change.new)

    def _whole(self, state: ClusterState) -> None:
        self._say("state", header_document(state) | counts(state))

    def _say(self, event: str, content: Document) -> None:
        self._tell({"event": event, "time": self._clock.wall()} | content)


def _known(service: ClusterStateService, components: frozenset[StateComponent]) -> ClusterState | None:
    """Return the state, once it has all components that were asked for."""
    try:
        state = service.state
    except ClusterError:
        return None
    return state if components <= state.components else None


async def stand(client: Client, name: str, source: ClusterStateSource, poll: float, tell: Tell) -> None:
    """Be a candidate for the mirror, and tell how that goes, until it is cancelled.

    The event is the state that the candidate is in: `standing`, `leading`, `away` with the reason, `resting`. What it
    publishes is `published`.
    """
    clock = client.runtime.clock
    async with ClusterStateService(client, source, cluster=name, poll=poll) as service:
        before: tuple[object, ...] = (MirrorState.IDLE.value, None)
        seq: int | None = None
        while True:
            now = service.mirror
            if (seen := _seen(now)) != before:
                before = seen
                tell({"event": seen[0], "time": clock.wall()} | _candidate(now))
            if service.mirroring and now.seq not in (None, seq):
                seq = now.seq
                tell({"event": "published", "time": clock.wall()} | _published(now))
            await asyncio.sleep(LOOK)


def _seen(status: MirrorStatus) -> tuple[object, ...]:
    """Return what is news when it changes. How often it was tried in vain is none."""
    assert status.candidate is not None
    told = status.error if status.candidate is MirrorState.AWAY else None
    return status.candidate.value, told


def _candidate(status: MirrorStatus) -> Document:
    return {"mirror": status.name, "token": status.token, "error": status.error}


def _published(status: MirrorStatus) -> Document:
    header = status.header
    about = {} if header is None else {"cluster_name": header.cluster_name, "cluster_uuid": header.cluster_uuid}
    version = {} if header is None else {"version": header.version, "term": header.term}
    return about | version | {"seq": status.seq, "size": sum(size.size for size in status.sizes.values())}
