"""Rooms of the etcd tests: backends on real servers of several kinds, and servers that are not etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from etcd_rooms import Answer, Open, Serve, url_of

from osdisco.runtime import Runtime
from osdisco.testing._stores import EtcdServer
from osdisco.testing.servers import Servers
from osdisco.url import StoreURL
from osdisco_etcd import EtcdBackend, EtcdGatewayBackend


@pytest.fixture(autouse=True)
def no_credentials_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell says about a store is not for these tests."""
    for name in ("OSDISCO_USERNAME", "OSDISCO_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["grpc", "gateway"])
def transport(request: pytest.FixtureRequest) -> str:
    """Run the test over gRPC and over the gateway."""
    return str(request.param)


@pytest.fixture
async def open_backend(transport: str) -> AsyncIterator[Open]:
    """Return a function that builds a backend, closed at the end.

    It takes a server, an address (`host:port`) or several, or a URL; then options of the URL and a `runtime`.
    """
    opened: list[EtcdBackend] = []

    def build(where: EtcdServer | str, *, runtime: Runtime | None = None, **options: object) -> EtcdBackend:
        url = url_of(where, transport)
        query = "&".join(f"{name}={value}" for name, value in options.items())
        parsed = StoreURL.parse(url + ("&" if "?" in url else "?") * bool(query) + query)
        cls = EtcdBackend if transport == "grpc" else EtcdGatewayBackend
        opened.append(cls.from_url(parsed, runtime or Runtime()))
        return opened[-1]

    yield build
    for backend in opened:
        await backend.aclose()


@pytest.fixture
def etcd(osdisco_servers: Servers) -> EtcdServer:
    """Return the shared etcd; tests keep to keys of their own and leave it well."""
    return osdisco_servers.etcd()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return a function that serves connections by a coroutine and gives back the address."""
    running: set[asyncio.Task[None]] = set()
    servers: list[asyncio.Server] = []

    async def start(answer: Answer) -> str:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(_guarded(answer, reader, writer))
            running.add(task)
            task.add_done_callback(running.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        servers.append(server)
        return "{}:{}".format(*server.sockets[0].getsockname())

    yield start
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for server in servers:
        server.close()
        await server.wait_closed()


async def _guarded(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        try:
            await answer(reader, writer)
        finally:
            writer.close()
