"""Calls follow the rules that stand in the store: where they go, and what happens to them on the way."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest
from mesh_town import INTERRUPTED, NOT_JUDGED, Town, hang, town
from worlds import World, until

from osdisco.backend import Put
from osdisco.discovery import ExtensionStatus
from osdisco.errors import (
    CallInterruptedError,
    DeadlineExceededError,
    NoHealthyEndpointsError,
    OverloadedError,
    RemoteError,
    ServiceMeshError,
)
from osdisco.mesh import CanaryPlan, ExtensionServiceMesh, RetryPolicy, TrafficRules, incoming
from osdisco.mesh._histogram import bucket_of
from osdisco.mesh.deadline import deadline_scope
from osdisco.mesh.hedging import Hedging
from osdisco.mesh.router import place_of
from osdisco.mesh.serving import ServiceServer

SUBSETS = {"v1": {"version": "<2"}, "v2": {"version": ">=2"}}


class Ruled(Town):
    """A town in which `geo` runs in two versions, each of which says what it is."""

    async def set(self, **document: Any) -> None:
        """Let rules stand, and be seen by a mesh that has called before."""
        version = await TrafficRules(self.world.process()).set("geo", {"subsets": SUBSETS, **document})
        for mesh in self.meshes:
            if (routing := mesh._routing) is not None and routing._started:
                await until(lambda rules=routing._rules: "geo" in rules and rules["geo"].version == version.version)

    def servers(self) -> list[ServiceServer]:
        return [server for mesh in self.meshes for server in mesh._servers]

    async def versions(self) -> None:
        for number in (1, 2):
            await self.serve({"who": lambda number=number: number}, definition={"version": f"{number}.0"})


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Ruled, None]:
    async with town(world, Ruled) as place:
        await place.versions()
        yield place


async def answers(mesh: ExtensionServiceMesh, calls: int, **options: Any) -> Counter[int]:
    return Counter([await mesh.call("geo", "who", **options) for _ in range(calls)])


async def test_calls_are_split_by_weight_from_the_first_one_on(geo: Ruled) -> None:
    await geo.set(splits=[{"weight": 90, "subset": "v1"}, {"weight": 10, "subset": "v2"}])
    share = (await answers(geo.mesh(), 2000))[2] / 2000
    assert 0.07 < share < 0.13


async def test_rules_that_change_are_followed_by_the_next_call(geo: Ruled) -> None:
    mesh = geo.mesh()
    assert set(await answers(mesh, 50)) == {1, 2}
    await geo.set(default_subset="v1")
    assert await answers(mesh, 50) == {1: 50}
    await geo.set(match=[{"metadata": {"beta": "yes"}, "subset": "v2"}], default_subset="v1")
    assert await answers(mesh, 50, metadata={"beta": "yes"}) == {2: 50}
    assert await answers(mesh, 50, metadata={"beta": "no"}) == {1: 50}


async def test_calls_of_one_key_stay_where_they_are_when_the_weight_rises(geo: Ruled) -> None:
    mesh = geo.mesh()
    places: dict[int, set[str]] = {}
    for weight in (20, 40, 80):
        await geo.set(splits=[{"weight": 100 - weight, "subset": "v1"}, {"weight": weight, "subset": "v2"}])
        places[weight] = {key for key in map(str, range(200)) if await mesh.call("geo", "who", key=key) == 2}
    assert places[20] < places[40] < places[80]


async def test_a_subset_without_anybody_fails_over_or_says_so_and_is_never_spread(geo: Ruled) -> None:
    mesh = geo.mesh()
    three = {"subsets": {**SUBSETS, "v3": {"version": ">=3"}}, "default_subset": "v3"}
    await geo.set(**three)
    with pytest.raises(NoHealthyEndpointsError, match="none is of the subset v3"):
        await mesh.call("geo", "who")
    await geo.set(**three, failover={"v3": [{"subset": "v2"}]})
    assert await answers(mesh, 20) == {2: 20}
    await geo.serve({"who": lambda: "elsewhere"}, "backup")
    await geo.set(**three, failover={"*": [{"service": "backup"}]})
    assert await answers(mesh, 5) == {"elsewhere": 5}


async def test_a_subset_that_is_ill_fails_over_before_there_is_a_panic(geo: Ruled) -> None:
    mesh = geo.mesh()
    for version in ("2.1", "2.2"):
        await geo.serve({"who": lambda: 2}, definition={"version": version})
    await geo.set(default_subset="v2", failover={"v2": [{"subset": "v1"}]})
    assert await answers(mesh, 20) == {2: 20}
    ill = [server for server in geo.servers() if server.registration.definition.version != "1.0"]

    async def become(status: ExtensionStatus, *servers: ServiceServer) -> None:
        for server in servers:
            await server.registration.set_status(status)
        await asyncio.sleep(1)

    await become(ExtensionStatus.UNHEALTHY, *ill[:2])
    assert await answers(mesh, 20) == {2: 20}  # there is a panic, but one is well
    await become(ExtensionStatus.UNHEALTHY, ill[2])
    assert await answers(mesh, 20) == {1: 20}
    await become(ExtensionStatus.UNHEALTHY, *geo.servers())
    assert await answers(mesh, 20) == {2: 20}  # a panic where they belong
    await become(ExtensionStatus.DEGRADED, ill[0])
    assert await answers(mesh, 20) == {2: 20}


async def test_looking_who_is_fit_takes_nobody_s_turn(geo: Ruled) -> None:
    mesh = geo.mesh()
    await geo.set(failover={"*": [{"service": "backup"}]}, lb={"policy": "round_robin"})
    await geo.serve({"who": lambda: 3}, "backup")
    assert await answers(mesh, 20) == {1: 10, 2: 10}


async def test_a_copy_goes_to_the_mirror_and_its_answer_is_dropped(geo: Ruled) -> None:
    copied = []
    await geo.serve({"who": lambda: copied.append(dict(request_headers()))}, "shadow")
    await geo.set(default_subset="v1", mirror={"service": "shadow", "percent": 100})
    mesh = geo.mesh()
    assert await answers(mesh, 10) == {1: 10}
    await until(lambda: len(copied) == 10)
    assert all(headers["x-osdisco-mirrored"] == "1" for headers in copied)


@pytest.mark.parametrize("trouble", [INTERRUPTED, hang])
async def test_who_failed_at_all_of_a_subset_is_tried_again_where_it_fails_over(trouble: Any, geo: Ruled) -> None:
    """While nobody knows yet that it is down: its lease stands, and its circuit is closed."""
    two = next(address for address in geo.network.places if address.startswith("10.0.0.2:"))
    geo.network.fail(two, trouble)
    await geo.set(default_subset="v2", failover={"v2": [{"subset": "v1"}]})
    mesh = geo.mesh(**NOT_JUDGED)
    for _ in range(10):
        began = geo.world.clock.now()
        assert await mesh.call("geo", "who", idempotent=True, timeout=2) == 1
        assert geo.world.clock.now() - began < 1.2
    assert geo.network.counts()[two] == 10
    with pytest.raises(ServiceMeshError) as caught:
        await mesh.call("geo", "who", timeout=2)
    assert (caught.value.attempt, caught.value.sent, caught.value.endpoint) == (1, True, two)


async def test_a_subset_that_fails_over_nowhere_is_asked_again_and_nobody_else(geo: Ruled) -> None:
    two = next(address for address in geo.network.places if address.startswith("10.0.0.2:"))
    geo.network.fail(two, INTERRUPTED)
    await geo.set(default_subset="v2")
    with pytest.raises(CallInterruptedError):
        await geo.mesh(**NOT_JUDGED).call("geo", "who", idempotent=True)
    assert geo.network.counts() == {two: 3}


async def test_a_service_of_one_endpoint_leaves_time_for_another_one_that_it_fails_over_to(geo: Ruled) -> None:
    await geo.serve({"who": lambda: "backup"}, "backup")
    alone = await geo.serve({"who": lambda: None}, "alone")
    geo.network.fail(alone.address, hang)
    await TrafficRules(geo.world.process()).set("alone", {"failover": {"*": [{"service": "backup"}]}})
    assert await geo.mesh(**NOT_JUDGED).call("alone", "who", idempotent=True, timeout=2) == "backup"
    assert geo.network.counts()[alone.address] == 1


async def test_a_subset_of_one_that_fails_over_nowhere_has_all_of_the_time(geo: Ruled) -> None:
    await geo.set(default_subset="v1")
    for place in geo.network.places.values():
        place.delay = 1.5
    assert await geo.mesh().call("geo", "who", idempotent=True, timeout=2) == 1


async def test_slow_copies_teach_nobody_when_to_hedge(geo: Ruled) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.5)

    await geo.serve({"who": slow}, "shadow")
    await geo.set(default_subset="v1", mirror={"service": "shadow"})
    mesh = geo.mesh(retry_policies=RetryPolicy(idempotent=["who"], hedging=Hedging(extra=0.01)))
    for _ in range(30):
        await mesh.call("geo", "who")
        await asyncio.sleep(1)
    (delay,) = mesh._caller._delays.values()
    assert delay.seconds is not None
    assert delay.seconds < 0.1


async def test_copies_that_succeed_give_calls_that_fail_no_more_retries(geo: Ruled) -> None:
    await geo.set(default_subset="v1", mirror={"subset": "v2"})
    one = next(address for address in geo.network.places if address.startswith("10.0.0.1:"))
    geo.network.fail(one, INTERRUPTED)
    mesh = geo.mesh(**NOT_JUDGED)
    for _ in range(1000):
        with suppress(ServiceMeshError):
            await mesh.call("geo", "who", idempotent=True)
        await asyncio.sleep(0.01)
    assert geo.network.counts()[one] < 1200
    assert sum(geo.network.counts().values()) - geo.network.counts()[one] == 1000  # a copy of each


async def test_copies_give_no_retries(geo: Ruled) -> None:
    await geo.set(default_subset="v1", mirror={"subset": "v2"})
    mesh = geo.mesh()
    await answers(mesh, 1)
    balance = mesh.services["geo"].balance
    before = balance.left(geo.world.clock.now())
    await answers(mesh, 50)
    await until(lambda: sum(geo.network.counts().values()) == 102)
    assert balance.left(geo.world.clock.now()) - before == pytest.approx(10)


async def test_a_name_that_no_service_can_have_fails_no_call_that_has_elsewhere_to_go(geo: Ruled) -> None:
    mesh, bad = geo.mesh(), "ж" * 127
    await geo.set(default_subset="v1")
    await answers(mesh, 1)
    only_v1 = {"subsets": SUBSETS, "default_subset": "v1"}

    async def stands(rules: dict[str, Any]) -> None:
        geo.world.store.commit([Put("ns/routes/geo", json.dumps({"version": 7, "rules": rules}).encode())], {})
        await asyncio.sleep(1)

    for rules in ({"mirror": {"service": bad}}, {"failover": {"*": [{"service": bad}]}}):
        await stands(only_v1 | rules)
        assert await answers(mesh, 5) == {1: 5}
    await stands({"redirect": {"service": bad}})
    with pytest.raises(NoHealthyEndpointsError, match="which no service can be called"):
        await mesh.call("geo", "who")


def request_headers() -> Any:
    request = incoming()
    assert request is not None
    return request.headers


async def test_faults_on_purpose_are_late_and_fail_and_send_nothing(geo: Ruled) -> None:
    mesh = geo.mesh()
    await geo.set(fault={"percent": 100, "delay": 2})
    began = geo.world.clock.now()
    assert await mesh.call("geo", "who") in (1, 2)
    assert geo.world.clock.now() - began == pytest.approx(2, abs=0.05)
    with pytest.raises(DeadlineExceededError):
        await mesh.call("geo", "who", timeout=1)
    await geo.set(fault={"percent": 100, "status": 503})
    geo.network.sent.clear()
    with pytest.raises(RemoteError) as caught:
        await mesh.call("geo", "who", idempotent=True)
    assert (caught.value.type, caught.value.status, caught.value.sent) == ("InjectedFault", 503, False)
    assert geo.network.sent == []


async def test_a_rate_limit_refuses_what_is_too_much(geo: Ruled) -> None:
    mesh = geo.mesh()
    await geo.set(rate_limit={"per_second": 2, "burst": 5})
    results = await asyncio.gather(*(mesh.call("geo", "who") for _ in range(8)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, OverloadedError)]
    assert len(refused) == 3
    assert all(error.retry_after and not error.sent for error in refused)
    await geo.world.clock.advance(1)
    assert sum((await answers(mesh, 2)).values()) == 2


async def test_rules_say_how_long_and_how_often_where_the_caller_does_not(geo: Ruled) -> None:
    mesh = geo.mesh(**NOT_JUDGED, retry_policies=RetryPolicy(attempts=1))
    await geo.set(timeout=3, retry={"attempts": 4})
    for address in list(geo.network.places):
        geo.network.fail(address, INTERRUPTED)
    with pytest.raises(CallInterruptedError) as caught:
        await mesh.call("geo", "who", idempotent=True)
    assert caught.value.attempt == 4
    for address in list(geo.network.places):
        geo.network.heal(address)
        geo.network.places[address].delay = 60
    for timeout, seconds in ((None, 3), (5, 5)):
        began = geo.world.clock.now()
        with pytest.raises(DeadlineExceededError):
            await mesh.call("geo", "who", timeout=timeout)
        assert geo.world.clock.now() - began == pytest.approx(seconds, abs=0.05)


async def test_a_rule_gives_more_time_than_a_mesh_does_but_never_more_than_is_left(geo: Ruled) -> None:
    mesh = geo.mesh(timeout=2)
    await geo.set(timeout=8)
    for place in geo.network.places.values():
        place.delay = 5
    assert await mesh.call("geo", "who") in (1, 2)
    with deadline_scope(geo.world.clock, 3), pytest.raises(DeadlineExceededError):
        await mesh.call("geo", "who")
    with pytest.raises(DeadlineExceededError):
        await mesh.call("geo", "who", timeout=3)


@pytest.mark.parametrize(
    "policy", ["least_request", "peak_ewma", "random", "rendezvous", "round_robin", "weighted_round_robin"]
)
async def test_rules_choose_the_policy(policy: str, geo: Ruled) -> None:
    mesh = geo.mesh()
    await geo.set(lb={"policy": policy})
    keys = [str(number) for number in range(51)]
    once = [await mesh.call("geo", "who", key=key) for key in keys]
    again = [await mesh.call("geo", "who", key=key) for key in keys]
    assert set(once) == {1, 2}
    assert (once == again) is (policy == "rendezvous")


async def test_before_the_rules_are_known_no_call_goes_anywhere(geo: Ruled) -> None:
    client = geo.world.process(timeout=1.0)
    mesh = geo.mesh(client)
    rule = client.backend.faults.outage("watch", key="routes/")
    with pytest.raises(NoHealthyEndpointsError, match="rules for traffic are not known"):
        await mesh.call("geo", "who")
    assert geo.network.sent == []
    rule.end()
    assert await mesh.call("geo", "who") in (1, 2)


async def test_who_may_not_read_the_rules_is_told_that_and_what_to_do(geo: Ruled) -> None:
    client = geo.world.process(timeout=1.0)
    client.backend.faults.deny("watch", key="routes/")
    with pytest.raises(NoHealthyEndpointsError, match=r"store was not seen: .*denied.*rules=False"):
        await geo.mesh(client).call("geo", "who")


async def test_a_service_that_is_only_failed_over_to_holds_no_call_up(geo: Ruled) -> None:
    """The store goes away before anybody had to know who serves it."""
    mesh = geo.mesh()
    await answers(mesh, 1)
    await geo.set(default_subset="v1", failover={"*": [{"service": "backup"}]})
    cut = mesh._client.backend.faults.outage()  # type: ignore[attr-defined]
    began = geo.world.clock.now()
    assert await answers(mesh, 5) == {1: 5}
    assert geo.world.clock.now() - began < 1
    cut.end()
    await geo.serve({"who": lambda: "backup"}, "backup")
    await asyncio.sleep(60)
    await geo.set(subsets={"v1": {"version": ">=9"}}, default_subset="v1", failover={"*": [{"service": "backup"}]})
    assert await answers(mesh, 5) == {"backup": 5}


async def test_a_mesh_that_follows_no_rules_is_not_kept_by_them(geo: Ruled) -> None:
    await geo.set(default_subset="v1")
    assert set(await answers(geo.mesh(rules=False), 50)) == {1, 2}


@pytest.mark.parametrize(("waits", "counted"), [(0.3, []), (1.0, [(20, 0, 20)])])
async def test_calls_that_are_given_up_tell_of_a_canary_only_that_it_is_slow(
    geo: Ruled, waits: float, counted: list[tuple[int, int, int]]
) -> None:
    await geo.set(default_subset="v1")
    await TrafficRules(geo.world.process()).canary("geo", CanaryPlan("v1", "v2", step=50))
    for place in geo.network.places.values():
        place.delay = 5
    mesh, key = geo.mesh(), next(key for key in map(str, range(100)) if place_of("geo", key) >= 5000)
    for _ in range(20):
        with suppress(TimeoutError):
            async with asyncio.timeout(waits):
                await mesh.call("geo", "who", key=key)
    assert mesh._routing is not None
    sums = [one for told in mesh._routing._summaries._told.values() for one in told.sums.values()]
    assert [(one.calls, one.failed, one.took[bucket_of(waits)]) for one in sums] == counted


async def test_a_hedge_elsewhere_that_is_not_answered_is_not_held_against_a_canary(geo: Ruled) -> None:
    await geo.set(default_subset="v1", failover={"v2": [{"subset": "v1"}]})
    await TrafficRules(geo.world.process()).canary("geo", CanaryPlan("v1", "v2", step=50))
    mesh = geo.mesh(retry_policies=RetryPolicy(idempotent=["who"], hedging=Hedging()))
    key = next(key for key in map(str, range(100)) if place_of("geo", key) >= 5000)
    assert await answers(mesh, 30, key=key) == {2: 30}
    for server in geo.servers():
        slow = 0.5 if server.registration.definition.version == "2.0" else 3.0
        geo.network.places[server.address].delay = slow
    geo.network.sent.clear()
    assert await mesh.call("geo", "who", key=key) == 2
    assert sorted(geo.network.counts().values()) == [1, 1], "it was hedged"
    assert mesh._routing is not None
    (sums,) = [one for told in mesh._routing._summaries._told.values() for one in told.sums.values()]
    assert (sums.calls, sums.failed) == (31, 0)


async def test_calls_to_a_canary_are_counted_for_who_judges_it(geo: Ruled) -> None:
    await geo.set(default_subset="v1")
    await TrafficRules(geo.world.process()).canary("geo", CanaryPlan("v1", "v2"))
    mesh = geo.mesh()
    counted = await answers(mesh, 400)
    await geo.world.clock.advance(60)
    (key,) = geo.world.keys("calls/geo/")
    value = geo.world.store.scan(f"ns/{key}").items[f"ns/{key}"].value
    assert f'"calls":{counted[2]},"failed":0'.encode() in value
