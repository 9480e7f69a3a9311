"""Servers on loopback that say what a test lets them say: for what only a real socket shows."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TLS = b"\x16"
"""What begins a handshake, which a plain port takes for a bad request."""

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers every connection in one way, and keeps what was asked.

    Attributes:
        requests: the heads of requests.
        open: connections that stand.
    """

    def __init__(self, answer: bytes | Script, host: str) -> None:
        self._host = host
        self._answer = answer
        self.requests: list[str] = []
        self.open = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}/health"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                first = await reader.readexactly(1)
                if first == TLS:
                    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                else:
                    self.requests.append((first + await reader.readuntil(b"\r\n\r\n")).decode())
                    await self._say(writer)
                await reader.read()  # until the other side closes
        finally:
            self.open -= 1
            writer.close()

    async def _say(self, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._answer, bytes):
            writer.write(self._answer)
            await writer.drain()
        else:
            await self._answer(writer)


@asynccontextmanager
async def serving(
    answer: bytes | Script = OK, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Server, None]:
    """Serve on a free port; at the end all connections must have been closed by the other side."""
    server = Server(answer, host)
    listener = await asyncio.start_server(server.serve, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
        async with asyncio.timeout(30):
            while server.open:
                await asyncio.sleep(0.005)
    finally:
        listener.close()
        await listener.wait_closed()


async def nothing_listens() -> int:
    """Return a port of loopback at which nothing listens."""
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    return port
