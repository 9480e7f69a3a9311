"""Rooms of the etcd tests: backends on real servers of several kinds, and servers that are not etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from osdisco.runtime import Runtime
from osdisco.testing._stores import EtcdServer
from osdisco.testing.servers import Servers
from osdisco.url import StoreURL
from osdisco_etcd import EtcdBackend, EtcdGatewayBackend

Open = Callable[..., EtcdBackend]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Answer], Awaitable[str]]


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

    It takes an address (`host:port`) or several, or a server, and options of the URL; `runtime=` is for `Runtime`.
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


def url_of(where: EtcdServer | str, transport: str) -> str:
    """Return the URL of a server, or of plain addresses, over a transport."""
    if isinstance(where, str):
        return ("etcd://" if transport == "grpc" else "etcd+http://") + where
    return where.url if transport == "grpc" else where.gateway_url


@pytest.fixture
def etcd(osdisco_servers: Servers) -> EtcdServer:
    """Return the shared etcd; tests keep to keys of their own and leave it well."""
    return osdisco_servers.etcd()


@pytest.fixture(scope="session")
def second_etcd(osdisco_servers: Servers) -> Iterator[EtcdServer]:
    """Yield an etcd that tests may freeze, kill and start again."""
    with started(osdisco_servers.fresh_etcd()) as server:
        yield server


class started:
    """Start a server and stop it at the end; containers and processes do it alike, without a common type for it."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def __enter__(self) -> Any:
        return self._server.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._server.__exit__(*exc)


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
