"""How a process leaves: it says so, lets work end that is under way, and only then takes its registration away."""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol

from attrs import Attribute, field, frozen

from osdisco._signal import Signal
from osdisco.errors import DiscoveryError
from osdisco.runtime import Clock

log = logging.getLogger("osdisco")


def _seconds(instance: object, attribute: Attribute[float], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise DiscoveryError(f"{attribute.name} is a number of seconds, 0 or more, not {value!a}")


@frozen
class Drain:
    """How long leaving may take, in seconds.

    Args:
        propagation: how long STOPPING stands at least, so that others see it and pick somebody else. A removal reaches
            them as fast, but who has just picked this process still comes.
        grace: after which it goes all the same, work under way or not; `propagation` is part of it.

    Raises:
        DiscoveryError: negative or endless times, or a grace that is shorter than the propagation.
    """

    propagation: float = field(default=2.0, validator=_seconds)
    grace: float = field(default=30.0, validator=_seconds)

    def __attrs_post_init__(self) -> None:
        if self.grace < self.propagation:
            raise DiscoveryError(
                f"grace is {self.grace:g} s, and propagation, which is part of it, {self.propagation:g} s: "
                "give more grace or less propagation"
            )


NO_DRAIN: Final = Drain(propagation=0.0, grace=0.0)


class LeavingPhase(enum.Enum):
    """How far leaving has come; never back."""

    SERVING = "serving"
    ANNOUNCING = "announcing"
    DRAINING = "draining"
    REMOVING = "removing"
    LEFT = "left"


NEXT: Final[Mapping[LeavingPhase, set[LeavingPhase]]] = {
    LeavingPhase.SERVING: {LeavingPhase.ANNOUNCING},
    LeavingPhase.ANNOUNCING: {LeavingPhase.DRAINING, LeavingPhase.LEFT},
    LeavingPhase.DRAINING: {LeavingPhase.REMOVING, LeavingPhase.LEFT},
    LeavingPhase.REMOVING: {LeavingPhase.LEFT},
    LeavingPhase.LEFT: set(),
}
"""LEFT comes early when whoever leaves is cancelled."""


class Registered(Protocol):
    """What leaves: a registration that is kept in the store."""

    @property
    def registered(self) -> bool:
        """Whether what was announced stands in the store."""

    @property
    def session(self) -> object | None:
        """None while nothing of it stands there."""

    def announce_end(self) -> None:
        """Let STOPPING be what stands in the store, from now on; does not wait."""

    async def leave(self) -> None:
        """Take it away, within the time of one operation. May be called again."""

    async def abandon(self) -> None:
        """Take it away behind one's back, without waiting for the store."""


class InFlight:
    """`async with`: work that leaving waits for. It is counted also when leaving has begun."""

    def __init__(self, leaving: Leaving) -> None:
        self._leaving = leaving

    async def __aenter__(self) -> None:
        self._leaving.count(1)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.count(-1)


class Leaving:
    """The way out of one process.

    Args:
        registration: what is taken away; None when there is only work to wait for.
        timeout: of one operation, in seconds.
        drain: when None the defaults of Drain if work was ever counted here, and no wait at all if none was.
        changed: rung when `registration` may be different, and here when something is.
    """

    def __init__(
        self, registration: Registered | None, changed: Signal, clock: Clock, *, timeout: float, drain: Drain | None
    ) -> None:
        self.phase = LeavingPhase.SERVING
        self.in_flight = 0
        self._registration = registration
        self._changed = changed
        self._clock = clock
        self._timeout = timeout
        self._drain = drain
        self._has_served = False
        self._hurried = False

    def __repr__(self) -> str:
        return f"<Leaving: {self.phase.value}, {self.in_flight} in flight>"

    @property
    def begun(self) -> bool:
        """Whether this process is on its way out, or has left."""
        return self.phase is not LeavingPhase.SERVING

    def count(self, more: int) -> None:
        """Count work that begins (1) or has ended (-1)."""
        self._has_served = True
        self.in_flight += more
        self._changed.fire()

    def hurry(self) -> None:
        """Wait no longer for work or for others to see: take the registration away now."""
        self._hurried = True
        self._changed.fire()

    async def leave(self) -> None:
        """Leave, once. Takes at most the grace and one timeout.

        When it is cancelled the registration goes at once, behind its back.
        """
        self._move(LeavingPhase.ANNOUNCING)
        try:
            await self._announce_and_drain()
            self._move(LeavingPhase.REMOVING)
            if self._registration is not None:
                await self._registration.leave()
        except BaseException:
            if self._registration is not None:
                await self._registration.abandon()
            raise
        finally:
            self._move(LeavingPhase.LEFT)

    async def _announce_and_drain(self) -> None:
        drain = self._drain or (Drain() if self._has_served else NO_DRAIN)
        ends = self._clock.now() + drain.grace
        propagation = await self._announce(ends, drain.propagation)
        self._move(LeavingPhase.DRAINING)
        await self._until(lambda: False, min(propagation, ends - self._clock.now()))
        await self._until(lambda: self.in_flight <= 0, ends - self._clock.now())
        if self.in_flight > 0:
            log.warning("leaving with %d pieces of work still under way", self.in_flight)

    async def _announce(self, ends: float, propagation: float) -> float:
        """Say STOPPING, if anybody knows of us; returns for how long that is to stand."""
        going = self._registration
        if going is None:
            return 0.0
        if going.session is None:
            await going.leave()  # or it would come up only to go
            return 0.0
        going.announce_end()
        await self._until(lambda: going.registered, min(self._timeout, ends - self._clock.now()))
        return propagation if going.registered else 0.0

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        if seconds > 0:
            with suppress(TimeoutError):
                await self._changed.wait_for(lambda: self._hurried or done(), seconds)

    def _move(self, phase: LeavingPhase) -> None:
        assert phase in NEXT[self.phase], f"from {self.phase} to {phase}"
        self.phase = phase
        self._changed.fire()
