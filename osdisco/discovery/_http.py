"""One careful HTTP request: a status, or the reason why there is none. The only place here that knows aiohttp.

Nothing is taken from the environment, redirects and encodings are not followed, names are resolved once, and the
connection goes to what came of that and is closed whatever happens. The caller keeps the time.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import field, frozen
from yarl import URL

from osdisco._version import __version__
from osdisco.discovery._lookups import resolved
from osdisco.discovery._target import Resolve, Target
from osdisco.discovery.checks import NO_ADDRESS, CheckFailedError, cannot_connect

BODY_MAX: Final = 4096
"""Bytes of an answer that are read."""

_HEADERS: Final = {"User-Agent": f"osdisco/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}

_CUT_OFF: Final = "the connection ended before the answer did"


@frozen
class Request:
    """What is asked, and which statuses are well: any 2xx when `expected` is empty."""

    target: Target
    method: str = "GET"
    expected: tuple[int, ...] = ()
    headers: Mapping[str, str] = field(factory=dict)
    tls: ssl.SSLContext | None = None


async def ask(
    request: Request, *, resolve: Resolve = resolved, admit: Callable[[Sequence[str]], None] = lambda addresses: None
) -> None:
    """Ask once.

    Args:
        resolve: gives the addresses, once.
        admit: raises for addresses that must not be gone to; the connection is made to one of those it was shown.

    Raises:
        CheckFailedError: no answer, or not an expected one.
    """
    try:
        addresses = await resolve(request.target.host, request.target.port)
    except (OSError, UnicodeError) as exc:
        raise CheckFailedError(NO_ADDRESS) from exc
    admit(addresses)
    status = await _status(request, addresses)
    if not _is_expected(status, request.expected):
        redirected = " (redirects are not followed)" if 300 <= status < 400 else ""
        raise CheckFailedError(f"HTTP {status}{redirected}")


def _is_expected(status: int, expected: tuple[int, ...]) -> bool:
    return status in expected if expected else 200 <= status < 300


async def _status(request: Request, addresses: Sequence[str]) -> int:
    url = URL(str(request.target), encoded=True)
    try:
        async with (
            _session(request, addresses) as session,
            session.request(request.method, url, headers=request.headers, allow_redirects=False) as response,
        ):
            await _skim(response.content)
            return response.status
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise CheckFailedError(_why(exc)) from exc


def _session(request: Request, addresses: Sequence[str]) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        resolver=_Pinned(addresses), use_dns_cache=False, force_close=True, limit=1, ssl=request.tls or True
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers=_HEADERS,
        middlewares=(_ask_once,),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        auto_decompress=False,
        read_bufsize=BODY_MAX,
        max_line_size=BODY_MAX,
        max_field_size=BODY_MAX,
    )


async def _ask_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from asking again after a disconnect: a server that is unwell would be asked twice as often."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise CheckFailedError(_CUT_OFF) from exc


async def _skim(content: aiohttp.StreamReader) -> None:
    """Read a short answer to its end, so that the server does not see itself cut off, and no more of a long one."""
    left = BODY_MAX
    while left > 0 and (chunk := await content.read(left)):
        left -= len(chunk)


def _why(exc: Exception) -> str:
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(exc, aiohttp.ClientConnectorSSLError):
        return "no TLS with it"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return cannot_connect(exc.os_error)
    if isinstance(exc, aiohttp.ClientPayloadError | aiohttp.ClientOSError):
        return _CUT_OFF
    return "the answer is not HTTP"


class _Pinned(AbstractResolver):
    """Answers with the addresses that were admitted, so that the name is not looked up a second time."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=_family(address), proto=0, flags=_NUMERIC)
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
