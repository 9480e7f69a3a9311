"""aiohttp and Starlette: an application in a process of its own gets SIGTERM while a request is in flight."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from starlette.applications import Starlette

import osdisco
from osdisco.discovery import DiscoveryService, Drain, ExtensionEvent, ExtensionInfo, ExtensionStatus
from osdisco.integrations.aiohttp import DISCOVERY, count_in_flight, discovery_ctx
from osdisco.integrations.starlette import CountInFlight, discovery_lifespan
from osdisco.testing._api import free_port

AIOHTTP = """
import asyncio, sys
from aiohttp import web
from osdisco.discovery import Drain, ExtensionInfo
from osdisco.integrations.aiohttp import DISCOVERY, count_in_flight, discovery_ctx

finished = asyncio.Event()

async def slow(request):
    await finished.wait()
    return web.Response(text="done")

async def finish(request):
    finished.set()
    return web.Response(text=str(request.app[DISCOVERY].draining))

app = web.Application(middlewares=[count_in_flight])
app.add_routes([web.get("/slow", slow), web.get("/finish", finish)])
me = ExtensionInfo(id="geo", name="geo", version="1", host="127.0.0.1", port=int(sys.argv[1]))
app.cleanup_ctx.append(discovery_ctx(None, me, drain=Drain(propagation=0.3, grace=30)))
web.run_app(app, host="127.0.0.1", port=me.port, print=None)
"""
STARLETTE = """
import asyncio, sys, uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from osdisco.discovery import Drain, ExtensionInfo
from osdisco.integrations.starlette import CountInFlight, discovery_lifespan

finished = asyncio.Event()

async def slow(request):
    await finished.wait()
    return PlainTextResponse("done")

async def finish(request):
    finished.set()
    return PlainTextResponse(str(request.app.state.discovery.draining))

me = ExtensionInfo(id="geo", name="geo", version="1", host="127.0.0.1", port=int(sys.argv[1]))
app = Starlette(
    routes=[Route("/slow", slow), Route("/finish", finish)],
    lifespan=discovery_lifespan(None, me, drain=Drain(propagation=0.3, grace=30)),
    middleware=[Middleware(CountInFlight)],
)
uvicorn.run(app, host="127.0.0.1", port=me.port, log_level="error")
"""
PROPAGATION = 0.3
each_framework = pytest.mark.parametrize(
    ("code", "exits_with"), [(AIOHTTP, 0), (STARLETTE, -signal.SIGTERM)], ids=["aiohttp", "starlette"]
)
"""uvicorn ends with the signal that it got."""


@asynccontextmanager
async def application(code: str, url: str) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str], None]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(port), env={**os.environ, "OSDISCO_URL": url}
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def get(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text()


async def until_listening(url: str) -> None:
    while True:
        try:
            await get(f"{url}/none")
            return
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(0.02)


async def until_in_flight(url: str) -> asyncio.Task[str]:
    """Start a slow request; returns when the server has surely begun with it: one that came later is answered."""
    request = asyncio.get_running_loop().create_task(get(f"{url}/slow"))
    await asyncio.sleep(0.1)
    await get(f"{url}/none")
    return request


@each_framework
@pytest.mark.osdisco("etcd", "consul")
async def test_a_request_in_flight_ends_before_the_registration_goes(
    osdisco_url: str, code: str, exits_with: int
) -> None:
    story: list[str] = []

    def tell(event: ExtensionEvent) -> None:
        story.append("gone" if event.new is None else event.new.status.value)

    async with (
        asyncio.timeout(30),
        osdisco.connect(osdisco_url) as client,
        DiscoveryService(client) as discovery,
        application(code, osdisco_url) as (process, url),
    ):
        discovery.add_listener(tell)
        await until_listening(url)
        request = await until_in_flight(url)
        process.send_signal(signal.SIGTERM)
        while "stopping" not in story:
            await asyncio.sleep(0.01)
        await asyncio.sleep(2 * PROPAGATION)
        assert [one.status for one in await discovery.discover_extensions()] == [ExtensionStatus.STOPPING]
        assert await get(f"{url}/finish") == "True"  # of somebody who picked it just before
        assert await request == "done"
        assert await process.wait() == exits_with
        while "gone" not in story:
            await asyncio.sleep(0.01)
    assert story == ["starting", "stopping", "gone"]


@pytest.mark.osdisco("etcd")
async def test_a_second_signal_ends_the_wait(osdisco_url: str) -> None:
    """The registration is gone then; the server's own wait for its requests is its own business."""
    async with (
        asyncio.timeout(30),
        osdisco.connect(osdisco_url) as client,
        DiscoveryService(client) as discovery,
        application(AIOHTTP, osdisco_url) as (process, url),
    ):
        await until_listening(url)
        request = await until_in_flight(url)
        process.send_signal(signal.SIGTERM)
        while [one.status for one in await discovery.discover_extensions()] != [ExtensionStatus.STOPPING]:
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        while await discovery.discover_extensions():
            await asyncio.sleep(0.02)
        request.cancel()


# In tests of users, without a server that handles signals

ME = ExtensionInfo(id="geo", name="geo", version="1", host="127.0.0.1", port=1)


async def count(request: web.Request) -> web.Response:
    return web.json_response(request.config_dict[DISCOVERY].leaving.in_flight)


async def use_aiohttp() -> None:
    inner = web.Application()
    inner.router.add_get("/count", count)
    app = web.Application(middlewares=[count_in_flight])
    app.add_subapp("/inner", inner)
    async with osdisco.connect("memory://") as client:
        app.cleanup_ctx.append(discovery_ctx(client, ME, drain=Drain(propagation=0)))
        async with TestClient(TestServer(app)) as web_client, web_client.get("/inner/count") as response:
            assert await response.json() == 1
        assert app[DISCOVERY].draining
        assert not (await client.scan("ext/")).items


async def use_starlette() -> None:
    app = Starlette(lifespan=discovery_lifespan("memory://", ME, drain=Drain(propagation=0)))
    seen = []

    async def asgi(scope: object, receive: object, send: object) -> None:
        seen.append(app.state.discovery.leaving.in_flight)

    async with app.router.lifespan_context(app) as state:
        assert state == {"discovery": app.state.discovery}
        for kind in ("http", "websocket", "lifespan"):
            await CountInFlight(asgi)({"type": kind, "app": app}, None, None)
    assert app.state.discovery.draining
    assert seen == [1, 1, 0]


@pytest.mark.parametrize("use", [use_aiohttp, use_starlette])
def test_signals_stay_as_they_are_without_a_server_that_handles_them(
    use: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    async def within() -> None:
        before = signal.getsignal(signal.SIGTERM)
        using = asyncio.ensure_future(use())
        while not using.done():
            assert signal.getsignal(signal.SIGTERM) is before
            await asyncio.sleep(0.001)
        await using

    asyncio.run(within())
