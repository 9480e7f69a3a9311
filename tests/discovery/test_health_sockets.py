"""Checks over real sockets: what they ask, what they make of the answers, and that they let nobody hold them up."""

from __future__ import annotations

import asyncio

import pytest
from sockets import OK, nothing_listens, serving

from osdisco._tasks import Supervisor
from osdisco.discovery import CheckFailedError, CheckState, HttpCheck, PolledCheck, TcpCheck
from osdisco.discovery._watching import Watching
from osdisco.runtime import Runtime


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return f"{head}\r\n\r\n".encode() + body


async def failure(check: PolledCheck) -> str:
    with pytest.raises(CheckFailedError) as caught:
        await check.run()
    return str(caught.value)


async def watched(check: PolledCheck) -> tuple[CheckState, str]:
    """Run it once as a monitor does, within its timeout; returns its state and reason."""
    known, supervisor = asyncio.Event(), Supervisor()
    watching = Watching(check, Runtime(), supervisor, known.set)
    watching.start()
    async with asyncio.timeout(60):
        await known.wait()
    await watching.aclose()
    return watching.status.state, watching.status.reason


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "299 Odd"])
async def test_any_2xx_passes(status: str) -> None:
    async with serving(answer(status)) as server:
        await HttpCheck(server.url).run()
        assert len(server.requests) == 1


async def test_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with serving(answer("200 OK")) as server:
        url = f"http://localhost:{server.port}/a%20b/../c?x=%2F"
        await HttpCheck(url, method="HEAD", headers={"Host": "geo.internal", "X-Key": "1"}).run()
        lines = server.requests[0].split("\r\n")
        assert lines[0] == "HEAD /a%20b/../c?x=%2F HTTP/1.1"
        assert {"Host: geo.internal", "X-Key: 1", "Accept-Encoding: identity", "Connection: close"} <= set(lines)
        assert any(line.startswith("User-Agent: osdisco/") for line in lines)


@pytest.mark.parametrize("status", ["199 Odd", "301 Moved", "404 Not Found", "503 Busy"])
async def test_other_statuses_fail_unless_expected(status: str) -> None:
    code = int(status[:3])
    async with serving(answer(status)) as server:
        if code >= 200:  # 1xx are interim answers, which aiohttp waits on
            assert f"HTTP {code}" in await failure(HttpCheck(server.url))
            await HttpCheck(server.url, expected=(code, 200)).run()
    async with serving() as server:
        assert await failure(HttpCheck(server.url, expected=code)) == "HTTP 200"


async def test_a_redirect_is_not_followed() -> None:
    async with serving() as internal, serving(answer("302 Found", f"Location: {internal.url}")) as server:
        assert await failure(HttpCheck(server.url)) == "HTTP 302 (redirects are not followed)"
        assert (len(server.requests), internal.requests) == (1, [])


async def test_of_a_long_answer_a_little_is_read_and_the_connection_is_cut() -> None:
    sent = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while sent < 1_000_000_000:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with serving(pour) as server:
        await HttpCheck(server.url).run()
    assert sent < 20_000_000  # what buffers of the system hold


async def test_a_packed_answer_is_not_unpacked() -> None:
    async with serving(answer("200 OK", "Content-Encoding: gzip", body=b"not gzip at all")) as server:
        await HttpCheck(server.url).run()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
async def test_a_server_that_drips_is_given_up_at_the_timeout(head: bytes) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while head:
            writer.write(b"x" if head.endswith(b"\r\n\r\n") else b"x: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(drip) as server:
        state = await watched(HttpCheck(server.url, timeout=0.2, startup_grace=0))
        assert state == (CheckState.FAILING, "no answer within 0.2 s")


NO_ANSWERS = [
    (b"", "the connection ended before the answer did"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "the connection ended before the answer did"),
    (b"HTTP/1.1 two OK\r\n\r\n", "the answer is not HTTP"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "the answer is not HTTP"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "the answer is not HTTP"),
]


@pytest.mark.parametrize(("said", "reason"), NO_ANSWERS, ids=lambda value: str(value)[:30])
async def test_what_is_no_answer_fails_and_is_told_apart(said: bytes, reason: str) -> None:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.write_eof()

    async with serving(say) as server:
        assert await failure(HttpCheck(server.url)) == reason
        assert len(server.requests) == 1, "it is asked once"


async def test_nothing_listens() -> None:
    port = await nothing_listens()
    assert await failure(HttpCheck(f"http://127.0.0.1:{port}/")) == "cannot connect: Connection refused"
    assert await failure(TcpCheck(f"127.0.0.1:{port}")) == "cannot connect: Connection refused"


async def test_a_name_without_an_address() -> None:
    assert await failure(HttpCheck("http://nowhere.invalid/")) == "the host's name has no address"
    assert await failure(TcpCheck("nowhere.invalid:80")) == "the host's name has no address"


async def test_no_tls_with_a_plain_port_and_no_secret_in_the_reason() -> None:
    async with serving(OK) as server:
        url = server.url.replace("http:", "https:")
        reason = await failure(HttpCheck(url, headers={"Authorization": "geheim"}))
        assert reason == "no TLS with it"


async def test_a_tcp_check_passes_where_somebody_listens_and_sends_nothing() -> None:
    async with serving() as server:
        await TcpCheck(f"localhost:{server.port}").run()
    assert server.requests == []


async def test_ipv6() -> None:
    async with serving(host="::1") as server:
        await HttpCheck(f"http://[::1]:{server.port}/").run()
        await TcpCheck(f"[::1]:{server.port}").run()
        assert f"Host: [::1]:{server.port}" in server.requests[0]
