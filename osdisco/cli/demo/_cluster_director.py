"""The story of the cluster's demo: changes a search cluster, kills its mirror, and checks what readers see of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from osdisco.backend import Delete
from osdisco.cli._errors import FailedError
from osdisco.cli.demo._cast import Event
from osdisco.cli.demo._cluster_cast import MIRROR, MIRRORS, POLL, READERS
from osdisco.cli.demo._directing import Directing, Show
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._stages import Actor
from osdisco.client import Client
from osdisco.cluster._questions import VERSION
from osdisco.testing.opensearch import FakeCluster

INDEX: Final = "logs"
SHARD: Final = 0
NEW: Final = "n4"
GONE: Final = "n3"
CLUSTER: Final = "cluster"
"""Who changes; no process of ours."""
SUSPENSE: Final = 0.4
AT_ONCE: Final = 50

Start = Callable[[str], Awaitable[Actor]]


class ClusterDirector(Directing):
    """Plays the story with the actors that `start` makes, and a cluster that is served."""

    def __init__(self, client: Client, show: Show, facts: Facts, cluster: FakeCluster) -> None:
        super().__init__(client, show, facts)
        self.figures: Final[dict[str, Any]] = {}
        self._cluster = cluster

    async def play(self, start: Start) -> None:
        """Play all of it. Raises FailedError when what is shown did not happen."""
        await self._play(self._story(start), "keys")

    async def _story(self, start: Start) -> None:
        await self._mirror(start)
        await self._join()
        await self._move()
        dead = await self._kill()
        await self._replace(dead)
        self._check_versions()
        self._check_requests()

    async def _mirror(self, start: Start) -> None:
        text = "Two may ask the cluster, one is elected. It puts the state into the store, where the readers find it."
        self._show.chapter("Mirror", text)
        for who in (*MIRRORS, *READERS):
            actor = self._actors[who] = await start(who)
            self._tell(who, "started", place=actor.place)
        await self._until("a mirror, and all to read it", lambda: self._leading and all(map(self._is_current, READERS)))
        await self._until("another one that would be the mirror", lambda: self._told("standing", MIRRORS))

    @property
    def _leading(self) -> Event | None:
        led = self._facts.all("leading")
        return max(led, key=lambda event: event.at) if led else None

    def _told(self, what: str, whom: Any) -> bool:
        return any(self._facts.seen(what, who) for who in whom)

    def _is_current(self, who: str) -> bool:
        """Whether somebody sees the version that the cluster has."""
        return self._seen_version(who) == self._cluster.version

    def _seen_version(self, who: str) -> int | None:
        seen = self._facts.all("version", who)
        return seen[-1].data["version"] if seen else None

    async def _join(self) -> None:
        self._show.chapter("Join", f"The node {NEW} joins. The mirror asks once; everybody is told.")
        self._change("joins", lambda: self._cluster.join(NEW, zone="a"), node=NEW)
        await self._until(f"all to see {NEW}", lambda: all(self._saw("node_joined", who, NEW) for who in READERS))
        self._measure("join_seen_after", "joins", "node_joined", READERS)

    def _saw(self, what: str, who: str, node: str) -> Event | None:
        return next((event for event in self._facts.all(what, who) if event.data["node"]["id"] == node), None)

    async def _move(self) -> None:
        text = f"Shard {SHARD} of '{INDEX}' moves to {NEW}. Who asked for nodes alone fetches nothing of that."
        self._show.chapter("Move", text)
        nodes_only = [who for who in READERS if len(READERS[who]) == 1]
        before = {who: self._fetched(who) for who in nodes_only}
        self._change("moves", lambda: self._cluster.move_shard(INDEX, SHARD, NEW), shard=f"{INDEX}/{SHARD}", node=NEW)
        movers = [who for who in READERS if who not in nodes_only]
        await self._until(f"the shard to be on {NEW}", lambda: all(self._saw_move(who) for who in movers))
        await self._until("all to see this version", lambda: all(map(self._is_current, READERS)))
        for who in nodes_only:
            if (more := self._fetched(who) - before[who]) != 0:
                raise FailedError(f"{who} asked for nodes alone, and fetched {more} bytes when a shard moved")
            self._tell(who, "fetched nothing", version=self._cluster.version)
        self._measure("move_seen_after", "moves", "shard_moved", movers)

    def _saw_move(self, who: str) -> bool:
        moved = (event.data["shard"] for event in self._facts.all("shard_moved", who))
        return any((one["index"], one["shard"], one["node"]) == (INDEX, SHARD, NEW) for one in moved)

    def _fetched(self, who: str) -> int:
        fetched: int = self._facts.all("version", who)[-1].data["fetched"]
        return fetched

    async def _kill(self) -> str:
        leading = self._leading
        assert leading is not None
        self._show.chapter(
            "Kill", f"{leading.who}, the mirror, is killed. Readers keep what they know, of one version."
        )
        await asyncio.sleep(SUSPENSE)
        self._actors[leading.who].crash()
        self._tell(leading.who, "killed", place=self._actors[leading.who].place)
        return leading.who

    async def _replace(self, dead: str) -> None:
        text = (
            f"The store ends its lease, and the other one goes on where it ended. Meanwhile {GONE} leaves the cluster."
        )
        self._show.chapter("Replace", text)
        self._change("leaves", lambda: self._cluster.leave(GONE), node=GONE)
        self._show.wait(f"the lease of {dead} runs out: {self._facts.ttl:g} to {self._facts.ttl_late:g} s")
        await self._until("another mirror", lambda: self._successor(dead))
        await self._until(f"all to see {GONE} leave", lambda: all(self._saw("node_left", who, GONE) for who in READERS))
        await self._until("all to see this version", lambda: all(map(self._is_current, READERS)))
        self._show.wait("")
        old, new = self._facts.all("leading", dead)[-1], self._successor(dead)
        assert new is not None
        if new.data["token"] is not None and new.data["token"] <= old.data["token"]:
            raise FailedError(f"the mirror's tokens did not rise: {old.data['token']}, {new.data['token']}")
        killed = self._facts.killed.at
        seen = [saw.at for who in READERS if (saw := self._saw("node_left", who, GONE)) is not None]
        self.figures["mirror_replaced_after"] = new.at - killed
        self.figures["leave_seen_after"] = max(seen) - killed

    def _successor(self, dead: str) -> Event | None:
        led = (event for event in self._facts.all("leading") if event.who != dead)
        return next((event for event in led if event.at > self._facts.killed.at), None)

    def _check_versions(self) -> None:
        """Hold that no reader was harmed: each saw versions that only rose, one whole state, and lost nothing."""
        for who in READERS:
            seen = [event.data["version"] for event in self._facts.all("version", who)]
            if seen != sorted(set(seen)):
                raise FailedError(f"{who} saw versions that did not rise: {seen}")
            if len(self._facts.all("state", who)) != 1:
                raise FailedError(f"{who} lost what it knew, and began anew")
            left = [event.data["node"]["id"] for event in self._facts.all("node_left", who)]
            if left != [GONE]:
                raise FailedError(f"{who} saw {left} leave, and {GONE} alone did")
            self._tell(who, "unharmed", versions=len(seen))

    def _check_requests(self) -> None:
        """Hold that the cluster was asked by one, however many read."""
        asked, took = self._cluster.requests, self._now() - self._facts.start
        small = asked[VERSION.path]
        whole = sum(
            count for path, count in asked.items() if path.startswith("/_cluster/state/") and path != VERSION.path
        )
        most = took / (0.9 * POLL) + len(MIRRORS)
        if small > most:
            raise FailedError(f"the cluster was asked {small} times in {took:.1f} s; by one that is {most:.0f} at most")
        changes = len(self._facts.all("change"))
        if whole > changes + 2 * len(MIRRORS):
            raise FailedError(f"the whole state was fetched {whole} times for {changes} changes")
        self.figures.update(asked_for_the_version=small, asked_for_the_state=whole, took=took)

    def _measure(self, figure: str, change: str, seen: str, whose: Any) -> None:
        changed = self._facts.all(change, CLUSTER)[-1].at
        last = max(self._facts.all(seen, who)[-1].at for who in whose)
        self.figures[figure] = last - changed

    def _change(self, what: str, change: Callable[[], None], **data: Any) -> None:
        change()
        self._tell(CLUSTER, what, version=self._cluster.version, **data)
        self._facts.add(Event(self._now(), CLUSTER, "change"))

    async def _tidy(self) -> None:
        """Remove what a mirror leaves on purpose: the state, for whoever mirrors next. Nothing else may be left."""
        for keys in _runs(list((await self._client.scan(f"cluster/{MIRROR}/")).items)):
            await self._client.commit([Delete(key) for key in keys])
        if left := (await self._client.scan()).items:
            raise FailedError(f"left behind in {self._client.url}: {', '.join(sorted(left))}")


def _runs(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), AT_ONCE):
        yield keys[start : start + AT_ONCE]
