"""Simulation of the registry: views follow, events are the differences, and old data never comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from market import Market
from strikes import STRIKES

from osdisco.testing import Scenario, Simulation, scenario

SECONDS = 7.0
"""Of trouble in a seed."""

OPERATOR = {"leases ended": 0.8, "records deleted": 0.8}
LIFE = {"killed": 0.4, "changed": 10, "left": 0.2, "acknowledged": 3, "told": 20, "protected": 0.5}


@scenario(often={**STRIKES, **OPERATOR, **LIFE})
async def services(simulation: Simulation) -> None:
    """Two follow three instances of a service, one of them protected against a panic."""
    market = Market(simulation)
    for _ in range(3):
        market.open()
    for share in (0.5, 0.0):
        market.look(share)
    await simulation.trouble(SECONDS, rate=5, restart=market.restart, also=market.operations())
    await market.end()


@pytest.mark.timeout(900)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None]) -> None:
    osdisco_simulate(services)
