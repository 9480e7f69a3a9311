"""Calls through the mesh beside what one would write by hand: a bare aiohttp client and server with the same JSON.

Both servers are processes of their own, alike but for the library; rounds alternate between them.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final

import aiohttp
from attrs import frozen

import osdisco
from benchmarks.figures import Figure
from osdisco.mesh import ExtensionServiceMesh
from osdisco.registry import ServiceDefinition

GROUP = "The mesh: calls between two processes"
AT_ONCE = 64
THROUGHPUT_LEAST = 0.8
P50_MOST = 1.3

QUERY: Final[Any] = {
    "q": "straße 7, berlin",
    "size": 10,
    "near": {"lat": 52.520008, "lon": 13.404954},
    "lang": ["de", "en"],
}
HITS: Final[Any] = {
    "total": 10,
    "hits": [
        {
            "id": f"doc-{number}",
            "name": f"Straße {number}",
            "score": 1 / (number + 3),
            "lat": 52.5 + number / 97,
            "lon": 13.4,
        }
        for number in range(10)
    ],
}

Call = Callable[[], Awaitable[object]]


@frozen
class Hit:
    """One hit of an answer."""

    id: str
    name: str
    score: float
    lat: float
    lon: float


@frozen
class Hits:
    """An answer, typed."""

    total: int
    hits: tuple[Hit, ...]


async def serve_mesh() -> None:
    """Serve by the mesh, until the process is ended."""
    async with osdisco.connect("memory://bench") as client, ExtensionServiceMesh(client) as mesh:
        server = await mesh.serve(ServiceDefinition("geo", "1"), {"search": _search})
        print(server.address, flush=True)
        await asyncio.Event().wait()


async def serve_bare() -> None:
    """Serve by aiohttp, until the process is ended."""
    from aiohttp import web

    async def search(request: web.Request) -> web.Response:
        return web.json_response(await _search(await request.json()))

    app = web.Application()
    app.add_routes([web.post("/search", search)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("{}:{}".format(*runner.addresses[0]), flush=True)
    await asyncio.Event().wait()


async def _search(query: Any) -> Any:
    return HITS if query["size"] == 10 else None


@contextmanager
def _process(function: str) -> Iterator[str]:
    """Run a server in a process of its own; gives its address."""
    code = f"import asyncio; from benchmarks import mesh_call; asyncio.run(mesh_call.{function}())"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)  # nosec B603 # noqa: S603
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


async def measure(rounds: int, calls: int) -> list[Figure]:
    """Return the figures; medians of `rounds` pairs of so many calls."""
    async with AsyncExitStack() as stack:
        bare, ours = stack.enter_context(_process("serve_bare")), stack.enter_context(_process("serve_mesh"))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        client = await stack.enter_async_context(osdisco.connect("memory://bench"))
        mesh = await stack.enter_async_context(ExtensionServiceMesh(client))
        await stack.enter_async_context(mesh.register_service(ServiceDefinition("geo", "1", ours)))
        url = f"http://{bare}/search"

        async def by_hand() -> object:
            async with session.post(url, json=QUERY) as response:
                return await response.json()

        async def plain() -> object:
            return await mesh.call("geo", "search", QUERY)

        async def typed() -> object:
            return await mesh.call("geo", "search", QUERY, response_type=Hits)

        assert json.dumps(await by_hand()) == json.dumps(await plain()) == json.dumps(HITS)
        assert isinstance(await typed(), Hits)
        return [
            *await _compared("`call`", plain, by_hand, rounds, calls, goals=True),
            *await _compared("`call` with a `response_type`", typed, by_hand, rounds, calls, goals=False),
        ]


async def _compared(name: str, ours: Call, theirs: Call, rounds: int, calls: int, *, goals: bool) -> list[Figure]:
    speeds: list[float] = []
    middles: list[float] = []
    took: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(-1, rounds):  # the first is not counted
        order = (("ours", ours), ("theirs", theirs))
        results = {side: await _round(call, calls) for side, call in (order if number % 2 else reversed(order))}
        if number >= 0:
            speeds.append(results["theirs"][0] / results["ours"][0])
            middles.append(results["ours"][1] / results["theirs"][1])
            for side, (seconds, _) in results.items():
                took[side].append(seconds)
    against = "bare aiohttp on both sides, the same JSON"
    detail = {"min": min(speeds), "max": max(speeds)}
    detail |= {f"{side}, us a call": statistics.median(times) * 1e6 for side, times in took.items()}
    fast = Figure(
        GROUP, f"{name}, {AT_ONCE} in flight", statistics.median(speeds), "x its throughput", against,
        least=THROUGHPUT_LEAST if goals else None, detail=detail,
    )  # fmt: skip
    middle = Figure(
        GROUP, f"{name}: p50, {AT_ONCE} in flight", statistics.median(middles), "x its p50", against,
        most=P50_MOST if goals else None, detail={"min": min(middles), "max": max(middles)},
    )  # fmt: skip
    return [fast, middle]


async def _round(call: Call, calls: int) -> tuple[float, float]:
    """Return seconds a call of the wall clock, and the median of how long one took."""
    latencies: list[float] = []
    numbers = iter(range(calls))

    async def worker() -> None:
        for _ in numbers:
            began = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - began)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return (time.perf_counter() - start) / calls, statistics.median(latencies)
