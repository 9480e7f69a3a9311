"""What the etcd tests share besides fixtures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeAlias

from osdisco.backend import Batch, Snapshot
from osdisco.testing._stores import EtcdServer
from osdisco_etcd import EtcdBackend

Open = Callable[..., EtcdBackend]
Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
Answer = Callable[[Reader, Writer], Awaitable[None]]
Serve = Callable[[Answer], Awaitable[str]]


def url_of(where: EtcdServer | str, transport: str) -> str:
    """Return the URL of a server, or of plain addresses, over a transport; a URL stays what it is."""
    if isinstance(where, str) and "://" in where:
        return where
    if isinstance(where, str):
        return ("etcd://" if transport == "grpc" else "etcd+http://") + where
    return where.url if transport == "grpc" else where.gateway_url


class started:
    """Start a server and stop it at the end; containers and processes do it alike, without a common type for it."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def __enter__(self) -> Any:
        return self._server.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._server.__exit__(*exc)


async def next_change(watch: AsyncGenerator[Snapshot | Batch, None]) -> Batch:
    """Return the next Batch that has anything in it; fail when it does not come."""
    async with asyncio.timeout(10):
        async for frame in watch:
            if isinstance(frame, Batch) and (frame.puts or frame.deletes):
                return frame
    raise AssertionError("the watch ended")
