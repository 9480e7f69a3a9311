"""etcd over its JSON gateway: etcd3-py's asyncio client, used raw over pooled sessions of our own."""

from __future__ import annotations

import io
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final

import aiohttp
from etcd3 import AioClient
from yarl import URL

from osdisco.backend import EndpointStatus, Item
from osdisco.errors import ClosedError
from osdisco.runtime import Clock, Secret
from osdisco_etcd._errors import Failure, Refused
from osdisco_etcd._options import Settings
from osdisco_etcd._tls import context_of
from osdisco_etcd._wire import Compare, Event, Response, Stream, Wire, Write, decoded, raw, text

_HEADERS: Final = {"Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"}
_FIELDS: Final = {"CREATE": "create_revision", "MOD": "mod_revision", "LEASE": "lease"}
_PATHS: Final = {
    "Range": "/kv/range",
    "Put": "/kv/put",
    "Txn": "/kv/txn",
    "LeaseGrant": "/lease/grant",
    "LeaseKeepAlive": "/lease/keepalive",
    "LeaseRevoke": "/lease/revoke",
    "LeaseTimeToLive": "/lease/timetolive",
    "Authenticate": "/auth/authenticate",
    "Status": "/maintenance/status",
}
_POOLS: Final = dict.fromkeys(("LeaseKeepAlive", "LeaseGrant", "LeaseRevoke", "Status"), "leases")
_LARGE: Final = 2**20  # bytes in one piece, which aiohttp would rather have as a file
_SIZES: Final = {"requests": 100, "leases": 16, "watches": 0}


class GatewayClient(AioClient):  # type: ignore[misc]
    """etcd3-py's client without its constructor, which sends a blocking request and does not verify TLS."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.timeout = None
        self.token = None
        self.user_agent = "osdisco"
        self.headers: dict[str, str] = {}
        self._urls = {path: URL(base + path) for path in (*_PATHS.values(), "/watch")}

    def _url(self, method: str, prefix: bool = True) -> URL:
        return self._urls[method]


class GatewayWire(Wire):
    """etcd over JSON. Pools are opened by the first request, because they belong to the loop that opens them."""

    errors: ClassVar[tuple[type[Exception], ...]] = (aiohttp.ClientError, TimeoutError, OSError, Refused)

    def __init__(self, settings: Settings, clock: Clock) -> None:
        super().__init__(settings, clock, dict(_HEADERS))
        scheme = "https" if settings.tls else "http"
        self._bases = [f"{scheme}://{endpoint}/v3" for endpoint in settings.endpoints]
        self._context = context_of(settings.options) if settings.tls else None
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._clients: dict[tuple[int, str], GatewayClient] = {}

    async def get(self, key: str, timeout: float) -> Item | None:
        request = {"key": _b64(raw(key))}
        return await self.call("Range", request, _first, timeout, subject=key, mutates=False)

    async def range(self, key: bytes, end: bytes, timeout: float) -> tuple[list[Item], int]:
        request = {"key": _b64(key), "range_end": _b64(end)}
        return await self.call("Range", request, _items, timeout, subject=text(key), mutates=False)

    async def put(self, key: str, value: bytes, timeout: float) -> int:
        return await self.call("Put", {"key": _b64(raw(key)), "value": _b64(value)}, _revision, timeout, subject=key)

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write], timeout: float) -> int | None:
        request = {"compare": list(map(_compare, compares)), "success": list(map(_operation, writes))}
        return await self.call("Txn", request, _outcome, timeout, subject=text(writes[0].key))

    async def txn_and_range(
        self, compares: Sequence[Compare], writes: Sequence[Write], key: bytes, end: bytes, timeout: float
    ) -> tuple[list[Item], int] | None:
        look = {"request_range": {"key": _b64(key), "range_end": _b64(end)}}
        request = {"compare": list(map(_compare, compares)), "success": [*map(_operation, writes), look]}
        return await self.call("Txn", request, _outcome_and_items, timeout, subject=text(writes[0].key))

    async def grant(self, lease: int, ttl: int, timeout: float) -> int:
        return await self.call("LeaseGrant", {"ID": lease, "TTL": ttl}, _ttl, timeout, subject=f"{lease:016x}")

    async def renew(self, lease: int, timeout: float) -> int:
        return await self.call("LeaseKeepAlive", {"ID": lease}, _ttl, timeout, subject=f"{lease:016x}")

    async def revoke(self, lease: int, timeout: float) -> None:
        await self.call("LeaseRevoke", {"ID": lease}, _revision, timeout, subject=f"{lease:016x}")

    async def lease_status(self, lease: int, timeout: float) -> tuple[int, int] | None:
        return await self.call(
            "LeaseTimeToLive", {"ID": lease}, _lasts, timeout, subject=f"{lease:016x}", mutates=False
        )

    async def status(self, endpoint: int, timeout: float) -> EndpointStatus:
        return await self.call("Status", {}, _status, timeout, subject="itself", mutates=False, to=endpoint)

    def watch(self, endpoint: int, carried: object, key: bytes, end: bytes, start: int) -> Stream:
        create = {
            "key": _b64(key),
            "range_end": _b64(end),
            "start_revision": start,
            "progress_notify": True,
            "fragment": True,
        }
        return GatewayStream(self, endpoint, carried, start, {"create_request": create})

    def failure(self, exc: Exception) -> Failure:
        if isinstance(exc, Refused):
            return exc.failure
        sent = not isinstance(exc, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        return Failure(str(exc) or "no answer in time", sent=sent)

    def post(
        self, endpoint: int, pool: str, path: str, request: Any, timeout: aiohttp.ClientTimeout, carried: Any
    ) -> Any:
        """Start one request; an async context manager around the response, as aiohttp has it."""
        if self.closed:
            raise ClosedError("this etcd backend is closed")
        client = self._clients.get((endpoint, pool)) or self._open(endpoint, pool)
        body = json.dumps(request).encode()
        return client.call_rpc(
            path,
            body if len(body) < _LARGE else io.BytesIO(body),
            raw=True,
            encode=False,
            timeout=timeout,
            headers=carried,
            allow_redirects=False,
            server_hostname=self.settings.options.tls_server_name,
        )

    def _open(self, endpoint: int, pool: str) -> GatewayClient:
        session = self._sessions.get(pool)
        if session is None:
            connector = aiohttp.TCPConnector(limit=_SIZES[pool], ssl=self._context or True)
            session = self._sessions[pool] = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), middlewares=(_send_once,), trust_env=False
            )
        client = self._clients[endpoint, pool] = GatewayClient(self._bases[endpoint], session)
        return client

    async def _send(self, endpoint: int, method: str, request: Any, timeout: float, carried: object) -> Any:
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=self.settings.options.connect_timeout)
        pool = _POOLS.get(method, "requests")
        async with self.post(endpoint, pool, _PATHS[method], request, limits, carried) as response:
            answer = _answer(response.status, await response.read())
            if method == "Status":
                answer["date"] = response.headers.get("Date")
            return answer

    async def _login(self, username: str, password: Secret) -> object:
        endpoint = self.endpoint
        request = {"name": username, "password": password.reveal()}
        try:
            answer = await self._send(endpoint, "Authenticate", request, self.settings.options.timeout, _HEADERS)
            return {**_HEADERS, "Authorization": answer["token"]}
        except self.errors as exc:
            failure = self.failure(exc)
        except KeyError:
            failure = Failure("the answer holds no token")
        del request  # and no `from`: a traceback must not hold the password
        return self.not_logged_in(failure, endpoint)

    async def _disconnect(self) -> None:
        sessions, self._sessions = self._sessions, {}
        self._clients.clear()
        for session in sessions.values():
            await session.close()


class GatewayStream(Stream):
    """A watch as a response that does not end: one JSON document a line."""

    def __init__(self, wire: GatewayWire, endpoint: int, carried: object, start: int, create: Any) -> None:
        super().__init__(wire, endpoint, carried, start)
        self._wire = wire
        self._create = create
        self._response: aiohttp.ClientResponse | None = None
        self._buffer = bytearray()
        self._grown = False

    async def _next(self) -> Response:
        if self._response is None:
            self._response = await self._open()
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            chunk = await self._response.content.readany()
            if not chunk:
                raise Refused(Failure("the watch ended without a reason"))
            self._buffer += chunk
            self._grown = True
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._grown = bool(self._buffer)
        return decoded(_answer(200, line), _response)

    def _part(self) -> Response | None:
        """Half of a long line is a sign of life."""
        grown, self._grown = self._grown, False
        return Response(0, [], fragment=True) if grown else None

    def _hang_up(self) -> bool:
        response = self._response
        if response is None:
            return False
        if response.connection is not None and response.connection.transport is not None:
            response.connection.transport.abort()  # over TLS a close would wait for the server's own
        response.close()
        return False

    async def _open(self) -> aiohttp.ClientResponse:
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._wire.settings.options.connect_timeout)
        response: aiohttp.ClientResponse = await self._wire.post(
            self.endpoint, "watches", "/watch", self._create, limits, self.carried
        )
        if response.status != 200:
            async with response:
                _answer(response.status, await response.read())
        return response


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending again after a disconnect, which it does for errors of its own kind only."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # nothing was sent
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise Refused(Failure(str(exc) or type(exc).__name__)) from exc


def _answer(status: int, body: bytes) -> Any:
    """Return etcd's answer, or raise what else it is."""
    document = _document(body, status)
    error = document.get("error")
    if status == 200 and not error:
        answer = document.get("result", document)
        if isinstance(answer, dict) and isinstance(answer.get("header"), dict):
            return answer
        raise Refused(Failure("the answer is not one of etcd"))
    raise Refused(_refusal(error if isinstance(error, dict) else document, status))


def _document(body: bytes, status: int) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused(Failure(f"HTTP {status} with an answer that is not one of etcd (redirects are not followed)"))
    return document


def _refusal(error: Mapping[str, Any], status: int) -> Failure:
    code = error.get("code", error.get("grpc_code"))
    said = error.get("message") or error.get("error") or f"HTTP {status}"
    return Failure(str(said), code if isinstance(code, int) else None)


def _response(answer: Mapping[str, Any]) -> Response:
    return Response(
        int(answer["header"].get("revision", 0)),
        [_event(event) for event in answer.get("events", ())],
        bool(answer.get("created")),
        bool(answer.get("canceled")),
        int(answer.get("compact_revision", 0)) > 0,
        bool(answer.get("fragment")),
        str(answer.get("cancel_reason", "")),
    )


def _event(event: Mapping[str, Any]) -> Event:
    kv = event["kv"]
    item = _item(kv) if event.get("type", "PUT") == "PUT" else None
    return Event(int(kv["mod_revision"]), text(b64decode(kv["key"])), item)


def _b64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _seconds(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None


def _compare(compare: Compare) -> Mapping[str, Any]:
    return {
        "target": compare.field,
        "result": "EQUAL",
        "key": _b64(compare.key),
        _FIELDS[compare.field]: compare.number,
    }


def _operation(write: Write) -> Mapping[str, Any]:
    if write.value is None:
        return {"request_delete_range": {"key": _b64(write.key)}}
    return {"request_put": {"key": _b64(write.key), "value": _b64(write.value), "lease": write.lease}}


def _revision(answer: Any) -> int:
    return int(answer["header"]["revision"])


def _outcome(answer: Any) -> int | None:
    revision = _revision(answer)
    return revision if answer.get("succeeded") else None


def _outcome_and_items(answer: Any) -> tuple[list[Item], int] | None:
    revision = _outcome(answer)
    if revision is None:
        return None
    *_, found = answer["responses"]
    return [_item(kv) for kv in found["response_range"].get("kvs", ())], revision


def _first(answer: Any) -> Item | None:
    items, _ = _items(answer)
    return items[0] if items else None


def _items(answer: Any) -> tuple[list[Item], int]:
    return [_item(kv) for kv in answer.get("kvs", ())], _revision(answer)


def _ttl(answer: Any) -> int:
    _revision(answer)
    return max(0, int(answer.get("TTL", 0)))


def _lasts(answer: Any) -> tuple[int, int] | None:
    _revision(answer)
    left = int(answer.get("TTL", 0))
    return (int(answer["grantedTTL"]), left) if left >= 0 else None


def _status(answer: Any) -> EndpointStatus:
    version = answer["version"]
    if not isinstance(version, str):
        raise TypeError("a version is text")
    return EndpointStatus(
        "",
        error="; ".join(answer.get("errors", ())) or None,
        version=version,
        leader=answer["leader"] == answer["header"]["member_id"],
        server_time=_seconds(answer["date"]),
        details={
            "db_size": str(answer.get("dbSize", 0)),
            "raft_term": str(answer.get("raftTerm", 0)),
            "raft_index": str(answer.get("raftIndex", 0)),
            "learner": str(answer.get("isLearner", False)).lower(),
        },
    )


def _item(kv: Mapping[str, Any]) -> Item:
    lease = int(kv.get("lease", 0))
    return Item(
        text(b64decode(kv["key"])),
        b64decode(kv.get("value", "")),
        int(kv["create_revision"]),
        int(kv["mod_revision"]),
        f"{lease:016x}" if lease else None,
    )
