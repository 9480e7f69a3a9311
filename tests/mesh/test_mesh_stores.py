"""Calls by HTTP on every store, while endpoints and the store get into trouble: no call that can be saved is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from attrs import frozen
from worlds import connect, process_of, until

from osdisco.client import Client
from osdisco.discovery import Drain
from osdisco.errors import OsdiscoError, RemoteError
from osdisco.mesh.mesh import ExtensionServiceMesh
from osdisco.mesh.retry import NEVER, RetryPolicy
from osdisco.mesh.serving import ServiceServer
from osdisco.registry import ServiceDefinition
from osdisco.testing import ChaosProxy
from osdisco.testing._api import free_port

AT_ONCE = Drain(propagation=0, grace=0)
DRAIN = Drain(propagation=0.5, grace=5)

IDEMPOTENT = RetryPolicy(idempotent=["who"])


@frozen
class Hits:
    names: tuple[str, ...]
    total: int


class Town:
    """Processes on one store: servers of `geo`, each behind a proxy, and one that calls."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self.proxies: list[ChaosProxy] = []
        self.servers: list[ServiceServer] = []

    async def client(self, url: str = "") -> Client:
        return await self._stack.enter_async_context(connect(url or self._url))

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

    async def three(self) -> ExtensionServiceMesh:
        """Serve from three processes; returns a mesh that sees them."""
        for _ in range(3):
            await self.serve()
        mesh = await self.mesh(retry_policies=IDEMPOTENT)
        assert await mesh.call("geo", "who") == "me"
        await until(lambda: len(mesh.services["geo"].view) == 3)
        return mesh


async def who() -> str:
    await asyncio.sleep(0.002)
    return "me"


@pytest.fixture
async def geo(store_url: str) -> AsyncGenerator[Town, None]:
    async with AsyncExitStack() as stack:
        yield Town(store_url, stack)


@asynccontextmanager
async def load(mesh: ExtensionServiceMesh, method: str = "who", callers: int = 8) -> AsyncGenerator[list[Any], None]:
    """Call all the time, several at once; gives the list of what comes back."""
    results: list[Any] = []

    async def keep_calling() -> None:
        while True:
            try:
                results.append(await mesh.call("geo", method, timeout=2))
            except OsdiscoError as exc:
                results.append(exc)

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


async def test_a_call_from_one_process_to_another(geo: Town) -> None:
    async def search(query: dict[str, Any]) -> Hits:
        return Hits((query["q"],), 1)

    server = await geo.serve({"search": search})
    mesh = await geo.mesh()
    assert await mesh.call("geo", "search", {"q": "é"}, response_type=Hits, timeout=5) == Hits(("é",), 1)
    assert server.registration.registered
    assert server.methods == ("search",)


async def test_the_address_that_others_need_is_found_when_none_is_given(geo: Town) -> None:
    mesh = await geo.mesh()
    async with mesh.serve(ServiceDefinition("geo", "1"), {"who": who}, host="0.0.0.0", drain=AT_ONCE) as server:
        assert server.address == f"127.0.0.1:{server.port}"
        assert await (await geo.mesh()).call("geo", "who") == "me"


def kill(proxy: ChaosProxy) -> None:
    proxy.refuse()
    proxy.reset()


def half_open(proxy: ChaosProxy) -> None:
    proxy.half_open()
    proxy.hang()


TROUBLES: dict[str, Callable[[ChaosProxy], None]] = {
    "killed": kill,
    "paused": ChaosProxy.hold,
    "half-open": half_open,
    "silent": ChaosProxy.blackhole,
    "reset again and again": ChaosProxy.reset,
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_one_of_three_endpoints_in_trouble_costs_no_idempotent_call(trouble: str, geo: Town) -> None:
    mesh = await geo.three()
    async with load(mesh) as results:
        await more(results, 100)
        TROUBLES[trouble](geo.proxies[0])
        await more(results, 500)
        geo.proxies[0].heal()
        await more(results, 100)
    assert set(results) == {"me"}


async def test_an_endpoint_that_fails_every_call_costs_no_idempotent_one(geo: Town) -> None:
    async def fail() -> None:
        raise RemoteError("Broken", "every time")

    await geo.serve({"who": fail})
    for _ in range(2):
        await geo.serve()
    mesh = await geo.mesh(retry_policies=IDEMPOTENT)
    async with load(mesh) as results:
        await more(results, 300)
    assert set(results) == {"me"}


async def test_a_rolling_restart_costs_no_call_idempotent_or_not(geo: Town) -> None:
    for _ in range(3):
        await geo.serve(drain=DRAIN)
    mesh = await geo.mesh(retry_policies=NEVER)
    async with load(mesh, "add") as results:
        await more(results, 100)
        for server in list(geo.servers):
            await server.aclose()
            await geo.serve(drain=DRAIN)
            await more(results, 50)
    assert set(results) == {"me"}


async def test_when_the_store_is_away_for_the_caller_calls_go_on(geo: Town, store_url: str) -> None:
    await geo.serve()
    async with away_on_demand(store_url) as (url, leave, back):
        client = await geo.client(url)
        mesh = await geo.mesh(client)
        assert await mesh.call("geo", "who") == "me"
        leave(client)
        async with load(mesh) as results:
            await more(results, 300)
            await asyncio.sleep(2)
            await more(results, 100)
        assert set(results) == {"me"}
        back(client)
        await geo.serve()
        await until(lambda: len(mesh.services["geo"].view) == 2, 30)


@asynccontextmanager
async def away_on_demand(url: str) -> AsyncGenerator[tuple[str, Callable[..., None], Callable[..., None]], None]:
    """Give a URL of a store through a proxy, and what takes it away and brings it back."""
    if url.startswith("memory"):
        rules: list[Any] = []
        yield url, lambda client: rules.append(client.backend.faults.outage()), lambda _: rules.pop().end()
        return
    address = url.partition("://")[2].partition("/")[0]
    async with ChaosProxy(address) as proxy:

        def leave(_: Client) -> None:
            proxy.refuse()
            proxy.cut()

        yield url.replace(address, proxy.address), leave, lambda _: proxy.heal()


SERVER = """
import asyncio, os, sys
import osdisco
from osdisco.mesh.mesh import ExtensionServiceMesh
from osdisco.registry import ServiceDefinition

async def who():
    await asyncio.sleep(0.002)
    return "me"

async def main():
    async with osdisco.connect(sys.argv[1]) as client, ExtensionServiceMesh(client) as mesh:
        async with mesh.serve(ServiceDefinition("geo", "1"), {"who": who}):
            print("ready", flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("store_url", ["etcd"], indirect=True)
async def test_a_process_that_is_killed_or_stopped_costs_no_idempotent_call(
    number: int, geo: Town, store_url: str
) -> None:
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(process_of(SERVER, store_url)) for _ in range(3)]
        mesh = await geo.mesh(retry_policies=IDEMPOTENT)
        assert await mesh.call("geo", "who") == "me"
        await until(lambda: len(mesh.services["geo"].view) == 3)
        async with load(mesh) as results:
            await more(results, 100)
            processes[0].send_signal(number)
            await more(results, 1000)
        assert set(results) == {"me"}
        with suppress(ProcessLookupError):
            processes[0].send_signal(signal.SIGCONT)
