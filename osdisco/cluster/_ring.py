"""The nodes of a search cluster that are asked: one of them until it fails, then the next.

A node that failed is asked again only when no other will do, or its pause is over. One that said itself how long it
wishes to be left alone (`Retry-After`) is not asked before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from attrs import define

from osdisco.discovery._target import RefusedError, Target
from osdisco.errors import ClusterUnavailableError, ConfigError
from osdisco.runtime import Runtime
from osdisco.url import Host

PAUSE_MIN: Final = 1.0
PAUSE_MAX: Final = 30.0
"""Seconds that a node is left alone after a failure, and after many."""

TOLD_MAX: Final = 60.0
"""Seconds of a `Retry-After` that are believed."""


@define(eq=False)
class Node:
    """One node, and how it did."""

    target: Target
    failures: int = 0
    rests_until: float = 0.0
    told: bool = False

    @property
    def name(self) -> str:
        """`host:port`, for messages."""
        return self.target.authority

    @property
    def tls(self) -> bool:
        """Whether it is reached by TLS."""
        return self.target.scheme == "https"

    @property
    def loopback(self) -> bool:
        """Whether what is sent to it stays on this machine."""
        return Host(self.target.host).loopback

    def url(self, path: str) -> str:
        """Return the URL of a path of the API."""
        return str(self.target).rstrip("/") + path


class Ring:
    """The nodes in the order in which they are to be asked."""

    def __init__(self, nodes: Sequence[Node], runtime: Runtime) -> None:
        self.nodes: Final = nodes
        self._runtime = runtime
        self._current = runtime.random.randrange(len(nodes))  # so that many sources do not all ask the first

    def in_turn(self) -> list[Node]:
        """Return whom to ask, best first.

        Raises:
            ClusterUnavailableError: all of them wish to be left alone for now.
        """
        now = self._runtime.clock.now()
        ring = [*self.nodes[self._current :], *self.nodes[: self._current]]
        ready = [node for node in ring if node.rests_until <= now]
        resting = sorted((node for node in ring if node not in ready), key=lambda node: node.rests_until)
        if turn := ready + [node for node in resting if not node.told]:
            return turn
        left = resting[0].rests_until - now
        raise ClusterUnavailableError(f"all nodes asked to be left alone for {left:.3g} s more", left)

    def did_well(self, node: Node) -> None:
        """Stay with a node that answered."""
        node.failures, node.rests_until, node.told = 0, 0.0, False
        self._current = self.nodes.index(node)

    def failed(self, node: Node, retry_after: float | None) -> None:
        """Leave a node alone for a while, and go on with the next one."""
        node.failures += 1
        node.told = bool(retry_after)
        pause = self._runtime.jittered(min(PAUSE_MIN * 2 ** min(node.failures - 1, 10), PAUSE_MAX))
        node.rests_until = self._runtime.clock.now() + (min(retry_after, TOLD_MAX) if retry_after else pause)
        if self.nodes[self._current] is node:
            self._current = (self._current + 1) % len(self.nodes)


def parse_nodes(given: str | Iterable[str]) -> list[Node]:
    """Read URLs of nodes; text may hold several, with commas between them.

    Raises:
        ConfigError: none is given, or one is no URL of a node.
    """
    texts = given.split(",") if isinstance(given, str) else list(given)
    nodes = [Node(_target(text.strip() if isinstance(text, str) else text, n)) for n, text in enumerate(texts, 1)]
    if not nodes:
        raise ConfigError("no node of the search cluster is given; a list such as ['https://os1:9200'] is needed")
    return nodes


def _target(text: str, n: int) -> Target:
    """Errors name a node by its place where a secret might stand in it."""
    if isinstance(text, str) and "@" in text:
        raise ConfigError(f"node {n} holds a user or a password; give auth= or password_file= instead")
    try:
        target = Target.parse(text)
    except RefusedError as exc:
        raise ConfigError(f"node {n}: {exc}") from None
    if "?" in target.path:
        raise ConfigError(f"node {n} has a '?' part, which the URL of a node has not")
    return target
