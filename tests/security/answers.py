"""What servers may answer, as the adapters parse it; as `targets`, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from aetcd.rpc import rpc_pb2
from google.protobuf.message import DecodeError
from targets import Outcome

from osdisco.backend import Batch, Delete, EndpointStatus, Item, LeaseStatus, Put, Snapshot
from osdisco.errors import OsdiscoError
from osdisco.runtime import Runtime
from osdisco.url import StoreURL
from osdisco_consul._calls import INDEX, Answer, Api, Call
from osdisco_consul._options import ConsulOptions
from osdisco_consul._wire import Wire as ConsulWire, _Attempt
from osdisco_etcd import _gateway, _grpc
from osdisco_etcd._errors import Failure, Refused, error_for
from osdisco_etcd._options import EtcdOptions, Settings
from osdisco_etcd._watch import Watch
from osdisco_etcd._wire import Response, Stream, decoded

JSON_READERS: Mapping[str, Callable[[Any], Any]] = {
    "get": _gateway._first,
    "range": _gateway._items,
    "put": _gateway._revision,
    "txn": _gateway._outcome,
    "txn_and_range": _gateway._outcome_and_items,
    "grant": _gateway._ttl,
    "lease": _gateway._lasts,
    "status": _gateway._status,
    "watch": _gateway._response,
}
GRPC_READERS: Mapping[str, tuple[Any, Callable[[Any], Any]]] = {
    "get": (rpc_pb2.RangeResponse, _grpc._first),
    "range": (rpc_pb2.RangeResponse, _grpc._items),
    "put": (rpc_pb2.PutResponse, _grpc._revision),
    "txn": (rpc_pb2.TxnResponse, _grpc._outcome),
    "txn_and_range": (rpc_pb2.TxnResponse, _grpc._outcome_and_items),
    "grant": (rpc_pb2.LeaseGrantResponse, _grpc._granted),
    "renew": (rpc_pb2.LeaseKeepAliveResponse, _grpc._renewed),
    "lease": (rpc_pb2.LeaseTimeToLiveResponse, _grpc._lasts),
    "status": (rpc_pb2.StatusResponse, _grpc._status),
    "watch": (rpc_pb2.WatchResponse, _grpc._response),
}


def gateway(reader: str, status: int, body: bytes, date: str | None = None) -> Outcome:
    """Read an answer of etcd's JSON gateway."""
    try:
        answer = _gateway._answer(status, body)
        if reader == "status":
            answer["date"] = date
        check(decoded(answer, JSON_READERS[reader]))
    except Refused as exc:
        return _told(exc.failure)
    return None


def grpc(reader: str, message: bytes) -> Outcome:
    """Read a message of etcd; what is no message at all is the driver's to refuse."""
    kind, read = GRPC_READERS[reader]
    try:
        parsed = kind.FromString(message)
    except DecodeError:  # before anything of ours
        return None
    try:
        check(decoded(parsed, read))
    except Refused as exc:
        return _told(exc.failure)
    return None


def stream(chunks: Sequence[bytes]) -> Outcome:
    """Read a watch over the gateway, cut into chunks anywhere, down to frames; it ends in an error of osdisco."""
    wire = _Wire(chunks)
    frames = Watch(wire, b"ns/", b"ns0", 5.0).frames(5)
    last = 5
    try:
        while True:
            frame = _run(anext(frames))
            check(frame)
            if isinstance(frame, Snapshot):
                last = frame.revision
            elif frame.puts or frame.deletes:
                assert frame.revision > last, "changes out of order"
                last = frame.revision
    except OsdiscoError as exc:
        return type(exc)
    finally:
        _run(frames.aclose())


class _Wire(_gateway.GatewayWire):
    """Answers a watch by chunks, and each range by nothing at revision 9."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        super().__init__(Settings(("a:1",), False, EtcdOptions(), None), Runtime().clock)
        self.chunks = list(chunks)

    async def range(self, key: bytes, end: bytes, timeout: float) -> tuple[list[Item], int]:
        return [], 9

    def watch(self, endpoint: int, carried: object, key: bytes, end: bytes, start: int) -> Stream:
        return _Stream(self, start)


class _Stream(_gateway.GatewayStream):
    def __init__(self, wire: _Wire, start: int) -> None:
        self.endpoint, self.ended, self.heard, self.carried, self.start = 0, False, True, None, start
        self._buffer, self._grown = bytearray(), False
        self._response = self  # type: ignore[assignment]
        self.content = self
        self._chunks = wire.chunks

    async def readany(self) -> bytes:
        return self._chunks.pop(0) if self._chunks else b""

    async def receive(self, timeout: float) -> Response | None:
        return await self._next()

    async def aclose(self) -> None: ...


def _run(work: Coroutine[Any, Any, Any] | Any) -> Any:
    """Run what never waits."""
    try:
        work.__await__().send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def _told(failure: Failure) -> type[OsdiscoError]:
    for mutates in (True, False):
        error = error_for(failure, what="Put of 'k'", endpoint="h:1", mutates=mutates)
        str(error).encode("utf-8", "surrogateescape")
    return type(error)


API = Api({}, None)
CALLS: Mapping[str, Call] = {
    "get": API.read("ns/k"),
    "scan": API.read("ns/"),
    "poll": API.poll("ns/", 5, 10, probe=False),
    "commit": API.commit([Put("ns/k", b"v"), Delete("ns/b")], {}),
    "commit_and_scan": API.commit_and_scan([Put("ns/k", b"v")], {}, "ns/"),
    "create": API.create_session("me", 15),
    "renew": API.renew_session("abc"),
    "destroy": API.destroy_session("abc"),
    "info": API.session_info("abc"),
    "leader": API.leader(),
    "self": API.agent_self(),
}
CONSUL = ConsulWire(StoreURL.parse("consul://h"), ConsulOptions(), Runtime())


def consul(call: str, status: int, body: bytes, *, index: str | None = "5", date: str | None = None) -> Outcome:
    """Read an answer of Consul."""
    headers = {name: value for name, value in ((INDEX, index), ("Date", date)) if value is not None}
    try:
        check(CONSUL._parsed(_Attempt(CALLS[call], 0, {}, 0.0, 0.0), Answer(status, headers, body)))
    except OsdiscoError as exc:
        str(exc).encode("utf-8", "surrogateescape")
        return type(exc)
    return None


# The same, decided by bytes


STATUSES = (200, 404, 500, 409, 403, 301, 400, 503)
TEXTS = (None, "5", "0", "high", "-1", "Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "9" * 20)


def etcd_frames(data: bytes) -> Outcome:
    """Read bytes as an answer or a stream of etcd: the first says as what, the second how."""
    what, how, body = data[:1] or b"j", (data[1:2] or b"\0")[0], data[2:]
    if what == b"s":
        size = how or 1
        return stream([body[at : at + size] for at in range(0, len(body), size)])
    if what == b"g":
        return grpc(list(GRPC_READERS)[how % len(GRPC_READERS)], body)
    reader = list(JSON_READERS)[how % len(JSON_READERS)]
    return gateway(reader, STATUSES[how // 16 % len(STATUSES)], body, TEXTS[how // 32 % len(TEXTS)])


def consul_json(data: bytes) -> Outcome:
    """Read bytes as an answer of Consul: the first two say to what, and how."""
    what, how, body = (data[:1] or b"\0")[0], (data[1:2] or b"\0")[0], data[2:]
    texts = TEXTS[how // 8 % len(TEXTS)]
    return consul(list(CALLS)[what % len(CALLS)], STATUSES[how % len(STATUSES)], body, index=texts, date=texts)


# What a value must be


def check(value: object) -> None:
    """Fail when a value is not of the types that it says: readers compare, sort and hash them."""
    if isinstance(value, Item):
        assert (type(value.key), type(value.value)) == (str, bytes), value
        assert (type(value.created), type(value.revision)) == (int, int), value
        assert value.lease is None or type(value.lease) is str, value
    elif isinstance(value, Snapshot):
        check([*value.items.values(), value.revision])
    elif isinstance(value, Batch):
        check([*value.puts, *value.deletes, value.revision])
    elif isinstance(value, Response):
        check([*(one for event in value.events for one in (*event,)), value.revision, value.reason])
        assert all(type(flag) is bool for flag in (value.created, value.canceled, value.compacted, value.fragment))
    elif isinstance(value, LeaseStatus):
        check([value.ttl, value.left])
    elif isinstance(value, EndpointStatus):
        check([value.error, value.version, value.server_time, dict(value.details)])
        assert value.leader in (None, True, False)
    elif isinstance(value, dict):
        assert all(type(name) is str for name in value)
        check(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            check(one)
    else:
        assert value is None or type(value) in (int, float, str), f"{type(value).__name__}"


def body(value: object) -> bytes:
    """Return JSON."""
    return json.dumps(value).encode()


def messages() -> list[tuple[str, bytes]]:
    """Return good messages of etcd, by what reads them."""
    header = rpc_pb2.ResponseHeader(revision=7, member_id=1)
    kv = {"key": b"ns/a", "value": b"1", "create_revision": 6, "mod_revision": 7, "lease": 5}
    found = rpc_pb2.RangeResponse(header=header, kvs=[kv])
    made: dict[str, Any] = {
        "get": found,
        "range": found,
        "put": rpc_pb2.PutResponse(header=header),
        "txn": rpc_pb2.TxnResponse(header=header, succeeded=True),
        "txn_and_range": rpc_pb2.TxnResponse(
            header=header, succeeded=True, responses=[rpc_pb2.ResponseOp(response_range=found)]
        ),
        "grant": rpc_pb2.LeaseGrantResponse(header=header, ID=5, TTL=9),
        "lease": rpc_pb2.LeaseTimeToLiveResponse(header=header, ID=5, TTL=3, grantedTTL=9),
        "status": rpc_pb2.StatusResponse(header=header, version="3.5", leader=1),
        "watch": rpc_pb2.WatchResponse(header=header, events=[{"kv": kv}, {"type": 1, "kv": kv}]),
    }
    return [(name, message.SerializeToString()) for name, message in made.items()]
