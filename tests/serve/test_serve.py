"""What `serve` answers: to Prometheus, to who asks whether it lives, and to those who should get nothing."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ServerDisconnectedError
from attrs import evolve, frozen
from prometheus_client import CollectorRegistry, Gauge

import osdisco
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, EndpointInfo, ExtensionInfo, ExtensionStatus
from osdisco.errors import ClosedError, ConfigError
from osdisco.metrics import PrometheusMetrics
from osdisco.serve import Serving, _connections, serve
from osdisco.serve._listen import names_loopback
from osdisco.serve._site import listed
from osdisco.serve._targets import Query, target_groups
from osdisco.testing import ChaosProxy

ANY_PORT = "127.0.0.1:0"
GEO = ExtensionInfo(
    id="geo-1",
    name="geo",
    version="1.4.0",
    host="10.0.0.7",
    port=9700,
    capabilities=["geo.search", "geo.index"],  # type: ignore[arg-type]
    endpoints={"metrics": EndpointInfo("https", 9701, "/m")},
    metadata={"zone": "a", "rack.row": "7"},
    status=ExtensionStatus.HEALTHY,
)
LOG = ExtensionInfo(id="log-1", name="log", version="2", host="fd00::7", port=80)


@frozen
class Got:
    """An answer."""

    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


async def get(server: Serving, path: str, method: str = "GET", **options: Any) -> Got:
    async with ClientSession() as session, session.request(method, server.url + path, **options) as answer:
        return Got(answer.status, answer.headers, await answer.text())


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def ids(server: Serving, query: str = "") -> list[str]:
    """Return which extensions `/sd` shows."""
    got = await get(server, f"/sd{query}")
    assert got.status == 200, got.text
    return [group["labels"]["__meta_osdisco_id"] for group in got.json]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A memory store of its own, in real time: the server's clients do not keep to virtual time."""
    return f"memory://serve-{tmp_path.name}"


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    async with osdisco.connect(url) as client:
        yield client


@pytest.fixture
async def server(client: Client) -> AsyncIterator[Serving]:
    async with serve(client, ANY_PORT) as server:
        yield server


# /sd


@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_prometheus_is_told_every_extension_as_it_comes_and_goes(osdisco_url: str) -> None:
    await _told_as_it_comes_and_goes(osdisco_url)


async def test_prometheus_is_told_also_from_memory(url: str) -> None:
    await _told_as_it_comes_and_goes(url)


async def _told_as_it_comes_and_goes(url: str) -> None:
    async with osdisco.connect(url) as client, serve(client, ANY_PORT) as server:
        await until(lambda: seen(server))
        empty = await get(server, "/sd")
        assert (empty.status, empty.json) == (200, [])
        assert empty.headers["Content-Type"].startswith("application/json")
        async with DiscoveryService(client, GEO) as geo, DiscoveryService(client, LOG) as log:
            await geo.wait_registered(5)
            await log.wait_registered(5)
            await until(lambda: shows(server, ["geo-1", "log-1"]))
            got = await get(server, "/sd?name=geo")
            assert got.json == [
                {
                    "targets": ["10.0.0.7:9700"],
                    "labels": {
                        "__meta_osdisco_id": "geo-1",
                        "__meta_osdisco_name": "geo",
                        "__meta_osdisco_version": "1.4.0",
                        "__meta_osdisco_status": "healthy",
                        "__meta_osdisco_capabilities": ",geo.search,geo.index,",
                        "__meta_osdisco_metadata_zone": "a",
                        "__meta_osdisco_metadata_rack_row": "7",
                    },
                }
            ]
            assert got.headers["Osdisco-Stale"] == "false"
        await until(lambda: shows(server, []))


async def seen(server: Serving) -> bool:
    return (await get(server, "/readyz")).status == 200


async def shows(server: Serving, wanted: list[str]) -> bool:
    return sorted(await ids(server)) == wanted


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ([], ["geo-1", "log-1"]),
        ([("capability", "geo.search")], ["geo-1"]),
        ([("capability", "geo.search"), ("capability", "geo.index")], ["geo-1"]),
        ([("capability", "geo.search"), ("capability", "other")], []),
        ([("name", "geo"), ("name", "log")], ["geo-1", "log-1"]),
        ([("status", "starting")], ["log-1"]),
        ([("status", "starting"), ("name", "geo")], []),
        ([("endpoint", "metrics")], ["geo-1"]),
    ],
)
def test_a_query_narrows_down(query: list[tuple[str, str]], wanted: list[str]) -> None:
    groups = target_groups([GEO, LOG], Query.parse(query))
    assert [group["labels"]["__meta_osdisco_id"] for group in groups] == wanted


def test_an_endpoint_that_is_asked_for_is_the_target() -> None:
    (group,) = target_groups([GEO], Query.parse([("endpoint", "metrics")]))
    assert group["targets"] == ["10.0.0.7:9701"]
    assert group["labels"]["__meta_osdisco_endpoint_protocol"] == "https"
    assert group["labels"]["__meta_osdisco_endpoint_path"] == "/m"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?capabilty=x", "did you mean 'capability'"),
        ("?status=helthy", "did you mean 'healthy'"),
        ("?endpoint=a&endpoint=b", "one endpoint at most"),
    ],
)
async def test_a_query_that_is_wrong_does_not_answer_with_everything(server: Serving, query: str, said: str) -> None:
    got = await get(server, f"/sd{query}")
    assert (got.status, said in got.json["error"]) == (400, True)


BAD_HOSTS = ["10.0.0.7:80", "fe80::1%eth0", "é", "-", "h,evil", 'h"', "h{{", "$(h)", "1::2::3"]


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_host_that_is_none_is_no_target(host: str) -> None:
    assert list(target_groups([evolve(GEO, host=host)], Query())) == []


@pytest.mark.parametrize(
    ("host", "target"), [("geo.example", "geo.example:9700"), ("fd00::7", "[fd00::7]:9700"), ("a_b", "a_b:9700")]
)
def test_a_host_is_a_name_or_an_address(host: str, target: str) -> None:
    (group,) = target_groups([evolve(GEO, host=host)], Query())
    assert group["targets"] == [target]


def test_hostile_metadata_is_only_text_in_labels_of_ours() -> None:
    metadata = {"__address__": "evil:80", 'a"}': "\n", "é": "\u2028", "a.b": "first", "a/b": "second"}
    (group,) = target_groups([evolve(GEO, metadata=metadata)], Query())
    assert all(re.fullmatch(r"__meta_osdisco_[A-Za-z0-9_]+", name) for name in group["labels"])
    assert group["labels"]["__meta_osdisco_metadata_a_b"] == "first", "of two that become one the same each time"
    assert group["targets"] == ["10.0.0.7:9700"]
    assert json.dumps(group).isascii()


async def test_thousands_are_written_without_holding_up_the_loop() -> None:
    many = {f"geo-{number}": evolve(GEO, id=f"geo-{number}") for number in range(1000)}
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    groups = json.loads(await listed(many, Query()))
    counting.cancel()
    assert [group["labels"]["__meta_osdisco_id"] for group in groups] == list(many)
    assert steps >= 3


# the store comes and goes


async def test_losing_the_store_takes_no_target_away(client: Client, server: Serving) -> None:
    async with DiscoveryService(client, GEO) as discovery:
        await discovery.wait_registered(5)
        await until(lambda: shows(server, ["geo-1"]))
        outage = client.backend.faults.outage()  # type: ignore[attr-defined]
        await until(lambda: stale(server))
        assert await ids(server) == ["geo-1"]
        ready = await get(server, "/readyz")
        assert ready.status == 503
        assert ready.json["ready"] is False
        assert "last known" in ready.json["why"]
        assert ready.json["extensions"] == 1
        assert ready.json["error"]
        assert (await get(server, "/healthz")).status == 200
        outage.end()
        await until(lambda: seen(server))


@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_losing_a_real_store_takes_no_target_away_either(osdisco_url: str) -> None:
    store = osdisco.StoreURL.parse(osdisco_url).hosts[0].address(0)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(ChaosProxy(store))
        client = await stack.enter_async_context(osdisco.connect(osdisco_url.replace(store, proxy.address)))
        server = await stack.enter_async_context(serve(client, ANY_PORT))
        other = await stack.enter_async_context(osdisco.connect(osdisco_url))
        async with DiscoveryService(other, GEO) as discovery:
            await discovery.wait_registered(10)
            await until(lambda: shows(server, ["geo-1"]))
            proxy.refuse()
            proxy.cut()
            await until(lambda: stale(server), 20)
            assert await ids(server) == ["geo-1"]
            assert (await get(server, "/readyz")).json["ready"] is False
        assert await ids(server) == ["geo-1"], "it left, and nobody can know"
        proxy.heal()
        await until(lambda: shows(server, []), 20)
        assert (await get(server, "/readyz")).status == 200


async def stale(server: Serving) -> bool:
    return (await get(server, "/sd")).headers["Osdisco-Stale"] == "true"


async def test_before_the_store_was_seen_there_is_no_list_at_all(client: Client) -> None:
    """At an empty one Prometheus would drop every target; at an error it keeps them."""
    outage = client.backend.faults.outage()  # type: ignore[attr-defined]
    async with serve(client, ANY_PORT) as server:
        for path in ("/sd", "/readyz"):
            got = await get(server, path)
            assert (got.status, "not seen yet" in got.text) == (503, True)
        assert (await get(server, "/healthz")).status == 200
        outage.end()
        await until(lambda: seen(server))
        assert await ids(server) == []


# /metrics


async def test_metrics_are_those_of_the_client(url: str) -> None:
    async with (
        osdisco.connect(url, metrics=PrometheusMetrics(CollectorRegistry())) as client,
        serve(client, ANY_PORT) as server,
    ):
        await until(lambda: seen(server))
        plain = await get(server, "/metrics")
        assert plain.headers["Content-Type"].startswith("text/plain")
        assert 'osdisco_view_stale{namespace="' in plain.text
        modern = await get(server, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
        assert modern.text.endswith("# EOF\n")


async def test_metrics_of_a_registry_of_ones_own(client: Client) -> None:
    registry = CollectorRegistry()
    Gauge("mine", "Mine.", registry=registry).set(7)
    async with serve(client, ANY_PORT, registry=registry) as server:
        assert "mine 7.0" in (await get(server, "/metrics")).text


async def test_without_a_collector_it_says_what_to_do(server: Serving) -> None:
    got = await get(server, "/metrics")
    assert (got.status, "PrometheusMetrics()" in got.text) == (501, True)


# who gets nothing


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/sd", "/nowhere"])
async def test_it_only_reads(server: Serving, method: str, path: str) -> None:
    got = await get(server, path, method)
    assert (got.status, got.headers["Allow"]) == (405, "GET,HEAD")


async def test_head_is_get_without_a_body(server: Serving) -> None:
    got = await get(server, "/healthz", "HEAD")
    assert (got.status, got.text, got.headers["Content-Length"]) == (200, "", "16")


async def test_every_answer_says_what_it_is_and_not_who_made_it(server: Serving) -> None:
    for path in ("/healthz", "/nowhere"):
        got = await get(server, path)
        assert got.headers["Content-Type"].startswith("application/json")
        assert (got.headers["X-Content-Type-Options"], got.headers["Server"]) == ("nosniff", "osdisco")


@pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("localhost:1", 200), ("[::1]:9", 200)])
async def test_a_page_that_has_its_name_lead_here_reads_nothing(server: Serving, host: str, status: int) -> None:
    assert (await get(server, "/healthz", headers={"Host": host})).status == status


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9:80", True),
        ("LOCALHOST", True),
        ("[::1]", True),
        ("127.0.0.1.evil", False),
        ("localhost.evil:80", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_which_names_are_loopback(header: str, good: bool) -> None:
    assert names_loopback(header) is good


async def test_headers_without_end_are_refused(server: Serving) -> None:
    got = await get(server, "/healthz", headers={"X": "a" * 20_000})
    assert got.status == 400


async def test_so_many_connections_and_no_more(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connections, "CONNECTIONS_MAX", 4)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await connection(server, stack)
        await until(lambda: refused(server))
    await until(lambda: answers(server))


async def answers(server: Serving) -> bool:
    return not await refused(server)


async def refused(server: Serving) -> bool:
    try:
        return (await get(server, "/healthz")).status != 200
    except (ServerDisconnectedError, ConnectionResetError):
        return True


async def test_a_connection_that_says_nothing_is_ended_and_one_that_talks_is_not(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_connections, "SILENCE_MAX", 0.2)
    async with serve(client, ANY_PORT) as server, asyncio.timeout(5), AsyncExitStack() as stack:
        talking, silent = [await connection(server, stack) for _ in range(2)]
        silent[1].write(REQUEST[:-4])
        talking[1].write(REQUEST)
        assert (await talking[0].readuntil(b'"ok"}')).startswith(b"HTTP/1.1 200 OK")
        assert await silent[0].read() == b"", "ended, without an answer"
        talking[1].write(REQUEST)
        assert (await talking[0].readuntil(b'"ok"}')).startswith(b"HTTP/1.1 200 OK")


REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def connection(server: Serving, stack: AsyncExitStack) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    stack.callback(writer.close)
    return reader, writer


# where it listens


BAD = [
    "",
    "9717",
    ":9717",
    "0.0.0.0",
    "h:",
    "h:x",
    "h:65536",
    "h:-1",
    "[::1]",
    "[1::2::3]:1",
    "::1:80",
    "a b:1",
    "h:1/x",
]


@pytest.mark.parametrize("listen", BAD)
async def test_a_place_that_is_none_is_refused(client: Client, listen: str) -> None:
    with pytest.raises(ConfigError, match=r"HOST:PORT|IPv6"):
        serve(client, listen)


async def test_a_port_that_is_taken_is_told(client: Client, server: Serving) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1"):
        await serve(client, server.address)


async def test_it_listens_on_six_too(client: Client) -> None:
    async with serve(client, "[::1]:0") as server:
        assert server.url.startswith("http://[::1]:")
        assert (await get(server, "/healthz")).status == 200


async def test_beyond_loopback_it_warns_and_takes_every_name(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(client, "0.0.0.0:0") as server:
        assert "there is no password" in caplog.text
        port = server.address.rpartition(":")[2]
        async with (
            ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/healthz", headers={"Host": "geo.example"}) as answer,
        ):
            assert answer.status == 200


# as an object


async def test_it_is_awaited_or_entered_once(client: Client) -> None:
    made = serve(client, ANY_PORT)
    with pytest.raises(ClosedError, match="not started"):
        _ = made.url
    server = await made
    assert (await get(server, "/healthz")).status == 200
    await server.aclose()
    with pytest.raises(ClosedError, match="once"):
        await made
    with pytest.raises(OSError, match="Cannot connect"):
        await get(server, "/healthz")


async def test_a_service_that_is_given_is_used_and_left_alone(client: Client) -> None:
    async with DiscoveryService(client, GEO) as discovery:
        await discovery.wait_registered(5)
        async with serve(client, ANY_PORT, discovery=discovery) as server:
            await until(lambda: shows(server, ["geo-1"]))
        assert discovery.registered
        assert not discovery.extensions.stale


def test_without_aiohttp_it_says_what_to_install() -> None:
    code = """
import sys; sys.modules["aiohttp"] = None
import osdisco
from osdisco.serve import serve
try:
    serve(osdisco.connect("memory://"))
except osdisco.ConfigError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'osdisco[serve]'" in done.stdout
