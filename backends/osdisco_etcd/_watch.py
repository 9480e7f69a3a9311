"""Following a range: from messages of one or more streams to frames that keep the contract (S6).

A sign of life is asked for after `PATIENCE` seconds of silence, or as soon as another request fails at the endpoint;
with none within `LAST_CALL` seconds the watch raises, well within WATCH_SILENCE.
Where asking does not help, a new watch from the last revision is opened, and its first message is the sign: over the
gateway always, over gRPC when the watch starts above the store's revision, because etcd tells no progress of those.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from osdisco.backend import Batch, Snapshot
from osdisco.errors import ClosedError
from osdisco_etcd._errors import Failure, Refused, Verdict, verdict_on
from osdisco_etcd._wire import Event, Response, Stream, Wire

PATIENCE: Final = 10.0
LAST_CALL: Final = 2.0

Frame = Snapshot | Batch


class Watch:
    """One watch.

    `_at` is the revision of the last change handed out, and what is at or below it is dropped. `_seen` can be above it
    by progress, and is where a new stream starts; it drops nothing, because etcd before 3.5.8 reports progress ahead
    of changes that it has still to send (etcd issue 15220).
    """

    def __init__(self, wire: Wire, key: bytes, end: bytes, timeout: float) -> None:
        self._wire = wire
        self._key = key
        self._end = end
        self._timeout = min(timeout, PATIENCE)
        self._asked = False
        self._at = 0
        self._seen = 0
        self._parts: list[Event] = []
        self._logged_in = False
        self._overlap = False

    async def frames(self, after: int | None) -> AsyncGenerator[Frame, None]:
        """Yield frames until closed. Raises errors of osdisco only."""
        if after is None:
            yield await self._snapshot()
        else:
            self._at = self._seen = after
        while True:
            stream = await self._open()
            try:
                while not stream.ended:
                    for frame in await self._next(stream):
                        yield frame
            finally:
                await stream.aclose()

    async def _snapshot(self) -> Snapshot:
        items, revision = await self._wire.range(self._key, self._end, self._timeout)
        self._at = self._seen = revision
        return Snapshot({item.key: item for item in items}, revision)

    async def _open(self) -> Stream:
        wire = self._wire
        if wire.closed:
            raise ClosedError("this etcd backend is closed")
        self._parts = []
        carried = wire.auth.carried or await wire.auth.renew(None, self._timeout)
        start = max(1, self._seen + (0 if self._overlap else 1))
        return wire.watch(wire.endpoint, carried, self._key, self._end, start)

    async def _next(self, stream: Stream) -> Sequence[Frame]:
        try:
            response = await stream.receive(LAST_CALL if self._asked else PATIENCE)
            if response is None:
                return await self._silence(stream)
            self._asked = False
            if response.canceled:
                return await self._canceled(stream, response)
            if response.created:
                return await self._created(stream, response)
            return self._batches(response)
        except self._wire.errors as exc:
            failure = self._wire.failure(exc)
            if await self._helped_by_login(stream, failure):
                return (self._contact(),)
            raise self._wire.failed(failure, stream.endpoint, "Watch", mutates=False) from exc

    async def _silence(self, stream: Stream) -> Sequence[Frame]:
        if self._asked:
            stream.give_up()
            raise Refused(Failure("silent, also when asked"))
        self._asked = True
        self._overlap = stream.answers_probes  # what comes twice is dropped
        if stream.answers_probes and stream.heard and stream.start <= self._seen:
            await stream.probe()
        else:
            stream.ended = True
        return ()

    async def _canceled(self, stream: Stream, response: Response) -> Sequence[Frame]:
        if not response.compacted:
            raise Refused(Failure(response.reason or "the server ended the watch", code=1))
        stream.ended = True
        return (await self._snapshot(),)

    async def _helped_by_login(self, stream: Stream, failure: Failure) -> bool:
        """Log in once more when that is what the server wants; the second refusal in a row is final."""
        auth = self._wire.auth
        if self._logged_in or not auth.renewable or verdict_on(failure) is not Verdict.STALE_TOKEN:
            return False
        self._logged_in = True
        stream.ended = True
        await auth.renew(stream.carried, self._timeout)
        return True

    async def _created(self, stream: Stream, response: Response) -> Sequence[Frame]:
        self._logged_in = False
        if response.revision < self._seen:  # a member behind the others, or a store that was restored from a backup
            _, revision = await self._wire.range(self._key, b"", self._timeout)
            if revision < self._seen:
                stream.ended = True
                return (await self._snapshot(),)
        return (self._contact(),)

    def _batches(self, response: Response) -> Sequence[Frame]:
        self._parts += response.events
        if response.fragment:
            return (self._contact(),)
        events, self._parts = self._parts, []
        batches = batches_of(events, self._at)
        self._at = batches[-1].revision if batches else self._at
        self._seen = max(self._seen, self._at, 0 if events else response.revision)
        return batches or (self._contact(),)

    def _contact(self) -> Batch:
        return Batch((), (), self._seen)


def batches_of(events: Iterable[Event], above: int) -> list[Batch]:
    """Group changes by transaction, one Batch each, and leave out what is not above a revision."""
    fresh = (event for event in events if event.revision > above)
    return [_batch(revision, list(group)) for revision, group in groupby(fresh, attrgetter("revision"))]


def _batch(revision: int, events: Sequence[Event]) -> Batch:
    puts = tuple(event.item for event in events if event.item is not None)
    return Batch(puts, tuple(event.key for event in events if event.item is None), revision)
