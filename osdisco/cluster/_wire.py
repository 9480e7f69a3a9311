"""The wire to a search cluster: one pooled aiohttp session. aiohttp stays in here.

Redirects are not followed, nothing is taken from the environment's proxies, and no body is read further than it may be.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from typing import Final

import aiohttp
from yarl import URL

from osdisco._version import __version__
from osdisco.cluster._body import BodyError, TooLongError, read_body
from osdisco.cluster._questions import no_such_index
from osdisco.cluster._sending import Sending
from osdisco.errors import (
    ClosedError,
    ClusterDeniedError,
    ClusterDocumentError,
    ClusterError,
    ClusterUnavailableError,
)

CONNECT_MAX: Final = 2.0
"""Seconds for a connection to one node."""

CONNECTIONS: Final = 4

_REFUSAL_MAX: Final = 64 * 1024
_HEADERS: Final = {
    "User-Agent": f"osdisco/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
    "X-Opaque-Id": "osdisco",  # shown by the cluster's lists of tasks and slow logs
}
_KIND: Final = re.compile(r"[a-z0-9_]{1,80}\Z")
_SECONDS: Final = re.compile(r"\d{1,6}\Z", re.ASCII)
_CLOSED: Final = "the source of the cluster's state is closed"
_NOT_TLS: Final = "no TLS with it; is it a plain port, or does it ask for tls_cert and tls_key?"


class Wire:
    """Sends questions. Its session is made at the first of them, in the loop that it is used in."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def send(self, sending: Sending, timeout: float) -> bytes:
        """Ask one node once.

        Raises:
            ClusterError: one of its kinds, which names the path and the node.
            ClosedError: the source was closed.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(sending)
        except aiohttp.ConnectionTimeoutError as exc:
            raise ClusterUnavailableError(f"{sending}: no connection within {CONNECT_MAX:.3g} s") from exc
        except TimeoutError as exc:
            raise ClusterUnavailableError(f"{sending}: no answer within {timeout:.3g} s") from exc
        except asyncio.CancelledError as exc:
            if self._closed and not _asked_to_cancel():  # aiohttp cancels those that wait for a connection
                raise ClosedError(_CLOSED) from exc
            raise
        except TooLongError as exc:
            raise sending.too_long(str(exc)) from None
        except BodyError as exc:
            raise ClusterDocumentError(f"{sending}: {exc}") from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            self._check_open()
            raise _failure(sending, exc) from exc

    async def _exchange(self, sending: Sending) -> bytes:
        url = URL(sending.url, encoded=True)
        async with self._opened().get(
            url, headers=sending.headers, ssl=sending.tls or True, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise _refusal(sending, response, await _kind(response))
            if (response.content_length or 0) > sending.body_max:
                raise TooLongError(f"the answer has more than {sending.body_max} bytes")
            body = await _read(response, sending.body_max)
        sending.question.check(body, str(sending))
        return body

    def _opened(self) -> aiohttp.ClientSession:
        self._check_open()
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                headers=_HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_MAX),
                trust_env=False,
                auto_decompress=False,
            )
        return self._session

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(_CLOSED)

    async def aclose(self) -> None:
        """Close all connections."""
        self._closed = True
        if (session := self._session) is not None:
            self._session = None
            await session.close()
            await asyncio.sleep(0)  # the loop closes their sockets


def _asked_to_cancel() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _read(response: aiohttp.ClientResponse, body_max: int) -> bytes:
    return await read_body(response.content.iter_any(), response.headers.get("Content-Encoding", ""), body_max)


async def _kind(response: aiohttp.ClientResponse) -> str:
    """Return the name of the exception that an answer reports, if it does. It is no reason to fail otherwise."""
    try:
        kind = json.loads(await _read(response, _REFUSAL_MAX))["error"]["type"]
    except (BodyError, aiohttp.ClientError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return kind if isinstance(kind, str) and _KIND.match(kind) else ""


def _refusal(sending: Sending, response: aiohttp.ClientResponse, kind: str) -> ClusterError:
    """Say what an answer that is no success means."""
    status, said = response.status, f"{sending}: {response.status}" + (f" ({kind})" if kind else "")
    if status in (401, 403):
        advice = "check user and password, or the token" if status == 401 else "these credentials lack the privilege"
        return ClusterDeniedError(f"{said}; {advice}")
    if status == 404 and sending.question.index is not None and kind == "index_not_found_exception":
        return no_such_index(sending.question, str(sending))
    if status in (408, 429) or status >= 500:
        return ClusterUnavailableError(said, _retry_after(response))
    if 300 <= status < 400:
        return ClusterDocumentError(f"{said}, a redirect, which is never followed; give the node's own URL")
    if status == 404:
        return ClusterDocumentError(f"{said}; there is no such path here: is it a node of OpenSearch?")
    return ClusterDocumentError(f"{said}; is it a node of OpenSearch?")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Read seconds. The header may hold a date, too, which would need clocks that agree."""
    text = response.headers.get("Retry-After", "")
    return float(text) if _SECONDS.match(text) else None


def _failure(sending: Sending, exc: Exception) -> ClusterError:
    """Say what an exception of the transport means."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return ClusterUnavailableError(f"{sending}: its certificate is not trusted; give its authority as tls_ca")
    if isinstance(exc, aiohttp.ClientConnectorSSLError | ssl.SSLError):
        return ClusterUnavailableError(f"{sending}: {_NOT_TLS}")
    if isinstance(exc, aiohttp.ClientPayloadError):
        return ClusterDocumentError(f"{sending}: the connection ended in the middle of the answer")
    if isinstance(exc, aiohttp.ClientConnectorError):
        return ClusterUnavailableError(f"{sending}: cannot connect ({exc.os_error.strerror or 'no address'})")
    if isinstance(exc, aiohttp.ClientResponseError | aiohttp.InvalidURL) or not isinstance(
        exc, aiohttp.ClientError | OSError
    ):
        return ClusterDocumentError(f"{sending}: the answer is not HTTP")
    return ClusterUnavailableError(f"{sending}: the connection ended without an answer")
