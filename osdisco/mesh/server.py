"""Requests of others by HTTP: aiohttp's bare server. What is done with them is not decided here."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self
from urllib.parse import unquote

from aiohttp import web
from multidict import istr

from osdisco.errors import ConfigError
from osdisco.mesh import _wire
from osdisco.mesh._wire import Refusal
from osdisco.mesh.transport import Answer, MeshRequest, MeshResponse

KEPT: Final = 75.0
"""Seconds that an idle connection is kept; longer than who calls keeps it."""

SLOW_MAX: Final = 10.0
"""Seconds within which the body of a request must have come whole, and a handshake of TLS be over."""

_CLOSING: Final = 0.1
_ORIGIN: Final = istr("Origin")
_SERVER: Final = {"Server": "osdisco", "Content-Type": "application/json"}


class HttpListener:
    """A listening port. Get it by `open`."""

    def __init__(self, answer: Answer, request_max: int) -> None:
        self._answer = answer
        self._request_max = request_max
        self._protocols = web.Server(
            self._handle,
            request_factory=partial(_request, request_max),
            handler_cancellation=True,  # nobody waits for what is done for who is gone
            access_log=None,
            keepalive_timeout=KEPT,
            auto_decompress=False,
            logger=_Quiet(logging.getLogger("osdisco"), {}),
        )
        self._server: asyncio.Server | None = None
        self.port = 0

    @classmethod
    async def open(cls, answer: Answer, host: str, port: int, tls: ssl.SSLContext | None, request_max: int) -> Self:
        """Begin to listen. Raises ConfigError."""
        listener = cls(answer, request_max)
        try:
            loop = asyncio.get_running_loop()
            options = {"ssl": tls, "ssl_handshake_timeout": None if tls is None else SLOW_MAX, "backlog": 1024}
            listen = partial(loop.create_server, listener._protocols, host, **options)
            listener._server = await _on_one_port(listen, port)
        except (OSError, OverflowError, UnicodeError) as exc:
            raise ConfigError(f"cannot listen on {host}:{port}: {getattr(exc, 'strerror', None) or exc}") from exc
        listener.port = listener._server.sockets[0].getsockname()[1]
        return listener

    async def aclose(self) -> None:
        """Take nothing any more, and end all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
            await self._protocols.shutdown(_CLOSING)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._answered(request)
        answer = web.Response(status=response.status, body=response.body, headers={**_SERVER, **response.headers})
        if response.last:
            answer.force_close()
        return answer

    async def _answered(self, request: web.BaseRequest) -> MeshResponse:
        if request.method != "POST" or not request.path.startswith(_wire.PATH):
            return _wire.failed(404, "NotFoundError", f"nothing is here but POST {_wire.PATH}<method>")
        if _ORIGIN in request.headers:  # of a browser: its page may be here by a name of its own
            return _wire.refused(Refusal.BAD_REQUEST, "requests of web pages are not taken, such as have an Origin")
        try:
            body = await _body(request)
            taken = _taken(request, body)
        except web.HTTPRequestEntityTooLarge:
            return _wire.refused(Refusal.TOO_LARGE, f"a request of more than {self._request_max} bytes; send less")
        except (ValueError, RecursionError, TimeoutError, web.RequestPayloadError) as exc:
            return _wire.refused(Refusal.BAD_REQUEST, f"the request cannot be read: {exc or type(exc).__name__}")
        return await self._answer(taken)


async def _on_one_port(listen: Callable[..., Awaitable[asyncio.Server]], port: int) -> asyncio.Server:
    """Listen. A host with several addresses gets a port of its own for each when 0 is asked for, and one is shown."""
    server = await listen(port=port)
    ports = {socket.getsockname()[1] for socket in server.sockets}
    if len(ports) == 1:
        return server
    server.close()
    for free in ports:
        with suppress(OSError):
            return await listen(port=free)
    raise OSError("no port was free on all of its addresses")


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """Whoever sends what is no HTTP must not fill the log with it."""

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Say for debugging what aiohttp takes for an error."""
        self.debug(msg, *args, **kwargs)


def _request(request_max: int, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=request_max)


async def _body(request: web.BaseRequest) -> bytes:
    if request.content.is_eof():  # it is all there
        return await request.read()
    async with asyncio.timeout(SLOW_MAX):
        return await request.read()


def _taken(request: web.BaseRequest, body: bytes) -> MeshRequest:
    """Raises ValueError for headers that cannot be so."""
    headers = request.headers
    return MeshRequest(
        service=unquote(headers.get(_wire.SERVICE, "")),
        method=request.path[len(_wire.PATH) :],
        body=body,
        timeout=_wire.timeout_of(headers.get(_wire.TIMEOUT)),
        attempt=int(headers.get(_wire.ATTEMPT, 1)),
        metadata=_wire.unpack_metadata(headers.get(_wire.METADATA)),
        headers=headers,
    )
