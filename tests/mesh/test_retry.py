"""Which calls are tried again, how often and where: nothing of unknown outcome is repeated that must not be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, strategies as st
from mesh_town import INTERRUPTED, NOT_JUDGED, Town, hang, town
from worlds import World, until

from osdisco.errors import (
    CallInterruptedError,
    CircuitOpenError,
    ConfigError,
    DeadlineExceededError,
    EndpointUnreachableError,
    NoHealthyEndpointsError,
    OverloadedError,
    RemoteError,
    RequestError,
    ResponseError,
    ServiceMeshError,
    ServiceNotFoundError,
)
from osdisco.mesh._state import Outcome
from osdisco.mesh._wire import Refusal, refused
from osdisco.mesh.balancers import RoundRobinLoadBalancer
from osdisco.mesh.hedging import Hedging
from osdisco.mesh.mesh import ExtensionServiceMesh
from osdisco.mesh.pool import PoolSettings
from osdisco.mesh.retry import NEVER, Balance, RetryBudget, RetryPolicy, repeatable
from osdisco.mesh.transport import MeshRequest, MeshResponse

ENDLESS = RetryBudget(per_second=1000, failures=10**9)
UNREACHABLE = EndpointUnreachableError("cannot connect")
BROKEN = MeshResponse(500, b'{"type": "KeyError", "message": "x"}')


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


async def three(geo: Town) -> list[str]:
    """Serve from three processes; returns their addresses."""
    return [(await geo.serve({"who": lambda: "ok", "add": lambda: "ok"})).address for _ in range(3)]


# what may be repeated


@pytest.mark.parametrize(
    ("error", "idempotent", "other"),
    [
        (UNREACHABLE, True, True),
        (OverloadedError("x"), True, True),
        (OverloadedError("x", sent=True), True, False),
        (CallInterruptedError("x", sent=True), True, False),
        (ResponseError("x", sent=True), True, False),
        (DeadlineExceededError("x", sent=True), True, False),
        (DeadlineExceededError("x"), True, True),
        (RemoteError("T", "x", 500), True, False),
        (RemoteError("T", "x", 404), False, False),
        (RequestError("x"), False, False),
        (ServiceNotFoundError("x"), False, False),
        (NoHealthyEndpointsError("x"), False, False),
        (CircuitOpenError("x"), False, False),
        (OverloadedError("x", retry_after=-1), False, False),
    ],
)
def test_what_is_repeated(error: ServiceMeshError, idempotent: bool, other: bool) -> None:
    assert (repeatable(error, idempotent=True), repeatable(error, idempotent=False)) == (idempotent, other)


@pytest.mark.parametrize("trouble", [INTERRUPTED, ResponseError("half", sent=True), BROKEN, hang])
async def test_of_unknown_outcome_only_what_is_idempotent_is_tried_again(trouble: Any, geo: Town) -> None:
    bad, *_ = await three(geo)
    geo.network.fail(bad, trouble)
    mesh = geo.mesh(**NOT_JUDGED)
    assert [await mesh.call("geo", "who", idempotent=True) for _ in range(30)] == ["ok"] * 30
    failures: list[ServiceMeshError] = []
    geo.network.sent.clear()
    for _ in range(30):
        try:
            await mesh.call("geo", "add", timeout=1)
        except ServiceMeshError as exc:
            failures.append(exc)
    assert {(failure.sent, failure.endpoint) for failure in failures} == {(True, bad)}
    assert len(failures) == geo.network.counts()[bad]
    assert len(geo.network.sent) == 30


async def test_what_was_surely_not_sent_goes_elsewhere_idempotent_or_not(geo: Town) -> None:
    gone, stopping, _ = await three(geo)
    geo.network.fail(gone, UNREACHABLE)
    geo.network.fail(stopping, refused(Refusal.STOPPING, "gone"))
    mesh = geo.mesh(**NOT_JUDGED)
    assert [await mesh.call("geo", "add") for _ in range(30)] == ["ok"] * 30
    assert geo.network.counts()[gone] > 0 < geo.network.counts()[stopping]


async def test_an_error_tells_whether_any_of_the_attempts_may_have_run(geo: Town) -> None:
    """Of the last one alone it would say that nothing was done."""
    first, second = [(await geo.serve({"who": lambda: "ok"})).address for _ in range(2)]
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=RetryPolicy(attempts=2))
    told = set()
    for one, other in ((INTERRUPTED, UNREACHABLE), (UNREACHABLE, UNREACHABLE)):
        geo.network.fail(first, one)
        geo.network.fail(second, other)
        for _ in range(20):
            with pytest.raises(ServiceMeshError) as caught:
                await mesh.call("geo", "who", idempotent=True)
            told.add((one is other, caught.value.sent))
    assert told == {(False, True), (True, False)}


async def test_a_policy_says_which_methods_are_idempotent_and_a_call_has_the_last_word(geo: Town) -> None:
    for bad in await three(geo):
        geo.network.fail(bad, INTERRUPTED)
    mesh = geo.mesh(retry_policies={"geo": RetryPolicy(idempotent=["who"])}, **NOT_JUDGED)
    for method, idempotent, attempts in (("who", None, 3), ("add", None, 1), ("who", False, 1), ("add", True, 3)):
        geo.network.sent.clear()
        with pytest.raises(CallInterruptedError) as caught:
            await mesh.call("geo", method, idempotent=idempotent)
        assert len(geo.network.sent) == attempts == caught.value.attempt


# where, when and how often


async def test_none_is_tried_twice_while_others_remain(geo: Town) -> None:
    addresses = await three(geo)
    for bad in addresses:
        geo.network.fail(bad, INTERRUPTED)
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=RetryPolicy(attempts=5, budget=ENDLESS))
    for _ in range(20):
        geo.network.sent.clear()
        with pytest.raises(CallInterruptedError):
            await mesh.call("geo", "who", idempotent=True)
        tried = [address for address, _ in geo.network.sent]
        assert sorted(tried[:3]) == sorted(addresses)
        assert len(tried) == 5


async def test_attempts_are_numbered_for_the_endpoint(geo: Town) -> None:
    for bad in await three(geo):
        geo.network.fail(bad, INTERRUPTED)
    with pytest.raises(CallInterruptedError, match="attempt 3"):
        await geo.mesh(**NOT_JUDGED).call("geo", "who", idempotent=True)
    assert [request.attempt for _, request in geo.network.sent] == [1, 2, 3]


async def test_pauses_grow_and_are_by_chance_but_after_a_refused_connection_there_is_none(geo: Town) -> None:
    pauses: dict[int, list[float]] = {1: [], 2: []}
    at: list[float] = []

    async def note(_: Any) -> MeshResponse:
        at.append(geo.world.clock.now())
        return BROKEN

    addresses = await three(geo)
    for bad in addresses:
        geo.network.fail(bad, note)
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=RetryPolicy(budget=ENDLESS))
    for _ in range(50):
        at.clear()
        with pytest.raises(RemoteError):
            await mesh.call("geo", "who", idempotent=True)
        for number, (one, other) in enumerate(pairwise(at), 1):
            pauses[number].append(other - one)
    assert 0.03 < max(pauses[1]) <= 0.051
    assert 0.06 < max(pauses[2]) <= 0.101
    assert min(pauses[1]) < 0.02 > min(pauses[2])
    for bad in addresses[:2]:
        geo.network.fail(bad, UNREACHABLE)
    geo.network.heal(addresses[2])
    began = geo.world.clock.now()
    await mesh.call("geo", "add")
    assert geo.world.clock.now() - began <= 0.051


async def test_no_pause_goes_beyond_the_time_of_the_call(geo: Town) -> None:
    for bad in await three(geo):
        geo.network.fail(bad, INTERRUPTED)
    policy = RetryPolicy(attempts=10, pause=10, pause_max=10)
    mesh, began = geo.mesh(**NOT_JUDGED, retry_policies=policy), geo.world.clock.now()
    with pytest.raises(CallInterruptedError, match="not tried again: no time is left"):
        await mesh.call("geo", "who", idempotent=True, timeout=0.5)
    assert geo.world.clock.now() - began <= 0.5


async def test_a_silent_endpoint_uses_up_only_half_of_the_time(geo: Town) -> None:
    silent, *_ = await three(geo)
    geo.network.fail(silent, hang)
    mesh = geo.mesh(**NOT_JUDGED)
    for _ in range(20):
        began = geo.world.clock.now()
        assert await mesh.call("geo", "who", idempotent=True, timeout=2) == "ok"
        assert geo.world.clock.now() - began < 1.2


async def test_an_attempt_may_have_a_time_of_its_own(geo: Town) -> None:
    silent, *_ = await three(geo)
    geo.network.fail(silent, hang)
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=RetryPolicy(attempt_timeout=0.1))
    for _ in range(20):
        began = geo.world.clock.now()
        assert await mesh.call("geo", "who", idempotent=True, timeout=60) == "ok"
        assert geo.world.clock.now() - began < 0.2


async def test_an_endpoint_says_when_to_come_again_or_never(geo: Town) -> None:
    (address,) = [(await geo.serve({"who": lambda: "ok"})).address]
    geo.network.fail(address, refused(Refusal.OVERLOADED, "busy", retry_after=3))
    mesh, began = geo.mesh(), geo.world.clock.now()
    task = asyncio.get_running_loop().create_task(mesh.call("geo", "who"))
    await until(lambda: len(geo.network.sent) == 1)
    geo.network.heal(address)
    assert await task == "ok"
    assert geo.world.clock.now() - began == pytest.approx(3, abs=0.05)
    geo.network.fail(address, refused(Refusal.OVERLOADED, "busy", retry_after=-1))
    geo.network.sent.clear()
    with pytest.raises(OverloadedError):
        await mesh.call("geo", "who", idempotent=True)
    assert len(geo.network.sent) == 1
    geo.network.fail(address, refused(Refusal.OVERLOADED, "busy", retry_after=300))
    began = geo.world.clock.now()
    with pytest.raises(OverloadedError, match="no time is left"):
        await mesh.call("geo", "who")
    assert geo.world.clock.now() - began < 0.1


async def test_without_a_policy_that_retries_each_call_is_sent_once(geo: Town) -> None:
    for bad in await three(geo):
        geo.network.fail(bad, UNREACHABLE)
    with pytest.raises(EndpointUnreachableError):
        await geo.mesh(retry_policies=NEVER, **NOT_JUDGED).call("geo", "who", idempotent=True)
    assert len(geo.network.sent) == 1


async def test_a_cancelled_call_is_not_tried_again(geo: Town) -> None:
    for bad in await three(geo):
        geo.network.fail(bad, INTERRUPTED)
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=RetryPolicy(pause=30, pause_max=30))
    task = asyncio.get_running_loop().create_task(mesh.call("geo", "who", idempotent=True, timeout=3600))
    await until(lambda: len(geo.network.sent) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(geo.network.sent) == 1


# the budget


async def test_when_all_fail_there_are_few_more_attempts_than_calls(geo: Town) -> None:
    for bad in await three(geo):
        geo.network.fail(bad, BROKEN)
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=RetryPolicy(budget=RetryBudget(failures=10**9)))
    calls = 0
    for _ in range(200):  # a second each, 50 calls at once
        results = await asyncio.gather(
            *(mesh.call("geo", "who", idempotent=True) for _ in range(250)), return_exceptions=True
        )
        assert all(isinstance(result, RemoteError) for result in results)
        calls += len(results)
        await geo.world.clock.advance(1)
        if calls >= 5000:
            break
    reserve = RetryBudget().per_second / 250
    assert len(geo.network.sent) / calls <= 1.2 + reserve + 0.03
    assert "budget for retries is used up" in str(results[-1])


async def test_while_nothing_succeeds_nothing_is_tried_again(geo: Town) -> None:
    addresses = await three(geo)
    mesh = geo.mesh(**NOT_JUDGED)
    for bad in addresses:
        geo.network.fail(bad, BROKEN)
    for _ in range(20):
        with pytest.raises(RemoteError):
            await mesh.call("geo", "who", idempotent=True)
        await geo.world.clock.advance(0.2)
    geo.network.sent.clear()
    with pytest.raises(RemoteError, match="not tried again: of this service nothing succeeds"):
        await mesh.call("geo", "who", idempotent=True)
    assert len(geo.network.sent) == 1
    for bad in addresses:
        geo.network.heal(bad)
    await mesh.call("geo", "who")
    geo.network.fail(addresses[0], BROKEN)
    assert [await mesh.call("geo", "who", idempotent=True) for _ in range(20)] == ["ok"] * 20


async def test_connections_that_end_all_at_once_are_no_reason_to_give_up(geo: Town) -> None:
    """As those to one host that dies: no call of the others was answered meanwhile."""
    bad, *others = await three(geo)
    mesh = geo.mesh(**NOT_JUDGED, load_balancer=RoundRobinLoadBalancer())
    await mesh.call("geo", "who")
    geo.network.fail(bad, INTERRUPTED)
    for other in others:
        geo.network.places[other].delay = 0.5
    calls = (mesh.call("geo", "who", idempotent=True) for _ in range(90))
    assert await asyncio.gather(*calls) == ["ok"] * 90


async def test_a_call_that_finds_no_place_fails_at_once_and_takes_nothing_from_the_budget(geo: Town) -> None:
    """Else one endpoint that hangs would use up what there is to retry for all."""
    address = (await geo.serve({"who": hang})).address
    geo.network.fail(address, hang)
    mesh = geo.mesh(pool=PoolSettings(concurrency=1))
    task = asyncio.get_running_loop().create_task(mesh.call("geo", "who", timeout=3600))
    await until(lambda: len(geo.network.sent) == 1)
    before, began = mesh.services["geo"].balance.left(geo.world.clock.now()), geo.world.clock.now()
    for _ in range(60):
        with pytest.raises(OverloadedError, match="calls under way; call less"):
            await mesh.call("geo", "who", idempotent=True)
    assert geo.world.clock.now() == began
    assert mesh.services["geo"].balance.left(began) >= before
    task.cancel()
    await asyncio.wait([task])


def test_who_gave_up_waiting_says_nothing_of_the_service() -> None:
    balance = Balance(RetryBudget(failures=2))
    for outcome in (Outcome.FAILED, Outcome.CANCELLED, Outcome.CANCELLED):
        balance.learn(outcome, 0.0)
    assert not balance.hopeless(5.0)
    balance.learn(Outcome.REJECTED, 0.5)
    assert not balance.hopeless(0.9)
    assert balance.hopeless(1.0)
    balance.learn(Outcome.OK, 1.5)
    assert not balance.hopeless(5.0)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[float, bool]]:
    """Calls (True) and wishes to retry, with the seconds between them."""
    steps = draw(st.lists(st.tuples(st.floats(0, 4), st.booleans()), max_size=200))
    now, history = 0.0, []
    for step, is_call in steps:
        now += step
        history.append((now, is_call))
    return history


@given(histories(), st.floats(0, 1), st.floats(0, 3))
def test_in_no_window_are_there_more_retries_than_the_budget_has(
    history: list[tuple[float, bool]], share: float, per_second: float
) -> None:
    budget = RetryBudget(share=share, per_second=per_second, window=10)
    balance, retries, calls = Balance(budget), Counter[int](), Counter[int]()
    for now, is_call in history:
        if is_call:
            balance.deposit(now)
            calls[int(now)] += 1
        elif balance.withdraw(now):
            retries[int(now)] += 1
            window = range(int(now) - 9, int(now) + 1)
            allowed = per_second * 10 + share * sum(calls[second] for second in window)
            assert sum(retries[second] for second in window) <= allowed + 1e-6


def test_the_budget_is_full_again_after_its_window() -> None:
    balance = Balance(RetryBudget(share=0.5, per_second=1, window=10))
    assert [balance.withdraw(5) for _ in range(11)] == [True] * 10 + [False]
    for _ in range(4):
        balance.deposit(5)
    assert balance.left(5) == pytest.approx(2)
    assert balance.left(14) == pytest.approx(2)
    assert balance.left(15) == pytest.approx(10)


# settings


@pytest.mark.parametrize(
    "fields",
    [
        {"attempts": 0},
        {"attempts": 11},
        {"attempts": True},
        {"attempts": 2.5},
        {"pause": -1},
        {"pause": float("nan")},
        {"factor": 0.5},
        {"pause_max": float("inf")},
        {"attempt_timeout": 0},
        {"attempt_timeout": "1s"},
        {"idempotent": "who"},
        {"idempotent": ["a/b"]},
        {"idempotent": 7},
    ],
)
def test_a_policy_that_cannot_be_is_refused_by_its_field(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        RetryPolicy(**fields)


@pytest.mark.parametrize(
    "fields", [{"share": -0.1}, {"per_second": -1}, {"window": 0}, {"failures": 0}, {"share": "much"}]
)
def test_a_budget_that_cannot_be_is_refused_by_its_field(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        RetryBudget(**fields)


# hedging


async def test_a_slow_call_is_asked_elsewhere_too_and_the_sooner_answer_counts(geo: Town) -> None:
    slow, *_ = await three(geo)
    policy = RetryPolicy(idempotent=["who"], hedging=Hedging(extra=0.05))
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=policy)
    for _ in range(100):
        await mesh.call("geo", "who")
    geo.network.places[slow].delay = 3.0
    geo.network.sent.clear()
    for _ in range(60):
        began = geo.world.clock.now()
        assert await mesh.call("geo", "who") == "ok"
        assert geo.world.clock.now() - began < 0.1
    assert geo.network.counts()[slow] > 3
    hedges = [request for _, request in geo.network.sent if request.attempt == 2]
    assert len(hedges) == geo.network.counts()[slow]
    assert mesh.services["geo"].pool.states[slow].in_flight == 0


async def test_what_is_not_idempotent_is_never_hedged(geo: Town) -> None:
    slow, *_ = await three(geo)
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=RetryPolicy(hedging=Hedging(extra=0.05)))
    for _ in range(100):
        await mesh.call("geo", "add")
    geo.network.places[slow].delay = 3.0
    geo.network.sent.clear()
    for _ in range(30):
        await mesh.call("geo", "add")
    assert len(geo.network.sent) == 30


async def test_hedges_come_out_of_the_budget(geo: Town) -> None:
    addresses = await three(geo)
    policy = RetryPolicy(idempotent=["who"], hedging=Hedging(extra=0.05), budget=RetryBudget(share=0, per_second=0.3))
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=policy)
    for _ in range(100):
        await mesh.call("geo", "who")
    for address in addresses:
        geo.network.places[address].delay = 0.5
    geo.network.sent.clear()
    await asyncio.gather(*(mesh.call("geo", "who") for _ in range(20)))
    assert len(geo.network.sent) == 20 + 3


async def test_a_failure_within_the_delay_is_tried_again_as_without_hedging(geo: Town) -> None:
    bad, *_ = await three(geo)
    policy = RetryPolicy(idempotent=["who"], hedging=Hedging())
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=policy)
    for _ in range(100):
        await mesh.call("geo", "who")
    geo.network.fail(bad, INTERRUPTED)
    assert [await mesh.call("geo", "who") for _ in range(30)] == ["ok"] * 30


async def learned(geo: Town, **policy: Any) -> ExtensionServiceMesh:
    """Return a mesh that knows after how long a call of `who` is slow."""
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=RetryPolicy(idempotent=["who"], hedging=Hedging(), **policy))
    for _ in range(30):
        await mesh.call("geo", "who")
    geo.network.sent.clear()
    return mesh


@pytest.mark.parametrize("attempts", [2, 3])
async def test_a_hedge_is_one_of_the_attempts_that_a_call_may_have(attempts: int, geo: Town) -> None:
    addresses = await three(geo)
    mesh = await learned(geo, attempts=attempts)

    async def slow_and_broken(_: MeshRequest) -> MeshResponse:
        await asyncio.sleep(0.5)
        return BROKEN

    for address in addresses:
        geo.network.fail(address, slow_and_broken)
    with pytest.raises(RemoteError) as caught:
        await mesh.call("geo", "who")
    assert caught.value.attempt == len(geo.network.sent) == attempts


async def test_a_failure_that_would_be_the_same_again_is_an_answer_and_ends_the_other_attempt(geo: Town) -> None:
    addresses = await three(geo)
    mesh = await learned(geo)

    async def first_refuses(request: MeshRequest) -> MeshResponse:
        await asyncio.sleep(0.2 if request.attempt == 1 else 3600)
        return MeshResponse(404, b'{"type": "IndexNotFound", "message": "x"}')

    for address in addresses:
        geo.network.fail(address, first_refuses)
    began = geo.world.clock.now()
    with pytest.raises(RemoteError, match="IndexNotFound"):
        await mesh.call("geo", "who", timeout=60)
    assert geo.world.clock.now() - began < 1
    assert len(geo.network.sent) == 2
    assert {state.in_flight for state in mesh.services["geo"].pool.states.values()} == {0}


async def test_a_hedge_that_finds_no_place_does_not_end_the_call(geo: Town) -> None:
    server = await geo.serve({"who": lambda: "ok"})
    options = {**NOT_JUDGED, "pool": PoolSettings(panic=0, outliers=None, concurrency=1)}
    mesh = geo.mesh(**options, retry_policies=RetryPolicy(idempotent=["who"], hedging=Hedging()))
    for _ in range(30):
        await mesh.call("geo", "who")
    geo.network.places[server.address].delay = 1.0
    balance, now = mesh.services["geo"].balance, geo.world.clock.now
    before = balance.left(now())
    assert await mesh.call("geo", "who") == "ok"
    assert balance.left(now()) == pytest.approx(before + 0.2), "nothing is taken for it"


async def test_a_hedged_call_that_the_end_of_its_mesh_cuts_off_is_not_said_to_be_cancelled(geo: Town) -> None:
    addresses = await three(geo)
    mesh = await learned(geo)
    for address in addresses:
        geo.network.fail(address, hang)
    task = asyncio.get_running_loop().create_task(mesh.call("geo", "who", timeout=3600))
    await until(lambda: len(geo.network.sent) == 2)
    await mesh.aclose()
    with pytest.raises(CallInterruptedError, match="closed") as caught:
        await task
    assert caught.value.sent


async def test_methods_that_nobody_has_are_not_learned(geo: Town) -> None:
    """Names may come from whoever calls the caller."""
    await three(geo)
    mesh = await learned(geo)
    for number in range(30):
        with pytest.raises(RemoteError, match="has no method"):
            await mesh.call("geo", f"made-up-{number}", idempotent=True)
    assert list(mesh._caller._delays) == [("geo", "who")]


@pytest.mark.parametrize("fields", [{"extra": 0}, {"extra": 0.6}, {"least": -1}, {"least": float("inf")}])
def test_hedging_that_cannot_be_is_refused_by_its_field(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Hedging(**fields)


def test_a_policy_is_changed_by_evolving_it() -> None:
    assert evolve(RetryPolicy(), attempts=5).pause_before(9) == 1.0
