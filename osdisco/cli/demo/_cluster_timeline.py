"""The demo of the cluster as a person sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from osdisco.cli._text import seconds
from osdisco.cli.demo._cast import Event
from osdisco.cli.demo._cluster_cast import MIRRORS, POLL, READERS, colour
from osdisco.cli.demo._telling import Telling, Words, promised


class ClusterTimeline(Telling):
    """A timeline with a colour for each."""

    width = 8

    def opening(self, url: str, how: str, asked: float) -> None:
        """Tell what is played where."""
        cast = f"{len(MIRRORS)} candidates for the mirror and {len(READERS)} readers, {how}"
        self._open("demo --cluster", cast, url, promised(self._facts, asked))

    def _colour(self, who: str) -> str:
        return colour(who)

    def _started(self, event: Event) -> Words:
        if event.who in MIRRORS:
            return "·", "dim", f"would mirror the cluster; {event.data['place']}"
        return "·", "dim", f"reads {', '.join(READERS[event.who])}; {event.data['place']}"

    def _standing(self, event: Event) -> Words:
        return "·", "dim", "stands, and waits"

    def _leading(self, event: Event) -> Words:
        if not (killed := self._facts.all("killed")):
            return "◆", "bold", "is the mirror"
        return "◆", "bold", f"is the mirror, {seconds(event.at - killed[0].at)} after the kill"

    def _published(self, event: Event) -> Words:
        return "■", "", f"puts version {event.data['version']} into the store: {event.data['size']} bytes in all"

    def _away(self, event: Event) -> Words:
        return "✗", "red", f"cannot mirror the cluster: {event.data['error']}"

    def _state(self, event: Event) -> Words:
        return "◎", "", f"sees version {event.data['version']}: {_counted(event.data)}"

    def _joins(self, event: Event) -> Words:
        return "●", "bold", f"{event.data['node']} joins: version {event.data['version']}"

    def _moves(self, event: Event) -> Words:
        shard, node = event.data["shard"], event.data["node"]
        return "→", "bold", f"{shard} moves to {node}: version {event.data['version']}"

    def _leaves(self, event: Event) -> Words:
        return "○", "bold", f"{event.data['node']} leaves: version {event.data['version']}"

    def _node_joined(self, event: Event) -> Words:
        return "○", "", f"sees {event.data['node']['name']} join{self._since('joins', event)}"

    def _node_left(self, event: Event) -> Words:
        return "○", "", f"sees {event.data['node']['name']} leave{self._since('leaves', event)}"

    def _shard_moved(self, event: Event) -> Words:
        new = event.data["shard"]
        return "○", "", f"sees {new['index']}/{new['shard']} on {new['node']}{self._since('moves', event)}"

    def _since(self, what: str, event: Event) -> str:
        changed = self._facts.all(what)
        return f", {seconds(event.at - changed[-1].at)} later" if changed else ""

    def _fetched_nothing(self, event: Event) -> Words:
        return "✓", "yellow", f"sees version {event.data['version']}, and fetched nothing but its head"

    def _killed(self, event: Event) -> Words:
        how = f"SIGKILL to {event.data['place']}" if "process" in event.data["place"] else "its event loop stops dead"
        return "✗", "bold red", f"killed while it mirrors: {how}"

    def _stale(self, event: Event) -> Words | None:
        return ("·", "dim", f"says that it may be old: {event.data['reason']}") if self._facts.all("killed") else None

    def _unharmed(self, event: Event) -> Words:
        return "✓", "yellow", f"unharmed: {event.data['versions']} versions, each after the one before it"

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Close with the measurements."""
        self._close(_measured(facts))


def _counted(data: Mapping[str, Any]) -> str:
    return ", ".join(f"{sum(data[name].values())} {name}" for name in ("nodes", "indices", "shards") if name in data)


def _measured(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    small, whole = facts["asked_for_the_version"], facts["asked_for_the_state"]
    return [
        ("node seen by all after", seconds(facts["join_seen_after"])),
        ("move seen by all after", seconds(facts["move_seen_after"])),
        ("mirror replaced after", f"{seconds(facts['mirror_replaced_after'])} (leases of {facts['ttl']:g} s)"),
        ("and the next change seen", f"{seconds(facts['leave_seen_after'])} after the kill"),
        ("the cluster was asked", f"{small} times for its version, one each {POLL:g} s; {whole} times for the state"),
        ("left in the store", "nothing"),
        ("took", seconds(facts["took"])),
    ]
