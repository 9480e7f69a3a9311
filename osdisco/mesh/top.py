"""How the calls of a whole namespace go, as the processes tell that make them: what `osdisco mesh top` shows.

    async with MeshWatch(client) as figures:
        async for services in figures: ...

While it is open, every process that has called something counts, and reports every two seconds into the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf
from types import TracebackType
from typing import Final, Self

from attrs import asdict, frozen

from osdisco._records import decode
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.errors import OsdiscoError, RecordError
from osdisco.mesh._histogram import SIZE, quantile
from osdisco.mesh._reports import ASKED, PERIOD, SEEN, CallerReport, ServiceReport

log = logging.getLogger("osdisco")

COUNT_MAX: Final = 2**53

LEAST: Final = PERIOD / 4
"""Seconds that are taken to be between two reports at least: nobody reports so often."""


@frozen
class ServiceFigures:
    """How calls of a service go, from all who call it. Rates are None until a caller has reported twice.

    Args:
        callers: processes that report.
        calls: in a second.
        ok: share of the calls that did not fail; None without calls.
        p50: seconds within which half were answered; infinite beyond 30.
        p99: seconds within which 99 of 100 were.
        retries: in a second: attempts beside the first of a call.
        refused: in a second: attempts for which nobody was picked.
        in_flight: attempts under way.
        endpoints: that are registered: the most that a caller sees.
        ejected: that are ejected: the most that a caller sees.
        open: with a circuit that is not closed: the most that a caller sees.
        panic: whether a caller is in a panic.
        budget: retries that are left, to the caller who has least.
        whole_open: whether a caller's circuit breaker of the whole service is not closed.
    """

    service: str
    callers: int
    calls: float | None
    ok: float | None
    p50: float | None
    p99: float | None
    retries: float | None
    refused: float | None
    in_flight: int
    endpoints: int
    ejected: int
    open: int
    panic: bool
    budget: float
    whole_open: bool = False


Pair = tuple[CallerReport | None, CallerReport]
"""The last two reports of a caller."""


class MeshWatch:
    """Enter it, and iterate: all services every two seconds, by name.

    Raises:
        OsdiscoError: when it is entered, what the store says.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._key = f"{ASKED}{client.runtime.unique()}"
        self._view = client.view(SEEN)
        self._pairs: dict[str, Pair] = {}
        self._begun = False

    async def __aenter__(self) -> Self:
        await self._view
        try:
            await self._ask()
        except BaseException:
            await self._view.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OsdiscoError):  # it goes with the session
            await self._client.delete(self._key)
        await self._view.aclose()

    async def _ask(self) -> None:
        session = await self._client.shared_session()
        await session.put(self._key, self._client.runtime.name.encode("utf-8", "backslashreplace"))

    @property
    def error(self) -> OsdiscoError | None:
        """What keeps it from being up to date; None when nothing does."""
        return self._view.error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[ServiceFigures]:
        if self._begun:
            await asyncio.sleep(PERIOD)
            with suppress(OsdiscoError):  # the session may have been lost; what is shown is what was known last
                await self._ask()
        self._begun = True
        return self.figures()

    def figures(self) -> Sequence[ServiceFigures]:
        """Return what is known now, by service."""
        self._pairs = {key: pair for key, item in self._view.items() if (pair := self._pair(key, item)) is not None}
        return figures_of(self._pairs.values())

    def _pair(self, key: str, item: Item) -> Pair | None:
        known = self._pairs.get(key)
        try:
            report = read(item.value)
        except RecordError as exc:
            log.warning("skipped what a caller is said to report at %r: %s", key, exc)
            return known
        if known is None or report.at == known[1].at:
            return known or (None, report)
        return (known[1], report) if report.at > known[1].at else (None, report)


def read(value: bytes) -> CallerReport:
    """Read a report. Raises RecordError also for what nobody can have counted."""
    report = decode(value, CallerReport)
    if not _is_sound(report):
        raise RecordError("it holds numbers that nobody can have counted")
    return report


def _is_sound(report: CallerReport) -> bool:
    return 0 <= report.at <= COUNT_MAX and all(map(_is_sound_service, report.services.values()))


def _is_sound_service(one: ServiceReport) -> bool:
    numbers = (one.calls, one.failed, one.retries, one.refused, one.in_flight, one.endpoints, one.ejected, one.open)
    whole = all(0 <= number <= COUNT_MAX for number in (*numbers, *one.took))
    return whole and len(one.took) == SIZE and 0 <= one.budget <= COUNT_MAX


def figures_of(pairs: Iterable[Pair]) -> Sequence[ServiceFigures]:
    """Return the figures of all services, from the last two reports of each caller."""
    reports: dict[str, list[_Seen]] = {}
    for before, now in pairs:
        for name, report in now.services.items():
            seen = None if before is None else _since(before, now, name)
            reports.setdefault(name, []).append(_Seen(report, seen))
    return [_figures(name, reports[name]) for name in sorted(reports)]


@frozen
class _Rates:
    """What came in a second between two reports."""

    calls: float
    failed: float
    retries: float
    refused: float
    took: Sequence[float]


@frozen
class _Seen:
    """A report of a service, and what came since the one before."""

    report: ServiceReport
    rates: _Rates | None


_NOTHING: Final = ServiceReport(0, 0, 0, 0, (0,) * SIZE, 0, 0, 0, 0, False, 0.0)


def _since(before: CallerReport, now: CallerReport, name: str) -> _Rates:
    new, old = now.services[name], before.services.get(name, _NOTHING)
    if new.calls < old.calls:  # it was begun anew
        old = _NOTHING
    seconds = max(now.at - before.at, LEAST)

    def rate(after: int, earlier: int) -> float:
        return max(0, after - earlier) / seconds

    return _Rates(
        rate(new.calls, old.calls),
        rate(new.failed, old.failed),
        rate(new.retries, old.retries),
        rate(new.refused, old.refused),
        tuple(map(rate, new.took, old.took)),
    )


def _figures(name: str, seen: Sequence[_Seen]) -> ServiceFigures:
    reports = [one.report for one in seen]
    rates = [one.rates for one in seen if one.rates is not None]
    calls = sum(one.calls for one in rates)
    took = [sum(counts) for counts in zip(*(one.took for one in rates), strict=True)]
    return ServiceFigures(
        service=name,
        callers=len(seen),
        calls=calls if rates else None,
        ok=1 - min(1.0, sum(one.failed for one in rates) / calls) if calls else None,
        p50=quantile(took, 0.5),
        p99=quantile(took, 0.99),
        retries=sum(one.retries for one in rates) if rates else None,
        refused=sum(one.refused for one in rates) if rates else None,
        in_flight=sum(one.in_flight for one in reports),
        endpoints=max(one.endpoints for one in reports),
        ejected=max(one.ejected for one in reports),
        open=max(one.open for one in reports),
        panic=any(one.panic for one in reports),
        budget=min(one.budget for one in reports),
        whole_open=any(one.whole_open for one in reports),
    )


def document_of(figures: ServiceFigures) -> Mapping[str, object]:
    """Return figures as JSON can hold them: what is infinite is null."""
    return {name: None if value == inf else value for name, value in asdict(figures).items()}
