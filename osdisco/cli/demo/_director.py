"""The story of the demo: gives the orders, watches what comes of them, and checks what osdisco promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final

from osdisco.backend import Delete, Item, Put
from osdisco.cli._errors import FailedError
from osdisco.cli.demo._call_director import CallDirector
from osdisco.cli.demo._cast import BATCH, CAST, ELECTION, LOCK, PLAN, ROUNDS, STORE, Event
from osdisco.cli.demo._directing import Show
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._outage import Outage
from osdisco.client import Client
from osdisco.coordination import CoordinationService, Fence
from osdisco.discovery import DiscoveryService, ExtensionStatus
from osdisco.errors import ConflictError, StaleTokenError

SUSPENSE: Final = 0.4
"""Seconds before the kill and before the old leader wakes up, so that one can see who waits, and who leads."""
QUEUED: Final = 20.0
"""Seconds for extensions to stand in a queue."""


class Director(CallDirector):
    """Plays the story with the actors that `start` makes.

    Args:
        calls: whether extensions call each other at the end, for which there must be what a mesh needs.
    """

    def __init__(
        self, client: Client, show: Show, facts: Facts, outage: Outage | None = None, *, calls: bool = True
    ) -> None:
        super().__init__(client, show, facts)
        self._outage = outage
        self._calls = calls

    async def play(self, start: Callable[[str], Any]) -> None:
        """Play all of it. `start(id)` is awaited for an Actor. Raises FailedError when a promise was broken."""
        await self._play(self._story(start), f"keys such as {BATCH!a} and {PLAN!a}")
        await self._check_nothing_left()

    async def _story(self, start: Callable[[str], Any]) -> None:
        await self._register(start)
        await self._fall_ill()
        if self._outage is not None:
            await self._go_without_store(self._outage)
        await self._take_turns()
        await self._elect()
        entry = await self._crash()
        await self._fail_over(entry)
        await self._pause()
        await self._say_goodbye()
        if self._calls:
            await self._call_each_other(start)

    async def _register(self, start: Callable[[str], Any]) -> None:
        self._show.chapter(
            "Register", "Each puts its record under a lease that it keeps alive, and watches the others."
        )
        for id_ in CAST:
            actor = self._actors[id_] = await start(id_)
            self._tell(id_, "started", place=actor.place)
        await self._until("all extensions to find each other", self._all_found)

    def _all_found(self) -> bool:
        return all(
            self._facts.seen("discovered", id_, extension=other) for id_ in CAST for other in CAST if other != id_
        ) and all(self._facts.seen("registered", id_) for id_ in CAST)

    async def _fall_ill(self) -> None:
        ill = next(iter(CAST))
        text = f"Each is checked where it listens. {ill} stops to listen; its registration stays, and says how it is."
        self._show.chapter("Health", text)
        await self._until("all to be healthy", self._all_see_all_healthy)
        for order, status in (("ail", "unhealthy"), ("recover", "healthy")):
            self._actors[ill].order(order)
            what = "ails" if order == "ail" else "recovers"
            await self._until(f"the others to see {ill} {status}", partial(self._all_see_after, what, ill, status))

    def _all_see_all_healthy(self) -> bool:
        return all(self._facts.status(id_, other) == "healthy" for id_ in CAST for other in CAST)

    def _all_see_after(self, what: str, who: str, status: str) -> bool:
        return any(
            all(self._facts.seen_after(turned, "status", id_, extension=who, now=status) for id_ in CAST)
            for turned in self._facts.all(what, who)
        )

    async def _go_without_store(self, outage: Outage) -> None:
        facts = self._facts
        text = "The store is stopped for longer than a lease lasts. Nobody forgets whom it knew, and all return."
        self._show.chapter("Outage", text)
        await self._until("all to be registered", lambda: all(facts.is_back(id_) for id_ in CAST))
        await outage.begin()
        try:
            self._tell(STORE, "stopped", how=outage.how)
            await self._miss_it()
        finally:  # whatever happens: it may be somebody's store
            await outage.end()
        self._tell(STORE, "started again")
        await self._until("all to be registered again", lambda: all(facts.is_back(id_) for id_ in CAST))
        await self._check_registered()

    async def _miss_it(self) -> None:
        facts = self._facts
        (stopped,) = facts.all("stopped")
        self._show.wait(f"the leases run out: {facts.ttl:g} to {facts.ttl_late:g} s")
        await self._until("all to miss their registration", partial(self._all_told_after, stopped, "unregistered"))
        if forgotten := [event for event in facts.all("gone") if event.at > stopped.at]:
            raise FailedError(f"{forgotten[0].who} forgot {forgotten[0].data['extension']} while the store was away")
        self._show.wait("")

    def _all_told_after(self, earlier: Event, what: str) -> bool:
        return all(self._facts.seen_after(earlier, what, id_) for id_ in CAST)

    async def _check_registered(self) -> None:
        found = await DiscoveryService(self._client).discover_extensions()
        seen = {one.id: one.status for one in found}
        if seen != dict.fromkeys(sorted(CAST), ExtensionStatus.HEALTHY):
            raise FailedError(f"after the outage the store holds {seen}")

    async def _take_turns(self) -> None:
        text = f"The lock '{LOCK}' is a fair queue. Each holder gets a higher token, and writes only while it holds."
        self._show.chapter("Take turns", text)
        for _ in range(ROUNDS):
            for actor in self._actors.values():
                actor.order("turn")
        await self._until("everybody's turns", lambda: len(self._facts.all("releasing")) == ROUNDS * len(CAST))

    async def _elect(self) -> None:
        text = f"All stand as '{ELECTION}'. One leads, for a term with its own token, and writes only while it leads."
        self._show.chapter("Elect", text)
        for actor in self._actors.values():
            actor.order("stand")
        await self._until("a leader", lambda: self._facts.leader)
        await self._until_queued(f"election/{ELECTION}/q/", len(CAST) - 1)
        await self._check_leader()

    async def _until_queued(self, prefix: str, number: int) -> list[Item]:
        """Wait until so many entries stand under a prefix; returns them in order."""
        async with self._client.view(prefix) as queue, asyncio.timeout(QUEUED):
            await queue.until(lambda entries: len(entries) == number)
            return sorted(queue.values(), key=lambda item: item.created)

    async def _check_leader(self) -> None:
        """Hold what everybody can see to what the leader told us."""
        term, told = self._facts.terms[-1], self._facts.all("planned")[-1]
        seen = await CoordinationService(self._client).election(ELECTION).leader()
        wanted = (term.who, term.data["token"], {"plan": told.data["plan"]})
        if seen is None or (seen.candidate_id, seen.token, dict(seen.info)) != wanted:
            raise FailedError(f"{term.who} leads with token {term.data['token']}, but others see {seen}")

    async def _crash(self) -> Item:
        victim = self._facts.terms[-1].who
        text = f"{victim} dies while it leads and holds the lock, and the others wait for both."
        self._show.chapter("Crash", text)
        self._actors[victim].order("hold")
        await self._until(f"{victim} to hold the lock", lambda: self._facts.seen("wrote", victim, n=ROUNDS + 1))
        others = self._others(victim)
        for id_ in others:
            self._actors[id_].order("turn")
        entry, *_ = await self._until_queued(f"lock/{LOCK}/", len(CAST))
        await self._until(
            "the others to wait", lambda: all(self._facts.seen("waiting", i, n=ROUNDS + 1) for i in others)
        )
        await asyncio.sleep(SUSPENSE)
        self._actors[victim].crash()
        self._tell(victim, "killed", place=self._actors[victim].place)
        return entry

    def _others(self, *without: str) -> list[str]:
        return [id_ for id_ in CAST if id_ not in without]

    async def _fail_over(self, entry: Item) -> None:
        facts, victim = self._facts, self._facts.killed.who
        others = self._others(victim)
        self._show.chapter("Fail over", "Nobody was told. The store ends the lease, and with it all that hung on it.")
        await self._until_lease_ends(victim, lambda: self._failed_over(others))
        await self._until("their turns", lambda: all(facts.seen("releasing", i, n=ROUNDS + 1) for i in others))
        _check_rising("fencing tokens", facts.tokens)
        await self._check_leader()
        await self._write_late(entry)
        self._refuse_old_token(victim, facts.killed_token, facts.tokens[-1])

    async def _until_lease_ends(self, whose: str, done: Callable[[], object]) -> None:
        self._show.wait(f"the lease of {whose} runs out: {self._facts.ttl:g} to {self._facts.ttl_late:g} s")
        await self._until(f"the others to see {whose} go, and to take over", done)
        self._show.wait("")

    def _failed_over(self, others: Collection[str]) -> bool:
        facts, victim = self._facts, self._facts.killed.who
        all_see_it = all(facts.seen_after(facts.killed, "gone", id_, extension=victim) for id_ in others)
        return all_see_it and facts.next_holder is not None and facts.leader in others

    async def _write_late(self, entry: Item) -> None:
        """Send what the killed holder's guarded write would send, had it been delayed until now."""
        victim, token = self._facts.killed.who, self._facts.killed_token
        before = await self._client.get(BATCH)
        try:
            await self._client.commit([Put(BATCH, b"too late")], expect={entry.key: entry.unchanged})
        except ConflictError as exc:
            self._tell(victim, "late write refused", said=str(exc), token=token)
        else:
            raise FailedError("a write of the killed holder was applied after the lock had gone to another")
        if await self._client.get(BATCH) != before:
            raise FailedError("a write that was refused changed something all the same")

    def _refuse_old_token(self, who: str, old: int, new: int) -> None:
        fence = Fence()
        fence.admit(new)
        try:
            fence.admit(old)
        except StaleTokenError as exc:
            self._tell(who, "token refused", said=str(exc), token=old)
        else:
            raise FailedError(f"a fence admitted {who}'s token {old} after {new}, which is newer")

    async def _pause(self) -> None:
        facts, leader = self._facts, self._facts.terms[-1].who
        (other,) = self._others(facts.killed.who, leader)
        text = f"{leader} is stopped one line before its next write. It cannot know what happens meanwhile."
        self._show.chapter("Pause", text)
        self._actors[leader].order("pause")
        await self._until(f"{leader} to be stopped", lambda: facts.seen("paused", leader))
        await self._until_lease_ends(
            leader, lambda: facts.leader == other and facts.seen_after(facts.paused, "gone", other, extension=leader)
        )
        _check_rising("terms", [event.data["token"] for event in facts.terms])
        await self._check_leader()
        await self._wake(leader, other)

    async def _wake(self, old: str, new: str) -> None:
        """Let the old leader write after all, and see that nothing comes of it."""
        facts = self._facts
        plan = await self._client.get(PLAN)
        await asyncio.sleep(SUSPENSE)
        self._tell(old, "resumed", place=self._actors[old].place)
        self._actors[old].resume()
        await self._until(f"{old} to write", lambda: facts.seen("late plan refused by the store", old))
        if facts.all("woke", old)[0].data["is_leader"]:
            raise FailedError(f"{old} still took itself for the leader after its lease had ended")
        if await self._client.get(PLAN) != plan:
            raise FailedError("a write that was refused changed something all the same")
        self._refuse_old_token(old, facts.paused.data["token"], facts.terms[-1].data["token"])
        self._tell(new, "plan stands", plan=facts.all("planned", new)[-1].data["plan"])
        await self._until(f"{old} to return", lambda: facts.seen_after(facts.paused, "discovered", new, extension=old))
        await self._until_queued(f"election/{ELECTION}/q/", 1)

    async def _say_goodbye(self) -> None:
        self._show.chapter("Goodbye", "Who leaves properly is seen to go at once, and hands over what it leads.")
        facts, first, last = self._facts, self._facts.terms[-1].who, self._facts.paused.who
        self._actors[first].order("leave")
        await self._until(f"{first} to leave", lambda: facts.seen("leaving", first))
        goodbye = facts.all("leaving", first)[0]
        await self._until(
            f"{last} to see {first} leave, and to lead",
            lambda: facts.leader == last and facts.seen_after(goodbye, "gone", last, extension=first),
        )
        await self._check_leader()
        self._actors[last].order("leave")
        await self._until("both to end", lambda: all(facts.seen("left", id_) for id_ in (first, last)))

    def _check_event(self, event: Event) -> None:
        super()._check_event(event)
        if event.what == "woke" and not self._facts.seen("resumed", event.who):
            raise FailedError(f"{event.who} went on before it was let to: it was not paused")
        if event.what == "late plan written":
            raise FailedError(f"a write of the paused leader was let through by {event.data['by']}")

    async def _tidy(self) -> None:
        """Remove the keys of the demo that hang on no lease."""
        await self._client.commit([Delete(BATCH), Delete(PLAN)])
        if self._calls:
            await self._tidy_rules()

    async def _check_nothing_left(self) -> None:
        left: Collection[str] = (await self._client.scan()).items.keys()
        if left:
            raise FailedError(f"left behind in {self._client.url}: {', '.join(sorted(left))}")


def _check_rising(what: str, tokens: Sequence[int]) -> None:
    if tokens != sorted(set(tokens)):
        raise FailedError(f"the {what} did not rise: {tokens}")
