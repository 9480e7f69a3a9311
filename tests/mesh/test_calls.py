"""Calls between processes, in virtual time: what comes back, and what is said when nothing does."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from mesh_town import AT_ONCE, Hits, Query, Town, echo, search, town
from worlds import World, until

from osdisco.discovery import ExtensionStatus
from osdisco.errors import (
    ClosedError,
    DeadlineExceededError,
    NoHealthyEndpointsError,
    OverloadedError,
    ServiceNotFoundError,
)
from osdisco.mesh import _wire
from osdisco.mesh._wire import Refusal
from osdisco.mesh.deadline import deadline, deadline_scope, remaining
from osdisco.mesh.handlers import Handlers, incoming
from osdisco.mesh.retry import NEVER
from osdisco.mesh.transport import MeshRequest
from osdisco.registry import ServiceDefinition


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


# what comes back


async def test_a_call_finds_who_serves_and_returns_what_was_asked_for(geo: Town) -> None:
    await geo.serve({"search": search})
    mesh = geo.mesh()
    assert await mesh.call("geo", "search", Query("a", 2), response_type=Hits, timeout=2) == Hits(("a", "a"))
    assert await mesh.call("geo", "search", {"text": "b", "size": 1}) == {"names": ["b"]}


async def test_a_handler_may_be_plain_take_nothing_and_return_nothing(geo: Town) -> None:
    await geo.serve({"echo": echo, "ping": lambda: None})
    mesh = geo.mesh()
    assert await mesh.call("geo", "echo", [1, {"é": None}]) == [1, {"é": None}]
    assert await mesh.call("geo", "ping") is None


async def test_the_handler_sees_metadata_and_attempt(geo: Town) -> None:
    seen = []

    async def look() -> None:
        request = incoming()
        assert request is not None
        seen.append((dict(request.metadata), request.attempt, request.service, request.method))

    await geo.serve({"look": look})
    await geo.mesh().call("geo", "look", metadata={"tenant": "7"})
    assert seen == [({"tenant": "7"}, 1, "geo", "look")]
    assert incoming() is None


async def test_a_request_is_let_go_of_with_its_answer(geo: Town) -> None:
    """What the first call out of a handler begins, such as a view of who it calls, goes on in the handler's context."""
    requests, later = [], []

    async def outer() -> Any:
        request = incoming()
        assert request is not None
        requests.append(weakref.ref(request))
        asyncio.get_running_loop().call_later(1, lambda: later.append(incoming()))
        return await relay.call("inner", "echo", 1)

    await geo.serve({"echo": echo}, "inner")
    relay = geo.mesh()
    await geo.serve({"outer": outer}, "outer", relay)
    assert await geo.mesh().call("outer", "outer") == 1
    await geo.world.clock.advance(2)
    geo.network.sent.clear()
    gc.collect()
    assert [request() for request in requests] == [None]
    assert later == [None]


async def test_who_comes_later_is_called_too_and_who_left_is_not(geo: Town) -> None:
    first = await geo.serve({"who": lambda: 1})
    mesh = geo.mesh()
    assert await mesh.call("geo", "who") == 1
    await geo.serve({"who": lambda: 2})
    await until(lambda: len(mesh.services["geo"].view) == 2)
    assert {await mesh.call("geo", "who") for _ in range(50)} == {1, 2}
    await first.aclose()
    await until(lambda: len(mesh.services["geo"].view) == 1)
    assert {await mesh.call("geo", "who") for _ in range(50)} == {2}


# nobody to call


async def test_an_unknown_service_is_said_to_be_one(geo: Town) -> None:
    with pytest.raises(ServiceNotFoundError, match=r"geo\.search: none is registered") as caught:
        await geo.mesh().call("geo", "search")
    assert (caught.value.service, caught.value.method, caught.value.sent) == ("geo", "search", False)
    assert geo.network.sent == []


async def test_of_those_that_start_or_stop_none_is_called(geo: Town) -> None:
    await geo.serve({"echo": echo}, status=ExtensionStatus.STARTING)
    with pytest.raises(NoHealthyEndpointsError, match="starting, stopping or of weight 0"):
        await geo.mesh().call("geo", "echo")


async def test_before_the_store_was_seen_it_says_so(geo: Town) -> None:
    client = geo.world.process(timeout=2.0)
    geo.world.kill(client)
    mesh = geo.mesh(client)
    began = geo.world.clock.now()
    with pytest.raises(NoHealthyEndpointsError, match="the store was not seen"):
        await mesh.call("geo", "echo")
    assert geo.world.clock.now() - began == pytest.approx(2.0, abs=0.1)
    with pytest.raises(DeadlineExceededError, match="the store was not seen"):
        await mesh.call("other", "echo", timeout=1)


async def test_a_call_goes_on_from_the_last_known_view_when_the_store_is_away(geo: Town) -> None:
    await geo.serve({"echo": echo})
    client = geo.world.process()
    mesh = geo.mesh(client)
    assert await mesh.call("geo", "echo", 1) == 1
    geo.world.kill(client)
    for _ in range(60):
        await geo.world.clock.advance(1)
        assert await mesh.call("geo", "echo", 1) == 1


# time


async def test_a_spent_deadline_sends_nothing(geo: Town) -> None:
    await geo.serve({"echo": echo})
    mesh = geo.mesh()
    await mesh.call("geo", "echo")
    geo.network.sent.clear()
    for timeout in (0, -1, -1e9):
        with pytest.raises(DeadlineExceededError, match="before it was sent") as caught:
            await mesh.call("geo", "echo", timeout=timeout)
        assert not caught.value.sent
    assert geo.network.sent == []


async def test_a_handler_that_hangs_ends_with_the_time_of_the_call(geo: Town) -> None:
    ended = []

    async def stall() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(geo.world.clock.now())

    await geo.serve({"stall": stall})
    mesh, began = geo.mesh(), geo.world.clock.now()
    with pytest.raises(DeadlineExceededError) as caught:
        await mesh.call("geo", "stall", timeout=2)
    assert caught.value.sent
    assert isinstance(caught.value, TimeoutError)
    assert geo.world.clock.now() - began == pytest.approx(2, abs=0.01)
    assert ended == [pytest.approx(began + 2, abs=0.01)]


async def test_what_is_called_by_a_handler_has_what_is_left_to_it(geo: Town) -> None:
    left = []

    async def inner() -> None:
        left.append(remaining(geo.world.clock))

    async def outer() -> None:
        await asyncio.sleep(1.5)
        await geo.meshes[0].call("inner", "inner", timeout=60)

    relay = geo.mesh()
    await geo.serve({"inner": inner}, "inner")
    await geo.serve({"outer": outer}, "outer", relay)
    await geo.mesh().call("outer", "outer", timeout=4)
    assert left == [pytest.approx(2.5, abs=0.01)]
    (request,) = [request for _, request in geo.network.sent if request.method == "inner"]
    assert request.timeout == pytest.approx(2.5, abs=0.01)


async def test_a_handler_in_the_context_of_its_caller_leaves_that_as_it_was(geo: Town) -> None:
    """As it is with a transport within one process."""
    handlers = Handlers("geo", {"left": lambda: deadline() - geo.world.clock.now()}, geo.world.clock)
    response = await handlers(MeshRequest("geo", "left", b"null", timeout=2))
    assert response.body == b"2.0"
    assert (deadline(), incoming()) == (math.inf, None)


async def test_calls_in_a_scope_share_its_time(geo: Town) -> None:
    await geo.serve({"nap": lambda: asyncio.sleep(1.5)})
    mesh = geo.mesh()
    with deadline_scope(geo.world.clock, 2):
        await mesh.call("geo", "nap")
        with pytest.raises(DeadlineExceededError):
            await mesh.call("geo", "nap", timeout=60)
    await mesh.call("geo", "nap")


# turned away


async def test_too_much_at_once_is_refused_and_goes_elsewhere(geo: Town) -> None:
    ran = []
    gate = asyncio.Event()

    async def work(name: str) -> str:
        ran.append(name)
        await gate.wait()
        return name

    small = await geo.serve({"work": work}, at_once=1)
    mesh = geo.mesh()
    held = asyncio.get_running_loop().create_task(mesh.call("geo", "work", "held"))
    await until(lambda: small.in_flight == 1)
    with pytest.raises(OverloadedError, match="1 requests are under way; 1 are allowed") as caught:
        await geo.mesh(retry_policies=NEVER).call("geo", "work", "refused")
    assert not caught.value.sent
    large = await geo.serve({"work": work})
    await until(lambda: len(mesh.services["geo"].view) == 2)
    others = [asyncio.get_running_loop().create_task(mesh.call("geo", "work", str(n))) for n in range(5)]
    await until(lambda: large.in_flight == 5)
    gate.set()
    assert await asyncio.gather(held, *others) == ["held", *map(str, range(5))]
    assert sorted(ran) == [*map(str, range(5)), "held"]


async def test_an_address_at_which_another_service_listens_by_now_is_given_up(geo: Town) -> None:
    wrong = await geo.serve({"echo": lambda: "of another service"}, "other")
    right = await geo.serve({"echo": lambda: "right"})
    # as after a restart on the same host, while the registration of the old process still stands
    mesh = geo.mesh()
    stale = mesh.register_service(ServiceDefinition("geo", "1", wrong.address), drain=AT_ONCE)
    async with stale:
        caller = geo.mesh()
        answers = {await caller.call("geo", "echo") for _ in range(20)}
        assert answers == {"right"}
        assert set(geo.network.counts()) == {wrong.address, right.address}


async def test_a_mesh_that_was_closed_says_so_and_lets_what_is_under_way_end(geo: Town) -> None:
    await geo.serve({"nap": lambda: asyncio.sleep(1, "done")})
    mesh = geo.mesh()
    await mesh.call("geo", "nap")
    under_way = asyncio.get_running_loop().create_task(mesh.call("geo", "nap"))
    await asyncio.sleep(0.1)
    assert mesh.under_way == 1
    await mesh.aclose()
    assert under_way.done()
    assert await under_way == "done"
    with pytest.raises(ClosedError):
        await mesh.call("geo", "nap")
    with pytest.raises(ClosedError):
        mesh.serve(ServiceDefinition("geo", "1"), {"echo": echo})


async def test_a_cancelled_call_ends_the_handler_and_leaves_nothing(geo: Town) -> None:
    server = await geo.serve({"stall": lambda: asyncio.Event().wait()})
    mesh = geo.mesh()
    task = asyncio.get_running_loop().create_task(mesh.call("geo", "stall"))
    await until(lambda: server.in_flight == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (server.in_flight, mesh.under_way) == (0, 0)
    (state,) = mesh.services["geo"].pool.states.values()
    assert state.in_flight == 0


async def test_services_of_which_nobody_knows_do_not_pile_up(geo: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osdisco.mesh._services.KEPT_MAX", 10)
    await geo.serve({"echo": echo})
    mesh = geo.mesh()
    await mesh.call("geo", "echo")
    for number in range(50):
        with pytest.raises(ServiceNotFoundError):
            await mesh.call(f"made up {number}", "echo")
    assert len(mesh.services) <= 11
    assert "geo" in mesh.services


def test_what_turns_away_is_told_as_what_it_is() -> None:
    for why in Refusal:
        error = _wire.error_of(_wire.refused(why, "said", retry_after=-1))
        assert not error.sent, why
        assert "said" in str(error)
