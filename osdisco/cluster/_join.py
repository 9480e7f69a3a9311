"""What the mirror says of each node: what the state has of it, what it said itself, and how it seems to be.

A reader of the nodes alone could not tell the last: that takes two answers of the cluster and its settings.

    cut = cut_state(body)
    if answers is None or answers.asked != membership(cut):      # somebody joined, left or was restarted
        answers = NodeAnswers(cut_nodes(await source.nodes()), membership(cut))
    nodes = join_nodes(cut, answers, cut_settings(await source.settings()))   # `cut` stays as it is
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from osdisco.cluster._cut import CutState
from osdisco.cluster._fields import Fields, within
from osdisco.cluster._json import parse
from osdisco.cluster.components import StateComponent
from osdisco.cluster.nodes import NodeAddress, NodeStatus

_EXCLUDE: Final = "cluster.routing.allocation.exclude."
_ADDRESSES: Final = ("_ip", "_host_ip", "_publish_ip", "_host")


@frozen
class NodeAnswers:
    """What nodes said to `/_nodes`, and who was in the cluster when they were asked.

    Args:
        infos: from `cut_nodes`, by id.
        asked: `membership` of a state that was read before `/_nodes` was asked. Who joined later was not asked.
    """

    infos: Mapping[str, bytes]
    asked: Mapping[str, str]


def membership(cut: CutState) -> dict[str, str]:
    """Return the ephemeral ids of the nodes in the state, by id: another one means that the node was restarted."""
    nodes = cut.parts[StateComponent.NODES]
    return {id_: Fields(_parsed(id_, part), within("nodes", id_)).text("ephemeral_id") for id_, part in nodes.items()}


def join_nodes(cut: CutState, answers: NodeAnswers | None, settings: Mapping[str, str]) -> dict[str, bytes]:
    """Return the parts of all nodes: `{"info": … | null, "state": …, "status": …}`.

    A node is *draining* when it is on its way out of the voting configuration, or shards are to move away from it;
    *unresponsive* when it was asked for what it is and did not answer; *online* otherwise, even if it was never asked.

    Args:
        cut: its nodes must still be as the cluster gave them.
        answers: None when nodes could not be asked: nothing is known of their roles then.
        settings: from `cut_settings`; empty when they could not be asked for.

    Raises:
        ClusterDocumentError: a node's name, address or attribute is of another type.
    """
    excluded = {key.removeprefix(_EXCLUDE): value for key, value in settings.items() if key.startswith(_EXCLUDE)}
    now = membership(cut)
    return {
        id_: _joined(id_, part, now[id_], cut.voting_exclusions, answers, excluded)
        for id_, part in cut.parts[StateComponent.NODES].items()
    }


def _joined(
    id_: str,
    part: bytes,
    ephemeral: str,
    leaving: frozenset[str],
    answers: NodeAnswers | None,
    excluded: Mapping[str, str],
) -> bytes:
    info = None if answers is None else answers.infos.get(id_)
    asked = answers is not None and answers.asked.get(id_) == ephemeral
    if answers is not None and id_ in answers.asked and not asked:
        info = None  # it was restarted since: what it said then may be wrong now
    node = Fields(_parsed(id_, part), within("nodes", id_))
    if {id_, node.text("name")} & leaving or _matches(id_, node, info, excluded):
        status = NodeStatus.DRAINING
    else:
        status = NodeStatus.UNRESPONSIVE if asked and info is None else NodeStatus.ONLINE
    return b'{"info":%b,"state":%b,"status":"%b"}' % (info or b"null", part, status.value.encode())


def _matches(id_: str, node: Fields, info: bytes | None, excluded: Mapping[str, str]) -> bool:
    """Return whether shards are to move away from a node (`DiscoveryNodeFilters`, where one match is enough)."""
    return bool(excluded) and any(
        _like(pattern.strip(), value)
        for name, patterns in excluded.items()
        for pattern in patterns.split(",")
        for value in _values(name, id_, node, info)
    )


def _values(name: str, id_: str, node: Fields, info: bytes | None) -> Iterator[str]:
    """Yield what a filter of this name looks at."""
    said = Fields(_parsed(id_, info or b"{}"), within("nodes", id_))
    if name == "_id":
        yield id_
    elif name in ("_name", "name"):
        yield node.text("name")
    elif name in _ADDRESSES:
        address = NodeAddress.parse(node.text("transport_address"), node.place("transport_address"))
        yield said.text("ip")
        if address is not None:
            yield address.ip
        if name == "_host":
            yield said.text("host")
            yield "" if address is None else address.host
    elif (value := node.inside("attributes").optional(name)) is not None:
        yield value


def _like(pattern: str, value: str) -> bool:
    """Return whether a value is like a pattern, in which `*` stands for anything; nothing else is special.

    By hand, for a regular expression with many `.*` takes longer than anybody lives.
    """
    begin, *middle = pattern.split("*")
    if not middle:
        return bool(pattern) and value == pattern
    end, at = middle.pop(), len(begin)
    if len(value) < at + len(end) or not value.startswith(begin) or not value.endswith(end):
        return False
    for one in middle:
        found = value.find(one, at, len(value) - len(end))
        if found < 0:
            return False
        at = found + len(one)
    return True


def _parsed(id_: str, part: bytes) -> object:
    return parse(part, within("nodes", id_))
