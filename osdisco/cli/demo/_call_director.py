"""The last chapters of the demo: one extension calls others through the mesh, and none of its calls may fail.

An endpoint is killed under load, and a new version that is too slow is taken back by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from osdisco.backend import Delete
from osdisco.cli._errors import FailedError
from osdisco.cli.demo._cast import CALLER, CANARY, SERVICE, STABLE, Event
from osdisco.cli.demo._directing import Directing
from osdisco.mesh._canary import CanaryPhase, CanaryPlan, CanaryState
from osdisco.mesh.rules import ServiceRules, SubsetRule
from osdisco.mesh.rules_view import RulesView
from osdisco.mesh.traffic_rules import TrafficRules
from osdisco.registry.service import ServiceRegistry

ENOUGH: Final = 100
"""Calls by which one sees where they go."""

WATCHED: Final = 0.4
"""Seconds before the kill, so that one can see who answers."""

PLAN: Final = CanaryPlan("v1", "v2", interval=1, step=20, max_weight=40, p99=0.1, threshold=2)
"""The interval is the shortest that there is; by default it is a minute, and 5 checks may fail."""

Start = Callable[[str], Any]


class CallDirector(Directing):
    """Directs the calls."""

    async def _call_each_other(self, start: Start) -> None:
        rules = TrafficRules(self._client)
        await self._call(start)
        victim = await self._lose_one()
        async with rules.view() as view:
            await self._try_a_new_version(start, rules, view)
        await self._until_forgotten(victim)
        await self._end_calls()

    async def _call(self, start: Start) -> None:
        text = f"{CALLER} calls the service '{SERVICE}' by name, all the time. Who serves it the store tells, not we."
        self._show.chapter("Call", text)
        for one in STABLE:
            await self._enter(start, one.id)
        await self._until("all to serve", lambda: all(self._facts.seen("serves", one.id) for one in STABLE))
        await self._enter(start, CALLER)
        await self._until("calls to all who serve", lambda: all(self._answered(one.id) for one in STABLE))
        self._tell(CALLER, "reached", calls=self._called.data["calls"], by=dict(self._called.data["by"]))

    async def _enter(self, start: Start, id_: str) -> None:
        actor = self._actors[id_] = await start(id_)
        self._tell(id_, "enters", place=actor.place)

    @property
    def _called(self) -> Event:
        """What the caller told last of its calls."""
        return self._facts.all("called")[-1]

    def _answered(self, id_: str) -> int:
        told = self._facts.all("called")
        return told[-1].data["by"].get(id_, 0) if told else 0

    async def _lose_one(self) -> str:
        victim = STABLE[1].id
        text = f"{victim} is killed while it is called. {CALLER} goes elsewhere with what may be done twice."
        self._show.chapter("Lose one", text)
        await asyncio.sleep(WATCHED)
        self._actors[victim].crash()
        self._tell(victim, "endpoint killed", place=self._actors[victim].place)
        killed = self._facts.all("endpoint killed")[0]
        await self._until("calls after the kill, some of them made again", partial(self._more_since, killed))
        before, now = self._called_until(killed), self._called.data
        told = {name: now[name] - before[name] for name in ("calls", "failed", "again")}
        self._tell(CALLER, "survived", **told)
        return victim

    def _called_until(self, moment: Event) -> Mapping[str, Any]:
        """Return the calls until then."""
        return [event.data for event in self._facts.all("called") if event.at <= moment.at][-1]

    def _more_since(self, moment: Event) -> bool:
        """Whether `ENOUGH` calls were answered since, and one of them at least in a second attempt."""
        before, now = self._called_until(moment), self._called.data
        return bool(now["calls"] - before["calls"] >= ENOUGH and now["again"] > before["again"])

    async def _try_a_new_version(self, start: Start, rules: TrafficRules, view: RulesView) -> None:
        text = (
            f"{CANARY.id} comes with {CANARY.version}, and gets {PLAN.step:g} % of the calls. "
            "Whoever is elected for it judges each second how they go."
        )
        self._show.chapter("Canary", text)
        subsets = {name: SubsetRule(version=f"=={one.version}") for name, one in (("v1", STABLE[0]), ("v2", CANARY))}
        await rules.set(SERVICE, ServiceRules(subsets=subsets, default_subset="v1"))
        await self._enter(start, CANARY.id)
        await self._until(f"{CANARY.id} to serve", lambda: self._facts.seen("serves", CANARY.id))
        begun = (await rules.canary(SERVICE, PLAN)).version
        await self._until("the canary to be judged", lambda: self._is_over(view, begun))
        end = self._facts.all("canary")[-1]
        if end.data["phase"] != CanaryPhase.ROLLED_BACK.value:
            raise FailedError(f"a version that is too slow is {end.data['phase']}: {end.data['last']}")
        await self._until("all calls to be back", lambda: self._calls_without_canary(end) >= ENOUGH)
        self._tell(CALLER, "all back", calls=self._calls_without_canary(end), failed=self._called.data["failed"])

    def _is_over(self, view: RulesView, begun: int) -> bool:
        """Tell how the canary stands, if that is new; whether it is over."""
        there = view.get(SERVICE)
        if there is None or there.version < begun or there.canary is None:
            return False
        told, now = self._facts.all("canary"), _told(there.canary)
        if not told or told[-1].data != now:
            self._tell(CANARY.id, "canary", **now)
        return not there.canary.running

    def _calls_without_canary(self, end: Event) -> int:
        """Return how many calls there were since the canary answered its last one."""
        newest = self._called.data
        since = [event.data for event in self._facts.all("called") if event.at > end.at]
        without = [one["calls"] for one in since if one["by"].get(CANARY.id) == newest["by"].get(CANARY.id)]
        return newest["calls"] - without[0] if without else 0

    async def _until_forgotten(self, victim: str) -> None:
        """Wait until the lease of who was killed has ended: nothing may be left."""
        self._show.wait(f"the lease of {victim} runs out: {self._facts.ttl:g} to {self._facts.ttl_late:g} s")
        self._wait_for(f"the lease of {victim} to end")
        async with ServiceRegistry(self._client).view(SERVICE, protection=0) as view:
            await view.until(lambda endpoints: victim not in endpoints)
        self._show.wait("")

    async def _end_calls(self) -> None:
        alive = [CALLER, *(one.id for one in (STABLE[0], STABLE[2], CANARY))]
        for id_ in alive:
            self._actors[id_].order("leave")
            await self._until(f"{id_} to end", partial(self._facts.seen, "ended", id_))

    def _check_event(self, event: Event) -> None:
        if event.what == "call failed":
            raise FailedError(f"a call of {event.who} failed: {event.data['said']}")

    async def _tidy_rules(self) -> None:
        """Remove the rules, and what was kept of their versions."""
        left = [key for place in ("routes/", "routes-history/") for key in (await self._client.scan(place)).items]
        if left:
            await self._client.commit([Delete(key) for key in left])


def _told(state: CanaryState) -> dict[str, Any]:
    return {"phase": state.phase.value, "weight": state.weight, "failed": state.failed, "last": state.last}
