"""Bounds for connections: so many at once, and none that says nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aiohttp.web import Server

CONNECTIONS_MAX: Final = 128
SILENCE_MAX: Final = 10.0
"""Seconds within which a connection must have made its first request."""


class Connections:
    """Makes the protocol of each connection, as `loop.create_server` wants it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._silent: dict[asyncio.Protocol, asyncio.TimerHandle] = {}

    def __call__(self) -> asyncio.Protocol:
        """Return a protocol; one that hangs up when there are too many."""
        if len(self._server.connections) >= CONNECTIONS_MAX:
            return _HangUp()
        handler: asyncio.Protocol = self._server()
        alarm = asyncio.get_running_loop().call_later(SILENCE_MAX, self._hang_up, handler)
        self._silent[handler] = alarm
        return handler

    def spoke(self, handler: asyncio.Protocol) -> None:
        """Note that a connection made a request."""
        if (alarm := self._silent.pop(handler, None)) is not None:
            alarm.cancel()

    def close(self) -> None:
        """Wait for nobody any more."""
        while self._silent:
            self._silent.popitem()[1].cancel()

    def _hang_up(self, handler: Any) -> None:
        del self._silent[handler]
        if handler.transport is not None:
            handler.transport.abort()


class _HangUp(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
