"""The breaker of a whole service: it judges calls, whichever endpoints and however many attempts they took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from mesh_town import INTERRUPTED, NOT_JUDGED, Town, hang, town
from traffic import document
from worlds import World, until

from osdisco.errors import CircuitOpenError, ConfigError, OverloadedError, RemoteError, ServiceMeshError
from osdisco.mesh import (
    BreakerEvent,
    BreakerSettings,
    BreakerState,
    CircuitBreaker,
    CircuitBreakerRegistry,
    ExtensionServiceMesh,
    Hedging,
    PickRefused,
    RefusedReason,
    RetryPolicy,
    TrafficRules,
)
from osdisco.mesh._state import Outcome
from osdisco.mesh._whole import Permit
from osdisco.mesh.transport import MeshRequest, MeshResponse

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
WHOLE = BreakerSettings(window=4, minimum=4, open_for=10, permits=2)


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


def judging(geo: Town, whole: Any = WHOLE, **options: Any) -> ExtensionServiceMesh:
    """A mesh that judges whole services, and no endpoint."""
    calm = BreakerSettings(window=10**6, minimum=10**6)
    registry = CircuitBreakerRegistry(calm, whole=whole, clock=geo.world.clock)
    return geo.mesh(**{**NOT_JUDGED, "circuit_breakers": registry, "retry_policies": RetryPolicy(pause=0), **options})


def who() -> str:
    return "me"


async def serve(geo: Town, count: int = 3, service: str = "geo", **handlers: Any) -> list[str]:
    return [(await geo.serve({"who": who, **handlers}, service)).address for _ in range(count)]


async def fail(mesh: ExtensionServiceMesh, times: int, **options: Any) -> None:
    for _ in range(times):
        with pytest.raises(ServiceMeshError) as told:
            await mesh.call("geo", "who", **options)
        assert not isinstance(told.value, CircuitOpenError)


def state(mesh: ExtensionServiceMesh, service: str = "geo") -> BreakerState:
    return mesh.circuit_breakers.breaker(service).state


async def test_when_too_many_calls_failed_nothing_is_sent_until_it_is_tried_again(geo: Town) -> None:
    addresses = await serve(geo)
    for address in addresses:
        geo.network.fail(address, INTERRUPTED)
    mesh, told = judging(geo), list[object]()
    mesh.add_listener(told.append)
    await fail(mesh, 4)
    await asyncio.sleep(4)
    geo.network.sent.clear()
    with pytest.raises(CircuitOpenError, match=r"geo\.who: too many calls .* tried again in 6\.0 s$") as refused:
        await mesh.call("geo", "who", idempotent=True)
    reason = refused.value.reason
    assert (reason.reason, reason.retry_after) == (RefusedReason.SERVICE_CIRCUIT_OPEN, pytest.approx(6, abs=0.01))
    assert (refused.value.sent, refused.value.attempt, geo.network.sent) == (False, 0, [])
    moves = [event for event in told if isinstance(event, BreakerEvent)]
    assert [(move.endpoint, move.new, move.failed) for move in moves] == [(None, OPEN, 4)]
    assert isinstance(told[-1], PickRefused)


async def test_few_calls_decide_whether_it_closes_again(geo: Town) -> None:
    (address,) = await serve(geo, 1)
    geo.network.fail(address, INTERRUPTED)
    mesh = judging(geo)
    await fail(mesh, 4)
    geo.network.heal(address)
    geo.network.places[address].delay = 1.0
    await asyncio.sleep(10)
    geo.network.sent.clear()
    results = await asyncio.gather(*(mesh.call("geo", "who") for _ in range(5)), return_exceptions=True)
    assert [one for one in results if one == "me"] == ["me"] * 2 == ["me"] * len(geo.network.sent)
    refused = [one for one in results if isinstance(one, CircuitOpenError)]
    assert len(refused) == 3
    assert all("when a call under way ends" in str(one) for one in refused)
    assert state(mesh) is CLOSED


async def test_a_call_whose_retry_succeeds_has_not_failed(geo: Town) -> None:
    bad, *_ = await serve(geo, 2)
    geo.network.fail(bad, INTERRUPTED)
    mesh = judging(geo)
    for _ in range(40):
        assert await mesh.call("geo", "who", idempotent=True) == "me"
    assert geo.network.counts()[bad] > 10
    assert state(mesh) is CLOSED


async def test_a_call_counts_once_however_many_attempts_it_took(geo: Town) -> None:
    for address in await serve(geo):
        geo.network.fail(address, INTERRUPTED)
    mesh = judging(geo)
    await fail(mesh, 3, idempotent=True)
    assert len(geo.network.sent) == 9
    assert state(mesh) is CLOSED
    await fail(mesh, 1, idempotent=True)
    assert state(mesh) is OPEN


async def test_no_other_attempt_is_sent_when_it_opened_meanwhile(geo: Town) -> None:
    for address in await serve(geo):
        geo.network.fail(address, INTERRUPTED)
    mesh = judging(geo, retry_policies=RetryPolicy(pause=5, attempts=2))
    waiting = [asyncio.create_task(mesh.call("geo", "who", idempotent=True, timeout=20)) for _ in range(3)]
    await asyncio.sleep(0.001)
    await fail(mesh, 4)
    sent = len(geo.network.sent)
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert len(geo.network.sent) == sent
    assert {type(one) for one in ended} == {CircuitOpenError}
    assert all(isinstance(one, CircuitOpenError) and one.sent for one in ended), "the first attempts may have been done"


async def test_a_call_of_before_takes_a_permit_for_its_next_attempt(geo: Town) -> None:
    (address,) = await serve(geo, 1)
    mesh = judging(geo)

    async def later(_: MeshRequest) -> MeshResponse:
        raise OverloadedError("too much", retry_after=15.0)

    geo.network.fail(address, later)
    waiting = [asyncio.create_task(mesh.call("geo", "who", timeout=60)) for _ in range(5)]
    await asyncio.sleep(1)
    geo.network.fail(address, INTERRUPTED)
    await fail(mesh, 4)
    geo.network.sent.clear()
    geo.network.fail(address, hang)
    await asyncio.sleep(20)
    assert (state(mesh), len(geo.network.sent)) == (HALF_OPEN, 2)
    for one in waiting:
        one.cancel()
    await asyncio.wait(waiting)


async def test_what_the_caller_gave_up_is_not_counted_and_frees_its_permit(geo: Town) -> None:
    (address,) = await serve(geo, 1)
    mesh = judging(geo)
    geo.network.fail(address, hang)
    for _ in range(10):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await mesh.call("geo", "who")
    assert state(mesh) is CLOSED
    geo.network.fail(address, INTERRUPTED)
    await fail(mesh, 4)
    geo.network.fail(address, hang)
    await asyncio.sleep(10)
    for _ in range(5):
        given_up = asyncio.create_task(mesh.call("geo", "who"))
        await asyncio.sleep(0.5)
        given_up.cancel()
        await asyncio.wait([given_up])
    geo.network.heal(address)
    assert [await mesh.call("geo", "who") for _ in range(2)] == ["me", "me"]
    assert state(mesh) is CLOSED


async def test_a_call_that_is_given_up_before_its_retry_is_not_counted(geo: Town) -> None:
    for address in await serve(geo, 2):
        geo.network.fail(address, INTERRUPTED)
    mesh = judging(geo, retry_policies=RetryPolicy(pause=50, pause_max=50))
    for _ in range(6):
        given_up = asyncio.create_task(mesh.call("geo", "who", idempotent=True, timeout=100))
        await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.wait([given_up])
    assert len(geo.network.sent) == 6
    assert state(mesh) is CLOSED


@pytest.mark.parametrize(
    ("trouble", "opens"),
    [
        (INTERRUPTED, True),
        (hang, True),
        (MeshResponse(500, b'{"type": "KeyError", "message": "x"}'), True),
        (MeshResponse(200, b"garbage"), True),
        (MeshResponse(404, b'{"type": "NoIndex", "message": "x"}'), False),
        (OverloadedError("too much"), False),
    ],
    ids=["interrupted", "late", "broken", "garbage", "the caller's fault", "overloaded"],
)
async def test_what_counts_as_a_failure(geo: Town, trouble: Any, opens: bool) -> None:
    (address,) = await serve(geo, 1)
    geo.network.fail(address, trouble)
    mesh = judging(geo)
    await fail(mesh, 4, timeout=1)
    assert state(mesh) is (OPEN if opens else CLOSED)


async def test_what_was_never_sent_is_not_counted(geo: Town) -> None:
    await serve(geo, 1)
    mesh = judging(geo)
    for _ in range(5):
        await fail(mesh, 1, timeout=0)
        with pytest.raises(ServiceMeshError):
            await mesh.call("geo", "who", object())
        with pytest.raises(ServiceMeshError):
            await mesh.call("nobody", "who")
    assert (state(mesh), state(mesh, "nobody"), geo.network.sent) == (CLOSED, CLOSED, [])


async def test_calls_that_take_too_long_with_their_retries_open_it(geo: Town) -> None:
    bad, good = await serve(geo, 2)
    geo.network.fail(bad, hang)
    geo.network.places[good].delay = 0.1
    settings = BreakerSettings(window=8, minimum=8, slow_after=1.0, slow_rate=0.25)
    mesh = judging(geo, settings, retry_policies=RetryPolicy(attempt_timeout=1.0, pause=0))
    for _ in range(8):
        assert await mesh.call("geo", "who", idempotent=True) == "me"
    last = mesh.circuit_breakers.breaker("geo").last
    assert last is not None
    assert (last.new, last.failed, last.slow >= 2) == (OPEN, 0, True)


async def test_of_a_hedged_call_what_was_answered_counts(geo: Town) -> None:
    slow, *_ = await serve(geo)
    policy = RetryPolicy(idempotent=["who"], hedging=Hedging(extra=0.05))
    mesh = judging(geo, retry_policies=policy)
    for _ in range(100):
        await mesh.call("geo", "who")

    async def late_and_broken(_: MeshRequest) -> MeshResponse:
        await asyncio.sleep(0.02)
        raise INTERRUPTED

    geo.network.fail(slow, late_and_broken)
    for _ in range(40):
        assert await mesh.call("geo", "who") == "me"
    assert geo.network.counts()[slow] > 40
    assert state(mesh) is CLOSED


@pytest.mark.parametrize("outcomes", [(Outcome.OK, Outcome.FAILED), (Outcome.FAILED, Outcome.OK)])
def test_an_answer_stays_one_whichever_attempt_ends_last(outcomes: tuple[Outcome, ...]) -> None:
    permit = Permit(CircuitBreaker(), 0.0)
    for outcome in (*outcomes, Outcome.CANCELLED):
        permit.note(outcome)
    assert permit.outcome is Outcome.OK


# which services


async def test_it_is_off_unless_it_is_asked_for(geo: Town) -> None:
    for address in await serve(geo, 1):
        geo.network.fail(address, INTERRUPTED)
    mesh = judging(geo, None)
    await fail(mesh, 50)
    assert (state(mesh), mesh.circuit_breakers.judges_services) == (CLOSED, False)
    assert mesh.services["geo"].breaker is None


async def test_services_have_one_by_their_name_or_by_a_star(geo: Town) -> None:
    for service in ("geo", "tiles"):
        for address in await serve(geo, 1, service):
            geo.network.fail(address, INTERRUPTED)
    mesh = judging(geo, {"tiles": WHOLE})
    await fail(mesh, 9)
    with pytest.raises(ServiceMeshError):
        await mesh.call("tiles", "who")
    assert (mesh.services["geo"].breaker, mesh.services["tiles"].breaker) == (
        None,
        mesh.circuit_breakers.breaker("tiles"),
    )
    starred = CircuitBreakerRegistry(whole={"*": WHOLE, "geo": BreakerSettings(permits=9)})
    assert [starred.breaker(name).settings.permits for name in ("geo", "tiles")] == [9, 2]
    assert starred.breaker("tiles", "e1").settings.permits == 3, "that of an endpoint has others"


@pytest.mark.parametrize("options", [{"whole": {"geo": 5}}, {"whole": 5}, {"services": {"geo": None}}])
def test_settings_that_are_none_are_refused(options: Any) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} are BreakerSettings by the name"):
        CircuitBreakerRegistry(**options)


async def test_a_service_that_is_let_go_of_takes_it_along(geo: Town) -> None:
    await serve(geo, 1)
    mesh = judging(geo)
    await mesh.call("geo", "who")
    assert len(mesh.circuit_breakers) == 2
    await mesh.aclose()
    assert len(mesh.circuit_breakers) == 0


@pytest.mark.parametrize("before", [False, True])
async def test_a_registry_without_a_clock_has_the_time_of_its_mesh(geo: Town, before: bool) -> None:
    (address,) = await serve(geo, 1)
    geo.network.fail(address, INTERRUPTED)
    registry = CircuitBreakerRegistry(WHOLE, whole=WHOLE)
    whole = registry.breaker("geo") if before else None
    mesh = geo.mesh(**{**NOT_JUDGED, "circuit_breakers": registry}, retry_policies=RetryPolicy(attempts=1))
    await fail(mesh, 4)
    assert {one.state for one in registry} == {OPEN}
    geo.network.heal(address)
    await asyncio.sleep(10)
    assert [await mesh.call("geo", "who") for _ in range(4)] == ["me"] * 4
    assert {one.state for one in registry} == {CLOSED}
    assert before is (whole is registry.breaker("geo"))


# with rules


async def test_calls_fail_over_to_another_service_while_it_is_open(geo: Town) -> None:
    (address,) = await serve(geo, 1)
    await serve(geo, 1, "backup", who=lambda: "backup")
    await TrafficRules(geo.world.process("operator")).set("geo", {"failover": {"*": [{"service": "backup"}]}})
    geo.network.fail(address, INTERRUPTED)
    mesh = judging(geo)
    await fail(mesh, 4)
    assert [await mesh.call("geo", "who") for _ in range(5)] == ["backup"] * 5
    assert (state(mesh), state(mesh, "backup"), geo.network.counts()[address]) == (OPEN, CLOSED, 4)
    await asyncio.sleep(10)
    geo.network.heal(address)
    assert [await mesh.call("geo", "who") for _ in range(3)] == ["me"] * 3
    assert state(mesh) is CLOSED


async def test_copies_are_not_counted(geo: Town) -> None:
    shadowed: list[object] = []

    def broken() -> None:
        shadowed.append(None)
        raise RemoteError("Broken", "it fails")

    await geo.serve({"who": who}, definition={"version": "1.0.0"})
    await geo.serve({"who": broken}, definition={"version": "2.0.0"})
    await TrafficRules(geo.world.process("operator")).set("geo", document(mirror={"subset": "v2"}))
    mesh = judging(geo)
    for _ in range(20):
        assert await mesh.call("geo", "who") == "me"
    await until(lambda: len(shadowed) == 20)
    assert state(mesh) is CLOSED
