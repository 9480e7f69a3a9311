"""The transport by HTTP, over real sockets: what goes over the wire, and what is made of endpoints that are hostile."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import pytest
from raw_servers import answer, endpoint, nobody, raw_server

from osdisco.errors import (
    CallInterruptedError,
    ClosedError,
    ConfigError,
    EndpointUnreachableError,
    RequestError,
    ResponseError,
    ServiceMeshError,
)
from osdisco.mesh.handlers import Handlers
from osdisco.mesh.http import IDLE_MAX, HttpTransport
from osdisco.mesh.server import KEPT, HttpListener
from osdisco.mesh.transport import MeshRequest, MeshResponse
from osdisco.runtime import SystemClock
from osdisco.testing import ChaosProxy


def request(body: bytes = b"1", **fields: Any) -> MeshRequest:
    return MeshRequest(**{"service": "geo", "method": "echo", "body": body, **fields})


@asynccontextmanager
async def transport(**options: Any) -> AsyncGenerator[HttpTransport, None]:
    client = HttpTransport(**options)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def listening(answers: Any, **options: Any) -> AsyncGenerator[tuple[HttpTransport, HttpListener], None]:
    async with transport(**options) as client:
        listener = await client.listen(answers, "127.0.0.1", 0)
        try:
            yield client, listener
        finally:
            await listener.aclose()


def at(listener: HttpListener) -> Any:
    return endpoint(f"127.0.0.1:{listener.port}")


async def echo(request: MeshRequest) -> MeshResponse:
    return MeshResponse(200, request.body)


# what goes over the wire


async def test_a_request_and_its_answer_arrive_as_they_were() -> None:
    seen: list[MeshRequest] = []

    async def look(request: MeshRequest) -> MeshResponse:
        seen.append(request)
        return MeshResponse(429, b'{"a":"\xc3\xa9"}', {"retry-after": "3"})

    async with listening(look) as (client, listener):
        sent = request(
            b"[2]", service="gé o/\r\nx", attempt=2, metadata={"tenant": "ü\r\n"}, headers={"traceparent": "00-1"}
        )
        response = await client.send(at(listener), sent, 1.9996)
    assert (response.status, response.body, response.headers["Retry-After"]) == (429, b'{"a":"\xc3\xa9"}', "3")
    (got,) = seen
    assert (got.service, got.method, got.body, got.attempt) == ("gé o/\r\nx", "echo", b"[2]", 2)
    assert (got.timeout, got.metadata, got.headers["traceparent"]) == (1.999, {"tenant": "ü\r\n"}, "00-1")


async def test_connections_are_kept_and_used_again() -> None:
    async with listening(echo) as (client, listener), ChaosProxy(f"127.0.0.1:{listener.port}") as proxy:
        for _ in range(20):
            await client.send(endpoint(proxy.address), request(), 5)
        assert proxy.accepted == 1
        await asyncio.gather(*(client.send(endpoint(proxy.address), request(), 5) for _ in range(8)))
        assert proxy.accepted <= 8


def test_who_calls_closes_idle_connections_sooner_than_who_serves() -> None:
    """The other way round a call could meet the end of its connection, and nobody could tell whether it was done."""
    assert IDLE_MAX * 2 < KEPT


async def test_an_answer_that_is_the_last_ends_its_connection() -> None:
    async def leaving(request: MeshRequest) -> MeshResponse:
        return MeshResponse(200, b"1", last=True)

    async with listening(leaving) as (client, listener), ChaosProxy(f"127.0.0.1:{listener.port}") as proxy:
        for _ in range(3):
            await client.send(endpoint(proxy.address), request(), 5)
        assert proxy.accepted == 3


async def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with raw_server(answer(b"1", "200 OK", "Set-Cookie: a=b; Path=/")) as server, transport() as client:
        for _ in range(2):
            await client.send(endpoint(server.address), request(), 5)
    lines = server.heads[1].split("\r\n")
    assert lines[0] == "POST /osdisco/v1/echo HTTP/1.1"
    assert {"x-osdisco-service: geo", "x-osdisco-timeout-ms: 5000", "Accept-Encoding: identity"} <= set(lines)
    assert not any(line.lower().startswith(("cookie", "x-osdisco-attempt", "x-osdisco-metadata")) for line in lines)


# endpoints that are hostile


async def failure(address: str, **options: Any) -> ServiceMeshError:
    """Return what is raised when an address is asked, once."""
    async with transport(**options) as client:
        with pytest.raises(ServiceMeshError) as caught:
            async with asyncio.timeout(20):
                await client.send(endpoint(address), request(), 20)
    return caught.value


async def test_where_nothing_listens_nothing_was_sent() -> None:
    error = await failure(await nobody())
    assert isinstance(error, EndpointUnreachableError)
    assert str(error) == "cannot connect: Connection refused; does it run, and is its address right?"
    assert not error.sent


async def test_a_name_that_has_no_address_is_unreachable() -> None:
    error = await failure("no-such-host.invalid:9700")
    assert isinstance(error, EndpointUnreachableError)
    assert "no address" in str(error)


async def test_a_name_that_is_looked_up_for_ever_is_unreachable_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    async with transport(connect_timeout=0.2) as client, asyncio.timeout(3):
        with pytest.raises(EndpointUnreachableError, match="its name was not looked up in time") as caught:
            await client.send(endpoint("geo.example:9700"), request(), 60)
        assert not caught.value.sent


async def test_a_name_that_is_looked_up_for_long_leaves_time_to_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    async with transport() as client, asyncio.timeout(0.4):
        with pytest.raises(EndpointUnreachableError, match="no connection in time") as caught:
            await client.send(endpoint("geo.example:9700"), request(), 0.4)
        assert not caught.value.sent


async def test_who_never_completes_a_connection_is_unreachable_in_time() -> None:
    async with raw_server(b"") as server, ChaosProxy(server.address) as proxy, transport(connect_timeout=0.2) as client:
        proxy.hang()
        # the system completes connections until the backlog is full: what is awaited is an answer then
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.send(endpoint(proxy.address), request(), 0.5)


@contextmanager
def deaf() -> Iterator[str]:
    """Yield an address that completes no connection, as that of a machine that is off."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        for _ in range(4):  # the system completes a few, until its line is full
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(("timeout", "most"), [(0.4, 0.35), (1.0, 0.8)])
async def test_a_connection_leaves_time_to_go_elsewhere_for_nothing_was_sent(timeout: float, most: float) -> None:
    """Else a call that must not be done twice would be of unknown outcome, at a machine that is off."""
    with deaf() as address:
        async with transport(connect_timeout=0.8) as client, asyncio.timeout(most + 0.3):
            began = asyncio.get_running_loop().time()
            with pytest.raises(EndpointUnreachableError, match="no connection in time") as caught:
                async with asyncio.timeout(timeout):
                    await client.send(endpoint(address), request(), timeout)
            assert not caught.value.sent
            assert asyncio.get_running_loop().time() - began < timeout


@pytest.mark.parametrize(
    ("says", "kind", "said"),
    [
        (b"", CallInterruptedError, "ended before any answer"),
        (b"garbage\r\n\r\n", ResponseError, "not HTTP"),
        (b"\x00\xff" * 500 + b"\r\n\r\n", ResponseError, "not HTTP"),
        (b"HTTP/1.1 abc OK\r\n\r\n", ResponseError, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", ResponseError, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 2\r\n\r\nok", ResponseError, "not HTTP"),
        (answer(b'{"a":', length=100), ResponseError, "in its middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", ResponseError, "in its middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", ResponseError, ""),
        (answer(b"x" * 2000), ResponseError, "more than the 1000 bytes"),
        (answer(b"x", length=10**15), ResponseError, "more than the 1000 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n",
            ResponseError,
            "more than the 1000 bytes",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000, ResponseError, "more than the 1000 bytes"),
    ],
)
async def test_what_is_no_whole_answer_is_an_error_and_nothing_is_sent_again(
    says: bytes, kind: type[ServiceMeshError], said: str
) -> None:
    async with raw_server(says, close=True) as server:
        error = await failure(server.address, response_max=1000)
    assert type(error) is kind
    assert said in str(error)
    assert error.sent
    assert len(server.heads) == 1


async def test_an_answer_without_a_length_is_read_to_its_end() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n"
    async with raw_server(chunked) as server, transport() as client:
        for _ in range(2):
            assert (await client.send(endpoint(server.address), request(), 5)).body == b"[1]"


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async with raw_server(answer(b"1")) as other:
        moved = answer(b"", "307 Temporary Redirect", f"Location: http://{other.address}/osdisco/v1/echo")
        async with raw_server(moved) as server, transport() as client:
            assert (await client.send(endpoint(server.address), request(), 5)).status == 307
        assert other.heads == []


async def test_a_bomb_of_compressed_bytes_stays_as_small_as_it_came() -> None:
    import gzip

    packed = gzip.compress(b"0" * 10_000_000)
    async with raw_server(answer(packed, "200 OK", "Content-Encoding: gzip")) as server, transport() as client:
        assert (await client.send(endpoint(server.address), request(), 5)).body == packed


@pytest.mark.parametrize("part", ["nothing", "head", "body"])
async def test_who_stops_talking_is_given_up_by_who_called_and_its_connection_closed(part: str) -> None:
    whole = answer(b"x" * 100)
    says = {"nothing": b"", "head": whole[:20], "body": whole[:-50]}[part]
    async with raw_server(says) as server, ChaosProxy(server.address) as proxy, transport() as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.send(endpoint(proxy.address), request(), 0.3)
        async with asyncio.timeout(5):
            while proxy.connections:
                await asyncio.sleep(0.01)
        assert len(server.heads) == 1


async def test_what_comes_and_goes_byte_by_byte_is_whole_in_the_end() -> None:
    async with listening(echo) as (client, listener), ChaosProxy(f"127.0.0.1:{listener.port}") as proxy:
        proxy.to_server.slice_size = proxy.to_client.slice_size = 1
        body = json.dumps(["é" * 200]).encode()
        for _ in range(3):
            assert (await client.send(endpoint(proxy.address), request(body), 5)).body == body


@pytest.mark.parametrize("trouble", ["cut", "reset"])
async def test_a_connection_that_ends_under_way_is_of_unknown_outcome(trouble: str) -> None:
    came = asyncio.Event()

    async def hang(_: MeshRequest) -> MeshResponse:
        came.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with listening(hang) as (client, listener), ChaosProxy(f"127.0.0.1:{listener.port}") as proxy:
        task = asyncio.get_running_loop().create_task(client.send(endpoint(proxy.address), request(), 20))
        async with asyncio.timeout(5):
            await came.wait()
        getattr(proxy, trouble)()
        with pytest.raises(CallInterruptedError) as caught:
            await task
        assert caught.value.sent


async def test_a_connection_that_ended_while_idle_is_not_used_again() -> None:
    async with listening(echo) as (client, listener), ChaosProxy(f"127.0.0.1:{listener.port}") as proxy:
        for _ in range(5):
            await client.send(endpoint(proxy.address), request(), 5)
            proxy.cut()
            async with asyncio.timeout(5):
                while proxy.connections:
                    await asyncio.sleep(0.01)
        assert proxy.accepted == 5


async def test_a_request_that_is_too_large_is_not_sent() -> None:
    async with raw_server(answer(b"1")) as server, transport(request_max=10) as client:
        with pytest.raises(RequestError, match="11 bytes as JSON; 10 are allowed") as caught:
            await client.send(endpoint(server.address), request(b"x" * 11), 5)
        assert not caught.value.sent
        assert server.heads == []


@pytest.mark.parametrize(
    "options", [{"request_max": 0}, {"response_max": -1}, {"response_max": 1.5}, {"connect_timeout": 0}]
)
def test_a_transport_that_cannot_be_is_refused_by_its_field(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        HttpTransport(**options)


async def test_a_transport_that_was_closed_says_so() -> None:
    client = HttpTransport()
    await client.aclose()
    await client.aclose()
    with pytest.raises(ClosedError):
        await client.send(endpoint("127.0.0.1:9"), request(), 5)


async def test_a_transport_that_was_used_and_closed_says_so_too() -> None:
    async with raw_server(answer(b"1")) as server, transport() as client:
        await client.send(endpoint(server.address), request(), 5)
        await client.aclose()
        with pytest.raises(ClosedError):
            await client.send(endpoint(server.address), request(), 5)
        assert len(server.heads) == 1


async def test_what_is_under_way_when_the_transport_is_closed_is_of_unknown_outcome() -> None:
    async with raw_server(b"") as server, transport() as client:
        task = asyncio.get_running_loop().create_task(client.send(endpoint(server.address), request(), 60))
        async with asyncio.timeout(5):
            while not server.heads:
                await asyncio.sleep(0.01)
            await client.aclose()
            with pytest.raises(CallInterruptedError) as caught:
                await task
        assert caught.value.sent


async def test_a_place_that_is_taken_cannot_be_listened_on() -> None:
    async with listening(echo) as (client, listener):
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{listener.port}"):
            await client.listen(echo, "127.0.0.1", listener.port)
        with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
            await client.listen(echo, "192.0.2.1", 0)
        with pytest.raises(ConfigError, match="cannot listen"):
            await client.listen(echo, "127.0.0.1", 70_000)


# callers that are hostile


async def raw(listener: HttpListener, data: bytes) -> tuple[int, Any]:
    """Send bytes; returns status and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        async with asyncio.timeout(10):
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(line[16:] for line in head.split("\r\n") if line.lower().startswith("content-length: "))
            body = await reader.readexactly(int(length))
    finally:
        writer.close()
        await writer.wait_closed()
    return int(head.split()[1]), body


def post(body: bytes, *headers: str, path: str = "/osdisco/v1/echo", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "x-osdisco-service: geo", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


SERVED = {"echo": lambda request: request}


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (post(b"[1]"), 200, "[1]"),
        (post(b"[1]", method="GET"), 404, "nothing is here"),
        (post(b"[1]", path="/"), 404, "nothing is here"),
        (post(b"[1]", path="/osdisco/v1/"), 404, "has no method ''"),
        (post(b"[1]", path="/osdisco/v1/../../etc/passwd"), 404, ""),
        (post(b"[1]", path="/osdisco/v1/" + "x" * 3000), 404, "has no method"),
        (post(b"{"), 400, "not JSON"),
        (post(b""), 400, "not JSON"),
        (post(b"\xff"), 400, "not JSON"),
        (post(b"[" * 9_000), 400, "not JSON"),
        (post(b"1", "x-osdisco-attempt: two"), 400, "cannot be read"),
        (post(b"1", "x-osdisco-metadata: {"), 400, "cannot be read"),
        (post(b"1", 'x-osdisco-metadata: {"a":1}'), 400, "cannot be read"),
        (post(b"1", "x-osdisco-metadata: " + "[" * 4000), 400, "cannot be read"),
        (post(b"1", "x-osdisco-timeout-ms: 0"), 504, "was over when it came"),
        (post(b"1", "x-osdisco-timeout-ms: -5"), 200, "1"),
        (post(b"1", "x-osdisco-timeout-ms: " + "9" * 30), 200, "1"),
        (post(b"1" * 20_000), 413, "more than 10000 bytes"),
        (post(b"1").replace(b"geo", b"other"), 421, "serves 'geo' by now"),
        (post(b"1").replace(b"x-osdisco-service: geo\r\n", b""), 421, "serves 'geo' by now"),
    ],
)
async def test_a_request_that_cannot_be_is_refused_in_words(data: bytes, status: int, said: str) -> None:
    handlers = Handlers("geo", SERVED, SystemClock())
    async with listening(handlers, request_max=10_000) as (_, listener):
        got, body = await raw(listener, data)
        assert got == status
        assert said in body.decode()
        if status != 200:
            assert set(json.loads(body)) == {"type", "message"}
        assert (await raw(listener, post(b"[2]")))[0] == 200
    assert handlers.running == 0


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost:3000", ""])
async def test_a_web_page_calls_nothing_by_whatever_name_it_got_here(origin: str) -> None:
    """By a name that leads to this machine (DNS rebinding) it may set all headers, and leave out all but this."""
    ran = []
    async with listening(Handlers("geo", {"echo": ran.append}, SystemClock())) as (client, listener):
        port = listener.port
        page = post(b"[1]", f"Origin: {origin}").replace(b"Host: x", f"Host: evil.example:{port}".encode())
        status, body = await raw(listener, page)
        assert (status, json.loads(body)["type"]) == (400, "bad-request")
        assert "of web pages" in body.decode()
        asked = post(b"", "Origin: http://evil.example", "Access-Control-Request-Method: POST", method="OPTIONS")
        assert (await raw(listener, asked))[0] == 404
        assert ran == []
        assert (await client.send(at(listener), request(b"[1]"), 5)).status == 200
    assert ran == [[1]]


async def test_what_is_no_http_ends_its_connection_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(Handlers("geo", SERVED, SystemClock())) as (_, listener):
        for data in (b"\x16\x03\x01\x02\x00", b"garbage\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(10):
                said = await reader.read()
            assert said == b"" or said.split()[1] == b"400"
            writer.close()
            await writer.wait_closed()
        assert (await raw(listener, post(b"[2]")))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_who_sends_half_a_request_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osdisco.mesh.server.SLOW_MAX", 0.2)
    async with listening(Handlers("geo", SERVED, SystemClock())) as (_, listener):
        status, body = await raw(listener, post(b"[1]").replace(b"Content-Length: 3", b"Content-Length: 300"))
        assert status == 400
        assert b"cannot be read" in body


async def test_a_caller_that_is_gone_ends_the_handler() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def stall() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    handlers = Handlers("geo", {"stall": stall}, SystemClock())
    async with listening(handlers) as (client, listener):
        task = asyncio.get_running_loop().create_task(client.send(at(listener), request(method="stall"), 60))
        async with asyncio.timeout(5):
            await began.wait()
            task.cancel()
            await asyncio.wait([task])
            await ended.wait()
            while handlers.running:
                await asyncio.sleep(0.01)


async def test_closing_ends_all_connections() -> None:
    async with aiohttp.ClientSession() as session, transport() as client:
        listener = await client.listen(Handlers("geo", SERVED, SystemClock()), "127.0.0.1", 0)
        async with session.post(f"http://127.0.0.1:{listener.port}/osdisco/v1/echo", data=b"1") as response:
            assert response.status == 421
        await listener.aclose()
        await listener.aclose()
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"http://127.0.0.1:{listener.port}/osdisco/v1/echo", data=b"1")
