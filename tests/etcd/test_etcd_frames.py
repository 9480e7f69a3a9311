"""From messages of etcd to frames, without a server: what etcd may send in any order, and silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from osdisco.backend import WATCH_SILENCE, Batch, Item, Snapshot
from osdisco.errors import ClosedError, DeniedError, UnavailableError
from osdisco.runtime import Credentials, Runtime
from osdisco_etcd._errors import Failure, Refused
from osdisco_etcd._grpc import GrpcWire
from osdisco_etcd._options import EtcdOptions, Settings
from osdisco_etcd._watch import LAST_CALL, PATIENCE, Watch
from osdisco_etcd._wire import Event, Response, Stream, Wire

SILENCE = None


def put(revision: int, key: str, created: int | None = None) -> Event:
    return Event(revision, key, Item(key, b"", created or revision, revision))


def delete(revision: int, key: str) -> Event:
    return Event(revision, key, None)


def created(revision: int = 10) -> Response:
    return Response(revision, [], created=True)


class ScriptedStream(Stream):
    """Says what it was told to, then nothing any more."""

    def __init__(self, says: Sequence[Response | Exception | None], *, answers_probes: bool = True) -> None:
        self.endpoint = 0
        self.ended = False
        self.heard = True
        self.says = list(says)
        self.answers_probes = answers_probes  # type: ignore[misc]
        self.probes = 0
        self.waited: list[float] = []
        self.closed = False

    async def receive(self, timeout: float) -> Response | None:
        self.waited.append(timeout)
        said = self.says.pop(0) if self.says else SILENCE
        if isinstance(said, Exception):
            raise said
        return said

    async def probe(self) -> None:
        self.probes += 1

    async def aclose(self) -> None:
        self.closed = True

    def cut(self) -> None: ...
    async def _next(self) -> Any: ...
    def _hang_up(self) -> bool:
        return False


class ScriptedWire(Wire):
    """Opens the scripted streams one after the other; a range answers what `store` holds."""

    errors = (Refused,)

    def __init__(self, *streams: ScriptedStream, user: bool = False) -> None:
        credentials = (lambda: Credentials("user", "password")) if user else None
        settings = Settings(("a:1", "b:1"), False, EtcdOptions(), credentials)
        super().__init__(settings, Runtime().clock, "anonymous")
        self.script = list(streams)
        self.starts: list[int] = []
        self.store: tuple[list[Item], int] = ([], 10)
        self.logins = 0

    async def range(self, key: bytes, end: bytes, timeout: float) -> tuple[list[Item], int]:
        return self.store

    def watch(self, endpoint: int, carried: object, key: bytes, end: bytes, start: int) -> Stream:
        self.starts.append(start)
        stream = self.script.pop(0)
        stream.carried, stream.start = carried, start
        return stream

    def failure(self, exc: Exception) -> Failure:
        assert isinstance(exc, Refused)
        return exc.failure

    async def _login(self, username: str, password: object) -> object:
        self.logins += 1
        return f"token {self.logins}"

    async def _disconnect(self) -> None: ...
    async def _send(self, *args: Any) -> Any: ...
    async def get(self, *args: Any) -> Any: ...
    async def put(self, *args: Any) -> Any: ...
    async def txn(self, *args: Any) -> Any: ...
    async def txn_and_range(self, *args: Any) -> Any: ...
    async def grant(self, *args: Any) -> Any: ...
    async def renew(self, *args: Any) -> Any: ...
    async def revoke(self, *args: Any) -> None: ...
    async def lease_status(self, *args: Any) -> Any: ...
    async def status(self, *args: Any) -> Any: ...


async def frames(wire: ScriptedWire, count: int, *, after: int | None = None) -> list[Snapshot | Batch]:
    """Return the first frames of a watch, which is then closed."""
    watch = Watch(wire, b"ns/", b"ns0", 5.0).frames(after)
    try:
        return [await anext(watch) for _ in range(count)]
    finally:
        await watch.aclose()


def changes(found: Sequence[Snapshot | Batch]) -> list[tuple[int, list[str], list[str]]]:
    """Return revision, keys put and keys deleted of the batches that are not empty."""
    batches = [frame for frame in found if isinstance(frame, Batch) and (frame.puts or frame.deletes)]
    return [(batch.revision, [item.key for item in batch.puts], list(batch.deletes)) for batch in batches]


async def test_a_snapshot_comes_first_and_the_watch_starts_right_after_it() -> None:
    wire = ScriptedWire(stream := ScriptedStream([created()]))
    wire.store = ([Item("ns/a", b"1", 3, 7)], 10)
    snapshot, contact = await frames(wire, 2)
    assert snapshot == Snapshot({"ns/a": Item("ns/a", b"1", 3, 7)}, 10)
    assert contact == Batch((), (), 10)
    assert wire.starts == [11]
    assert stream.closed


async def test_with_after_there_is_no_snapshot() -> None:
    wire = ScriptedWire(ScriptedStream([created(), Response(12, [put(9, "ns/a")])]))
    contact, change = await frames(wire, 2, after=8)
    assert contact == Batch((), (), 8)
    assert changes([change]) == [(9, ["ns/a"], [])]
    assert wire.starts == [9]


async def test_one_batch_a_transaction_though_many_come_at_once() -> None:
    events = [put(11, "ns/a"), delete(11, "ns/b"), put(12, "ns/a", 11), delete(13, "ns/a"), put(14, "ns/a")]
    wire = ScriptedWire(ScriptedStream([created(), Response(14, events)]))
    assert changes(await frames(wire, 6)) == [
        (11, ["ns/a"], ["ns/b"]),
        (12, ["ns/a"], []),
        (13, [], ["ns/a"]),
        (14, ["ns/a"], []),
    ]


async def test_fragments_are_joined_and_each_is_a_sign_of_life() -> None:
    parts = [
        Response(12, [put(11, "ns/a"), put(11, "ns/b")], fragment=True),
        Response(12, [put(11, "ns/c")], fragment=True),
        Response(12, [put(11, "ns/d"), put(12, "ns/e")]),
    ]
    found = await frames(ScriptedWire(ScriptedStream([created(), *parts])), 6)
    assert changes(found) == [(11, ["ns/a", "ns/b", "ns/c", "ns/d"], []), (12, ["ns/e"], [])]
    assert [frame.revision for frame in found[:4]] == [10, 10, 10, 10]


async def test_half_a_transaction_of_a_broken_stream_is_not_taken_over_to_the_next() -> None:
    first = ScriptedStream([created(), Response(11, [put(11, "ns/a")], fragment=True)], answers_probes=False)
    second = ScriptedStream([created(), Response(11, [put(11, "ns/a"), put(11, "ns/b")])])
    wire = ScriptedWire(first, second)
    assert changes(await frames(wire, 5)) == [(11, ["ns/a", "ns/b"], [])]
    assert wire.starts == [11, 11]


async def test_what_is_known_already_is_dropped() -> None:
    wire = ScriptedWire(ScriptedStream([created(), Response(12, [put(9, "ns/a"), put(10, "ns/b"), put(11, "ns/c")])]))
    assert changes(await frames(wire, 3)) == [(11, ["ns/c"], [])]


async def test_progress_moves_the_revision_on() -> None:
    wire = ScriptedWire(ScriptedStream([created(), Response(25, []), Response(20, [])]))
    assert [frame.revision for frame in await frames(wire, 4)] == [10, 10, 25, 25]


async def test_progress_ahead_of_its_changes_loses_none_of_them() -> None:
    """Given an etcd before 3.5.8, which may report progress and send earlier changes afterwards."""
    wire = ScriptedWire(ScriptedStream([created(), Response(25, []), Response(25, [put(24, "ns/a")])]))
    assert changes(await frames(wire, 4)) == [(24, ["ns/a"], [])]


async def test_compaction_is_a_new_snapshot_and_never_an_error() -> None:
    gone = ScriptedStream([created(40), Response(40, [], canceled=True, compacted=True)])
    wire = ScriptedWire(gone, ScriptedStream([created(40)]))
    wire.store = ([Item("ns/z", b"", 33, 33)], 40)
    found = await frames(wire, 3, after=5)
    assert found[1] == Snapshot({"ns/z": Item("ns/z", b"", 33, 33)}, 40)
    assert wire.starts == [6, 41]
    assert gone.closed


async def test_a_store_whose_revision_went_back_is_read_anew() -> None:
    wire = ScriptedWire(ScriptedStream([created(7)]), ScriptedStream([created(7)]))
    wire.store = ([], 7)
    assert await frames(wire, 2, after=90) == [Snapshot({}, 7), Batch((), (), 7)]
    assert wire.starts == [91, 8]


async def test_a_member_that_is_only_behind_is_no_reason_to_read_anew() -> None:
    wire = ScriptedWire(ScriptedStream([created(88), Response(91, [put(91, "ns/a")])]))
    wire.store = ([], 90)
    assert changes(await frames(wire, 2, after=90)) == [(91, ["ns/a"], [])]


async def test_a_silent_server_is_asked_and_its_answer_is_a_frame() -> None:
    stream = ScriptedStream([created(), Response(12, []), SILENCE, Response(15, [])])
    assert (await frames(ScriptedWire(stream), 4))[-1] == Batch((), (), 15)
    assert stream.probes == 1


async def test_of_a_watch_above_the_stores_revision_a_new_one_is_the_question_once() -> None:
    """etcd tells no progress of such a watch; one that starts at the revision itself it does."""
    first = ScriptedStream([created(), SILENCE])
    second = ScriptedStream([created(), Response(11, [put(10, "ns/old"), put(11, "ns/a")]), SILENCE, Response(11, [])])
    wire = ScriptedWire(first, second)
    found = await frames(wire, 5)
    assert wire.starts == [11, 10]
    assert changes(found) == [(11, ["ns/a"], [])]
    assert (first.probes, second.probes) == (0, 1)


async def test_a_server_that_stays_silent_is_left_in_time() -> None:
    wire = ScriptedWire(stream := ScriptedStream([created(), Response(12, [])]))
    with pytest.raises(UnavailableError, match="silent"):
        await frames(wire, 4)
    assert sum(stream.waited[-2:]) == PATIENCE + LAST_CALL < WATCH_SILENCE
    assert stream.closed
    assert wire.endpoint == 1


async def test_where_nobody_can_be_asked_a_new_watch_is_the_question() -> None:
    silent = ScriptedStream([created(), Response(30, []), SILENCE], answers_probes=False)
    wire = ScriptedWire(silent, again := ScriptedStream([created(35), SILENCE], answers_probes=False))
    wire.script.append(ScriptedStream([created(35)]))
    found = await frames(wire, 5)
    assert wire.starts == [11, 31, 31]
    assert found[3:] == [Batch((), (), 30)] * 2, "the header's revision says nothing of what was handed out"
    assert silent.closed
    assert again.waited == [LAST_CALL, PATIENCE]
    assert PATIENCE + LAST_CALL < WATCH_SILENCE


async def test_a_new_watch_that_is_silent_too_ends_it() -> None:
    wire = ScriptedWire(ScriptedStream([], answers_probes=False), ScriptedStream([], answers_probes=False))
    with pytest.raises(UnavailableError):
        await frames(wire, 2)
    assert wire.endpoint == 1


async def test_a_refused_token_is_renewed_once_and_the_watch_goes_on() -> None:
    stale = Refused(Failure("etcdserver: invalid auth token", 16))
    wire = ScriptedWire(
        ScriptedStream([stale]), ScriptedStream([created(), Response(11, [put(11, "ns/a")])]), user=True
    )
    assert changes(await frames(wire, 4)) == [(11, ["ns/a"], [])]
    assert wire.logins == 2


async def test_the_second_refusal_in_a_row_is_final() -> None:
    def stale() -> Response:
        return Response(10, [], created=True, canceled=True, reason="etcdserver: revision of auth store is old")

    wire = ScriptedWire(ScriptedStream([stale()]), ScriptedStream([stale()]), user=True)
    with pytest.raises(DeniedError):
        await frames(wire, 3)
    assert wire.logins == 2
    assert wire.endpoint == 0


@pytest.mark.parametrize(
    ("reason", "expected", "endpoint"),
    [
        ("rpc error: code = PermissionDenied desc = etcdserver: permission denied", DeniedError, 0),
        ("etcdserver: no leader", UnavailableError, 1),
        ("", UnavailableError, 1),
    ],
)
async def test_a_canceled_watch_ends_with_its_reason(reason: str, expected: type[Exception], endpoint: int) -> None:
    wire = ScriptedWire(stream := ScriptedStream([created(), Response(10, [], canceled=True, reason=reason)]))
    with pytest.raises(expected):
        await frames(wire, 3)
    assert stream.closed
    assert wire.endpoint == endpoint


async def test_a_closed_backend_watches_nothing() -> None:
    wire = ScriptedWire()
    await wire.aclose()
    with pytest.raises(ClosedError):
        await frames(wire, 1, after=1)


async def test_for_a_node_that_was_replaced_no_channel_is_opened_any_more() -> None:
    """A request that was under way on it may still run out of time."""
    wire = GrpcWire(Settings(("a:1",), False, EtcdOptions(tls_verify=False), None), Runtime().clock)
    try:
        replaced = await wire.node(0)
        line, before = replaced.lines["Range"], replaced.unclosed
        wire.failed(Failure("CERTIFICATE_VERIFY_FAILED", 14), 0, "get of 'k'", mutates=False)
        wire.leave(replaced, line)
        assert replaced.unclosed == before
        present = await wire.node(0)
        wire.leave(present, present.lines["Range"])
        assert len(present.unclosed) == len(before) + 1
    finally:
        await wire.aclose()
