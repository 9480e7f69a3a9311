"""Near a node of the search cluster: on its host, then in its zone, then anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from fleets import UNHEALTHY, Fleet, endpoint
from mesh_town import town
from worlds import World

from osdisco import ConfigError
from osdisco.cluster import NodeAddress, NodeInfo
from osdisco.mesh import NearestLoadBalancer, PoolSettings, TrafficRules

NODE = NodeInfo("d1", address=NodeAddress("10.0.0.2", 9300), attributes={"zone": "a"})


def picked(*places: tuple[str, str], node: NodeInfo = NODE, **settings: Any) -> set[str]:
    """Give the addresses and zones that are there; return the addresses that are picked."""
    fleet = Fleet(balancer=NearestLoadBalancer.to(node), settings=PoolSettings(**settings))
    fleet.set(*(endpoint(number, address=address, zone=zone) for number, (address, zone) in enumerate(places)))
    return {fleet.pick().endpoint.address for _ in range(200)}


def test_those_on_its_host_are_asked_before_those_in_its_zone_and_these_before_all_others() -> None:
    assert picked(("10.0.0.2:1", "b"), ("10.0.0.2:2", "a"), ("10.0.0.3:1", "a")) == {"10.0.0.2:1", "10.0.0.2:2"}
    assert picked(("10.0.0.4:1", "a"), ("10.0.0.3:1", "a"), ("10.0.0.5:1", "b")) == {"10.0.0.4:1", "10.0.0.3:1"}
    assert picked(("10.0.0.4:1", "c"), ("10.0.0.5:1", "b")) == {"10.0.0.4:1", "10.0.0.5:1"}


def test_a_host_is_compared_as_it_is_written_and_addresses_without_their_brackets() -> None:
    node = NodeInfo("d1", address=NodeAddress("2001:DB8::2", 9300))
    assert picked(("[2001:db8::2]:1", "a"), ("10.0.0.3:1", "a"), node=node) == {"[2001:db8::2]:1"}


def test_who_is_full_leaves_calls_to_the_next() -> None:
    fleet = Fleet(balancer=NearestLoadBalancer.to(NODE), settings=PoolSettings(concurrency=1))
    fleet.set(endpoint(1, address="10.0.0.2:1"), endpoint(2, address="10.0.0.9:1"))
    first = fleet.pick()
    fleet.pool.begin(first)
    assert (first.endpoint.address, fleet.pick().endpoint.address) == ("10.0.0.2:1", "10.0.0.9:1")


def test_in_a_panic_it_is_not_the_near_one_alone_that_is_called() -> None:
    fleet = Fleet(balancer=NearestLoadBalancer.to(NODE))
    fleet.set(endpoint(1, address="10.0.0.2:1", status=UNHEALTHY), endpoint(2, address="10.0.0.9:1"))
    assert fleet.picked() == {"e2"}
    fleet.set(endpoint(3, address="10.0.0.8:1", status=UNHEALTHY))
    assert fleet.pool.pick() is not None
    assert fleet.picked() == {"e1", "e2", "e3"}


def test_what_are_no_hosts_is_refused() -> None:
    with pytest.raises(ConfigError, match="frozenset"):
        NearestLoadBalancer({"10.0.0.2"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="zone is text, or None, not 5"):
        NearestLoadBalancer(frozenset(), 5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="inner is LoadBalancer, or None"):
        NearestLoadBalancer(frozenset(), None, NearestLoadBalancer)  # type: ignore[arg-type]


async def test_calls_go_near_a_node_whatever_rules_say_of_picking_and_elsewhere_when_nobody_answers_there(
    world: World,
) -> None:
    async with town(world) as place:
        for number in (1, 2, 3):
            await place.serve({"search": lambda _, number=number: number}, host=f"10.0.0.{number}")
        await TrafficRules(world.process("operator")).set("geo", {"lb": {"policy": "round_robin"}})
        mesh = place.mesh(rules=True)
        assert {await mesh.call("geo", "search", near=NODE) for _ in range(20)} == {2}
        assert {await mesh.call("geo", "search") for _ in range(20)} == {1, 2, 3}
        place.network.places["10.0.0.2:20001"].answer = None
        assert {await mesh.call("geo", "search", near=NODE) for _ in range(20)} <= {1, 3}
