"""Servers of `geo` behind proxies and who calls them, on a real store and over HTTP: what tests of trouble stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from worlds import connect, until

from osdisco.client import Client
from osdisco.discovery import Drain
from osdisco.errors import OsdiscoError
from osdisco.mesh import ExtensionServiceMesh, RetryPolicy, ServiceServer
from osdisco.registry import ServiceDefinition
from osdisco.testing import ChaosProxy
from osdisco.testing._api import free_port

AT_ONCE = Drain(propagation=0, grace=0)
DRAIN = Drain(propagation=0.5, grace=5)

IDEMPOTENT = RetryPolicy(idempotent=["who"])


async def who() -> str:
    await asyncio.sleep(0.002)
    return "me"


class Town:
    """Processes on one store: servers of `geo`, each behind a proxy, and one that calls."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self.proxies: list[ChaosProxy] = []
        self.servers: list[ServiceServer] = []
        self.clients: list[Client] = []

    async def client(self, url: str = "") -> Client:
        client = await self._stack.enter_async_context(connect(url or self._url))
        self.clients.append(client)
        return client

    async def mesh(self, client: Client | None = None, **options: Any) -> ExtensionServiceMesh:
        client = client or await self.client()
        return await self._stack.enter_async_context(ExtensionServiceMesh(client, **options))

    async def serve(self, handlers: Any = None, drain: Drain = AT_ONCE) -> ServiceServer:
        """Serve from a process of its own, at the address of a proxy."""
        port = free_port()  # before anybody knows of the address: who is registered is called at once
        proxy = await self._stack.enter_async_context(ChaosProxy(f"127.0.0.1:{port}"))
        mesh = await self.mesh()
        definition = ServiceDefinition("geo", "2.1.0", proxy.address)
        handlers = handlers or {"who": who, "add": who}
        server = await self._stack.enter_async_context(mesh.serve(definition, handlers, port=port, drain=drain))
        self.proxies.append(proxy)
        self.servers.append(server)
        return server

    async def three(self, **options: Any) -> ExtensionServiceMesh:
        """Serve from three processes; returns a mesh that sees them."""
        for _ in range(3):
            await self.serve()
        mesh = await self.mesh(retry_policies=IDEMPOTENT, **options)
        assert await mesh.call("geo", "who") == "me"
        await until(lambda: len(mesh.services["geo"].view) == 3)
        return mesh


@asynccontextmanager
async def load(
    mesh: ExtensionServiceMesh, method: str = "who", callers: int = 8, pause: float = 0
) -> AsyncGenerator[list[Any], None]:
    """Call all the time, several at once; gives the list of what comes back."""
    results: list[Any] = []

    async def keep_calling() -> None:
        while True:
            try:
                results.append(await mesh.call("geo", method, timeout=2))
            except OsdiscoError as exc:
                results.append(exc)
            await asyncio.sleep(pause)

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(keep_calling()) for _ in range(callers)]
    try:
        yield results
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def more(results: list[Any], number: int, seconds: float = 20) -> None:
    """Wait for so many more results."""
    goal = len(results) + number
    await until(lambda: len(results) >= goal, seconds)


def kill(proxy: ChaosProxy) -> None:
    proxy.refuse()
    proxy.reset()


def slow(proxy: ChaosProxy) -> None:
    """About 20 times as slow as the others."""
    proxy.to_client.delay = 0.1


def half_open(proxy: ChaosProxy) -> None:
    proxy.half_open()
    proxy.hang()


class Outage:
    """A store that is away when a test says so, at `url`: through a proxy, but for the one in memory."""

    def __init__(self, url: str, proxy: ChaosProxy | None) -> None:
        self.url = url
        self._proxy = proxy
        self._rules: list[Any] = []

    def begin(self, *clients: Client) -> None:
        """Let it be away; on memory for these clients."""
        if self._proxy is not None:
            self._proxy.refuse()
            self._proxy.cut()
        else:
            self._rules += [client.backend.faults.outage() for client in clients]  # type: ignore[attr-defined]

    def end(self) -> None:
        if self._proxy is not None:
            self._proxy.heal()
        while self._rules:
            self._rules.pop().end()


@asynccontextmanager
async def outage_of(url: str) -> AsyncGenerator[Outage, None]:
    """Give a way to a store that can be closed."""
    if url.startswith("memory"):
        yield Outage(url, None)
        return
    address = url.partition("://")[2].partition("/")[0]
    async with ChaosProxy(address) as proxy:
        yield Outage(url.replace(address, proxy.address), proxy)
