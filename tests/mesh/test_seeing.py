"""Why nobody was picked, and what failed: in errors, events and the debug log. Unless somebody looks on it is free."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from mesh_town import INTERRUPTED, NOT_JUDGED, Town, town
from worlds import World

from osdisco.discovery import ExtensionStatus
from osdisco.errors import (
    CircuitOpenError,
    ConfigError,
    NoHealthyEndpointsError,
    OverloadedError,
    RemoteError,
    ServiceMeshError,
    ServiceNotFoundError,
)
from osdisco.mesh import (
    AttemptFailed,
    BreakerEvent,
    BreakerSettings,
    BreakerState,
    CircuitBreakerRegistry,
    EndpointEjected,
    Outcome,
    PickRefused,
    PoolSettings,
    Refused,
    RefusedReason,
    RetryPolicy,
    TrafficRules,
)


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


def who() -> str:
    return "me"


# reasons


async def test_an_error_has_the_reason_why_nobody_was_picked(geo: Town) -> None:
    mesh = geo.mesh(pool=PoolSettings(concurrency=1))
    with pytest.raises(ServiceNotFoundError) as caught:
        await mesh.call("geo", "who")
    assert caught.value.reason == Refused(RefusedReason.NO_ENDPOINTS)
    server = await geo.serve({"who": who, "hang": asyncio.Event().wait})
    hanging = asyncio.create_task(mesh.call("geo", "hang", timeout=5))
    await asyncio.sleep(1)
    with pytest.raises(OverloadedError) as busy:
        await mesh.call("geo", "who", timeout=0.1)
    assert isinstance(busy.value.reason, Refused)
    assert busy.value.reason.reason is RefusedReason.OVERLOADED
    hanging.cancel()
    await asyncio.wait([hanging])
    await server.registration.set_status(ExtensionStatus.STARTING)
    await asyncio.sleep(1)
    with pytest.raises(NoHealthyEndpointsError) as starting:
        await mesh.call("geo", "who")
    assert starting.value.reason == Refused(RefusedReason.NOT_SERVING, known=1, matching=1)


async def test_an_open_circuit_is_a_reason_with_its_time(geo: Town) -> None:
    server = await geo.serve({"who": who})
    geo.network.fail(server.address, INTERRUPTED)
    breakers = CircuitBreakerRegistry(BreakerSettings(minimum=2, window=2, open_for=7), clock=geo.world.clock)
    mesh = geo.mesh(circuit_breakers=breakers, pool=PoolSettings(panic=0, outliers=None))
    events: list[Any] = []
    mesh.add_listener(events.append)
    for _ in range(2):
        with pytest.raises(ServiceMeshError):
            await mesh.call("geo", "who")
    with pytest.raises(CircuitOpenError) as caught:
        await mesh.call("geo", "who")
    assert isinstance(caught.value.reason, Refused)
    assert caught.value.reason.retry_after == pytest.approx(7, abs=1)
    assert [type(event) for event in events] == [AttemptFailed, BreakerEvent, AttemptFailed, PickRefused] or [
        type(event) for event in events
    ] == [AttemptFailed, AttemptFailed, BreakerEvent, PickRefused]
    assert [event.new for event in events if isinstance(event, BreakerEvent)] == [BreakerState.OPEN]


async def test_of_a_failure_there_is_no_such_reason(geo: Town) -> None:
    async def fail() -> None:
        raise RemoteError("Gone", "it is gone", status=410)

    await geo.serve({"fail": fail})
    with pytest.raises(RemoteError) as caught:
        await geo.mesh().call("geo", "fail")
    assert caught.value.reason is None


# events


async def test_each_attempt_that_fails_is_told_with_what_and_where(geo: Town) -> None:
    servers = [await geo.serve({"who": who}) for _ in range(2)]
    for server in servers:
        geo.network.fail(server.address, INTERRUPTED)
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=RetryPolicy(attempts=2))
    events: list[Any] = []
    ended = mesh.add_listener(events.append)
    with pytest.raises(ServiceMeshError):
        await mesh.call("geo", "who", idempotent=True)
    assert {event.endpoint for event in events} == {server.address for server in servers}
    assert [(e.attempt, e.outcome, e.what) for e in events] == [
        (1, Outcome.FAILED, "interrupted"),
        (2, Outcome.FAILED, "interrupted"),
    ]
    assert "the connection ended" in events[0].message
    ended()
    with pytest.raises(ServiceMeshError):
        await mesh.call("geo", "who")
    assert len(events) == 2


async def test_failing_over_is_told_also_though_the_call_succeeds(geo: Town) -> None:
    await geo.serve({"who": who})
    client = geo.world.process()
    subsets = {"v1": {"version": "<2"}, "v2": {"version": ">=2"}}
    rules = {"subsets": subsets, "default_subset": "v1", "failover": {"*": [{"subset": "v2"}]}}
    await TrafficRules(client).set("geo", rules)
    mesh = geo.mesh(client)
    events: list[Any] = []
    mesh.add_listener(events.append)
    assert await mesh.call("geo", "who") == "me"
    (refused,) = events
    assert isinstance(refused, PickRefused)
    assert (refused.refused.reason, refused.refused.subset) == (RefusedReason.NO_MATCH, "v1")


async def test_ejections_are_told_and_a_listener_that_fails_harms_nobody(
    geo: Town, caplog: pytest.LogCaptureFixture
) -> None:
    servers = [await geo.serve({"who": who}) for _ in range(4)]
    geo.network.fail(servers[0].address, INTERRUPTED)
    mesh = geo.mesh()
    events: list[Any] = []
    mesh.add_listener(lambda _: 1 / 0)
    mesh.add_listener(events.append)
    for _ in range(60):
        await mesh.call("geo", "who", idempotent=True)
    (ejected,) = [event for event in events if isinstance(event, EndpointEjected)]
    assert ejected.endpoint == servers[0].registration.endpoint.extension_id
    assert "the listener" in caplog.text
    with pytest.raises(ConfigError):
        mesh.add_listener("me")  # type: ignore[arg-type]


async def test_a_closed_mesh_no_longer_hears_of_breakers_that_others_share(geo: Town) -> None:
    breakers = CircuitBreakerRegistry(BreakerSettings(minimum=1, window=1), clock=geo.world.clock)
    mesh = geo.mesh(circuit_breakers=breakers)
    events: list[Any] = []
    mesh.add_listener(events.append)
    await mesh.aclose()
    breakers.breaker("geo", "a").record(True, 0.0)
    assert events == []


# the log


async def test_the_debug_log_has_refusals_and_failures(geo: Town, caplog: pytest.LogCaptureFixture) -> None:
    mesh = geo.mesh(retry_policies=RetryPolicy(attempts=1))
    with caplog.at_level(logging.DEBUG, "osdisco"):
        with pytest.raises(ServiceNotFoundError):
            await mesh.call("geo", "who")
        server = await geo.serve({"who": who})
        geo.network.fail(server.address, INTERRUPTED)
        await asyncio.sleep(1)
        with pytest.raises(ServiceMeshError):
            await mesh.call("geo", "who")
    assert "nobody of geo for attempt 1 of geo.who: none is registered" in caplog.text
    assert f"attempt 1 of geo.who: geo.who at {server.address}: the connection ended" in caplog.text


# no cost


async def test_while_nobody_looks_on_nothing_is_asked_but_whether(geo: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh, server = geo.mesh(), await geo.serve({"who": who})
    for seeing in (mesh._seeing, server._handlers._seeing):
        assert seeing is not None
        assert not seeing.active
        for name in ("calling", "attempting", "attempted", "serving"):
            monkeypatch.setattr(seeing, name, None)
    assert await mesh.call("geo", "who") == "me"
