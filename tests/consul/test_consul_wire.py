"""The wire: each request is delivered once, to one endpoint, without a redirect, and ends in an answer or its error."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from consul_fakes import SILENCE, TXN, Fake, Open, Request, get, http, kv, put

from osdisco.backend import ABSENT, Delete, HeldBy, Lease, Put, Revision
from osdisco.errors import (
    ClosedError,
    IndeterminateError,
    LeaseExpiredError,
    UnavailableError,
)
from osdisco_consul import _wire

UUID = "adf4238a-882b-9ddc-4a9d-5b6758e4159e"
MISSING = http(404, X_Consul_Index=3)


def silent(_: Request) -> bytes:
    return SILENCE


# Case 9


async def test_a_write_is_not_sent_again_when_its_pooled_connection_is_cut(fake: Fake, open_backend: Open) -> None:
    answers: Iterator[bytes | None] = iter([http(200, TXN), None, http(200, TXN), http(200, TXN)])
    agent = await fake(lambda _: next(answers))
    backend = open_backend(agent.url)
    await put(backend)
    with pytest.raises(IndeterminateError):
        await put(backend)
    assert len(agent.requests) == 2, "aiohttp sent it again by itself"


async def test_without_the_middleware_it_would_be(
    fake: Fake, open_backend: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above proves something: this is what aiohttp does when nobody keeps it from it."""

    async def do_nothing(request: Any, send: Any) -> Any:
        return await send(request)

    monkeypatch.setattr(_wire, "_deliver_once", do_nothing)
    answers: Iterator[bytes | None] = iter([http(200, TXN), None, http(200, TXN)])
    agent = await fake(lambda _: next(answers))
    backend = open_backend(agent.url)
    await put(backend)
    await put(backend)
    assert len(agent.requests) == 3


# E1


@pytest.mark.parametrize(
    "answer",
    [
        http(200, "<html>Welcome to nginx</html>", Content_Type="text/html"),
        http(200, ""),
        http(200, "{}"),
        http(200, "[]"),
        http(200, "null"),
        http(200, "[null]"),
        http(200, '[{"Key": "ns/k"}]'),
        http(200, "[" * 200_000),
        http(200, b"\xff\xfe\x00"),
        http(200, '"leader"', X_Consul_Index="high"),
        http(404, "404 page not found"),
        http(301, "", Location="/v1/agent/leave"),
        http(302, "", Location="http://127.0.0.1:1/"),
        http(307, "", Location="/v1/agent/leave"),
        http(308, "", Location="/v1/agent/leave"),
        http(200, kv("ns/k"))[:-20],
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{",
        b"HTTP/1.1 200 OK\r\n\r\n[{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_answer_of_consul_is_never_taken_for_one(
    answer: bytes, fake: Fake, open_backend: Open
) -> None:
    def script(_: Request) -> bytes:
        asyncio.get_running_loop().call_later(0.05, agent.cut)
        return answer

    agent = await fake(script)
    backend = open_backend(agent.url)
    with pytest.raises(UnavailableError):
        await get(backend)
    with pytest.raises(UnavailableError):
        await backend.scan("ns/", timeout=2.0)
    with pytest.raises(IndeterminateError):
        await put(backend)
    for call in (backend.grant(15, timeout=2.0), backend.renew(Lease("abc", 15), timeout=2.0)):
        with pytest.raises(IndeterminateError):
            await call
    assert {request.path for request in agent.requests} <= {
        "/v1/kv/ns/k",
        "/v1/kv/ns/",
        "/v1/txn",
        "/v1/session/create",
        "/v1/session/renew/abc",
    }, "a redirect was followed"


async def test_only_consul_says_that_a_lease_is_gone(fake: Fake, open_backend: Open) -> None:
    answers = iter([http(404, "Session id 'abc' not found"), http(404, "404 page not found")])
    backend = open_backend((await fake(lambda _: next(answers))).url)
    with pytest.raises(LeaseExpiredError):
        await backend.renew(Lease("abc", 15), timeout=2)
    with pytest.raises(IndeterminateError):
        await backend.renew(Lease("abc", 15), timeout=2)


async def test_the_cause_is_kept(open_backend: Open) -> None:
    backend = open_backend("consul://127.0.0.1:1")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1: cannot connect") as caught:
        await get(backend)
    assert isinstance(caught.value.__cause__, aiohttp.ClientConnectorError)


# E2


async def test_a_silent_server_costs_the_timeout_and_no_more(fake: Fake, open_backend: Open) -> None:
    backend = open_backend((await fake(silent)).url)
    started = asyncio.get_running_loop().time()
    with pytest.raises(UnavailableError):
        await get(backend, timeout=0.3)
    with pytest.raises(IndeterminateError):
        await put(backend, timeout=0.3)
    assert 0.6 <= asyncio.get_running_loop().time() - started < 1.2


async def test_no_time_at_all_is_not_no_limit(fake: Fake, open_backend: Open) -> None:
    agent = await fake(silent)
    with pytest.raises(UnavailableError):
        await put(open_backend(agent.url), timeout=0.0)
    assert not agent.requests


async def test_a_write_that_never_got_a_connection_was_not_applied(open_backend: Open) -> None:
    with socket.socket() as full:  # a backlog that is full: the kernel answers no more handshakes
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        backend = open_backend(f"consul://127.0.0.1:{full.getsockname()[1]}?connect_timeout=60s")
        with pytest.raises(UnavailableError, match="no connection in time"):
            await put(backend, timeout=0.5)
        for filler in fillers:
            filler.close()


async def test_after_a_failure_the_next_endpoint_is_asked_and_stays(fake: Fake, open_backend: Open) -> None:
    first = await fake(lambda _: None)
    second = await fake(lambda _: kv("ns/k"))
    backend = open_backend(f"{first.url},127.0.0.1:{second.port}")
    with pytest.raises(UnavailableError):
        await get(backend)
    for _ in range(3):
        assert (await get(backend)).revision == 4
    assert (len(first.requests), len(second.requests)) == (1, 3)


@pytest.mark.parametrize("trouble", ["refused", "silent", "no leader"])
async def test_every_kind_of_trouble_moves_on(trouble: str, fake: Fake, open_backend: Open) -> None:
    bad = await fake(lambda _: SILENCE if trouble == "silent" else http(500, "No cluster leader"))
    if trouble == "refused":
        await bad.stop()
    good = await fake(lambda _: kv("ns/k"))
    backend = open_backend(f"{bad.url},127.0.0.1:{good.port}")
    with pytest.raises(UnavailableError):
        await get(backend, timeout=0.3)
    assert await get(backend) is not None
    if trouble == "refused":
        await bad.start()


async def test_calls_that_fail_together_move_on_by_one(fake: Fake, open_backend: Open) -> None:
    bad, good = await fake(lambda _: None), await fake(lambda _: kv("ns/k"))
    backend = open_backend(f"{bad.url},127.0.0.1:{good.port}")
    await asyncio.gather(*(get(backend) for _ in range(4)), return_exceptions=True)
    assert await get(backend) is not None


async def test_the_failure_of_another_endpoint_moves_nothing(fake: Fake, open_backend: Open) -> None:
    answers = {"kv": kv("ns/k"), "status": http(200, '"10.0.0.1:8300"'), "agent": http(403, "Permission denied")}
    first, third = [await fake(lambda r: answers[r.path.split("/")[2]]) for _ in range(2)]
    backend = open_backend(f"{first.url},127.0.0.1:1,127.0.0.1:{third.port}")
    assert [bool(status.error) for status in await backend.inspect(timeout=2)] == [False, True, False]
    assert await get(backend) is not None
    assert "/v1/kv/ns/k" not in [request.path for request in third.requests]


# What is sent


async def test_a_commit_is_one_transaction_of_the_right_verbs(fake: Fake, open_backend: Open) -> None:
    agent = await fake(lambda request: http(200, TXN) if request.path == "/v1/txn" else MISSING)
    backend = open_backend(f"{agent.url}?dc=east&ns=team&partition=part")
    guards = {"ns/k": ABSENT, "ns/b": Revision(9), "ns/c": HeldBy("s1")}
    assert await backend.commit([Put("ns/k", b"v", "s1"), Delete("ns/b")], guards, timeout=2) == {"ns/k": 7}
    request = agent.requests[-1]
    assert [other.path for other in agent.requests].count("/v1/txn") == 1
    assert all(other.query["ns"] == "team" for other in agent.requests)  # what proves that there are namespaces
    place = {"Namespace": "team", "Partition": "part"}
    assert (request.method, request.path) == ("PUT", "/v1/txn")
    assert request.query == {"dc": "east", "ns": "team", "partition": "part"}
    assert [operation["KV"] for operation in json.loads(request.body)] == [
        {"Verb": "check-not-exists", "Key": "ns/k"} | place,
        {"Verb": "check-index", "Key": "ns/b", "Index": 9} | place,
        {"Verb": "check-session", "Key": "ns/c", "Session": "s1"} | place,
        {"Verb": "lock", "Key": "ns/k", "Value": "dg==", "Session": "s1"} | place,
        {"Verb": "delete", "Key": "ns/b"} | place,
    ]


async def test_the_place_goes_with_every_call(fake: Fake, open_backend: Open) -> None:
    agent = await fake(lambda _: http(500, "No cluster leader"))
    backend = open_backend(f"{agent.url}?dc=east&ns=te%26am&partition=part&session_node=osd")
    lease = Lease("abc", 15)
    calls: list[Awaitable[object]] = [get(backend), put(backend), backend.scan("ns/", timeout=2)]
    calls += [backend.grant(15, timeout=2), backend.renew(lease, timeout=2), backend.revoke(lease, timeout=2)]
    calls += [anext(backend.watch("ns/")), backend.inspect(timeout=2), backend.lease_status(UUID, timeout=2)]
    await asyncio.gather(*calls, return_exceptions=True)
    assert len(agent.requests) == 9
    for request in agent.requests:
        assert request.query["dc"] == "east"
        assert request.query["ns"] == "te&am"
        assert request.query["partition"] == "part"
    registered = next(request for request in agent.requests if request.path == "/v1/catalog/register")
    assert json.loads(registered.body)["datacenter"] == "east"


async def test_a_session_hangs_on_no_check_and_frees_its_keys_at_once(fake: Fake, open_backend: Open) -> None:
    agent = await fake(lambda _: http(200, '{"ID": "abc"}'))
    assert await open_backend(agent.url, name="me:1").grant(14.2, timeout=2) == Lease("abc", 15.0)
    assert json.loads(agent.requests[0].body) == {
        "Name": "me:1",
        "TTL": "15s",
        "Behavior": "delete",
        "LockDelay": "0s",
        "NodeChecks": [],
    }


async def test_keys_reach_the_path_as_they_are(fake: Fake, open_backend: Open) -> None:
    lines: list[str] = []

    def script(request: Request) -> bytes:
        lines.append(request.path)
        return MISSING

    backend = open_backend((await fake(script)).url)
    for key in ("ns/job/=2E=2E/=2E=2E/agent/leave", "ns/a=20b", "ns/../x", "ns/a?dc=x#y", "ns/\udcff"):
        assert await backend.get(key, timeout=2) is None
    assert lines == [
        "/v1/kv/ns/job/=2E=2E/=2E=2E/agent/leave",
        "/v1/kv/ns/a=20b",
        "/v1/kv/ns/../x",
        "/v1/kv/ns/a%3Fdc%3Dx%23y".replace("%3D", "="),
        "/v1/kv/ns/%FF",
    ]


async def test_no_proxy_and_no_cookies(fake: Fake, open_backend: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    agent = await fake(lambda _: http(404, X_Consul_Index=3, Set_Cookie="a=b; Path=/"))
    backend = open_backend(agent.url)
    for _ in range(2):
        assert await get(backend) is None
    assert "cookie" not in agent.requests[1].headers


# E3


async def test_closing_ends_what_waits_and_leaves_no_socket(fake: Fake, open_backend: Open) -> None:
    agent = await fake(silent)
    backend = open_backend(agent.url)
    reads = [asyncio.ensure_future(get(backend, timeout=30)) for _ in range(70)]  # more than the pool has connections
    write = asyncio.ensure_future(put(backend, timeout=30))
    watch = asyncio.ensure_future(anext(backend.watch("ns/")))
    renewal = asyncio.ensure_future(backend.renew(Lease("abc", 15), timeout=30))
    while len(agent.requests) < 66:
        await asyncio.sleep(0.01)
    assert agent.connections == 66
    await backend.aclose()
    await backend.aclose()
    done = await asyncio.wait_for(asyncio.gather(*reads, write, watch, renewal, return_exceptions=True), 2)
    assert {type(result) for result in done[:70]} == {ClosedError}
    assert isinstance(done[71], ClosedError)
    assert isinstance(done[72], IndeterminateError)
    for call in (get(backend), put(backend), backend.scan("a/", timeout=1), anext(backend.watch("a"))):
        with pytest.raises(ClosedError):
            await call
    await asyncio.sleep(0.05)
    assert agent.connections == 0


async def test_a_cancelled_caller_stays_cancelled(fake: Fake, open_backend: Open) -> None:
    agent = await fake(silent)
    backend = open_backend(agent.url)
    task = asyncio.ensure_future(get(backend, timeout=30))
    while not agent.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    await backend.aclose()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_lanes_do_not_hold_each_other_up(fake: Fake, open_backend: Open) -> None:
    renewed = http(200, '[{"ID": "abc", "TTL": "15s"}]')
    agent = await fake(lambda r: renewed if "session" in r.path else SILENCE)
    backend = open_backend(agent.url)
    stuck = [asyncio.ensure_future(get(backend, timeout=30)) for _ in range(80)]
    stuck += [asyncio.ensure_future(anext(backend.watch("ns/"))) for _ in range(110)]
    async with asyncio.timeout(60):
        while len(agent.requests) < 164:
            await asyncio.sleep(0.01)
    assert await backend.renew(Lease("abc", 15), timeout=1) == 15.0
    assert agent.connections == 165, "an agent cuts off what is above 200"
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


def test_an_encrypted_key_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL would ask for the password on the terminal, and the process would hang there."""
    from cryptography.hazmat.primitives import serialization

    from osdisco.errors import ConfigError
    from osdisco.testing.certs import make_certificates
    from osdisco_consul._options import ConsulOptions

    certs = make_certificates(tmp_path)
    key = serialization.load_pem_private_key(certs.client_key.read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    certs.client_key.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"hunter2")))
    with pytest.raises(ConfigError, match="tls_key"):
        _wire.ssl_context(ConsulOptions(tls_ca=certs.ca, tls_cert=certs.client, tls_key=certs.client_key))


def test_tls_verifies_unless_told_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    from osdisco_consul._options import ConsulOptions

    context = _wire.ssl_context(ConsulOptions())
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert _wire.ssl_context(ConsulOptions(tls_verify=False)).verify_mode == ssl.CERT_NONE
    assert "tls_verify=false" in caplog.text
