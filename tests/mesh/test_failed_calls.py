"""Calls that fail where they are served, in virtual time: what their caller is told, and what the log."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import pytest
from mesh_town import Hits, Query, Town, echo, town
from worlds import World

from osdisco.errors import (
    OverloadedError,
    RemoteError,
    RequestError,
    ResponseError,
    ServiceMeshError,
)
from osdisco.mesh.transport import MeshResponse


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


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
