"""A stretch of network between a client and a real server, which can fall silent in one direction or in both."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Relay:
    """Forwards connections to a server. `async with` opens and closes it."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._there = asyncio.Event()
        self._back = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return "{}:{}".format(*self._listener.sockets[0].getsockname())

    def freeze(self) -> None:
        """Let nothing through; connections stay open, and what is sent waits."""
        self._there.clear()
        self._back.clear()

    def hold_answers(self) -> None:
        """Let only requests through: what they ask for is done, and nobody hears of it."""
        self._back.clear()

    def thaw(self) -> None:
        """Let everything through again, also what has waited."""
        self._there.set()
        self._back.set()

    def cut(self) -> None:
        """End all connections; what has waited on them is lost. New ones work."""
        for task in self._tasks:
            task.cancel()
        self.thaw()

    async def __aenter__(self) -> Self:
        self.thaw()
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._server.rpartition(":")
        with suppress(ConnectionError):
            server_reader, server_writer = await asyncio.open_connection(host, int(port))
            ways = (reader, server_writer, self._there), (server_reader, writer, self._back)
            pumps = [asyncio.create_task(_pump(*way)) for way in ways]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                server_writer.close()
                writer.close()
                await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    while chunk := await reader.read(65536):
        await gate.wait()
        writer.write(chunk)
        await writer.drain()
