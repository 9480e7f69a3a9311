"""The page on picking endpoints: its examples show what they say, its defaults too, and nothing public lacks one."""

from __future__ import annotations

import pytest
from apis import Name, without_example
from examples import Area, Example
from worlds import World

import osdisco.mesh
from osdisco.mesh import (
    EndpointState,
    _choice,
    _state,
    balancers,
    breaker,
    events,
    outliers,
    pool,
    refusal,
    rendezvous,
    slow_start,
    subsets,
    zones,
)

BALANCING = Area("mesh/balancing", lambda client, other: {})
MODULES = (_choice, _state, balancers, breaker, events, outliers, pool, refusal, rendezvous, slow_start, subsets, zones)
SHOWN = {module.__name__ for module in MODULES}


@pytest.mark.parametrize("example", BALANCING.examples, ids=str)
async def test_an_example_shows_what_it_says(example: Example) -> None:
    world = World()
    await BALANCING.run(example, world.process(), world.process())
    await world.aclose()


def test_every_example_shows_something() -> None:
    assert [str(example) for example in [BALANCING.frame, *BALANCING.examples] if not example.claims] == []


INTERNAL: set[Name] = {("EndpointState", name) for name in ("seed", "observe", "show", "tier")}
INTERNAL |= {("SlowStart", "warm"), ("Subsetting", "chosen"), ("StateBalancer", "fresh"), ("EndpointSubset", "name")}
INTERNAL |= {(name, "pick") for name in osdisco.mesh.__all__ if name.endswith("LoadBalancer")}
"""For the pool: users have `LoadBalancer.pick` on the page, and classes of subsets come from the rules."""


def test_every_public_name_has_an_example() -> None:
    """A new public method, property or field fails here until the page shows it."""
    names = [getattr(osdisco.mesh, name) for name in osdisco.mesh.__all__]
    classes = [one for one in names if isinstance(one, type) and one.__module__ in SHOWN]
    assert EndpointState in classes
    assert without_example(BALANCING, classes) - INTERNAL == set()
