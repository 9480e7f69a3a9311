"""Endpoints on loopback that answer each request with bytes of a test's choice; and endpoints that look right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from osdisco.discovery import ExtensionStatus
from osdisco.registry import ServiceDefinition, ServiceEndpoint

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


def endpoint(address: str) -> ServiceEndpoint:
    return ServiceDefinition("geo", "1", address).endpoint(ExtensionStatus.HEALTHY)


def answer(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """Return an answer in HTTP; its length may be a lie."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class RawServer:
    """Says the same to every request.

    Attributes:
        heads: the heads of the requests that came whole.
    """

    def __init__(self, says: bytes | Script, close: bool) -> None:
        self._says = says
        self._close = close
        self.heads: list[str] = []
        self.address = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._talk(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            lengths = [line[15:] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
            await reader.readexactly(int(lengths[0]) if lengths else 0)
            if isinstance(self._says, bytes):
                writer.write(self._says)
                await writer.drain()
            else:
                await self._says(writer)
            if self._close:
                return

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def raw_server(says: bytes | Script, *, close: bool = False) -> AsyncGenerator[RawServer, None]:
    """Serve on a free port of loopback; `close` ends the connection after what was said."""
    server = RawServer(says, close)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        await server.aclose()
        await listener.wait_closed()


async def nobody() -> str:
    """Return an address of loopback at which nothing listens."""
    async with raw_server(b"") as server:
        return server.address
