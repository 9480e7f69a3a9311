"""What goes wrong in a simulation: a seeded choice of faults, biased towards the rare ones that find mistakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from osdisco.testing._simulated import SimulatedProcess
    from osdisco.testing.simulation import Simulation

Restart = Callable[["SimulatedProcess"], None]
Victims = Callable[[], Iterable["SimulatedProcess"]]

DRIFT: Final = 0.05
"""How far a clock's rate may be off. A session's deadline leaves a margin of 11 % at the short ttls used here."""

_CALLS: Final = ((), ("renew",), ("watch",), ("scan", "get"), ("commit",), ("commit", "get", "scan"))


class Trouble:
    """Strikes one process at a time, and the store. Each run leaves out some kinds, so that others come thicker.

    `ttl` in seconds is what the lengths of pauses and outages are measured by. `also` are kinds of the scenario's own.
    `victims` tells who is struck in half of all cases. `lying`: renewals of dead leases are answered as good, too.
    """

    def __init__(
        self,
        simulation: Simulation,
        ttl: float,
        *,
        restart: Restart | None,
        also: Mapping[str, Callable[[], object]],
        victims: Victims,
        lying: bool,
    ) -> None:
        self._simulation = simulation
        self._chance = simulation.random
        self._ttl = ttl
        self._restart = restart
        self._victims = victims
        kinds: dict[str, Callable[[], object]] = {
            "lost answers": self._lose_answers,
            "late": self._come_late,
            "delayed": self._delay,
            "refused": self._refuse,
            "partitioned": self._cut,
            "slow renewal, then silence": self._slow_renewal_then_silence,
            "watch cut": self._cut_watches,
            "resync": self._resync,
            "late expiry": self._expire_late,
            "paused": self._pause,
            "suspended": self._suspend,
            "clock jumped": self._jump,
            "clock drifts": self._drift,
        }
        if restart is not None:
            kinds["killed"] = self._kill
        if lying:
            kinds["false renewals"] = self._renew_falsely
        self._own = dict(also)
        self._kinds = {name: kind for name, kind in kinds.items() if self._chance.random() < 0.7} or kinds

    def strike(self) -> None:
        """Let something go wrong."""
        kinds = self._own if self._own and self._chance.random() < 0.2 else self._kinds
        name = self._chance.choice(list(kinds))
        if kinds[name]() is not False:  # False: there was nothing to do it to
            self._simulation.seen[name] += 1

    def _some(self) -> SimulatedProcess:
        victims = [process for process in self._victims() if process.alive] if self._chance.random() < 0.5 else []
        return self._chance.choice(victims or self._simulation.living)

    def _later(self, seconds: float, what: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, what)

    def _lose_answers(self) -> None:
        faults = self._some().faults
        self._chance.choice([faults.drop, faults.drop_answer])("commit", times=self._chance.randint(1, 3))

    def _come_late(self) -> None:
        self._some().faults.late("commit", after=self._chance.uniform(0, 2 * self._ttl), times=1)

    def _delay(self) -> None:
        there, back = self._chance.uniform(0, 2), self._chance.uniform(0, 2)
        self._some().faults.delay(request=there, answer=back, times=self._chance.randint(1, 10))

    def _refuse(self) -> None:
        rule = self._some().faults.outage(*self._chance.choice(_CALLS))
        self._later(self._chance.uniform(0, 1.5 * self._ttl), rule.end)

    def _cut(self) -> None:
        way = self._chance.choice([(True, True), (True, False), (False, True)])
        rule = self._some().faults.cut(*self._chance.choice(_CALLS), requests=way[0], answers=way[1])
        self._later(self._chance.uniform(0, 2 * self._ttl), rule.end)

    def _slow_renewal_then_silence(self) -> None:
        """The answer to a renewal comes at the last moment, and it was the last one: who counts from it is too late."""
        process, timeout = self._some(), min(self._ttl / 6, 2.0)
        slow = process.faults.delay("renew", answer=timeout * self._chance.uniform(0.7, 0.98))

        def silence() -> None:
            if slow.hits:
                slow.end()
                self._later(timeout, lambda: self._silence(process))
            elif process.alive and not self._simulation.over:
                self._later(timeout, silence)

        silence()

    def _silence(self, process: SimulatedProcess) -> None:
        if self._simulation.over:
            return
        rule = process.faults.cut(*self._chance.choice([("renew", "watch"), ()]))
        self._later(2 * self._ttl, rule.end)

    def _cut_watches(self) -> None:
        self._some().faults.outage("watch", times=self._chance.randint(1, 2))

    def _renew_falsely(self) -> None:
        self._some().faults.false_renew(times=self._chance.randint(1, 4))

    def _resync(self) -> None:
        store = self._simulation.store.faults
        if self._chance.random() < 0.5:
            store.compact()
            store.resync()
        else:
            self._some().faults.resync()

    def _expire_late(self) -> None:
        self._simulation.store.faults.expiry_factor = self._chance.choice([None, None, 1.2, 1.5, 2.0])

    def _length(self) -> float:
        if self._chance.random() < 0.5:
            return self._chance.uniform(0, 0.5)
        return self._chance.uniform(0.3, 2) * self._ttl

    def _pause(self) -> None:
        self._some().pause(self._length())

    def _suspend(self) -> None:
        self._some().suspend(self._length())

    def _jump(self) -> None:
        process = self._some()
        if self._chance.random() < 0.5:
            process.jump(self._length())
        else:
            process.clock.jump_wall(self._chance.uniform(-3600, 3600))

    def _drift(self) -> None:
        self._some().clock.drift(self._chance.uniform(1 - DRIFT, 1 + DRIFT))

    def _kill(self) -> bool:
        assert self._restart is not None
        if self._chance.random() < 0.5:
            return False
        process = self._some()
        process.kill()
        self._restart(process)
        return True
