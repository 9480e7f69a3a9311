"""The REST interface of a cluster on paper over real sockets, by aiohttp; with what can go wrong on the way."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import ssl
import zlib
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from osdisco.testing._search_answers import Answer, refusal
from osdisco.testing._search_faults import RETRY_AFTER, SLOW, TEXTS, Fault, Rule

if TYPE_CHECKING:
    from osdisco.testing.opensearch import FakeCluster

JSON: Final = "application/json; charset=UTF-8"
_GZIP_LEVEL: Final = 3
"""OpenSearch's `http.compression_level`."""

_SHUTDOWN: Final = 0.05
_CHUNK: Final = b"x" * 65536


class SearchServer:
    """One node's HTTP port.

    Args:
        number: which of the cluster's servers it is, for faults.
        cluster: whose state, faults and credentials it has, and who counts what comes and goes.
        tls: the context to serve with; None serves plain.
    """

    def __init__(self, number: int, cluster: FakeCluster, tls: ssl.SSLContext | None) -> None:
        self._number = number
        self._cluster = cluster
        self._tls = tls
        self._packed: dict[bytes, bytes] = {}
        self._over = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; again on the port of before."""
        if self._runner is not None:
            return
        self._over.clear()
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=_SHUTDOWN)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def aclose(self) -> None:
        """Listen no more, and end all connections."""
        self._over.set()
        if (runner := self._runner) is not None:
            self._runner = None
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._cluster.requests[_path(request)] += 1
        if not self._allowed(request.headers.get("Authorization", "")):
            return self._denied()
        rule = self._cluster.faults.take(_path(request), self._number)
        if rule is None:
            return self._well(request)
        return await _WRONG[rule.fault](self, request, rule)

    def _allowed(self, given: str) -> bool:
        """Whether a header `Authorization` is one that is let in; all are where none is asked for."""
        auth, token = self._cluster.auth, self._cluster.token
        known = [f"Bearer {token}"] if token is not None else []
        if auth is not None:
            known.append("Basic " + b64encode(":".join(auth).encode()).decode())
        return not known or any(hmac.compare_digest(given.encode(), one.encode()) for one in known)

    def _asked(self, request: web.BaseRequest) -> Answer:
        return self._cluster.answer(_path(request), dict(request.query))

    def _sent(self, request: web.BaseRequest, size: int) -> None:
        self._cluster.sent[_path(request)] += size

    def _well(self, request: web.BaseRequest) -> web.StreamResponse:
        found = self._asked(request)
        return self._body(request, found.body, found.status)

    def _body(self, request: web.BaseRequest, body: bytes, status: int = 200) -> web.Response:
        headers = {}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            body, headers = self._zipped(body), {"Content-Encoding": "gzip"}
        self._sent(request, len(body))
        return web.Response(body=body, status=status, headers={"Content-Type": JSON, **headers})

    def _zipped(self, body: bytes) -> bytes:
        """Pack; what was last packed is kept, for many readers ask for the same."""
        if body not in self._packed:
            self._packed = {body: gzip.compress(body, _GZIP_LEVEL)}
        return self._packed[body]

    def _denied(self) -> web.Response:
        challenge = {"WWW-Authenticate": 'Basic realm="OpenSearch Security"'}
        return web.Response(text="Unauthorized", status=401, headers=challenge)

    async def _slow(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        await self._wait(SLOW if rule.seconds is None else rule.seconds)
        return self._well(request)

    async def _hang(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        await self._over.wait()
        return await self._cut(request, rule)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    async def _unavailable(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        return self._refused(request, 503, "cluster_manager_not_discovered_exception", rule.seconds)

    async def _busy(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        seconds = RETRY_AFTER if rule.seconds is None else rule.seconds
        return self._refused(request, 429, "circuit_breaking_exception", seconds)

    async def _forbidden(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        return self._refused(request, 403, "security_exception", None)

    def _refused(self, request: web.BaseRequest, status: int, kind: str, after: float | None) -> web.Response:
        response = self._body(request, refusal(status, kind).body, status)
        if after is not None:
            response.headers["Retry-After"] = f"{after:.0f}"
        return response

    async def _unauthorized(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        return self._denied()

    async def _text(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        text = TEXTS[rule.fault]
        self._sent(request, len(text))
        kind = "text/html" if text.startswith("<") else "application/json"
        return web.Response(text=text, content_type=kind)

    async def _not_found(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        return web.Response(text="<h1>404 Not Found</h1>", status=HTTPStatus.NOT_FOUND, content_type="text/html")

    async def _redirect(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        return web.Response(status=HTTPStatus.FOUND, headers={"Location": "http://127.0.0.1:1/elsewhere"})

    async def _cut(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _half(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        body = self._asked(request).body
        response = web.StreamResponse(headers={"Content-Type": JSON, "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        self._sent(request, len(body) // 2)
        return await self._ended(request, response)

    async def _huge(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": JSON})
        await response.prepare(request)
        return await self._pour(request, response, b'{"cluster_name":"', _CHUNK, 1 << 20)

    async def _bomb(self, request: web.BaseRequest, rule: Rule) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": JSON, "Content-Encoding": "gzip"})
        await response.prepare(request)
        return await self._pour(request, response, *_bomb_parts(), 64)

    async def _pour(
        self, request: web.BaseRequest, response: web.StreamResponse, head: bytes, chunk: bytes, times: int
    ) -> web.StreamResponse:
        """Write until all is written or nobody reads any more."""
        with suppress(OSError):  # the reader had enough
            await response.write(head)
            for _ in range(times):
                if self._over.is_set():
                    break
                await response.write(chunk)
                self._sent(request, len(chunk))
        return await self._ended(request, response)

    async def _ended(self, request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
        """End the connection, not the answer."""
        if request.transport is not None:
            request.transport.close()
        return response


def _path(request: web.BaseRequest) -> str:
    """Return the path as it came: the name of an index may hold an escaped slash."""
    return request.rel_url.raw_path


@cache
def _bomb_parts() -> tuple[bytes, bytes]:
    """Return the begin of a gzip, and a piece that goes on with 16 MiB and may be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    head = packer.compress(b'{"cluster_name":"') + packer.flush(zlib.Z_FULL_FLUSH)
    return head, packer.compress(b"x" * (1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)


_Wrong = Callable[[SearchServer, web.BaseRequest, Rule], Awaitable[web.StreamResponse]]

_WRONG: Final[dict[Fault, _Wrong]] = {
    Fault.SLOW: SearchServer._slow,
    Fault.UNAVAILABLE: SearchServer._unavailable,
    Fault.BUSY: SearchServer._busy,
    Fault.HALF: SearchServer._half,
    Fault.WRONG_JSON: SearchServer._text,
    Fault.NO_JSON: SearchServer._text,
    Fault.HTML: SearchServer._text,
    Fault.EMPTY: SearchServer._text,
    Fault.REDIRECT: SearchServer._redirect,
    Fault.DENIED: SearchServer._unauthorized,
    Fault.FORBIDDEN: SearchServer._forbidden,
    Fault.NOT_FOUND: SearchServer._not_found,
    Fault.HANG: SearchServer._hang,
    Fault.CUT: SearchServer._cut,
    Fault.HUGE: SearchServer._huge,
    Fault.BOMB: SearchServer._bomb,
}
