"""A way to a store that can be shut and opened again: to its users the store is then away, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Gate:
    """Passes connections on to `host:port`; clients connect to `address`."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._own_port = 0
        self._links: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self._own_port}"

    async def open(self) -> None:
        """Let connections through, on the same port each time."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._own_port)
        self._own_port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse new connections and end the others."""
        self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        with suppress(ConnectionError):
            await asyncio.gather(_pass(reader, back), _pass(there, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    finally:
        writer.close()


@asynccontextmanager
async def gate(target: str) -> AsyncIterator[Gate]:
    """Open a gate, and shut it in the end."""
    one = Gate(target)
    await one.open()
    try:
        yield one
    finally:
        await one.shut()
