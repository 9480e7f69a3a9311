"""etcd over gRPC: grpc.aio channels of our own, and from aetcd only the generated stubs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

import grpc
import grpc.aio
from aetcd.rpc import kv_pb2, rpc_pb2

from osdisco.backend import EndpointStatus, Item
from osdisco.errors import ClosedError, OsdiscoError
from osdisco.runtime import Clock, Secret
from osdisco_etcd._channels import Line, Node, opener, settled
from osdisco_etcd._errors import Failure, Refused
from osdisco_etcd._giving_up import Answer, ended, give_up
from osdisco_etcd._options import Settings
from osdisco_etcd._tls import context_of, pin, system_roots
from osdisco_etcd._wire import Compare, Event, Response, Stream, Wire, Write, decoded, raw, text

_LEADER: Final = ("hasleader", "true")  # a member without a leader refuses at once instead of holding the request
_OUT_OF_TIME: Final = "Deadline Exceeded"
_NEVER_SENT: Final = ("failed to connect to all addresses", "errors resolving ", "DNS resolution failed")

_FIELDS: Final[Mapping[str, tuple[int, str]]] = {
    "CREATE": (rpc_pb2.Compare.CREATE, "create_revision"),
    "MOD": (rpc_pb2.Compare.MOD, "mod_revision"),
    "LEASE": (rpc_pb2.Compare.LEASE, "lease"),
}


class Carried(grpc.aio.Metadata):
    """What every request carries. gRPC reads it twice for each of them, and of this that costs less than half."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        super().__init__(*pairs)
        self._pairs = pairs

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)


class GrpcWire(Wire):
    """etcd over gRPC. Channels are opened by the first request, because they belong to the loop that opens them."""

    errors: ClassVar[tuple[type[Exception], ...]] = (
        grpc.aio.AioRpcError,
        grpc.aio.UsageError,  # the channel is closed
        asyncio.InvalidStateError,  # the call ended before the write
        OSError,
        Refused,
    )

    def __init__(self, settings: Settings, clock: Clock) -> None:
        super().__init__(settings, clock, Carried(_LEADER))
        self._nodes: list[Node | None] = [None] * len(settings.endpoints)
        self._replaced: list[Node] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._context = context_of(settings.options) if settings.tls else None

    async def get(self, key: str, timeout: float) -> Item | None:
        request = rpc_pb2.RangeRequest(key=raw(key))
        return await self.call("Range", request, _first, timeout, subject=key, mutates=False)

    async def range(self, key: bytes, end: bytes, timeout: float) -> tuple[list[Item], int]:
        request = rpc_pb2.RangeRequest(key=key, range_end=end)
        return await self.call("Range", request, _items, timeout, subject=text(key), mutates=False)

    async def put(self, key: str, value: bytes, timeout: float) -> int:
        return await self.call("Put", rpc_pb2.PutRequest(key=raw(key), value=value), _revision, timeout, subject=key)

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write], timeout: float) -> int | None:
        request = rpc_pb2.TxnRequest(compare=map(_compare, compares), success=map(_operation, writes))
        return await self.call("Txn", request, _outcome, timeout, subject=text(writes[0].key))

    async def txn_and_range(
        self, compares: Sequence[Compare], writes: Sequence[Write], key: bytes, end: bytes, timeout: float
    ) -> tuple[list[Item], int] | None:
        look = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key, range_end=end))
        request = rpc_pb2.TxnRequest(compare=map(_compare, compares), success=[*map(_operation, writes), look])
        return await self.call("Txn", request, _outcome_and_items, timeout, subject=text(writes[0].key))

    async def grant(self, lease: int, ttl: int, timeout: float) -> int:
        request = rpc_pb2.LeaseGrantRequest(ID=lease, TTL=ttl)
        return await self.call("LeaseGrant", request, _granted, timeout, subject=f"{lease:016x}")

    async def renew(self, lease: int, timeout: float) -> int:
        request = rpc_pb2.LeaseKeepAliveRequest(ID=lease)
        return await self.call("LeaseKeepAlive", request, _renewed, timeout, subject=f"{lease:016x}")

    async def revoke(self, lease: int, timeout: float) -> None:
        await self.call(
            "LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease), _revision, timeout, subject=f"{lease:016x}"
        )

    async def lease_status(self, lease: int, timeout: float) -> tuple[int, int] | None:
        request = rpc_pb2.LeaseTimeToLiveRequest(ID=lease)
        return await self.call("LeaseTimeToLive", request, _lasts, timeout, subject=f"{lease:016x}", mutates=False)

    async def status(self, endpoint: int, timeout: float) -> EndpointStatus:
        request = rpc_pb2.StatusRequest()
        return await self.call("Status", request, _status, timeout, subject="itself", mutates=False, to=endpoint)

    def watch(self, endpoint: int, carried: object, key: bytes, end: bytes, start: int) -> Stream:
        create = rpc_pb2.WatchCreateRequest(
            key=key, range_end=end, start_revision=start, progress_notify=True, fragment=True
        )
        return GrpcStream(self, endpoint, carried, start, rpc_pb2.WatchRequest(create_request=create))

    def failure(self, exc: Exception) -> Failure:
        if isinstance(exc, Refused):
            return exc.failure
        if isinstance(exc, grpc.aio.AioRpcError):
            details = exc.details() or exc.code().name
            return Failure(details, exc.code().value[0], sent=not details.startswith(_NEVER_SENT))
        return Failure(str(exc) or type(exc).__name__, sent=False)

    def failed(self, failure: Failure, endpoint: int, what: str, mutates: bool) -> OsdiscoError:
        """With `tls_verify=false` a server's new certificate is taken as the first one was, by channels of its own."""
        node = self._nodes[endpoint]
        if node and not self.settings.options.tls_verify and "CERTIFICATE_VERIFY_FAILED" in failure.text:
            self._replaced.append(node)
            self._nodes[endpoint] = None
        return super().failed(failure, endpoint, what, mutates)

    async def node(self, endpoint: int) -> Node:
        """Return the channels to an endpoint, opening them."""
        node = self._nodes[endpoint]
        if node is not None:
            return node
        credentials, name = await self._credentials(self.settings.endpoints[endpoint])
        if self.closed:
            raise ClosedError("this etcd backend is closed")
        node = self._nodes[endpoint]
        if node is None:
            node = self._nodes[endpoint] = self._open(endpoint, credentials, name)
        return node

    async def _credentials(self, endpoint: str) -> tuple[grpc.ChannelCredentials | None, str | None]:
        options = self.settings.options
        if self._context is None:
            return None, None
        roots, name = options.tls_ca.read_bytes() if options.tls_ca else system_roots(), options.tls_server_name
        if not options.tls_verify:
            roots, name = await pin(endpoint, self._context, options.connect_timeout)
        key, chain = (path.read_bytes() if path else None for path in (options.tls_key, options.tls_cert))
        return grpc.ssl_channel_credentials(roots, key, chain), name

    def _open(self, endpoint: int, credentials: grpc.ChannelCredentials | None, name: str | None) -> Node:
        settings = self.settings
        return Node(opener(settings.endpoints[endpoint], credentials, name, settings.options.connect_timeout))

    async def _send(self, endpoint: int, method: str, request: Any, timeout: float, carried: object) -> Any:
        node = self._nodes[endpoint] or await self.node(endpoint)
        line = node.lines[method]
        answers = line.answers
        call = Answer(line.methods[method](request, timeout=timeout, metadata=carried))
        line.users.add(call)
        try:
            answer = await call
            line.answers += 1
        except grpc.aio.AioRpcError as exc:
            if _OUT_OF_TIME in (exc.details() or "") and line.answers == answers:
                self.leave(node, line)
            raise
        finally:
            line.users.discard(call)
            if node.left:
                self.close_unused(node, line)
        if answer is None:
            raise Refused(Failure("the answer is not one of etcd"))
        return answer

    def leave(self, node: Node, line: Line) -> None:
        """Nothing came back on a line in time: it may be dead. Of a node that was replaced none is used any more."""
        if not self.closed and node in self._nodes:
            node.leave(line)

    def close_unused(self, node: Node, line: Line) -> None:
        """Close a line that was left, when nobody waits on it any more."""
        if (channel := node.unused(line)) is not None:
            closing = asyncio.get_running_loop().create_task(channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _login(self, username: str, password: Secret) -> object:
        endpoint = self.endpoint
        request = rpc_pb2.AuthenticateRequest(name=username, password=password.reveal())
        try:
            answer = await self._send(endpoint, "Authenticate", request, self.settings.options.timeout, None)
            return Carried(("token", answer.token), _LEADER)
        except self.errors as exc:
            failure = self.failure(exc)
        del request  # and no `from`: a traceback must not hold the password
        return self.not_logged_in(failure, endpoint)

    async def _disconnect(self) -> None:
        nodes, self._nodes = [*self._nodes, *self._replaced], [None] * len(self._nodes)
        lines = [line for node in nodes if node for line in node.unclosed]
        await ended([user for line in lines for user in line.users if isinstance(user, Answer)])
        for line in lines:
            await line.channel.close()
        while self._closing:
            await asyncio.wait(self._closing)


class GrpcStream(Stream):
    """A watch as a call."""

    answers_probes = True

    def __init__(self, wire: GrpcWire, endpoint: int, carried: object, start: int, create: Any) -> None:
        super().__init__(wire, endpoint, carried, start)
        self._wire = wire
        self._create = create
        self._call: Any = None
        self._node: Node | None = None
        self._line: Line | None = None

    async def _next(self) -> Response:
        if self._call is None:
            node = await self._wire.node(self.endpoint)
            self._line = node.lines["Watch"]
            self._line.users.add(self)
            self._node = node
            await settled(self._line.channel)
            self._call = self._line.methods["Watch"](metadata=self.carried)
            await self._call.write(self._create)
        message = await self._call.read()
        if message is grpc.aio.EOF:
            raise Refused(Failure("the watch ended without a reason"))
        return decoded(message, _response)

    async def probe(self) -> None:
        async with asyncio.timeout(1.0):
            await self._call.write(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))

    def give_up(self) -> None:
        if self._node is not None and self._line is not None:
            self._wire.leave(self._node, self._line)

    def _hang_up(self) -> bool:
        if self._call is None:
            return False
        give_up(self._call)
        return True

    def _ended(self) -> None:
        if self._node is not None and self._line is not None:
            self._line.users.discard(self)
            self._wire.close_unused(self._node, self._line)
            self._line = None


def _compare(compare: Compare) -> Any:
    target, field = _FIELDS[compare.field]
    return rpc_pb2.Compare(target=target, result=rpc_pb2.Compare.EQUAL, key=compare.key, **{field: compare.number})


def _operation(write: Write) -> Any:
    if write.value is None:
        return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=write.key))
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=write.key, value=write.value, lease=write.lease))


def _revision(answer: Any) -> int:
    revision: int = answer.header.revision
    if not revision:
        raise ValueError("no answer of etcd is without a revision")
    return revision


def _outcome(answer: Any) -> int | None:
    revision = _revision(answer)
    return revision if answer.succeeded else None


def _outcome_and_items(answer: Any) -> tuple[list[Item], int] | None:
    revision = _outcome(answer)
    if revision is None:
        return None
    *_, found = answer.responses
    return [_item(kv) for kv in found.response_range.kvs], revision


def _first(answer: Any) -> Item | None:
    _revision(answer)
    return _item(answer.kvs[0]) if answer.kvs else None


def _items(answer: Any) -> tuple[list[Item], int]:
    # what `_item` does, without three calls of Python for each: there may be thousands
    decode, make = bytes.decode, partial(tuple.__new__, Item)
    items: list[Item] = [
        make(
            (
                decode(kv.key, "utf-8", "surrogateescape"),
                kv.value,
                kv.create_revision,
                kv.mod_revision,
                f"{kv.lease:016x}" if kv.lease else None,
            )
        )
        for kv in answer.kvs
    ]
    return items, _revision(answer)


def _granted(answer: Any) -> int:
    _revision(answer)
    return int(answer.TTL)


def _renewed(answer: Any) -> int:
    _revision(answer)
    return max(0, int(answer.TTL))


def _lasts(answer: Any) -> tuple[int, int] | None:
    _revision(answer)
    return (int(answer.grantedTTL), int(answer.TTL)) if answer.TTL >= 0 else None


def _status(answer: Any) -> EndpointStatus:
    if not answer.header.member_id:
        raise ValueError("no answer of etcd is without a member")
    return EndpointStatus(
        "",
        error="; ".join(answer.errors) or None,
        version=answer.version,
        leader=answer.leader == answer.header.member_id,
        details={
            "db_size": str(answer.dbSize),
            "raft_term": str(answer.raftTerm),
            "raft_index": str(answer.raftIndex),
            "learner": str(answer.isLearner).lower(),
        },
    )


def _item(kv: Any) -> Item:
    lease = kv.lease
    return Item(text(kv.key), kv.value, kv.create_revision, kv.mod_revision, f"{lease:016x}" if lease else None)


def _event(event: Any) -> Event:
    kv = event.kv
    return Event(kv.mod_revision, text(kv.key), _item(kv) if event.type == kv_pb2.Event.PUT else None)


def _response(message: Any) -> Response:
    return Response(
        message.header.revision if message.canceled else _revision(message),  # compaction cancels without a header
        [_event(event) for event in message.events],
        message.created,
        message.canceled,
        message.compact_revision > 0,
        message.fragment,
        message.cancel_reason,
    )
