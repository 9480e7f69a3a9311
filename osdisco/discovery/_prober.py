"""One process that probes: its place among the probers, its share of the endpoints, and what it found at each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Generic, TypeVar

from attrs import evolve, frozen

from osdisco._keeper import Keeper
from osdisco._records import encode
from osdisco._signal import Signal
from osdisco._tasks import cancel
from osdisco.client import Client
from osdisco.discovery._lookups import Lookups
from osdisco.discovery._target import RefusedError, Target
from osdisco.discovery._watching import CheckState, Watching
from osdisco.discovery.checks import REASON_MAX
from osdisco.discovery.events import Difference, Single
from osdisco.discovery.extension import ExtensionInfo, ExtensionStatus
from osdisco.discovery.findings import FOUND, MEMBER, Finding, Findings, FindingState, ProberMember
from osdisco.discovery.probing import HttpProbe, Probing, chosen, probe_of, target_of
from osdisco.errors import ConfigError, OsdiscoError

S = TypeVar("S")

log = logging.getLogger("osdisco")

SETTLING: Final = 1.0
"""Seconds before a prober begins with an endpoint: by then those whose it was have seen that it is no longer theirs."""

_AT_ONCE: Final = 20
"""Endpoints that are looked at before other tasks may run."""


class _Kept(Keeper[Finding]):
    def _record(self, desired: Finding) -> bytes:
        return encode(desired)


class _Membership(Keeper[ProberMember]):
    def _record(self, desired: ProberMember) -> bytes:
        return encode(desired)


@frozen
class Probed(Generic[S]):
    """What is probed.

    Args:
        target_of: returns what is asked of a record, None for nothing; raises RefusedError.
        named: returns what it is called where it is refused.
    """

    target_of: Callable[[S, Probing], Target | None]
    named: Callable[[S, Probing], str]


EXTENSIONS: Final = Probed[ExtensionInfo](target_of, lambda one, probing: f"{probing.scheme}://{one.host}:{one.port}")


@frozen
class _Wanted:
    """What is to be done about an endpoint: it is asked, or it is told why it is not."""

    url: str
    target: Target | None = None
    refusal: str = ""


class Prober(Generic[S]):
    """Probes its share of `records`, while it is registered among the probers. It is to hear what happens to them.

    Args:
        findings: the view of all probers and what they found; it is told there what changes.
        own_id: the record of this process, which it does not probe.
    """

    def __init__(
        self,
        client: Client,
        probing: Probing,
        records: Mapping[str, S],
        probed: Probed[S],
        findings: Findings,
        own_id: str = "",
    ) -> None:
        if not isinstance(probing, Probing):
            raise ConfigError(f"probing must be a Probing, not {probing!a}")
        self.changed: Final = Signal()
        self._client = client
        self._probing = probing
        self._records = records
        self._probed = probed
        self._findings = findings
        self._member = _Membership(client, findings._follower, self.changed, *findings._place, MEMBER)
        self._member.desired = ProberMember(self._member.process, client.runtime.name, own_id)
        self._lookups = Lookups(client._connection.supervisor)
        self._endpoints: dict[str, _Endpoint] = {}
        self._due: dict[str, None] = {}  # what to look at, in the order in which it came up
        self._left_out: set[str] = set()
        self._takes_part = False
        self._task: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The id of this process among the probers."""
        return self._member.process

    @property
    def endpoints(self) -> Iterable[str]:
        """The ids that are this process's to probe."""
        return self._endpoints.keys()

    def start(self) -> None:
        """Join the probers; does not wait for the store."""
        self._findings._on_change = self._on_findings
        self._findings._follower.start()
        self._due.update(dict.fromkeys(self._records))
        self._member.start()
        self._task = self._client._connection.supervisor.spawn(self._run(), "share out what is probed")

    async def aclose(self) -> None:
        """Probe no more, and let what was found be taken away behind one's back."""
        if self._task is None:
            return
        async with AsyncExitStack() as ending:  # each has its end, whatever becomes of those before
            ending.push_async_callback(self._member.abandon)
            ending.callback(self._endpoints.clear)
            for endpoint in self._endpoints.values():  # also one that the task is about to end
                ending.push_async_callback(endpoint.aclose)
            await cancel(self._task)

    def put(self, told: Sequence[Difference[S]] | Single) -> None:
        """Learn that records came, went or changed; what is told of the view makes no difference."""
        if not isinstance(told, Single):
            self._due.update(dict.fromkeys(event.id for event in told))
            self.changed.fire()

    def end(self, error: OsdiscoError) -> None:
        """Learn that the client was closed, or that its permission is lost: its place among the probers goes, too."""

    def _on_findings(self, ids: set[str], members: bool) -> None:
        if members:
            self._due.update(dict.fromkeys(self._records))
        for id_ in ids & self._endpoints.keys():
            self._endpoints[id_].changed.fire()
        self.changed.fire()

    async def _run(self) -> None:
        while True:
            await self.changed.wait_for(lambda: self._due or self._member.registered is not self._takes_part)
            if self._member.registered is not self._takes_part:
                self._takes_part = self._member.registered
                self._due.update(dict.fromkeys([*self._endpoints, *self._records]))
            await self._settle_due()

    async def _settle_due(self) -> None:
        for _ in range(min(len(self._due), _AT_ONCE)):
            id_ = next(iter(self._due))
            del self._due[id_]
            await self._settle(id_, self._findings._by_id)  # they may change while one before is ended
        await asyncio.sleep(0)

    async def _settle(self, id_: str, members: Mapping[str, ProberMember]) -> None:
        wanted = self._wanted(id_, members)
        endpoint = self._endpoints.get(id_)
        if endpoint is not None and endpoint.wanted != wanted:
            await self._end(id_)
            endpoint = None
        if wanted is None or endpoint is not None:
            self._left_out.discard(id_)
        elif self._has_room(id_):
            self._left_out.discard(id_)
            self._begin(id_, wanted)

    def _begin(self, id_: str, wanted: _Wanted) -> None:
        blank = self._blank(id_, wanted)
        self._endpoints[id_] = _Endpoint(self._client, self._findings, self._probing, blank, wanted, self._lookups)

    async def _end(self, id_: str) -> None:
        """End with an endpoint, and look whether its place is for one that was left out."""
        self._due.update(dict.fromkeys(sorted(self._left_out)))
        await self._endpoints[id_].aclose()
        del self._endpoints[id_]  # not before: who stops the prober meanwhile ends what is here

    def _wanted(self, id_: str, members: Mapping[str, ProberMember]) -> _Wanted | None:
        record: Any = self._records.get(id_)
        if not self._takes_part or record is None or record.status is ExtensionStatus.STOPPING:
            return None
        if self.id not in chosen(id_, members):
            return None
        try:
            target = self._probed.target_of(record, self._probing)
        except RefusedError as exc:
            place = self._probed.named(record, self._probing)
            return _Wanted(place[:REASON_MAX], refusal=str(exc)[:REASON_MAX])
        return None if target is None else _Wanted(str(target), target)

    def _has_room(self, id_: str) -> bool:
        if len(self._endpoints) < self._probing.limit:
            return True
        if id_ not in self._left_out:
            log.warning("%s is not probed: this process probes %d already, its limit", id_, self._probing.limit)
        self._left_out.add(id_)
        return False

    def _blank(self, id_: str, wanted: _Wanted) -> Finding:
        runtime = self._client.runtime
        return Finding(
            id_, runtime.name, wanted.url, FindingState.REFUSED, wanted.refusal, runtime.clock.wall(), self.id
        )


class _Endpoint:
    """One endpoint, probed until it is closed. What is found is published when it changes."""

    def __init__(
        self,
        client: Client,
        findings: Findings,
        probing: Probing,
        blank: Finding,
        wanted: _Wanted,
        lookups: Lookups,
    ) -> None:
        self.changed: Final = Signal()
        self.wanted: Final = wanted
        self._client = client
        self._blank = blank
        self._kept = _Kept(client, findings._follower, self.changed, *findings._place, FOUND, blank.extension_id)
        self._publishes = False
        self._watching: Watching | None = None
        if wanted.target is None:
            self._publish(blank)
        else:
            self._begin(probe_of(wanted.target, probing, lookups))

    def _begin(self, probe: HttpProbe) -> None:
        runtime = self._client.runtime
        first = SETTLING + probe.interval * runtime.random.random()  # all at once would be a burst
        supervisor = self._client._connection.supervisor
        watching = Watching(probe, runtime, supervisor, lambda: self._found(watching, probe), first=first)
        self._watching = watching
        watching.start()

    def _found(self, watching: Watching, probe: HttpProbe) -> None:
        status = watching.status
        state = FindingState.PASSING if status.state is CheckState.PASSING else FindingState.FAILING
        if state is FindingState.FAILING and probe.refused[0]:
            state = FindingState.REFUSED
        self._publish(evolve(self._blank, state=state, reason=status.reason, since=status.since))

    def _publish(self, finding: Finding) -> None:
        self._kept.desired = finding
        if self._publishes:
            self.changed.fire()
        else:
            self._publishes = True
            self._kept.start()

    async def aclose(self) -> None:
        """Probe no more, and let what was found be taken away behind one's back. May be called again."""
        try:
            if self._watching is not None:
                await self._watching.aclose()
        finally:
            if self._publishes:
                await self._kept.abandon()
