"""What `serve` answers to Envoy, which polls for the endpoints of services."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from attrs import evolve, frozen

import osdisco
from osdisco.client import Client
from osdisco.discovery import ExtensionStatus
from osdisco.errors import ConfigError
from osdisco.registry import ServiceDefinition, ServiceEndpoint, ServiceRegistry
from osdisco.serve import Serving, _envoy, serve
from osdisco.serve._envoy import TYPE, Assignments, DiscoveryRequest, assignment

PATH = "/v3/discovery:endpoints"
GEO = ServiceEndpoint("geo-1", "10.0.0.7:9700", weight=50, zone="a", version="2.1.0", status=ExtensionStatus.HEALTHY)


@frozen
class Got:
    """An answer."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


async def poll(server: Serving, names: Any, version: str = "", **options: Any) -> Got:
    """Ask as Envoy does."""
    asked = {"version_info": version, "node": {"id": "e1"}, "resource_names": names, "type_url": TYPE}
    async with ClientSession() as session, session.post(server.url + PATH, **({"json": asked} | options)) as answer:
        return Got(answer.status, await answer.text())


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A store in real time: what asks the server does not keep to virtual time."""
    async with osdisco.connect(f"memory://envoy-{tmp_path.name}") as client:
        yield client


@pytest.fixture
async def server(client: Client) -> AsyncIterator[Serving]:
    async with serve(client, "127.0.0.1:0") as server:
        yield server


def hosts(got: Got) -> dict[str, str]:
    """Return address and health of all endpoints of an answer."""
    endpoints = [one for place in got.json["resources"][0]["endpoints"] for one in place["lb_endpoints"]]
    addresses = [one["endpoint"]["address"]["socket_address"]["address"] for one in endpoints]
    return dict(zip(addresses, [one["health_status"] for one in endpoints], strict=True))


@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_envoy_is_told_what_there_is_and_only_what_changed(osdisco_url: str) -> None:
    async with osdisco.connect(osdisco_url) as client, serve(client, "127.0.0.1:0") as server:
        await _told(client, server)


async def test_envoy_is_told_from_memory_too(client: Client, server: Serving) -> None:
    await _told(client, server)


async def _told(client: Client, server: Serving) -> None:
    registry = ServiceRegistry(client)
    definition = ServiceDefinition("geo", "2.1.0", "10.0.0.7:9700", weight=50, zone="a", extension_id="geo-1")
    async with registry.register(definition) as registration, registry.view("geo") as view:
        await view.until(lambda all_: "geo-1" in all_, 5)
        first = await poll(server, ["geo"])
        assert first.status == 200
        assert first.json["type_url"] == TYPE
        assert first.json["resources"] == [
            {
                "@type": TYPE,
                "cluster_name": "geo",
                "endpoints": [
                    {
                        "locality": {"zone": "a"},
                        "load_balancing_weight": 50,
                        "lb_endpoints": [
                            {
                                "endpoint": {
                                    "address": {"socket_address": {"address": "10.0.0.7", "port_value": 9700}}
                                },
                                "health_status": "HEALTHY",
                                "load_balancing_weight": 50,
                                "metadata": {"filter_metadata": {"envoy.lb": {"version": "2.1.0"}}},
                            }
                        ],
                    }
                ],
            }
        ]
        assert await poll(server, ["geo"], first.json["version_info"]) == Got(304, "")
        await registration.set_status(ExtensionStatus.DEGRADED)
        await view.until(lambda all_: all_["geo-1"].status is ExtensionStatus.DEGRADED, 5)
        second = await poll(server, ["geo"], first.json["version_info"])
        assert (second.status, hosts(second)) == (200, {"10.0.0.7": "DEGRADED"})


async def test_a_service_that_nobody_serves_has_no_endpoints(server: Serving) -> None:
    got = await poll(server, ["geo"])
    assert got.json["resources"] == [{"@type": TYPE, "cluster_name": "geo", "endpoints": []}]


async def test_envoy_keeps_what_it_has_until_the_store_was_seen(client: Client, server: Serving) -> None:
    """At an empty answer it would drop every endpoint; at an error it keeps them."""
    outage = client.backend.faults.outage()  # type: ignore[attr-defined]
    got = await poll(server, ["geo"])
    assert (got.status, "not seen yet" in got.json["error"]) == (503, True)
    outage.end()


async def test_losing_the_store_takes_no_endpoint_away(client: Client, server: Serving) -> None:
    async with ServiceRegistry(client).register(ServiceDefinition("geo", "2", "10.0.0.7:9700")):
        version = (await poll(server, ["geo"])).json["version_info"]
        outage = client.backend.faults.outage()  # type: ignore[attr-defined]
        assert (await poll(server, ["geo"], version)).status == 304
        assert hosts(await poll(server, ["geo"])) == {"10.0.0.7": "HEALTHY"}
        outage.end()


# what is written


async def written(*endpoints: ServiceEndpoint) -> list[Any]:
    places: list[Any] = json.loads(await assignment("geo", endpoints))["endpoints"]
    return places


@pytest.mark.parametrize(
    ("status", "health"),
    [
        (ExtensionStatus.HEALTHY, "HEALTHY"),
        (ExtensionStatus.DEGRADED, "DEGRADED"),
        (ExtensionStatus.STOPPING, "DRAINING"),
        (ExtensionStatus.UNHEALTHY, "UNHEALTHY"),
        (ExtensionStatus.STARTING, "UNHEALTHY"),
    ],
)
async def test_health_is_what_envoy_calls_it(status: ExtensionStatus, health: str) -> None:
    ((place,), known) = await written(evolve(GEO, status=status)), set(ExtensionStatus)
    assert place["lb_endpoints"][0]["health_status"] == health
    assert _envoy.HEALTH.keys() == known


async def test_weight_0_gets_nothing_new_and_envoy_allows_no_0() -> None:
    (place,) = await written(evolve(GEO, weight=0))
    (one,) = place["lb_endpoints"]
    assert (one["health_status"], one["load_balancing_weight"], place["load_balancing_weight"]) == ("DRAINING", 1, 1)


async def test_zones_are_localities_with_the_weight_of_their_endpoints() -> None:
    b = evolve(GEO, extension_id="geo-2", zone="b", weight=30)
    places = await written(b, GEO, evolve(b, extension_id="geo-3"), evolve(GEO, extension_id="geo-4", zone=None))
    assert [place.get("locality") for place in places] == [None, {"zone": "a"}, {"zone": "b"}]
    assert [place["load_balancing_weight"] for place in places] == [50, 50, 60]


async def test_the_same_endpoints_are_the_same_text_in_any_order() -> None:
    other = evolve(GEO, extension_id="geo-2", address="[fd00::7]:1")
    assert await assignment("geo", [GEO, other]) == await assignment("geo", [other, GEO])
    assert '"address":"fd00::7"' in await assignment("geo", [other])


async def test_an_address_that_is_a_name_is_left_out_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Envoy would refuse the whole answer for it."""
    with caplog.at_level(logging.WARNING):
        (place,) = await written(evolve(GEO, extension_id="named", address="geo.example:9700"), GEO)
    assert len(place["lb_endpoints"]) == 1
    assert "geo.example:9700" in caplog.text


async def test_metadata_is_there_to_choose_by_and_does_not_hide_the_version() -> None:
    (place,) = await written(evolve(GEO, metadata={"rack": "7", "version": "lie"}))
    chosen = place["lb_endpoints"][0]["metadata"]["filter_metadata"]["envoy.lb"]
    assert chosen == {"rack": "7", "version": "2.1.0"}


# who asks what


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\xff", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "object"),
        (b"{}", "1 to 64"),
        (b'{"resource_names":[]}', "1 to 64"),
        (b'{"resource_names":"geo"}', "texts"),
        (b'{"resource_names":[7]}', "texts"),
        (json.dumps({"resource_names": [str(number) for number in range(65)]}).encode(), "1 to 64"),
        (b'{"resource_names":["geo"],"type_url":"type.googleapis.com/envoy.config.cluster.v3.Cluster"}', "only"),
    ],
)
async def test_what_cannot_be_answered_is_said(server: Serving, body: bytes, said: str) -> None:
    got = await poll(server, [], json=None, data=body)
    assert (got.status, said in got.json["error"]) == (400, True)


async def test_a_name_that_no_service_has_is_refused(server: Serving) -> None:
    assert (await poll(server, [""])).status == 400


def test_names_of_fields_are_read_either_way() -> None:
    read = DiscoveryRequest.parse(b'{"resourceNames":["geo","geo"],"versionInfo":"7"}')
    assert read == DiscoveryRequest(("geo",), "7")
    with pytest.raises(ConfigError):
        DiscoveryRequest.parse(b'{"resourceNames":{}}x')


async def test_a_request_without_end_is_refused(server: Serving) -> None:
    got = await poll(server, [], json=None, data=BytesIO(b" " * (1024 * 1024 + 1)))
    assert got.status == 413


@pytest.mark.parametrize(("host", "status"), [("osdisco", 200), ("xds_cluster", 200), ("evil.example", 403)])
async def test_envoy_may_call_it_as_it_likes_in_one_word(server: Serving, host: str, status: int) -> None:
    """It sends the name of its cluster as the host, which a web page elsewhere cannot have."""
    assert (await poll(server, ["geo"], headers={"Host": host})).status == status


async def test_other_paths_have_no_other_name(server: Serving) -> None:
    async with ClientSession() as session:
        async with session.get(f"{server.url}/healthz", headers={"Host": "osdisco"}) as answer:
            assert answer.status == 403
        async with session.get(server.url + PATH) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_of_very_many_services_those_asked_for_last_are_followed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_envoy, "VIEWS_MAX", 2)
    async with AsyncExitStack() as stack:
        assignments = Assignments(client)
        stack.push_async_callback(assignments.aclose)
        for name in ("a", "b", "a", "c"):
            await assignments.answer(DiscoveryRequest((name,)))
        assert list(assignments._views) == ["a", "c"]
        assert set(assignments._written) == {"a", "c"}
    assert not assignments._views
