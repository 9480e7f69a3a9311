"""What is counted of calls, and how services stand, as Prometheus shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from counted import counted
from mesh_town import INTERRUPTED, NOT_JUDGED, Town, town
from worlds import World

from osdisco.errors import OverloadedError, RemoteError, ServiceMeshError, ServiceNotFoundError
from osdisco.mesh import (
    BreakerSettings,
    BreakerState,
    CircuitBreakerRegistry,
    PoolSettings,
    RetryBudget,
    RetryPolicy,
    TrafficRules,
    _gauges,
)
from osdisco.mesh.hedging import Hedging
from osdisco.mesh.retry import Balance


class Counting:
    """A process that counts."""

    def __init__(self, world: World) -> None:
        self.client, self._registry = counted(world)

    def read(self, name: str, service: str = "geo", **labels: str) -> float | None:
        """Return a value; None when there is none."""
        return self._registry.get_sample_value(f"osdisco_mesh_{name}", {"service": service, **labels})

    def gauge(self, name: str, **labels: str) -> float | None:
        return self.read(name, namespace="ns", **labels)


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


@pytest.fixture
def counting(world: World) -> Counting:
    return Counting(world)


def who() -> str:
    return "me"


async def test_copies_and_faults_on_purpose_are_counted(geo: Town, counting: Counting) -> None:
    await geo.serve({"who": who})
    await TrafficRules(geo.world.process()).set("geo", {"mirror": {"service": "shadow"}, "fault": {"delay": 0.1}})
    mesh = geo.mesh(counting.client)
    await mesh.call("geo", "who")
    await asyncio.sleep(1)
    await geo.serve({"who": who}, "shadow")
    await asyncio.sleep(1)
    for _ in range(2):
        await mesh.call("geo", "who")
    await asyncio.sleep(1)
    assert counting.read("faults_total") == 3
    assert (counting.read("copies_total", result="sent"), counting.read("copies_total", result="failed")) == (2, 1)


async def test_calls_are_counted_by_how_they_end_and_how_long_they_take(geo: Town, counting: Counting) -> None:
    def fail() -> None:
        raise RemoteError("Gone", "it is gone", status=410)

    mesh = geo.mesh(counting.client)
    with pytest.raises(ServiceNotFoundError):
        await mesh.call("geo", "who")
    server = await geo.serve({"who": who, "fail": fail, "hang": asyncio.Event().wait})
    await asyncio.sleep(1)
    geo.network.places[server.address].delay = 0.3
    for _ in range(2):
        await mesh.call("geo", "who")
    with pytest.raises(RemoteError):
        await mesh.call("geo", "fail")
    hanging = asyncio.create_task(mesh.call("geo", "hang"))
    await asyncio.sleep(1)
    assert counting.gauge("in_flight") == 1
    hanging.cancel()
    await asyncio.wait([hanging])
    assert counting.read("requests_total", method="who", outcome="ok") == 2
    assert counting.read("requests_total", method="who", outcome="not_found") == 1
    assert counting.read("requests_total", method="fail", outcome="remote_error") == 1
    assert counting.read("requests_total", method="hang", outcome="cancelled") == 1
    assert counting.read("request_seconds_count", method="who") == 3
    assert counting.read("request_seconds_sum", method="who") == pytest.approx(0.6, abs=0.1)
    assert counting.read("refused_picks_total", reason="no_endpoints") == 1
    assert counting.read("attempts_total", outcome="ok") == 3, "an error that is the caller's is an answer"
    assert counting.read("attempts_total", outcome="cancelled") == 1
    assert counting.gauge("in_flight") == 0


async def test_retries_are_counted_and_why_there_are_no_more(geo: Town, counting: Counting) -> None:
    for _ in range(2):
        geo.network.fail((await geo.serve({"who": who})).address, INTERRUPTED)
    policy = RetryPolicy(attempts=2, budget=RetryBudget(share=0, per_second=0.1, window=20))
    mesh = geo.mesh(counting.client, **NOT_JUDGED, retry_policies=policy)
    for _ in range(3):
        with pytest.raises(ServiceMeshError):
            await mesh.call("geo", "who", idempotent=True)
    assert counting.read("retries_total", result="made") == 2
    assert counting.read("retries_total", result="no_budget") == 1
    assert counting.gauge("retry_budget") == pytest.approx(0, abs=0.01)
    await asyncio.sleep(21)
    assert counting.gauge("retry_budget") == pytest.approx(2)


async def test_a_retry_that_time_does_not_allow_is_counted(geo: Town, counting: Counting) -> None:
    for _ in range(2):
        trouble = OverloadedError("too much", retry_after=60.0)

        async def busy(_: Any, trouble: OverloadedError = trouble) -> Any:
            raise trouble

        geo.network.fail((await geo.serve({"who": who})).address, busy)
    with pytest.raises(OverloadedError):
        await geo.mesh(counting.client).call("geo", "who", timeout=5)
    assert counting.read("retries_total", result="no_time") == 1
    assert counting.read("attempts_total", outcome="rejected") == 1


async def test_attempts_are_counted_with_the_service_that_they_were_sent_to(geo: Town, counting: Counting) -> None:
    places = [(await geo.serve({"who": who}, name)).address for name in ("geo", "backup")]
    await TrafficRules(geo.world.process()).set("geo", {"failover": {"*": [{"service": "backup"}]}})
    mesh = geo.mesh(counting.client, retry_policies=RetryPolicy(idempotent=["who"], hedging=Hedging()))
    for _ in range(30):
        await mesh.call("geo", "who")
    geo.network.places[places[0]].delay = 3.0
    await mesh.call("geo", "who")
    assert (counting.read("attempts_total", outcome="ok"), counting.read("attempts_total", "backup", outcome="ok")) == (
        30,
        1,
    )
    assert counting.read("attempts_total", outcome="cancelled") == 1


async def test_ejections_and_how_endpoints_stand(geo: Town, counting: Counting) -> None:
    servers = [await geo.serve({"who": who}) for _ in range(4)]
    geo.network.fail(servers[0].address, INTERRUPTED)
    mesh = geo.mesh(counting.client)
    for _ in range(60):
        await mesh.call("geo", "who", idempotent=True)
    assert counting.read("ejections_total", reason="consecutive_failures") == 1
    assert (counting.gauge("ejected"), counting.gauge("panic")) == (1, 0)
    assert counting.gauge("breakers", state="closed") == 4
    assert counting.gauge("breakers", state="open") == 0
    await mesh.aclose()
    assert counting.gauge("ejected") is None, "a mesh that is closed is not shown"


async def test_the_breaker_of_a_whole_service_shows_where_there_is_one(geo: Town, counting: Counting) -> None:
    for service in ("geo", "tiles"):
        geo.network.fail((await geo.serve({"who": who}, service)).address, INTERRUPTED)
    breakers = CircuitBreakerRegistry(whole={"geo": BreakerSettings(window=3, minimum=3)}, clock=geo.world.clock)
    mesh = geo.mesh(counting.client, circuit_breakers=breakers)
    for service in ("geo", "tiles"):
        for _ in range(4):
            with pytest.raises(ServiceMeshError):
                await mesh.call(service, "who")
    assert [counting.gauge("service_breaker", state=one.value) for one in BreakerState] == [0, 1, 0]
    assert counting.read("service_breaker", "tiles", namespace="ns", state="closed") is None
    assert counting.read("refused_picks_total", reason="service_circuit_open") == 1


async def test_what_is_over_does_not_show_although_nobody_calls_any_more(geo: Town, counting: Counting) -> None:
    geo.network.fail((await geo.serve({"who": who})).address, INTERRUPTED)
    whole = CircuitBreakerRegistry(whole=BreakerSettings(window=10, minimum=10))
    mesh = geo.mesh(counting.client, circuit_breakers=whole)
    for _ in range(10):
        with pytest.raises(ServiceMeshError):
            await mesh.call("geo", "who")

    def shown() -> list[float | None]:
        states = [counting.gauge(name, state="open") for name in ("breakers", "service_breaker")]
        return [*states, counting.gauge("ejected"), counting.gauge("panic")]

    assert shown() == [1, 1, 1, 1]
    await asyncio.sleep(11)
    assert shown() == [0, 0, 1, 1]
    assert counting.gauge("breakers", state="half-open") == 1
    await asyncio.sleep(30)
    assert shown() == [0, 0, 0, 0]


async def test_a_panic_shows(geo: Town, counting: Counting) -> None:
    from osdisco.discovery import ExtensionStatus

    for _ in range(2):
        await geo.serve({"who": who}, status=ExtensionStatus.UNHEALTHY)
    await geo.mesh(counting.client).call("geo", "who")
    assert counting.gauge("panic") == 1


async def test_hedges_are_counted(geo: Town, counting: Counting) -> None:
    servers = [await geo.serve({"who": who}) for _ in range(2)]
    policy = RetryPolicy(idempotent=["who"], hedging=Hedging(extra=0.05))
    mesh = geo.mesh(counting.client, **NOT_JUDGED, retry_policies=policy)
    for _ in range(25):
        await mesh.call("geo", "who")
    geo.network.places[servers[0].address].delay = 3.0
    for _ in range(10):
        await mesh.call("geo", "who")
    hedges = sum(request.attempt == 2 for _, request in geo.network.sent)
    assert hedges
    assert counting.read("hedges_total") == hedges


async def test_requests_of_others_are_counted_where_they_are_served(geo: Town, counting: Counting) -> None:
    await geo.serve({"who": who, "hang": asyncio.Event().wait}, mesh=geo.mesh(counting.client))
    mesh = geo.mesh()
    await mesh.call("geo", "who")
    with pytest.raises(RemoteError):
        await mesh.call("geo", "evil")
    hanging = asyncio.create_task(mesh.call("geo", "hang"))
    await asyncio.sleep(1)
    assert counting.gauge("serving") == 1
    hanging.cancel()
    await asyncio.wait([hanging])
    assert counting.read("served_total", method="who", status="200") == 1
    assert counting.read("served_total", method="_OTHER", status="404") == 1
    assert counting.read("served_total", method="hang", status="499") == 1
    assert counting.read("served_seconds_count", method="who") == 1
    assert counting.gauge("serving") == 0


async def test_names_from_outside_do_not_become_ever_more_series(
    geo: Town, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gauges, "NAMES_MAX", 4)
    mesh = geo.mesh(counting.client, pool=PoolSettings())
    for number in range(10):
        with pytest.raises(ServiceNotFoundError):
            await mesh.call("geo", f"m{number}")
    assert counting.read("requests_total", method="m0", outcome="not_found") == 1
    assert counting.read("requests_total", "_OTHER", method="_OTHER", outcome="not_found") == 7


@pytest.mark.parametrize("now", [8.0, 9.0, 10.5, 14.0, 18.0, 35.0])
def test_looking_at_a_budget_from_elsewhere_shows_what_there_is_and_changes_nothing(now: float) -> None:
    balance = Balance(RetryBudget(share=0.5, per_second=1, window=10))
    balance.deposit(0.0)
    for _ in range(3):
        balance.withdraw(2.0)
    balance.deposit(8.0)
    before = list(balance._slots)
    seen = balance.seen(now)
    assert balance._slots == before
    assert seen == pytest.approx(balance.left(now))
