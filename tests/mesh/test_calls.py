"""Calls between processes, in virtual time: what comes back, and what is said when nothing does."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import weakref
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import pytest
from attrs import define, frozen
from mesh_town import AT_ONCE, Town, town
from worlds import World, until

from osdisco.discovery import ExtensionStatus
from osdisco.errors import (
    ClosedError,
    ConfigError,
    DeadlineExceededError,
    NoHealthyEndpointsError,
    OverloadedError,
    RemoteError,
    RequestError,
    ResponseError,
    ServiceMeshError,
    ServiceNotFoundError,
)
from osdisco.mesh import BreakerSettings, LoadBalancer, OutlierSettings, RoundRobinLoadBalancer, _wire
from osdisco.mesh._wire import Refusal
from osdisco.mesh.deadline import deadline, deadline_scope, remaining
from osdisco.mesh.handlers import Handlers, incoming
from osdisco.mesh.retry import NEVER
from osdisco.mesh.transport import MeshRequest, MeshResponse
from osdisco.registry import ServiceDefinition, ServiceEndpoint


@frozen
class Query:
    text: str
    size: int = 10


@frozen
class Hits:
    names: tuple[str, ...]


async def search(query: Query) -> Hits:
    return Hits((query.text,) * query.size)


def echo(request: Any) -> Any:
    return request


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


# what fails


async def test_a_handler_that_raises_tells_type_and_message_and_no_traceback(
    geo: Town, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise KeyError("no such tenant")

    await geo.serve({"fail": fail})
    with pytest.raises(RemoteError) as caught:
        await geo.mesh().call("geo", "fail")
    error = caught.value
    assert (error.type, error.message, error.status) == ("KeyError", "'no such tenant'", 500)
    assert str(error) == f"geo.fail at {error.endpoint}: KeyError: 'no such tenant'; look there for why"
    assert error.__cause__ is None
    assert "test_calls.py" not in str(error)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    caplog.clear()


async def test_a_handler_chooses_what_its_caller_is_told(geo: Town) -> None:
    def fail() -> None:
        raise RemoteError("IndexNotFound", "logs-7", 404)

    await geo.serve({"fail": fail})
    with pytest.raises(RemoteError) as caught:
        await geo.mesh().call("geo", "fail", idempotent=True)
    assert (caught.value.type, caught.value.message, caught.value.status) == ("IndexNotFound", "logs-7", 404)
    assert len(geo.network.sent) == 1


async def test_what_a_handler_meets_itself_is_not_taken_for_the_endpoint_turning_away(
    geo: Town, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the caller would take it that no handler ran, and call again."""

    async def relay() -> None:
        raise OverloadedError("of another service")

    await geo.serve({"relay": relay})
    with pytest.raises(RemoteError, match="OverloadedError: of another service") as caught:
        await geo.mesh().call("geo", "relay")
    assert caught.value.sent
    assert len(geo.network.sent) == 1
    caplog.clear()


async def test_an_error_that_says_where_it_is_from_is_logged_in_one_line(
    geo: Town, caplog: pytest.LogCaptureFixture
) -> None:
    """While a service that handlers call is away each call would leave a traceback."""

    async def relay() -> None:
        await geo.meshes[0].call("nobody", "search")

    await geo.serve({"relay": relay}, mesh=geo.mesh())
    with pytest.raises(RemoteError, match=r"ServiceNotFoundError: nobody\.search: none is registered"):
        await geo.mesh().call("geo", "relay")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "geo.relay failed: ServiceNotFoundError: 'nobody.search" in record.getMessage()


async def test_words_of_others_forge_no_line_of_the_log(geo: Town, caplog: pytest.LogCaptureFixture) -> None:
    async def relay() -> None:
        raise OverloadedError("busy\nERROR all is lost")

    await geo.serve({"relay": relay})
    with pytest.raises(RemoteError, match="busy\nERROR"):
        await geo.mesh().call("geo", "relay")
    assert [record for record in caplog.records if "\n" in record.getMessage()] == []


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (Unspeakable(), "Unspeakable", 500),
        (RemoteError(7, "x", 404), "7", 404),  # type: ignore[arg-type]
        (RemoteError("T", {"no": "text"}, 404), "T", 404),  # type: ignore[arg-type]
        (RemoteError("T", "x", "404"), "T", 500),  # type: ignore[arg-type]
        (RemoteError("T", "x", None), "T", 500),  # type: ignore[arg-type]
        (RemoteError("T", "x", 200), "T", 500),
    ],
)
async def test_whatever_a_handler_raises_becomes_an_answer(
    error: Exception, kind: str, status: int, geo: Town, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    await geo.serve({"fail": fail})
    with pytest.raises(RemoteError) as caught:
        await geo.mesh().call("geo", "fail")
    assert (caught.value.type, caught.value.status) == (kind, status)
    caplog.clear()


@pytest.mark.parametrize("result", [object(), float("nan"), b"bytes", "\ud800", {"a": {1, object()}}])
async def test_a_result_that_cannot_be_sent_is_the_handlers_failure(
    result: object, geo: Town, caplog: pytest.LogCaptureFixture
) -> None:
    await geo.serve({"bad": lambda: result})
    with pytest.raises(RemoteError, match="the result of bad cannot be sent") as caught:
        await geo.mesh().call("geo", "bad")
    assert caught.value.type == "ResponseError"
    caplog.clear()


async def test_an_unknown_method_is_told_with_those_that_there_are(geo: Town) -> None:
    await geo.serve({"echo": echo, "ping": lambda: None})
    with pytest.raises(RemoteError, match="geo has no method 'serach'; it has echo, ping") as caught:
        await geo.mesh().call("geo", "serach", idempotent=True)
    assert (caught.value.type, caught.value.status, caught.value.sent) == ("MethodNotFoundError", 404, False)
    assert len(geo.network.sent) == 1, "it would be the same again"


async def test_a_request_that_does_not_fit_is_refused_by_its_field(geo: Town) -> None:
    ran = []

    async def search(query: Query) -> None:
        ran.append(query)

    await geo.serve({"search": search})
    for request, said in (
        ({"text": 7}, "must be a str, not int @ $.text"),
        ({}, "required field 'text' is missing"),
        ([], "must be a dict, not list"),
    ):
        with pytest.raises(RequestError, match="cannot be read") as caught:
            await geo.mesh().call("geo", "search", request, idempotent=True)
        assert said in str(caught.value)
    assert ran == []
    assert len(geo.network.sent) == 3


async def test_a_response_that_does_not_fit_its_type_is_an_error_with_the_field(geo: Town) -> None:
    await geo.serve({"search": lambda: {"names": [1]}})
    with pytest.raises(ResponseError, match=r"geo\.search at 10\.0\.0\.1:\d+: the answer cannot be read: .*names"):
        await geo.mesh().call("geo", "search", response_type=Hits)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (MeshResponse(200, b"<html>"), ResponseError, "not JSON"),
        (MeshResponse(200, b""), ResponseError, "not JSON"),
        (MeshResponse(200, b'{"a": '), ResponseError, "not JSON"),
        (MeshResponse(200, b"\xff\xfe"), ResponseError, "not JSON"),
        (MeshResponse(200, b"[" * 100_000), ResponseError, "not JSON"),
        (MeshResponse(200, b"NaN"), ResponseError, "NaN is not JSON"),
        (MeshResponse(204, b""), ResponseError, "a result is 200"),
        (MeshResponse(301, b"", {"location": "http://10.0.0.9/"}), ResponseError, "redirects are not followed"),
        (MeshResponse(500, b"<html>"), RemoteError, "HTTP 500"),
        (MeshResponse(502, b'{"type": 1, "message": []}'), RemoteError, "HTTP 502"),
        (MeshResponse(404, b"[]"), ResponseError, "HTTP 404: something else"),
        (MeshResponse(405, b"<html>"), ResponseError, "HTTP 405: something else"),
        (MeshResponse(413, b"<html>"), RemoteError, "HTTP 413"),
        (MeshResponse(204, b'{"type": "T", "message": "x"}'), ResponseError, "a result is 200"),
        (MeshResponse(302, b'{"type": "T", "message": "x"}'), ResponseError, "redirects are not followed"),
        (MeshResponse(503, b"busy"), OverloadedError, "HTTP 503"),
        (MeshResponse(429, b"busy"), OverloadedError, "HTTP 429"),
    ],
)
async def test_an_endpoint_that_answers_nonsense_is_told_so(
    answer: MeshResponse, kind: type[ServiceMeshError], said: str, geo: Town
) -> None:
    server = await geo.serve({"echo": echo})
    geo.network.fail(server.address, answer)
    with pytest.raises(kind, match=said) as caught:
        await geo.mesh().call("geo", "echo", response_type=int)
    assert (caught.value.endpoint, caught.value.sent) == (server.address, True)
    assert len(geo.network.sent) == 1


async def test_who_took_over_the_address_of_a_dead_endpoint_draws_no_calls_by_quick_refusals(geo: Town) -> None:
    """A foreign HTTP server answers 404 at once, as long as the registration of the dead one stands."""
    servers = [await geo.serve({"echo": echo}) for _ in range(2)]
    geo.network.fail(servers[0].address, MeshResponse(404, b"<html>no such page"))
    geo.network.places[servers[1].address].delay = 0.01
    mesh = geo.mesh()
    for _ in range(100):
        assert await mesh.call("geo", "echo", 1, idempotent=True) == 1
    assert geo.network.counts()[servers[0].address] < 20


# bad arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": ""}, "no name of a method"),
        ({"method": "a/b"}, "no name of a method"),
        ({"method": ".."}, "no name of a method"),
        ({"method": None}, "no name of a method"),
        ({"request": object()}, "cannot be encoded"),
        ({"request": float("inf")}, "cannot be encoded"),
        ({"request": b"x"}, "cannot be encoded"),
        ({"request": "\ud800"}, "lone surrogate"),
        ({"key": 7}, "key must be text"),
        ({"metadata": {"a": 1}}, "metadata must be text by name"),
        ({"metadata": [("a", "b")]}, "metadata must be text by name"),
        ({"response_type": "Hits"}, "no type that JSON can be read into"),
        ({"response_type": object()}, "no type that JSON can be read into"),
        ({"response_type": [int]}, "no type that JSON can be read into"),
        ({"metadata": {"a": "x" * 5000}}, "4096 are allowed"),
        ({"timeout": "2s"}, "timeout is a number of seconds"),
        ({"timeout": True}, "timeout is a number of seconds"),
        ({"timeout": float("nan")}, "timeout is a number of seconds"),
        ({"timeout": 10**400}, "timeout is a number of seconds"),
    ],
)
async def test_what_cannot_be_called_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], said: str, geo: Town
) -> None:
    await geo.serve({"echo": echo})
    with pytest.raises(RequestError, match=said) as caught:
        await geo.mesh().call(**{"service": "geo", "method": "echo", **arguments})
    assert not caught.value.sent
    assert geo.network.sent == []


@define
class WithoutHash(LoadBalancer):
    def select(self, endpoints: Sequence[ServiceEndpoint]) -> ServiceEndpoint:
        return endpoints[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"load_balancer": RoundRobinLoadBalancer}, "load_balancer is LoadBalancer, or None"),
        ({"load_balancer": WithoutHash()}, "has no hash"),
        ({"pool": OutlierSettings()}, "pool is PoolSettings, or None"),
        ({"circuit_breakers": BreakerSettings()}, "circuit_breakers is CircuitBreakerRegistry, or None"),
    ],
)
async def test_what_a_mesh_cannot_pick_by_is_refused(options: Any, said: str, geo: Town) -> None:
    with pytest.raises(ConfigError, match=said):
        geo.mesh(**options)


@pytest.mark.parametrize(
    ("handlers", "said"),
    [
        ({}, "handlers are functions"),
        ([echo], "handlers are functions"),
        ({"a/b": echo}, "no name of a method"),
        ({"a": 7}, "must be a function"),
        ({"a": lambda x, y: x}, "the request alone, or nothing"),
        ({"a": dict}, "cannot be seen"),
    ],
)
async def test_handlers_that_are_none_are_refused(handlers: Any, said: str, geo: Town) -> None:
    with pytest.raises(ConfigError, match=said):
        geo.mesh().serve(ServiceDefinition("geo", "1"), handlers)


class Searcher:
    """Called as an object, as a method and with something given already."""

    def __call__(self, query: Query) -> str:
        return f"object {query.text}"

    def method(self, query: Query) -> str:
        return f"method {query.text}"

    def more(self, what: str, query: Query) -> str:
        return f"{what} {query.text}"


async def test_a_handler_is_anything_that_can_be_called_and_its_request_is_what_it_says(geo: Town) -> None:
    searcher = Searcher()
    await geo.serve({"object": searcher, "method": searcher.method, "partial": partial(searcher.more, "partial")})
    mesh = geo.mesh()
    for method in ("object", "method", "partial"):
        assert await mesh.call("geo", method, {"text": "a"}) == f"{method} a"
        with pytest.raises(RequestError):
            await mesh.call("geo", method, {"text": 7})


async def test_a_request_type_that_nobody_can_find_is_refused(geo: Town) -> None:
    def search(query: Unheard) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Never called."""

    with pytest.raises(ConfigError, match="the type of the request of search cannot be used"):
        geo.mesh().serve(ServiceDefinition("geo", "1"), {"search": search})


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("inf")},
        {"timeout": 10**400},
        {"retry_policies": {"geo": 3}},
        {"retry_policies": [NEVER]},
    ],
)
async def test_a_mesh_that_cannot_be_is_refused(options: dict[str, Any], geo: Town) -> None:
    with pytest.raises(ConfigError):
        geo.mesh(**options)


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
