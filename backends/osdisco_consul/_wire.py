"""The wire to Consul: one pooled aiohttp session per lane, the endpoints, the token. aiohttp stays in here."""

from __future__ import annotations

import asyncio
import logging
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode
from weakref import WeakSet

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
)
from aiohttp.client_middlewares import ClientHandlerType
from attrs import define, evolve
from yarl import URL

from osdisco.errors import ClosedError, ConfigError, DeniedError, IndeterminateError, UnavailableError
from osdisco.runtime import Runtime
from osdisco.url import StoreURL
from osdisco_consul import _errors
from osdisco_consul._calls import INDEX, Answer, Call, Lane
from osdisco_consul._options import TLS_SCHEME, ConsulOptions, addresses
from osdisco_consul._token import Headers, Tokens

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

log = logging.getLogger("osdisco")

_PARSE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


POLL_MIN: Final = 1.0


@define(eq=False)
class _Poll:
    """A poll under way at an endpoint; `limit` ends it."""

    endpoint: int
    begun: float
    limit: asyncio.Timeout


@define
class _Attempt:
    """One sending of a call to one endpoint, with `left` seconds for it."""

    call: Call
    endpoint: int
    headers: Headers
    deadline: float
    left: float


class Wire:
    """Requests to the endpoints of one store: to one of them until it fails, then to the next."""

    def __init__(self, url: StoreURL, options: ConsulOptions, runtime: Runtime) -> None:
        scheme = "https" if url.scheme == TLS_SCHEME else "http"
        self.endpoints = addresses(url)
        self.tokens = Tokens(runtime, options.token_file)
        self._bases = [f"{scheme}://{address}" for address in self.endpoints]
        self._place = f"&{urlencode(options.place)}" if options.place else ""
        self._ssl = ssl_context(options) if scheme == "https" else True
        self._server_name = options.tls_server_name
        self._connect_timeout = options.connect_timeout
        self._now = runtime.clock.now
        self._current = 0
        self._sessions: dict[Lane, ClientSession] = {}
        self._polls: set[_Poll] = set()
        self._transports: WeakSet[asyncio.WriteTransport] = WeakSet()
        self._closed = False

    async def send(self, call: Call, *, timeout: float, endpoint: int | None = None) -> Any:
        """Send a call once, and again only when it was denied and the token's source has another token.

        Args:
            call: from `Api`.
            timeout: seconds for all of it.
            endpoint: ask this one; else the one that worked last.
        """
        if self._closed:
            raise ClosedError("the Consul backend is closed")
        deadline, left = self._now() + timeout, timeout
        if (headers := self.tokens.headers) is None:
            headers, left = await self.tokens.fetch(None, timeout), deadline - self._now()
        assert headers is not None
        attempt = _Attempt(call, self._current if endpoint is None else endpoint, headers, deadline, left)
        try:
            return await self._answered(attempt)
        except DeniedError:
            renewed = await self.tokens.fetch(headers, max(deadline - self._now(), 0.0))
            if renewed is None:
                raise
        return await self._answered(evolve(attempt, headers=renewed, left=deadline - self._now()))

    async def _answered(self, attempt: _Attempt) -> Any:
        try:
            answer = await self._exchange(attempt)
            parsed = self._parsed(attempt, answer)
        except (UnavailableError, IndeterminateError):
            self._turn_away(attempt.endpoint)
            raise
        if answer.code == 404 and attempt.call.probe is not None:
            await self._answered(self._next(attempt, attempt.call.probe))
            return await self._answered(self._next(attempt, attempt.call.again()))
        return parsed

    def _next(self, attempt: _Attempt, call: Call) -> _Attempt:
        return evolve(attempt, call=call, left=attempt.deadline - self._now())

    def _turn_away(self, endpoint: int) -> None:
        """Go on with the next endpoint, unless another call has done so already, and take the polls along.

        A poll cannot tell a dead agent from one that has no news: whoever can tell them does. Each is left `POLL_MIN`
        seconds, so that they do not run in circles where no endpoint is well.
        """
        if endpoint != self._current:
            return
        self._current = (endpoint + 1) % len(self.endpoints)
        now = asyncio.get_running_loop().time()
        for poll in self._polls:
            if poll.endpoint == endpoint and not poll.limit.expired():
                poll.limit.reschedule(max(now, poll.begun + POLL_MIN))

    async def _exchange(self, attempt: _Attempt) -> Answer:
        if attempt.left <= 0:  # aiohttp would take 0 for no timeout at all
            raise UnavailableError(f"{self._what(attempt)}: no time was left, nothing was sent")
        if attempt.call.lane is not Lane.WATCHES or len(self.endpoints) == 1:
            return await self._request(attempt)
        try:
            async with asyncio.timeout(None) as limit:
                poll = _Poll(attempt.endpoint, asyncio.get_running_loop().time(), limit)
                self._polls.add(poll)
                try:
                    return await self._request(attempt)
                finally:
                    self._polls.discard(poll)
        except TimeoutError as exc:
            raise UnavailableError(f"{self._what(attempt)}: another call to this agent has failed") from exc

    async def _request(self, attempt: _Attempt) -> Answer:
        call = attempt.call
        try:
            async with self._session(call.lane).request(
                call.method,
                self._url(attempt),
                data=call.data.encode() or None,
                headers=attempt.headers,
                timeout=_limits(attempt.left, self._connect_timeout),
                allow_redirects=False,
                server_hostname=self._server_name,
            ) as response:
                return Answer(response.status, response.headers, await response.read())
        except (ClientError, _errors.CutOffError, OSError) as exc:  # TimeoutError is one of OSError
            if self._closed and not call.write:
                raise ClosedError("the Consul backend was closed") from exc
            raise _errors.failure(self._what(attempt), exc, write=call.write) from exc
        except asyncio.CancelledError as exc:
            if self._closed and not _asked_to_cancel():  # aiohttp cancels those that wait for a connection
                raise ClosedError("the Consul backend was closed") from exc
            raise

    def _what(self, attempt: _Attempt) -> str:
        return f"{attempt.call.method} {attempt.call.path} on {self.endpoints[attempt.endpoint]}"

    def _url(self, attempt: _Attempt) -> URL:
        """Keys are escaped already; what a foreign one holds is quoted, and nothing is normalised."""
        path = quote(attempt.call.path, safe="/=", errors="surrogateescape")
        return URL(f"{self._bases[attempt.endpoint]}{path}?{attempt.call.query}{self._place}", encoded=True)

    def _parsed(self, attempt: _Attempt, answer: Answer) -> Any:
        if answer.code != 200 and not (answer.code == 404 and attempt.call.missing and INDEX in answer.headers):
            raise _errors.refusal(self._what(attempt), answer.code, answer.body, write=attempt.call.write)
        try:
            return attempt.call.parse(answer)
        except _PARSE_ERRORS as exc:
            raise _errors.nonsense(self._what(attempt), ascii(answer.body[:80]), write=attempt.call.write) from exc

    def _session(self, lane: Lane) -> ClientSession:
        session = self._sessions.get(lane)
        if session is None:
            if self._closed:  # while the token was fetched
                raise ClosedError("the Consul backend was closed")
            session = self._sessions[lane] = ClientSession(
                connector=self._connector(lane),
                middlewares=(_deliver_once,),
                cookie_jar=DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},  # on a local network packing costs more than it saves
                trust_env=False,
            )
        return session

    def _connector(self, lane: Lane) -> TCPConnector:
        if isinstance(self._ssl, ssl.SSLContext):
            return _TlsConnector(self._transports, lane, self._ssl)
        return TCPConnector(limit=lane)

    async def aclose(self) -> None:
        """Close all connections. What still waits for an answer ends in an error."""
        self._closed = True
        while self._sessions:
            await self._sessions.popitem()[1].close()
        for transport in list(self._transports):
            transport.abort()
        await asyncio.sleep(0)  # the loop closes their sockets


class _TlsConnector(TCPConnector):
    """Remembers its connections until they are gone.

    When a request is cut short, aiohttp says goodbye on its connection and forgets it, while asyncio waits up to half a
    minute for the answer.
    """

    def __init__(self, transports: WeakSet[asyncio.WriteTransport], limit: int, context: ssl.SSLContext) -> None:
        super().__init__(limit=limit, ssl=context)
        self._transports = transports

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if isinstance(transport := connection.transport, asyncio.WriteTransport):
            self._transports.add(transport)
        return connection


@lru_cache(maxsize=64)
def _limits(left: float, connect_timeout: float) -> ClientTimeout:
    """Connecting ends a little before the whole, so that a call that was never sent is told from one that was."""
    connect = 0.9 * left
    return ClientTimeout(total=left, connect=connect, sock_connect=min(connect_timeout, connect), ceil_threshold=86400)


async def _deliver_once(request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
    """Keep aiohttp from sending again: it does so with PUT after a disconnect, and asks nobody."""
    try:
        return await send(request)
    except ClientConnectorError:  # nothing was sent, and it is not sent again
        raise
    except (ClientOSError, ServerDisconnectedError) as exc:
        raise _errors.CutOffError(str(exc) or type(exc).__name__) from exc


def _asked_to_cancel() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def ssl_context(options: ConsulOptions) -> ssl.SSLContext:
    """Return the context that the `tls_` options ask for.

    Raises:
        ConfigError: a file that holds no certificate or key, or a key that is encrypted or does not fit.
    """
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # some builds of Python leave that to the system's OpenSSL
        if options.tls_cert is not None:
            context.load_cert_chain(options.tls_cert, options.tls_key, password=lambda: "")  # never ask on a terminal
    except OSError as exc:  # SSLError is one
        raise ConfigError(f"tls_ca, tls_cert or tls_key cannot be used: {exc}") from exc
    if not options.tls_verify:
        log.warning("tls_verify=false: the store's certificate is not checked, anybody can pose as it")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
