"""Simulation of discovery: whatever happens, what is registered is seen, as it is, by everybody, in the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from neighbourhood import Neighbourhood
from strikes import STRIKES

from osdisco.testing import Scenario, Simulation, scenario

SECONDS = 8.0
"""Of trouble in a seed."""


@scenario(often={**STRIKES, "killed": 0.4, "changed": 10, "left": 0.2, "acknowledged": 1})
async def neighbours(simulation: Simulation) -> None:
    """Each has an id of its own. The process that replaces a killed one takes it over while the old record stands."""
    neighbourhood = Neighbourhood(simulation)
    for id_ in ("geo", "knn", ""):
        neighbourhood.start(id_)
    await simulation.trouble(SECONDS, rate=5, restart=neighbourhood.restart)
    await neighbourhood.end()


OPERATOR = {"lease ended": 0.4, "record deleted": 0.4, "false renewals": 0.2}


@scenario(often={**STRIKES, **OPERATOR, "killed": 0.4, "changed": 10, "left": 0.2, "superseded": 0.5})
async def namesakes(simulation: Simulation) -> None:
    """Processes with one id supersede each other, while an operator removes what they have in the store."""
    neighbourhood = Neighbourhood(simulation)
    for id_ in ("geo", "geo", "knn"):
        neighbourhood.start(id_)
    also = neighbourhood.operations()
    await simulation.trouble(SECONDS, rate=5, restart=neighbourhood.restart, also=also, lying=True)
    neighbourhood.start("geo")
    await neighbourhood.end()


@pytest.mark.fault("F4", "F12", "F13", "F14", "F15", "F16", "F18", "F19")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("story", [neighbours, namesakes], ids=lambda story: story.name)
def test_whatever_happens(osdisco_simulate: Callable[[Scenario], None], story: Scenario) -> None:
    osdisco_simulate(story)
