"""Leaving: STOPPING is seen, nobody is picked any more, what is under way ends; a rolling restart costs no call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from mesh_town import Town, town
from worlds import World, until

from osdisco._signal import Signal
from osdisco.discovery import Drain, ExtensionStatus
from osdisco.discovery.leaving import Leaving
from osdisco.errors import ClosedError
from osdisco.mesh.handlers import Handlers
from osdisco.mesh.retry import NEVER
from osdisco.mesh.serving import ServiceServer
from osdisco.mesh.transport import MeshRequest, MeshResponse

DRAIN = Drain(propagation=1, grace=10)


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


async def test_who_leaves_is_picked_no_more_and_what_is_under_way_ends_first(geo: Town) -> None:
    async def nap() -> str:
        await asyncio.sleep(4)
        return "done"

    server = await geo.serve({"nap": nap}, drain=DRAIN)
    mesh = geo.mesh(retry_policies=NEVER)
    under_way = asyncio.get_running_loop().create_task(mesh.call("geo", "nap"))
    await until(lambda: server.in_flight == 1)
    leaving = asyncio.get_running_loop().create_task(server.aclose())
    await until(lambda: mesh.services["geo"].view.endpoints[0].status is ExtensionStatus.STOPPING)
    assert server.draining
    other = await geo.serve({"nap": nap})
    await until(lambda: len(mesh.services["geo"].view) == 2)
    began = geo.world.clock.now()
    assert await mesh.call("geo", "nap") == "done"
    assert geo.network.sent[-1][0] == other.address
    assert await under_way == "done"
    await leaving
    assert geo.world.clock.now() - began < 10
    assert list(mesh.services["geo"].view) == [other.address]


async def test_who_picked_it_just_before_is_served_while_it_drains(geo: Town) -> None:
    server = await geo.serve({"who": lambda: "served"}, drain=DRAIN)
    blind_client = geo.world.process()
    blind = geo.mesh(blind_client, retry_policies=NEVER)
    await blind.call("geo", "who")
    geo.world.kill(blind_client)
    leaving = asyncio.get_running_loop().create_task(server.aclose())
    await until(lambda: server.draining)
    assert await blind.call("geo", "who") == "served"
    await leaving


async def test_when_it_has_left_nothing_runs_any_more(geo: Town) -> None:
    ran = []
    server = await geo.serve({"who": lambda: ran.append(1)}, drain=DRAIN)
    answer = geo.network.places[server.address].answer
    mesh = geo.mesh(retry_policies=NEVER)
    await mesh.call("geo", "who")
    await server.aclose()
    request = geo.network.sent[-1][1]
    assert answer is not None
    response = await answer(request)
    assert (response.status, response.headers["x-osdisco-refused"]) == (503, "stopping")
    assert ran == [1]


async def test_what_came_before_it_was_registered_is_waited_for_like_the_rest(geo: Town) -> None:
    """Its port may be that of an earlier process, whose callers come before the new record stands."""
    handlers = Handlers("geo", {"nap": asyncio.sleep}, geo.world.clock)
    loop, signal = asyncio.get_running_loop(), Signal()
    early = loop.create_task(_response(handlers, 1))
    await until(lambda: handlers.running == 1)
    leaving = Leaving(None, signal, geo.world.clock, timeout=1, drain=DRAIN)
    handlers.leave_by(leaving)
    assert leaving.in_flight == 1
    late = loop.create_task(_response(handlers, 3))
    await early
    await until(lambda: leaving.in_flight == 1)
    await leaving.leave()
    assert late.done()
    assert leaving.in_flight == 0


async def _response(handlers: Handlers, seconds: float) -> MeshResponse:
    return await handlers(MeshRequest("geo", "nap", str(seconds).encode()))


async def test_connections_end_with_the_answers_of_who_leaves(geo: Town) -> None:
    server = await geo.serve({"who": lambda: None}, drain=DRAIN)
    answer = geo.network.places[server.address].answer
    assert answer is not None
    mesh = geo.mesh()
    await mesh.call("geo", "who")
    request = geo.network.sent[-1][1]
    assert not (await answer(request)).last
    leaving = asyncio.get_running_loop().create_task(server.aclose())
    await until(lambda: server.draining)
    assert (await answer(request)).last
    await leaving


async def test_a_rolling_restart_loses_no_call_idempotent_or_not(geo: Town) -> None:
    """Nothing is tried again here, so that each call that met who was gone would show."""
    servers: list[ServiceServer] = [await geo.serve({"who": work}, drain=DRAIN) for _ in range(3)]
    mesh = geo.mesh(retry_policies=NEVER)
    results: list[Any] = []
    loop = asyncio.get_running_loop()
    callers = [loop.create_task(keep_calling(mesh, results)) for _ in range(20)]
    for server in list(servers):
        await geo.world.clock.advance(2)
        await server.aclose()
        servers.append(await geo.serve({"who": work}, drain=DRAIN))
    await geo.world.clock.advance(2)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert len(results) > 1000
    assert set(results) == {"done"}
    assert len(geo.network.counts()) == 6


async def work() -> str:
    await asyncio.sleep(0.2)
    return "done"


async def keep_calling(mesh: Any, results: list[Any]) -> None:
    while True:
        try:
            results.append(await mesh.call("geo", "who"))
        except Exception as exc:
            results.append(repr(exc))


async def test_closing_now_waits_for_nobody(geo: Town) -> None:
    server = await geo.serve({"stall": lambda: asyncio.sleep(3)}, drain=DRAIN)
    mesh = geo.mesh()
    task = asyncio.get_running_loop().create_task(mesh.call("geo", "stall"))
    await until(lambda: server.in_flight == 1)
    began = geo.world.clock.now()
    await server.aclose(now=True)
    assert geo.world.clock.now() - began < 0.5
    task.cancel()
    await asyncio.wait([task])


async def test_the_end_of_a_mesh_is_that_of_what_it_serves(geo: Town) -> None:
    mesh = geo.mesh()
    server = await geo.serve({"who": lambda: 1}, mesh=mesh)
    caller = geo.mesh()
    assert await caller.call("geo", "who") == 1
    await mesh.aclose()
    assert server.registration.registered is False
    await until(lambda: not caller.services["geo"].view)


async def test_before_it_is_started_it_has_no_address(geo: Town) -> None:
    from osdisco.registry import ServiceDefinition

    server = geo.mesh().serve(ServiceDefinition("geo", "1"), {"who": lambda: 1})
    for name in ("address", "port", "registration"):
        with pytest.raises(ClosedError, match="not served yet"):
            getattr(server, name)
    assert (server.in_flight, server.draining, server.methods) == (0, False, ("who",))
    await server.aclose()


async def test_a_server_is_entered_once(geo: Town) -> None:
    server = await geo.serve({"who": lambda: 1})
    with pytest.raises(ClosedError, match="once"):
        await server
