"""A fault that does nothing is noticed."""

from __future__ import annotations

from typing import Any

import attack
import pytest
from attack import FAULTS
from attrs import define, field

from osdisco.testing import ApiError

[MOVE] = [fault for fault in FAULTS if fault.name == "move of the lead"]


@define(eq=False)
class Node:
    """One that obeys, or says so only."""

    cluster: Cluster
    id: int
    refusals: int = 0
    obeys: bool = True
    place: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.place = type("Place", (), {"name": f"n{self.id}"})

    def admin(self, _: str, path: str, request: dict[str, Any]) -> dict[str, Any]:
        if self.refusals:
            self.refusals -= 1
            raise ApiError("there is an election")
        if path.endswith("/list"):
            return {"header": {"member_id": self.id}, "members": [{"ID": node.id} for node in self.cluster.nodes]}
        if self.obeys:
            self.cluster.leads = request["targetID"]
        self.cluster.moves += 1
        return {}


@define
class Cluster:
    """Three of them."""

    nodes: list[Node] = field(factory=list)
    leads: int = 0
    moves: int = 0

    def leader(self, *, other_than: Node | None = None, seconds: float = 1) -> Node:
        leader = self.nodes[self.leads]
        if leader is other_than:
            raise TimeoutError(f"no other one in {seconds} s")
        return leader


def cluster(**how: Any) -> Cluster:
    made = Cluster()
    made.nodes += [Node(made, number, **how) for number in range(3)]
    return made


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack, "MOVED_WITHIN", 0.05)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.parametrize("refusals", [0, 2])
def test_the_lead_is_moved_and_refusals_are_borne(refusals: int) -> None:
    there = cluster(refusals=refusals)
    assert MOVE.strike(there, leads=True).done()
    assert there.moves == 3


@pytest.mark.parametrize("how", [{"obeys": False}, {"refusals": 10**9}])
def test_a_lead_that_does_not_move_voids_the_run(how: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="void: n0 still leads"):
        MOVE.strike(cluster(**how), leads=True)


@pytest.mark.parametrize("dropped", [0, 7])
def test_a_loss_of_packets_that_loses_none_is_not_done(dropped: int) -> None:
    class Deaf(Node):
        def deafen(self) -> None: ...

        def _filter(self) -> Any:
            return type("Filter", (), {"dropped": staticmethod(lambda: dropped)})

    there = cluster()
    there.nodes[1] = Deaf(there, 1)
    [deafness] = [fault for fault in FAULTS if fault.name == "deafness"]
    assert deafness.strike(there, leads=False).done() == bool(dropped)


def test_of_a_restart_alone_clients_are_asked() -> None:
    [asked] = [fault.name for fault in FAULTS if fault.done.__name__ == "_unknown"]
    assert asked == "rolling restart"
