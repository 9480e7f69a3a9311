"""The transport by HTTP: an aiohttp client with kept connections, and aiohttp's server without a router.

Nothing is sent twice: POST is never repeated by aiohttp, redirects are not followed, and no proxy or cookie comes from
the environment. Idle connections are closed by who calls, sooner than by who serves: else a request could meet the end
of the connection, and its outcome would be unknown.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from multidict import istr
from yarl import URL

from osdisco._version import __version__
from osdisco.discovery.checks import cannot_connect
from osdisco.errors import (
    CallInterruptedError,
    ClosedError,
    ConfigError,
    EndpointUnreachableError,
    RequestError,
    ResponseError,
    ServiceMeshError,
)
from osdisco.mesh import _wire
from osdisco.mesh.deadline import checked_timeout
from osdisco.mesh.server import HttpListener
from osdisco.mesh.tls import TlsContexts, TlsFiles
from osdisco.mesh.transport import REQUEST_MAX, RESPONSE_MAX, Answer, MeshRequest, MeshResponse
from osdisco.registry.definition import ServiceEndpoint
from osdisco.runtime import Clock, SystemClock

IDLE_MAX: Final = 15.0
"""Seconds after which an idle connection is closed here; servers keep it for 75."""

CONNECT_SHARE: Final = 0.75
"""Of the time of an attempt that a connection may take, so that some is left to go elsewhere: nothing was sent yet."""

URLS_MAX: Final = 4096
"""URLs that are kept ready."""

_SERVICE: Final = istr(_wire.SERVICE)
_TIMEOUT: Final = istr(_wire.TIMEOUT)
_ATTEMPT: Final = istr(_wire.ATTEMPT)
_METADATA: Final = istr(_wire.METADATA)
_ALWAYS: Final = {
    "Accept": "application/json",
    "User-Agent": f"osdisco/{__version__}",
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
}

quoted = lru_cache(URLS_MAX)(quote)


class HttpTransport:
    """Calls and serves by HTTP/1.1, with TLS if files for it are given.

    Args:
        tls: certificates; all calls and all serving use TLS then.
        connect_timeout: seconds for a name to be looked up, and for a connection to be made. Neither takes more than
            three quarters of what the attempt has.
        request_max: bytes of a request's body.
        response_max: bytes of an answer's body.
        clock: by which files of certificates are looked at again; the system's when None.

    Raises:
        ConfigError: numbers or files that cannot be used.
    """

    def __init__(
        self,
        *,
        tls: TlsFiles | None = None,
        connect_timeout: float = 2.0,
        request_max: int = REQUEST_MAX,
        response_max: int = RESPONSE_MAX,
        clock: Clock | None = None,
    ) -> None:
        self._tls = None if tls is None else TlsContexts(tls, clock or SystemClock())
        self._scheme = "http" if tls is None else "https"
        self._server_name = None if tls is None else tls.server_name
        self._connect_timeout = checked_timeout("connect_timeout", connect_timeout)
        self._usual = _connecting(self._connect_timeout)
        self._request_max = _bytes("request_max", request_max)
        self._response_max = _bytes("response_max", response_max)
        self._session: aiohttp.ClientSession | None = None
        self._resolver: _Resolver | None = None
        self._urls: dict[tuple[str, str], URL] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<HttpTransport by {self._scheme}>"

    async def send(self, endpoint: ServiceEndpoint, request: MeshRequest, timeout: float) -> MeshResponse:
        """Send a request once; see `Transport`."""
        if len(request.body) > self._request_max:
            size = len(request.body)
            allowed = f"{self._request_max} are allowed; send less, or raise `request_max` of both transports"
            raise RequestError(f"the request takes {size} bytes as JSON; {allowed}")
        session = self._open() if self._session is None or self._closed else self._session
        url = self._urls.get((endpoint.address, request.method))
        if url is None:
            url = self._url(endpoint.address, request.method)
        try:
            response = await session.post(
                url,
                data=request.body,
                headers=_headers(request, timeout),
                allow_redirects=False,
                timeout=self._patience(endpoint.address, timeout),
                ssl=True if self._tls is None else self._tls.client(),
                server_hostname=self._server_name,
            )
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise _unanswered(exc) from exc
        body = await self._body(response)
        return MeshResponse(response.status, body, response.headers)

    async def listen(self, answer: Answer, host: str, port: int) -> HttpListener:
        """Take requests; see `Transport`."""
        context = None if self._tls is None else self._tls.listening()
        return await HttpListener.open(answer, host, port, context, self._request_max)

    async def aclose(self) -> None:
        """End all connections."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
        if self._resolver is not None:  # the connector leaves what it was given alone
            await self._resolver.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ClosedError("the transport is closed")
        self._resolver = _Resolver(self._connect_timeout)
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            limit=0,  # how much may be under way is the pools' business
            keepalive_timeout=IDLE_MAX,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=_ALWAYS,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )
        return self._session

    def _patience(self, address: str, timeout: float) -> aiohttp.ClientTimeout:
        seconds = timeout * CONNECT_SHARE
        if seconds >= self._connect_timeout:
            return self._usual
        return _connecting(seconds, seconds if _is_by_name(address) else None)

    def _url(self, address: str, method: str) -> URL:
        if len(self._urls) >= URLS_MAX:
            self._urls.clear()
        url = self._urls[address, method] = URL(f"{self._scheme}://{address}{_wire.PATH}{method}", encoded=True)
        return url

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            length = response.content_length
            if length is not None and length <= self._response_max:
                return await response.read()
            if length is None and len(body := await _read(response.content, self._response_max)) <= self._response_max:
                response.release()
                return body
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            response.close()
            half = f"HTTP {response.status}, and the connection ended in its middle; {_wire.LOOK}"
            raise ResponseError(half, sent=True) from exc
        except BaseException:
            response.close()
            raise
        response.close()
        much = f"the answer takes more than the {self._response_max} bytes that are allowed"
        raise ResponseError(f"{much}; ask for less, or raise `response_max` of the transport", sent=True)


class _Resolver(AbstractResolver):
    """Looks names up as aiohttp does, and not for ever: nothing was sent yet, and the call could go elsewhere."""

    def __init__(self, seconds: float) -> None:
        self._inner = DefaultResolver()
        self._seconds = seconds

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look a name up. Raises OSError."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._inner.resolve(host, port, family)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, "its name was not looked up in time") from None

    async def close(self) -> None:
        """End it."""
        await self._inner.close()


def _connecting(seconds: float, looked_up: float | None = None) -> aiohttp.ClientTimeout:
    """Return how long a connection may take, and together with its name; that costs a timer for each request."""
    return aiohttp.ClientTimeout(total=None, connect=looked_up, sock_connect=seconds)


@lru_cache(URLS_MAX)
def _is_by_name(address: str) -> bool:
    try:
        ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return True
    return False


def _bytes(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is a number of bytes, 1 or more, not {value!a}")
    return value


def _headers(request: MeshRequest, timeout: float) -> dict[str, str]:
    headers: dict[str, str] = {_SERVICE: quoted(request.service), _TIMEOUT: _wire.milliseconds(timeout)}
    if request.attempt > 1:
        headers[_ATTEMPT] = str(request.attempt)
    if request.metadata:
        headers[_METADATA] = _wire.pack_metadata(request.metadata)
    if request.headers:
        headers.update(request.headers)
    return headers


async def _read(content: aiohttp.StreamReader, most: int) -> bytes:
    """Read to the end, or a little more than is allowed."""
    body = bytearray()
    while len(body) <= most and (chunk := await content.readany()):
        body += chunk
    return bytes(body)


def _unanswered(exc: Exception) -> ServiceMeshError:
    """Return what it means that no head of an answer came."""
    if isinstance(exc, aiohttp.InvalidURL):
        return EndpointUnreachableError("its address cannot be one")
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return EndpointUnreachableError("no connection in time; is the host up?")
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return EndpointUnreachableError(f"its certificate is not trusted: {exc.certificate_error}")
    if isinstance(exc, aiohttp.ClientConnectorSSLError):
        return EndpointUnreachableError("no TLS with it; does it serve by TLS, and take our certificate?")
    if isinstance(exc, aiohttp.ClientConnectorDNSError) and isinstance(exc.os_error, TimeoutError):
        return EndpointUnreachableError("its name was not looked up in time; is there a server for names?")
    if isinstance(exc, aiohttp.ClientConnectorError):
        return EndpointUnreachableError(f"{cannot_connect(exc.os_error)}; does it run, and is its address right?")
    if isinstance(exc, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | OSError):
        return CallInterruptedError(f"the connection ended before any answer; {_wire.LOOK}", sent=True)
    return ResponseError("the answer is not HTTP; is the address right?", sent=True)
