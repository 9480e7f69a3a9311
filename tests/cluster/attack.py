"""What happens to the nodes of a cluster, by the fault classes of docs/reliability.md."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from attrs import frozen

from osdisco.testing import ApiError, EtcdCluster

Act = Callable[[Any, Any], object]

MOVED_WITHIN = 20.0
"""Seconds in which the lead must have been moved once."""


def _unknown(_: Any) -> bool:
    return False


@frozen
class Fault:
    """One kind of harm: `act` does it to a node of a cluster. `whole` harms all of it, and returns when that is over.

    `leader` tells to whom it is done: the leader or another, or by chance to either when None. `done` tells by the
    node whether it did anything; where it cannot, clients must have noticed.
    """

    name: str
    kind: str
    act: Act
    whole: bool = False
    leader: bool | None = None
    etcd_only: bool = False
    done: Callable[[Any], bool] = _unknown

    def strike(self, cluster: Any, leads: bool) -> Strike:
        """Do it to the leader, or to another node."""
        leader = cluster.leader()
        victim = leader if leads else next(node for node in cluster.nodes if node is not leader)
        self.act(cluster, victim)
        whom = "the cluster" if self.whole else victim.place.name + ", the leader" * leads
        return Strike(f"{self.name} of {whom}", self, victim)


@frozen
class Strike:
    """What was done to whom."""

    story: str
    fault: Fault
    victim: Any

    def done(self) -> bool:
        """Whether the harm itself is seen, before it is undone."""
        return self.fault.done(self.victim)


def _others(cluster: Any, node: Any) -> list[Any]:
    return [each for each in cluster.nodes if each is not node]


def _restart_all(cluster: Any, _: Any) -> None:
    """One after the other, each told to end, and the next one only when the cluster is healthy again."""
    for node in cluster.nodes:
        node.get_wrapped_container().stop(timeout=5)
        node.start()
        cluster.wait_healthy()


def _lose_majority(cluster: Any, node: Any) -> None:
    node.kill()
    _others(cluster, node)[0].kill()


def _move_lead(cluster: EtcdCluster, leader: Any) -> None:
    """Let the leader hand over in an orderly way, some times."""
    for _ in range(3):
        leader = _moved_lead(cluster, leader)
        time.sleep(0.5)


def _moved_lead(cluster: EtcdCluster, leader: Any) -> Any:
    """Return the new leader. What is refused, as in the midst of an election, is tried again."""
    end = time.monotonic() + MOVED_WITHIN
    while time.monotonic() < end:
        with suppress(ApiError, OSError):
            members = leader.admin("POST", "/v3/cluster/member/list", {})
            me = members["header"]["member_id"]
            target = next(member["ID"] for member in members["members"] if member["ID"] != me)
            leader.admin("POST", "/v3/maintenance/transfer-leadership", {"targetID": target})
        with suppress(TimeoutError):
            return cluster.leader(other_than=leader, seconds=1)
    raise AssertionError(f"void: {leader.place.name} still leads")


def _dropped(node: Any) -> bool:
    return bool(node._filter().dropped())


def _stands(node: Any) -> bool:
    return bool(node._status() != "running")


def _alone(node: Any) -> bool:
    container = node.get_wrapped_container()
    container.reload()
    return node.place.network not in container.attrs["NetworkSettings"]["Networks"]


FAULTS = (
    Fault("kill", "F1", lambda cluster, node: node.kill(), done=_stands),
    Fault("pause", "F2", lambda cluster, node: node.pause(), done=_stands),
    Fault("isolation", "F3", lambda cluster, node: node.disconnect(), done=_alone),
    Fault("cut, clients and all,", "F4", lambda cluster, node: node.disconnect(clients=True), done=_alone),
    Fault("deafness", "F5", lambda cluster, node: node.deafen(), done=_dropped),
    Fault("muteness", "F6", lambda cluster, node: node.mute(), done=_dropped),
    Fault("bridge", "F7", lambda cluster, node: node.cut(_others(cluster, node)[0]), done=_dropped),
    Fault("loss of the majority", "F8", _lose_majority, done=_stands),
    Fault("loss of packets", "F9", lambda cluster, node: node.lose(25), done=_dropped),
    Fault("little bandwidth", "F10", lambda cluster, node: node.throttle(40), done=_dropped),
    Fault("rolling restart", "F11", _restart_all, whole=True),
    Fault(
        "move of the lead", "leader change", _move_lead, whole=True, leader=True, etcd_only=True, done=lambda _: True
    ),  # it raises when it is not
)


def plan(chance: random.Random, *, etcd: bool, number: int | None = None) -> list[tuple[Fault, bool]]:
    """Return faults and whether the leader is struck, in any order: so many by chance, or all, each way, when None."""
    faults = [fault for fault in FAULTS if etcd or not fault.etcd_only]
    if number is not None:
        return [(fault, _leads(fault, chance)) for fault in chance.sample(faults, number)]
    every = [(fault, leads) for fault in faults for leads in _ways(fault)]
    return chance.sample(every, len(every))


def _leads(fault: Fault, chance: random.Random) -> bool:
    return chance.random() < 0.6 if fault.leader is None else fault.leader


def _ways(fault: Fault) -> list[bool]:
    return [True] if fault.whole or fault.leader else [True, False]
