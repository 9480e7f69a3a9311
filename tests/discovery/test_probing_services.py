"""Probing of a service's endpoints: at the `health_check_url` of each, by the probers of discovery, and as safely."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from probers import FAILING, PASSING, REFUSED, Net, probing
from worlds import World, until

from osdisco.discovery import ExtensionStatus
from osdisco.errors import ClosedError, ConfigError
from osdisco.registry import Registration, ServiceDefinition, ServiceRegistry, ServiceView


async def prober(world: World, name: str = "", **options: Any) -> ServiceView:
    return await ServiceRegistry(world.process(name)).view("geo", probing=probing(**options))


async def endpoint(world: World, number: int, url: str | None = "", **changes: Any) -> Registration:
    address = f"10.0.0.{number}:9700"
    url = f"http://{address}/health" if url == "" else url
    definition = ServiceDefinition("geo", "1", address, health_check_url=url, extension_id=f"x{number}", **changes)
    return await ServiceRegistry(world.process()).register(definition)


async def states(view: ServiceView, id_: str) -> list[object]:
    return [finding.state for finding in (await view.findings()).get(id_, ())]


def shares(*views: ServiceView) -> dict[str, int]:
    return dict(Counter(id_ for view in views for id_ in view._prober.endpoints))  # type: ignore[union-attr]


async def test_what_is_found_is_seen_by_who_asks_and_changes_no_record(world: World, net: Net) -> None:
    await endpoint(world, 1)
    await endpoint(world, 2)
    await endpoint(world, 3, url=None)
    net.ill.add("10.0.0.2")
    seer = await ServiceRegistry(world.process()).view("geo")
    view = await prober(world, "asks", interval=1)
    findings = await seer.findings()
    await findings.until(lambda found: len(found) == 2, 30)
    assert (await states(seer, "x1"), await states(seer, "x2")) == ([PASSING], [FAILING])
    assert set(net.count()) == {"10.0.0.1", "10.0.0.2"}
    (found,) = findings["x1"]
    assert (found.url, found.prober, findings.probers) == ("http://10.0.0.1:9700/health", "asks", ("asks",))
    assert findings.failing("x2")
    assert repr(findings) == "<Findings of 1 probers on 2 endpoints>"
    assert {one.status for one in seer.endpoints} == {ExtensionStatus.HEALTHY}
    net.ill.clear()
    await findings.until(lambda found: not found.failing("x2"), 30)
    await view.aclose()
    await until(lambda: not findings and not findings.probers)
    await seer.aclose()
    assert world.keys("svcprobe/") == []


async def test_two_probe_each_endpoint_however_many_there_are(world: World, net: Net) -> None:
    for number in range(1, 7):
        await endpoint(world, number)
    views = [await prober(world) for _ in range(4)]
    await asyncio.sleep(15)
    assert shares(*views) == {f"x{n}": 2 for n in range(1, 7)}
    await views[0].aclose()
    await asyncio.sleep(15)
    assert shares(*views[1:]) == {f"x{n}": 2 for n in range(1, 7)}


async def test_who_is_stopping_or_gone_is_not_asked(world: World, net: Net) -> None:
    registration = await endpoint(world, 1)
    view = await prober(world, interval=1)
    await until(lambda: net.count()["10.0.0.1"] >= 2, 10)
    await registration.set_status(ExtensionStatus.STOPPING)
    await until(lambda: not shares(view))
    net.asked.clear()
    await asyncio.sleep(10)
    assert not net.count()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://169.254.169.254/health", "169.254.169.254 is link-local"),
        ("http://[::ffff:10.0.0.1]:9700/health", "is a form of an IPv4 address"),
        ("http://192.168.0.1/health", "192.168.0.1 is in none of the networks"),
        ("http://10.0.0.1:22/health", "port 22 is none of those"),
        ("https://10.0.0.1:9700/health", "only http and /health are asked here"),
        ("http://10.0.0.1:9700/admin?drop=1", "only http and /health are asked here"),
    ],
)
async def test_a_record_has_no_say_in_what_is_asked_where(world: World, net: Net, url: str, reason: str) -> None:
    await endpoint(world, 1, url=url)
    view = await prober(world, interval=1)
    findings = await view.findings()
    await findings.until(lambda found: "x1" in found, 20)
    await asyncio.sleep(5)
    (found,) = findings["x1"]
    assert (found.state, found.url) == (REFUSED, url)
    assert reason in found.reason
    assert not net.count()


async def test_what_is_no_probing_and_what_is_closed(world: World) -> None:
    registry = ServiceRegistry(world.process())
    with pytest.raises(ConfigError, match="must be a Probing"):
        registry.view("geo", probing={"allow": ["10.0.0.0/8"]})  # type: ignore[arg-type]
    view = registry.view("geo", probing=probing())
    with pytest.raises(ClosedError):
        await view.findings()
    async with view:
        assert await view.findings() == {}
    with pytest.raises(ClosedError):
        await view.findings()
