"""What probers found, as all can read it, under `probe/found/<id>/<process>.<n>`, and who they are, `probe/member/…`.

A finding is beside an extension's own record and changes nothing about it. It goes with the session of who found it.
What probers of a service found stands in the same way under `svcprobe/<service>/`.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from attrs import field, frozen

from osdisco._feed import Change
from osdisco._records import decode
from osdisco.backend import Item
from osdisco.client import Client
from osdisco.errors import DeniedError, InvalidNameError, RecordError
from osdisco.names import escape, unescape

log = logging.getLogger("osdisco")

PLACE: Final = "probe"
MEMBER: Final = "member"
FOUND: Final = "found"


class FindingState(enum.Enum):
    """What came of probing an endpoint."""

    PASSING = "passing"
    FAILING = "failing"
    REFUSED = "refused"
    """It was not asked: its address is not allowed, or none at all."""


@frozen
class Finding:
    """What one prober found at one endpoint.

    Args:
        prober: the name of the process that found it.
        reason: why it is in its state.
        since: when the prober came to find so, in seconds since the epoch, by its own clock.
    """

    extension_id: str
    prober: str
    url: str
    state: FindingState
    reason: str
    since: float
    prober_id: str = field(default="", repr=False)


@frozen
class ProberMember:
    """Who takes part in probing: `extension_id` is its own, which it does not probe; empty when it has none."""

    id: str
    name: str
    extension_id: str = ""


class Findings(Mapping[str, tuple[Finding, ...]]):
    """The live view of what probers say: by extension, what each of them found. Extensions that nobody has judged lack.

    It shows what the store said last when that is away, `stale` and with its `age`. Of a service it tells by the ids of
    endpoints.
    """

    def __init__(self, client: Client, *place: str) -> None:
        self._place: Final = place or (PLACE,)
        self._keys = client._keys
        self._root = self._keys.join(*self._place) + "/"
        self._follower: Final = client._follow(self._root, self._take)
        self._found: dict[str, dict[str, tuple[int, Finding]]] = {}
        self._members: dict[str, ProberMember] = {}
        self._by_id: Mapping[str, ProberMember] = {}
        self._skipped: dict[str, str] = {}
        self._on_change: Callable[[set[str], bool], None] = lambda ids, members: None

    def __getitem__(self, extension_id: str) -> tuple[Finding, ...]:
        newest: dict[str, Finding] = {}
        for _, finding in sorted(self._found[extension_id].values(), key=lambda pair: pair[0]):
            newest[finding.prober_id] = finding
        return tuple(sorted(newest.values(), key=lambda finding: (finding.prober, finding.prober_id)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        what = "extensions" if self._place == (PLACE,) else "endpoints"
        return f"<Findings of {len(self.probers)} probers on {len(self)} {what}>"

    @property
    def probers(self) -> tuple[str, ...]:
        """The names of the processes that probe."""
        return tuple(sorted(member.name for member in self._by_id.values()))

    @property
    def stale(self) -> bool:
        """Whether the store may know better by now."""
        return self._follower.stale

    @property
    def age(self) -> float:
        """Seconds since the store last spoke; infinite before it ever did."""
        return self._follower.age

    @property
    def skipped(self) -> Mapping[str, str]:
        """The names of keys that hold no good record now, and why."""
        return {self._keys.name(key) or key: why for key, why in self._skipped.items()}

    async def until(self, predicate: Callable[[Findings], object], timeout: float | None = None) -> None:
        """Wait until `predicate(findings)` is true; it is asked again at every change.

        Raises:
            TimedOutError: `timeout` seconds are over.
            ClosedError: the service was stopped.
        """
        await self._follower._wait(lambda: predicate(self), timeout)

    async def _wait_known(self, timeout: float) -> None:
        """Begin to follow, and wait until the store was seen. Raises TimedOutError, DeniedError."""
        self._follower.start()
        await self._follower._wait(
            lambda: self._follower.known or isinstance(self._follower.error, DeniedError), timeout
        )
        if not self._follower.known and self._follower.error is not None:
            raise self._follower.error

    def failing(self, extension_id: str) -> bool:
        """Whether somebody found the extension failing, and nobody found it passing."""
        states = {finding.state for finding in self.get(extension_id, ())}
        return FindingState.FAILING in states and FindingState.PASSING not in states

    def _take(self, change: Change, first: bool) -> None:
        if first:
            self._found.clear()
            self._members.clear()
            self._by_id = {}
            self._skipped.clear()
        touched, members = set[str](), False
        for key in [*change.deletes, *change.puts]:
            members |= self._members.pop(key, None) is not None
            touched |= self._remove(key)
        for item in change.puts.values():
            try:
                members |= self._add(item, touched)
            except RecordError as exc:
                self._skipped[item.key] = str(exc)
                log.warning("skipped what a prober is said to have found at %r: %s", item.key, exc)
        if members:
            self._by_id = {member.id: member for member in self._members.values()}
        self._on_change(touched, members)

    def _remove(self, key: str) -> set[str]:
        self._skipped.pop(key, None)
        id_ = self._extension_in(key)
        found = self._found.get(id_, {})
        if found.pop(key, None) is None:
            return set()
        if not found:
            del self._found[id_]
        return {id_}

    def _add(self, item: Item, touched: set[str]) -> bool:
        """Take a record in; returns whether it is a member's."""
        kind = item.key[len(self._root) :].partition("/")[0]
        if kind == MEMBER:
            self._members[item.key] = decode(item.value, ProberMember)
            return True
        if kind != FOUND:
            raise RecordError("nothing of this kind belongs here")
        finding = decode(item.value, Finding)
        id_ = self._extension_in(item.key)
        if not id_ or finding.extension_id != id_:
            raise RecordError("the extension in it is not the one in its key")
        self._found.setdefault(id_, {})[item.key] = (item.created, finding)
        touched.add(id_)
        return False

    @classmethod
    async def _once(cls, client: Client, extension_id: str) -> tuple[Finding, ...]:
        """Return what the store has of one extension now, without following any."""
        findings = cls(client)
        snapshot = await client._connection.scan(client._keys.join(PLACE, FOUND, extension_id) + "/")
        findings._take(Change(snapshot.items, {}, snapshot.revision), True)
        return findings.get(extension_id, ())

    def _extension_in(self, key: str) -> str:
        """Return the extension that the key of a finding tells of; a text that no id is for other keys."""
        kind, _, rest = key[len(self._root) :].partition("/")
        place = rest.rpartition("/")[0]
        try:
            id_ = unescape(place)
            return id_ if kind == FOUND and escape(id_) == place else ""
        except InvalidNameError:
            return ""
