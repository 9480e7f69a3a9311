"""Calls while endpoints are in trouble: what a slow, a dead, a leaving one, or all that fail, cost who calls.

Servers that are slow, killed or fail are processes of their own, over HTTP; what is restarted is in the process that
calls. How long the loop is held is counted in this thread's own time, to which other processes add nothing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count, pairwise
from typing import Any, Final

from attrs import frozen

import osdisco
from benchmarks.figures import Figure
from osdisco.client import Client
from osdisco.discovery import Drain
from osdisco.errors import OsdiscoError, RemoteError
from osdisco.mesh import (
    BreakerSettings,
    CircuitBreakerRegistry,
    ExtensionServiceMesh,
    HttpTransport,
    MeshRequest,
    MeshResponse,
    PeakEwmaLoadBalancer,
    PoolSettings,
    RetryBudget,
    RetryPolicy,
    RoundRobinLoadBalancer,
    Router,
    ServiceRules,
    ServiceServer,
)
from osdisco.registry import Registration, ServiceDefinition, ServiceEndpoint
from osdisco.runtime import Runtime

GROUP: Final = "The mesh: endpoints in trouble"
SLOW_MOST = 0.3
ATTEMPTS_MOST = 1.2
SPLIT_MOST = 0.5
HOLD_MOST_MS = 5.0

WORK = 0.1
"""Seconds that a call takes where one of ten is 20 times slower: long enough to leave the core idle."""

DRAIN = Drain(propagation=0.5, grace=5)
FAITHFUL: Final[dict[str, Any]] = {
    "pool": PoolSettings(outliers=None),
    "circuit_breakers": CircuitBreakerRegistry(BreakerSettings(window=10**6, minimum=10**6)),
}
"""Options of a mesh that leaves nobody alone, so that only the budget limits what is tried again."""
ENDLESS = RetryPolicy(budget=RetryBudget(share=10, per_second=1000, failures=10**9))


@frozen
class Storm:
    """How much is measured: seconds of load for each figure, and how many keys, endpoints and changes."""

    seconds: float = 8.0
    rounds: int = 3
    keys: int = 100_000
    endpoints: int = 1_000
    rate: int = 100


QUICK = Storm(seconds=2.0, rounds=1, keys=5_000, endpoints=200)


def figures(effort: Storm) -> Iterator[Figure]:
    """Yield all figures."""
    yield from asyncio.run(_slow(effort))
    yield asyncio.run(_killed(effort))
    yield asyncio.run(_restarted(effort))
    yield asyncio.run(_all_failing(effort))
    yield from _split(effort)
    yield asyncio.run(_changing(effort))


# Servers in processes of their own


async def serve(works: list[float | None]) -> None:
    """Serve at an address for each: so many seconds a call takes there, or it fails. Until the process is ended."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(osdisco.connect("memory://bench"))
        mesh = await stack.enter_async_context(ExtensionServiceMesh(client))
        servers = [
            await stack.enter_async_context(mesh.serve(ServiceDefinition("geo", "1"), {"find": _find(work)}))
            for work in works
        ]
        print(json.dumps([server.address for server in servers]), flush=True)
        await asyncio.Event().wait()


def _find(work: float | None) -> Callable[[], Any]:
    async def find() -> None:
        if work is None:
            raise RemoteError("Broken", "every time", 500)
        await asyncio.sleep(work)

    return find


@contextmanager
def _process(*works: float | None) -> Iterator[tuple[list[str], subprocess.Popen[str]]]:
    code = f"import asyncio; from benchmarks import mesh_storm; asyncio.run(mesh_storm.serve({list(works)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)  # nosec B603 # noqa: S603
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline()), process
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def _caller(addresses: list[str], **options: Any) -> AsyncIterator[ExtensionServiceMesh]:
    """Give a mesh that sees these endpoints, and goes on to see them when they are dead."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(osdisco.connect("memory://"))
        mesh = await stack.enter_async_context(ExtensionServiceMesh(client, **options))
        for address in addresses:
            await stack.enter_async_context(
                mesh.register_service(ServiceDefinition("geo", "1", address), drain=Drain(propagation=0, grace=0))
            )
        yield mesh


class Load:
    """So many callers who call one after the other, for so long."""

    def __init__(self, mesh: ExtensionServiceMesh, callers: int, *, pause: float = 0.0, idempotent: bool = True):
        self.took: list[float] = []
        self.errors: list[OsdiscoError] = []
        self._mesh = mesh
        self._pause = pause
        self._idempotent = idempotent
        self._callers = callers

    @property
    def calls(self) -> int:
        """How many calls have ended."""
        return len(self.took) + len(self.errors)

    async def run(self, seconds: float) -> None:
        """Call, and return when all have ended."""
        end = time.monotonic() + seconds
        await asyncio.gather(*(self._calling(end) for _ in range(self._callers)))

    async def _calling(self, end: float) -> None:
        while (began := time.monotonic()) < end:
            try:
                await self._mesh.call("geo", "find", idempotent=self._idempotent)
                self.took.append(time.monotonic() - began)
            except OsdiscoError as exc:
                self.errors.append(exc)
            await asyncio.sleep(self._pause)


# One of ten is 20 times slower


async def _slow(effort: Storm) -> list[Figure]:
    """Each policy beside round robin, with many calls under way at each endpoint and with hardly one."""
    policies = {"default": None, "peak EWMA": PeakEwmaLoadBalancer(), "round robin": RoundRobinLoadBalancer()}
    many: dict[str, list[float]] = {name: [] for name in policies}
    few: dict[str, list[float]] = {name: [] for name in policies}
    with _process(WORK * 20, *[WORK] * 9) as (addresses, _):
        for _ in range(effort.rounds):
            for name, policy in policies.items():
                async with _caller(addresses, load_balancer=policy) as mesh:
                    many[name].append(await _p99(mesh, 64, effort.seconds))
                    few[name].append(await _p99(mesh, 5, effort.seconds))
    found = []
    for callers, times in ((64, many), (5, few)):
        for name in ("default", "peak EWMA"):
            ratios = [ours / theirs for ours, theirs in zip(times[name], times["round robin"], strict=True)]
            detail = {"max": max(ratios), "ours, ms": statistics.median(times[name]) * 1e3}
            detail["theirs, ms"] = statistics.median(times["round robin"]) * 1e3
            said = f"1 of 10 endpoints 20 times slower, {name}, {callers} callers: p99"
            most = SLOW_MOST if callers == 64 else None
            found.append(Figure(GROUP, said, statistics.median(ratios), "x", "round robin", most=most, detail=detail))
    return found


async def _p99(mesh: ExtensionServiceMesh, callers: int, seconds: float) -> float:
    load = Load(mesh, callers)
    await load.run(seconds)
    return statistics.quantiles(load.took, n=100)[98]


# One of three is killed, all are restarted, all fail


async def _killed(effort: Storm) -> Figure:
    """SIGKILL in the middle; it stays registered, so that calls go on to be led there."""
    with _process(0.005) as one, _process(0.005) as other, _process(0.005) as (third, process):
        async with _caller([*one[0], *other[0], *third]) as mesh:
            load = Load(mesh, 16)
            killing = asyncio.get_running_loop().call_later(effort.seconds / 2, process.kill)
            await load.run(effort.seconds)
            killing.cancel()
    detail = {"calls": load.calls, "longest, ms": max(load.took) * 1e3}
    return Figure(
        GROUP, "1 of 3 endpoints killed, idempotent calls: errors", len(load.errors), "", most=0, detail=detail
    )


async def _restarted(effort: Storm) -> Figure:
    """Each of three leaves when another has come. Nothing is tried again, so that every call that is lost counts."""

    async def find() -> None:
        await asyncio.sleep(0.005)

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(osdisco.connect("memory://"))

        async def start() -> ServiceServer:
            mesh = await stack.enter_async_context(ExtensionServiceMesh(client))
            return await mesh.serve(ServiceDefinition("geo", "1"), {"find": find}, drain=DRAIN)

        servers = [await start() for _ in range(3)]
        mesh = await stack.enter_async_context(ExtensionServiceMesh(client, retry_policies=RetryPolicy(attempts=1)))
        load = Load(mesh, 16, idempotent=False)
        loading = asyncio.ensure_future(load.run(max(effort.seconds, 4.0)))
        for server in servers:
            await start()
            await server.aclose()
        await loading
    detail = {"calls": load.calls, "longest, ms": max(load.took) * 1e3}
    return Figure(GROUP, "rolling restart of all: errors, not idempotent", len(load.errors), "", most=0, detail=detail)


class _Counting(HttpTransport):
    """Counts attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0

    async def send(self, endpoint: ServiceEndpoint, request: MeshRequest, timeout: float) -> MeshResponse:
        """Send it, and count."""
        self.attempts += 1
        return await super().send(endpoint, request, timeout)


async def _all_failing(effort: Storm) -> Figure:
    """About 150 calls a second of ten endpoints that fail all; circuits that are open let nothing be sent."""
    with _process(*[None] * 10) as (addresses, _):
        seconds = max(effort.seconds, 8.0)  # in the first of them nobody knows that nothing will succeed
        by_default = await _attempts(addresses, seconds)
        by_budget = await _attempts(addresses, seconds, **FAITHFUL)
        without = await _attempts(addresses, seconds, **FAITHFUL, retry_policies=ENDLESS)
    detail = {"with circuits and ejection, too": by_default, "without any of it": without}
    name = "all endpoints fail, only the budget of retries: attempts a call"
    return Figure(GROUP, name, by_budget, "", most=ATTEMPTS_MOST, detail=detail)


async def _attempts(addresses: list[str], seconds: float, **options: Any) -> float:
    transport = _Counting()
    async with _caller(addresses, transport=transport, **options) as mesh:
        load = Load(mesh, 16, pause=0.1)
        await load.run(seconds)
    return transport.attempts / load.calls


# A split, and a view that changes all the time


def _split(effort: Storm) -> Iterator[Figure]:
    """Where keys go at 90 to 10, and whether one leaves the canary when its weight is raised."""
    routers = [_router(weight) for weight in (10, 11, 15, 25, 50, 100)]
    keys = [f"user-{number}" for number in range(effort.keys)]
    canaries = [{key for key in keys if router.route("geo", key=key).subset.name == "v2"} for router in routers]  # type: ignore[union-attr]
    off = abs(len(canaries[0]) / effort.keys - 0.1) * 100
    name = f"split 90/10 over {effort.keys:,} calls: off by"
    yield Figure(GROUP, name, off, "points", most=SPLIT_MOST)
    left = sum(len(one - other) for one, other in pairwise(canaries))
    yield Figure(GROUP, "keys that leave the canary while its weight rises to 100", left, "", most=0)


def _router(weight: int) -> Router:
    subsets = {"v1": {"version": ">=1,<2"}, "v2": {"version": ">=2,<3"}}
    splits = [{"weight": 100 - weight, "subset": "v1"}, {"weight": weight, "subset": "v2"}]
    return Router(Runtime(), {"geo": ServiceRules.parse({"subsets": subsets, "splits": splits})})


class _Nowhere:
    """A transport that answers at once: what is measured is everything before it."""

    async def send(self, endpoint: ServiceEndpoint, request: MeshRequest, timeout: float) -> MeshResponse:
        return MeshResponse(200, b"null")

    async def listen(self, *_: object) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing is open."""


async def _changing(effort: Storm) -> Figure:
    """One of many endpoints changes its weight, 100 times a second, while somebody calls: how long nothing else runs.

    The registrations are this process's own, so that what it takes to write a change is in it, too; the time of the
    collector of garbage is not.
    """
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(osdisco.connect("memory://many")) for _ in range(2)]
        mesh = await stack.enter_async_context(ExtensionServiceMesh(clients[0], transport=_Nowhere()))
        registrations = await _registered(clients[1], effort.endpoints, stack)
        await mesh.call("geo", "find")
        while len(mesh.services["geo"].view) < effort.endpoints:
            await asyncio.sleep(0.05)
        turns = [registration.endpoint.weight for registration in registrations]
        holds = array("d")
        gc.collect()
        gc.disable()  # it looks through all that a process holds, which here are the registrations of all endpoints
        watching = asyncio.ensure_future(_watch(holds))
        load = Load(mesh, 1, pause=0.001)
        changes, _ = await asyncio.gather(_change(registrations, turns, effort), load.run(effort.seconds))
        watching.cancel()
        gc.enable()
    ordered = sorted(holds)
    detail = {"p99.9, ms": ordered[int(len(ordered) * 0.999)] * 1e3, "changes": changes, "calls": load.calls}
    name = f"{effort.endpoints:,} endpoints, {effort.rate} changes a second, a call each ms: longest hold of the loop"
    return Figure(GROUP, name, ordered[-1] * 1e3, "ms", most=HOLD_MOST_MS, detail=detail)


async def _registered(client: Client, number: int, stack: AsyncExitStack) -> list[Registration]:
    mesh = await stack.enter_async_context(ExtensionServiceMesh(client, transport=_Nowhere()))
    drain = Drain(propagation=0, grace=0)
    addresses = [f"10.0.{one // 250}.{one % 250 + 1}:9700" for one in range(number)]
    made = [mesh.register_service(ServiceDefinition("geo", "1", address), drain=drain) for address in addresses]
    return list(await asyncio.gather(*(stack.enter_async_context(one) for one in made)))


async def _change(registrations: list[Registration], weights: list[int], effort: Storm) -> int:
    began = time.monotonic()
    for number in count():
        await asyncio.sleep(max(0.0, began + number / effort.rate - time.monotonic()))
        if time.monotonic() >= began + effort.seconds:
            return number
        at = number * 7 % len(registrations)
        weights[at] = 150 - weights[at]
        await registrations[at].update(weight=weights[at])
    raise AssertionError


async def _watch(holds: array[float]) -> None:
    """Note how long each turn of the loop takes, in time of this thread."""
    before = time.thread_time()
    while True:
        await asyncio.sleep(0)
        now = time.thread_time()
        holds.append(now - before)
        before = now
