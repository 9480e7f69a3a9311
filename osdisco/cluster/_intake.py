"""What a mirror takes from its source: the state in packs, with what only `/_nodes` and the settings tell of nodes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Final

from attrs import evolve, frozen

from osdisco.cluster._aside import aside
from osdisco.cluster._build import StateBuilder
from osdisco.cluster._cut import CutState, cut_nodes, cut_settings, cut_state
from osdisco.cluster._head import Head
from osdisco.cluster._join import NodeAnswers, join_nodes, membership
from osdisco.cluster._pack import Packs, k_of, pack
from osdisco.cluster._publisher import Texts
from osdisco.cluster.components import StateComponent
from osdisco.cluster.source import ClusterStateSource
from osdisco.cluster.state import StateHeader
from osdisco.errors import ClusterError
from osdisco.runtime import Runtime

log = logging.getLogger("osdisco")

NODES_EVERY: Final = 30.0
"""Seconds after which nodes are asked how they are although none came or went."""


@frozen
class Taken:
    """A state as it is published."""

    header: StateHeader
    texts: Texts


class Intake:
    """Asks a source. `head` is what is published: what did not change since is to be in the same packs.

    Attributes:
        nodes_error: why the nodes or the settings could not be asked for; None when they could. Of nodes that came
            since no role is known then.
    """

    def __init__(self, source: ClusterStateSource, runtime: Runtime, head: Head | None) -> None:
        self.nodes_error: ClusterError | None = None
        self._source = source
        self._clock = runtime.clock
        self._ks: dict[str, int] = {name: k_of(len(blobs)) for name, blobs in head.components.items()} if head else {}
        self._cut: CutState | None = None
        self._members: Mapping[str, str] = {}
        self._size = 0
        self._answers: NodeAnswers | None = None
        self._settings: Mapping[str, str] = {}
        self._asked_at: float | None = None
        self._builder = StateBuilder()

    @property
    def nodes_due(self) -> bool:
        """Whether it is time to ask nodes again."""
        return self._asked_at is not None and self._clock.now() - self._asked_at >= NODES_EVERY

    async def take(self) -> Taken:
        """Ask for the state.

        Raises:
            ClusterError: it could not be asked for, or is not what it should be.
        """
        body = await self._source.state()
        cut, members = await aside(len(body), partial(_cut, body))
        self._cut = evolve(cut, header=evolve(cut.header, observed_at=self._clock.wall()))
        self._members, self._size = members, len(body)
        if self._answers is None or self._answers.asked != members:
            await self._ask_nodes()
        return await self._made(self._cut)

    async def again(self) -> Taken:
        """Ask only how the nodes are, of the state that was taken last. Raises as `take` does."""
        assert self._cut is not None
        await self._ask_nodes()
        return await self._made(self._cut)

    async def _ask_nodes(self) -> None:
        self._asked_at = self._clock.now()
        members = self._members
        try:
            nodes = await self._source.nodes()
            self._answers = NodeAnswers(await aside(len(nodes), partial(cut_nodes, nodes)), members)
            settings = await self._source.settings()
            self._settings = await aside(len(settings), partial(cut_settings, settings))
        except ClusterError as exc:
            if self.nodes_error is None:
                log.warning("the nodes of the cluster cannot be asked for their roles, the state still is: %s", exc)
            self.nodes_error = exc
        else:
            self.nodes_error = None

    async def _made(self, cut: CutState) -> Taken:
        packed = await aside(self._size, partial(self._packed, cut))
        self._ks = {name: packs.k for name, packs in packed.items()}
        return Taken(cut.header, {name: packs.packs for name, packs in packed.items()})

    def _packed(self, cut: CutState) -> dict[str, Packs]:
        """Pack all parts, and read them as readers will: what they would refuse is not published."""
        nodes = join_nodes(cut, self._answers, self._settings)
        parts = {**cut.parts, StateComponent.NODES: nodes}
        packed = {name: pack(some, self._ks.get(name)) for name, some in parts.items()}
        texts = {name: [(one.sha, one.text) for one in packs.packs] for name, packs in packed.items()}
        self._builder.build(cut.header, texts)
        return {name.value: packs for name, packs in packed.items()}


def _cut(body: bytes) -> tuple[CutState, Mapping[str, str]]:
    cut = cut_state(body)
    return cut, membership(cut)
