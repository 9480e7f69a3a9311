"""What a process tells of its calls while somebody asks, without more than the store.

Who asks puts a leased key under `mesh/asked/`. Each mesh that has called something watches that place; while anything
is there it counts, and puts a small leased record of sums that only rise under `mesh/seen/` every two seconds. Nobody
asks: nothing is counted and nothing written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from osdisco._records import encode
from osdisco._tasks import Supervisor
from osdisco.errors import ClosedError, OsdiscoError, RecordError, ServiceMeshError
from osdisco.mesh._calls import outcome_of
from osdisco.mesh._gauges import breaker_states, ejected
from osdisco.mesh._histogram import SIZE, bucket_of
from osdisco.mesh._state import Outcome
from osdisco.mesh.breaker import BreakerState
from osdisco.mesh.events import PoolEvent
from osdisco.mesh.refusal import Refused

if TYPE_CHECKING:
    from osdisco.client import Client
    from osdisco.mesh._calls import Call
    from osdisco.mesh._seeing import Seeing
    from osdisco.mesh._services import Service

log = logging.getLogger("osdisco")

ASKED: Final = "mesh/asked/"
SEEN: Final = "mesh/seen/"

PERIOD: Final = 2.0
"""Seconds between two reports of a process, at most; at least half of it."""

SERVICES_MAX: Final = 100
"""Services in a report: those that were called most."""


@frozen
class ServiceReport:
    """One service as one process calls it. Counts are sums since somebody asked, the rest is as it is now.

    Args:
        failed: calls that failed, also for want of an endpoint.
        retries: attempts beside the first of each call.
        refused: attempts for which nobody was picked.
        took: how many calls took how long.
        endpoints: that are registered.
        open: whose circuit breakers are not closed.
        budget: retries that are left.
        whole_open: whether the circuit breaker of the whole service is not closed.
    """

    calls: int
    failed: int
    retries: int
    refused: int
    took: Sequence[int]
    in_flight: int
    endpoints: int
    ejected: int
    open: int
    panic: bool
    budget: float
    whole_open: bool = False


@frozen
class CallerReport:
    """What one process tells. `at` is its own clock, to be compared with its next report only."""

    caller: str
    at: float
    services: Mapping[str, ServiceReport]


@define(eq=False)
class _Sums:
    calls: int = 0
    failed: int = 0
    retries: int = 0
    refused: int = 0
    took: list[int] = field(factory=lambda: [0] * SIZE)


class Tally:
    """Counts calls by service; see `Observer`."""

    def __init__(self) -> None:
        self.sums: dict[str, _Sums] = {}

    def _of(self, service: str) -> _Sums:
        return self.sums.setdefault(service, _Sums())

    def called(self, call: Call, error: BaseException | None, seconds: float) -> None:
        """Count a call."""
        if error is not None and not isinstance(error, ServiceMeshError):
            return  # nobody waits for it any more
        sums = self._of(call.service)
        sums.calls += 1
        sums.failed += error is not None and outcome_of(error) is not Outcome.OK
        sums.took[bucket_of(seconds)] += 1

    def attempted(self, service: str, outcome: Outcome, seconds: float) -> None:
        """Told by calls and retries."""

    def refused(self, service: str, refused: Refused) -> None:
        """Count an attempt that nobody was picked for."""
        self._of(service).refused += 1

    def retried(self, call: Call, result: str) -> None:
        """Count an attempt that is not the first."""
        self._of(call.service).retries += result == "made"

    def hedged(self, call: Call) -> None:
        """Count an attempt that is not the first."""
        self._of(call.service).retries += 1

    def served(self, service: str, method: str, status: int, seconds: float) -> None:
        """Told by who calls."""

    def told(self, event: PoolEvent) -> None:
        """Told by how pools are."""


class Reports:
    """Reports of one mesh. They begin with `start`."""

    def __init__(self, client: Client, services: Mapping[str, Service], seeing: Seeing) -> None:
        self._client = client
        self._services = services
        self._seeing = seeing
        self._key = f"{SEEN}{client.runtime.unique()}"
        self._view = client.view(ASKED)
        self._tally: Tally | None = None
        self._written = False
        self._supervisor = Supervisor()
        self.started = False

    def start(self) -> None:
        """Look whether somebody asks, from now on."""
        self.started = True
        self._view.start()
        self._supervisor.spawn(self._run(), "report calls to who asks")

    async def aclose(self) -> None:
        """Report no more."""
        await self._supervisor.aclose()
        self._look_on(False)
        with suppress(OsdiscoError):  # it goes with the session
            await self._withdraw()
        await self._view.aclose()

    async def _run(self) -> None:
        with suppress(ClosedError):
            while True:
                await self._view.until(lambda asked: asked)
                self._look_on(True)
                while self._view:
                    await self._said(self._tell())
                    await asyncio.sleep(self._client.runtime.jittered(PERIOD))
                self._look_on(False)
                await self._said(self._withdraw())

    async def _said(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except ClosedError:
            raise
        except OsdiscoError as exc:
            log.debug("what calls came to could not be reported: %s", exc)

    def _look_on(self, on: bool) -> None:
        if on and self._tally is None:
            self._tally = Tally()
            self._seeing.add(self._tally)
        elif not on and self._tally is not None:
            self._seeing.remove(self._tally)
            self._tally = None

    async def _tell(self) -> None:
        data = self._data()
        session = await self._client.shared_session()
        await session.put(self._key, data)
        self._written = True

    def _data(self) -> bytes:
        """Return the report, with fewer services when their names and numbers are so long that it is too large."""
        runtime = self._client.runtime
        services = list(self._reports())
        while True:
            try:
                return encode(CallerReport(runtime.name, runtime.clock.now(), dict(services)))
            except RecordError:
                if len(services) < 2:
                    raise
                services = services[: len(services) // 2]

    def _reports(self) -> Iterator[tuple[str, ServiceReport]]:
        assert self._tally is not None
        now, none = self._client.runtime.clock.now(), _Sums()
        sums = self._tally.sums
        for name in sums.keys() - self._services.keys():  # names may come from whoever calls the caller
            del sums[name]
        names = sorted(self._services, key=lambda name: sums.get(name, none).calls, reverse=True)
        for name in names[:SERVICES_MAX]:
            yield name, _report(self._services[name], sums.get(name, none), now)

    async def _withdraw(self) -> None:
        if self._written:
            await self._client.delete(self._key)
            self._written = False


def _report(service: Service, sums: _Sums, now: float) -> ServiceReport:
    states = service.pool.states.values()
    breakers = breaker_states(service)
    return ServiceReport(
        calls=sums.calls,
        failed=sums.failed,
        retries=sums.retries,
        refused=sums.refused,
        took=tuple(sums.took),
        in_flight=sum(state.in_flight for state in states),
        endpoints=len(states),
        ejected=ejected(service, now),
        open=sum(breakers.values()) - breakers[BreakerState.CLOSED],
        panic=service.pool.panicking,
        budget=round(service.balance.seen(now), 1),
        whole_open=service.breaker is not None and service.breaker.state is not BreakerState.CLOSED,
    )
