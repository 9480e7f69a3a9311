"""The writer: a candidate for the one mirror of a cluster, which polls it and publishes what has changed.

All who have a source stand for election; whoever leads asks the cluster one small question a second, for everybody.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from osdisco._connection import backoff
from osdisco._tasks import cancel
from osdisco.client import Client
from osdisco.cluster._intake import Intake, Taken
from osdisco.cluster._lead import Lead
from osdisco.cluster._places import ELECTION, Places
from osdisco.cluster._publisher import Publisher
from osdisco.cluster.source import ClusterStateSource, StateVersion
from osdisco.coordination import CoordinationService, Term
from osdisco.errors import (
    ClosedError,
    ClusterError,
    ClusterUnavailableError,
    ConflictError,
    IndeterminateError,
    LostError,
    OsdiscoError,
    RecordError,
    UnavailableError,
)
from osdisco.metrics._catalog import CLUSTER_HEADS, CLUSTER_POLLS

T = TypeVar("T")

log = logging.getLogger("osdisco")

DEBOUNCE: Final = 0.5
"""Seconds from the first change until the state is fetched: a change seldom comes alone."""
AWAY_PAUSE_MAX: Final = 15.0
"""Seconds between two tries to reach a cluster that is away, at most."""
LONG: Final = 5.0
"""Seconds after which a cluster counts as away that has not answered; it is waited for all the same."""
LEFT_ALONE_MAX: Final = 60.0
"""Seconds for which a cluster is left alone that asks for it, at most."""
FAILURES_MAX: Final = 3
"""Polls in a row that may fail before another candidate, if there is one, is let try."""
REST: Final = 30.0
"""Seconds for which who gave the leadership away does not stand again."""
REASON_MAX: Final = 500
"""Characters of a reason that others are shown."""

_UNDECIDED: Final = (ConflictError, IndeterminateError, UnavailableError)
"""After which a write is begun anew from what the store has."""

_ENDS: Final = (LostError, IndeterminateError, UnavailableError)
"""With which a leadership ends that nothing is wrong with."""


class MirrorState(enum.Enum):
    """What a candidate does."""

    IDLE = "idle"
    STANDING = "standing"
    LEADING = "leading"
    AWAY = "away"
    RESTING = "resting"
    STOPPED = "stopped"


_S = MirrorState
_MOVES: Final[Mapping[MirrorState, frozenset[MirrorState]]] = {
    _S.IDLE: frozenset({_S.STANDING, _S.STOPPED}),
    _S.STANDING: frozenset({_S.LEADING, _S.RESTING, _S.STOPPED}),
    _S.LEADING: frozenset({_S.AWAY, _S.RESTING, _S.STOPPED}),
    _S.AWAY: frozenset({_S.LEADING, _S.RESTING, _S.STOPPED}),
    _S.RESTING: frozenset({_S.STANDING, _S.STOPPED}),
    _S.STOPPED: frozenset(),
}


class Mirror:
    """One candidate.

    Args:
        lead: shows what this process sees of the election.
        poll: seconds between two questions to the cluster.

    Attributes:
        error: what went wrong last, until something went well.
    """

    def __init__(
        self, client: Client, places: Places, cluster: str, source: ClusterStateSource, lead: Lead, poll: float
    ) -> None:
        self.state = MirrorState.IDLE
        self.error: OsdiscoError | None = None
        self.source: Final = source
        self.lead: Final = lead
        self.poll: Final = poll
        self.said: Final = {"name": client.runtime.name}
        self.candidate_id: Final = f"{client.runtime.name}/{client.runtime.unique()[:8]}"
        self._client = client
        self._places = places
        self._failures = 0  # terms that could not be begun, in a row
        self._election = CoordinationService(client).election(
            ELECTION.format(cluster), candidate_id=self.candidate_id, info=self.said
        )

    @property
    def leading(self) -> bool:
        """Whether it is the mirror, as far as this process can know."""
        return self._election.is_leader

    async def run(self) -> None:
        """Stand, mirror, and stand again, until the client is closed."""
        try:
            while True:
                pause = await self._stand()
                self.move(MirrorState.RESTING)
                await asyncio.sleep(pause)
        except ClosedError:
            log.debug("the mirror ends with its client")
        finally:
            self.move(MirrorState.STOPPED)

    async def _stand(self) -> float:
        """Be elected, and lead. Returns for how long to rest: shortly after trouble of the store, else longer."""
        self.move(MirrorState.STANDING)
        try:
            async with self._election.campaign() as term:
                self._failures = 0
                self.move(MirrorState.LEADING)
                await Duty(self._client, self._places, self, term).run()
        except ClosedError:
            raise
        except _ENDS as exc:
            log.info("the mirror begins anew: %s", exc)
            self.error = exc
            self._failures += 1
            return backoff(self._client.runtime, self._failures - 1)
        except OsdiscoError as exc:
            log.warning("this process cannot mirror the cluster; another candidate may do better: %s", exc)
            self.error = exc
        except Exception as exc:
            log.exception("the mirror failed in a way that it does not know; another candidate may do better")
            self.error = ClusterError(f"the mirror failed in a way that it does not know: {type(exc).__name__}")
        return REST * self._client.runtime.random.uniform(1.0, 1.2)

    def move(self, state: MirrorState) -> None:
        """The one place that changes the state."""
        if state is not self.state:
            if state not in _MOVES[self.state]:
                raise AssertionError(f"no way from {self.state} to {state}")
            self.state = state


class Duty:
    """What is done in one term of leadership."""

    def __init__(self, client: Client, places: Places, mirror: Mirror, term: Term) -> None:
        self._client = client
        self._board = places.board
        self._mirror = mirror
        self._source = mirror.source
        self._term = term
        self._runtime = client.runtime
        self._publisher = Publisher(client, places, term)
        self._intake: Intake | None = None
        self._seen: StateVersion | None = None  # what was published last
        self._failures = 0
        self._left_alone = 0.0  # seconds that the cluster asked for
        self._away: str | None = None
        self._said: Mapping[str, Any] | None = mirror.said  # None while that is not known

    async def run(self) -> None:
        """Poll and publish; returns when another candidate is to try. Raises LostError and the store's errors."""
        while not await self._gives_way():
            try:
                await self._look(await self._begun())
            except (ClusterError, RecordError) as exc:
                self._failed(exc)
            else:
                self._well()
            await self._say()
            await asyncio.sleep(self._pause())

    async def _begun(self) -> Intake:
        """Return what asks the cluster, once it is known what is published. Raises FormatError: by a newer osdisco."""
        if self._intake is None:
            await self._surely(self._publisher.know)
            self._intake = Intake(self._source, self._runtime, self._publisher.ledger.head)
        return self._intake

    async def _look(self, intake: Intake) -> None:
        """Ask once, publish what is new, and remove what is over."""
        version = await self._answer(self._asked())
        if self._seen is None:
            await self._publish(await self._answer(intake.take()))
        elif version != self._seen:
            await asyncio.sleep(DEBOUNCE)
            await self._publish(await self._answer(intake.take()))
        elif intake.nodes_due:
            self._publisher.doubt()
            await self._publish(await self._answer(intake.again()))
        await self._surely(self._publisher.collect)

    async def _answer(self, asking: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer, and let observers know when that takes long: what they see may be old."""
        task = self._client._connection.supervisor.spawn(asking, "ask the cluster")
        try:
            await asyncio.wait([task], timeout=LONG)
            if not task.done():
                self._away = self._away or f"it has not answered for {LONG:.0f} s"
                await self._say()
            return await task
        finally:
            await cancel(task)

    async def _asked(self) -> StateVersion:
        try:
            version = await self._source.version()
        except ClusterError:
            self._runtime.metrics.count(CLUSTER_POLLS, "failed")
            raise
        self._runtime.metrics.count(CLUSTER_POLLS, "ok")
        return version

    async def _publish(self, taken: Taken) -> None:
        header, before = taken.header, self._publisher.ledger.seq
        if not await self._surely(lambda: self._publisher.publish(header, taken.texts)):
            raise ClusterError(f"the cluster shows version {header.version}, which does not follow what it showed")
        if self._publisher.ledger.seq > before:
            self._runtime.metrics.count(CLUSTER_HEADS)
        self._seen = StateVersion(header.cluster_name, header.cluster_uuid, header.version, header.state_uuid)

    async def _surely(self, write: Callable[[], Any]) -> Any:
        """Do what can be begun anew until the store has done it; the end of the leadership ends it, too."""
        failures = 0
        while True:
            try:
                return await write()
            except _UNDECIDED as exc:
                self._mirror.error = exc
                await asyncio.sleep(backoff(self._runtime, failures))
                failures += 1

    def _failed(self, exc: OsdiscoError) -> None:
        self._failures += 1
        asked = exc.retry_after if isinstance(exc, ClusterUnavailableError) else None
        self._left_alone = min(asked or 0.0, LEFT_ALONE_MAX)
        self._mirror.error = exc
        self._mirror.move(MirrorState.AWAY)
        if self._failures == 1:
            log.warning("the cluster cannot be mirrored for now: %s", exc)
            self._away = str(exc)[:REASON_MAX]

    def _well(self) -> None:
        self._failures = 0
        self._mirror.error = None
        self._mirror.move(MirrorState.LEADING)
        self._away = None

    async def _say(self) -> None:
        """Let observers know whether the cluster is away; should that fail, the next turn tries again.

        What was said before may come to be seen after it, when its answer was lost: so it is looked at, too.
        """
        said = dict(self._mirror.said)
        if self._away is not None:
            said["away"] = self._away
        if self._intake is not None and self._intake.nodes_error is not None:
            said["nodes"] = str(self._intake.nodes_error)[:REASON_MAX]
        leader = self._mirror.lead.leader
        seen = leader.info if leader is not None and leader.token == self._term.token else said
        if said != self._said or said != seen:
            self._said = None
            try:
                await self._term.proclaim(said)
            except _UNDECIDED as exc:
                self._mirror.error = exc
            else:
                self._said = said

    async def _gives_way(self) -> bool:
        """Return whether another candidate waits while this one cannot reach the cluster."""
        if self._failures < FAILURES_MAX:
            return False
        try:
            waiting = (await self._client._connection.scan(self._board.queue)).items
        except UnavailableError:
            return False
        return bool(self._board.in_order(waiting))

    def _pause(self) -> float:
        """Return the seconds until the next poll: a tenth more or less, and ever more while the cluster is away."""
        if self._failures == 0:
            return self._mirror.poll * self._runtime.random.uniform(0.9, 1.1)
        pause = min(2 * self._mirror.poll * 2.0 ** min(self._failures - 1, 10), AWAY_PAUSE_MAX)
        return max(self._runtime.jittered(pause), self._left_alone)
