"""Groups: who takes part, under `grp/<group>/<id>/`, each with a weight and whatever it tells of itself."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import evolve, field, frozen

from osdisco._feed import Change
from osdisco._folded import Folded, Kind
from osdisco._follower import Follower
from osdisco._keeper import Keeper, Rival
from osdisco._keys import Keyspace
from osdisco._records import decode, encode, encode_readable
from osdisco._signal import Signal
from osdisco.client import Client
from osdisco.coordination._calls import checked_timeout
from osdisco.errors import ClosedError, ConfigError, RecordError, TimedOutError, UnavailableError
from osdisco.session import Session
from osdisco.view import Watch

if TYPE_CHECKING:
    from osdisco.coordination.partition import Partitioning

WEIGHT_MAX: Final = 10_000


@frozen
class Member:
    """One who takes part. `weight` is its share of the partitions, against those of the others."""

    id: str
    weight: int = 1
    info: Mapping[str, Any] = field(factory=dict)


@frozen
class MemberEvent:
    """A member joined (`old` is None), left (`new` is None) or changed."""

    old: Member | None
    new: Member | None

    @property
    def member(self) -> Member:
        """The member as it is, or as it last was."""
        known = self.new or self.old
        assert known is not None
        return known


@frozen
class _Record:
    """What stands in the store. `incarnation` is the token of its process's first record; that tells only the epoch.

    Kept over every return: a process that comes back after an outage does not win against a newer one with its id.
    """

    member: Member
    incarnation: int = 0


class MemberTable:
    """Records of processes, folded to the newest for each id."""

    def __init__(self, keys: Keyspace, group: str) -> None:
        self._folded = Folded(_KIND, keys, "grp", group)
        self._members: Mapping[str, Member] | None = {}

    @property
    def members(self) -> Mapping[str, Member]:
        """Who is there, by id; another Mapping as soon as that changes."""
        if self._members is None:
            self._members = dict(self._folded)
        return self._members

    @property
    def skipped(self) -> Mapping[str, str]:
        """The names of the keys that hold no good record, and why."""
        return self._folded.skipped

    def apply(self, change: Change) -> list[MemberEvent]:
        """Take a change, in the store's own keys; returns what it means, member by member."""
        pairs = self._folded.apply(change)
        if pairs:
            self._members = None
        return [MemberEvent(old, new) for old, new in pairs]

    def clear(self) -> None:
        """Forget all, because what comes next is everything."""
        self._folded.clear()
        self._members = None

    def rivals(self, id_: str, process: str) -> list[Rival]:
        """Return the records of other processes with this id."""
        return self._folded.rivals(id_, process)


def _read(value: bytes) -> tuple[Member, int]:
    record = decode(value, _Record)
    try:
        _check(record.member)
    except ConfigError as exc:
        raise RecordError(str(exc)) from None
    return record.member, record.incarnation


_KIND: Final = Kind("member", _read, lambda member: member.id)


class Members(Mapping[str, Member]):
    """The live local view of a group, by id. Losing the store keeps the last known, `stale` and with its `age`."""

    def __init__(self, client: Client, group: str, told: Callable[[], None] = lambda: None) -> None:
        self._table = MemberTable(client._keys, group)
        self._told = told
        self._follower = client._follow(client._keys.join("grp", group) + "/", self._take)

    def _take(self, change: Change, first: bool) -> None:
        if first:  # what was shown before it was closed is over
            self._table.clear()
        self._table.apply(change)
        self._told()

    def __getitem__(self, id_: str) -> Member:
        return self._table.members[id_]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.members)

    def __len__(self) -> int:
        return len(self._table.members)

    @property
    def stale(self) -> bool:
        """Whether the store may know better by now."""
        return self._follower.stale

    @property
    def age(self) -> float:
        """Seconds since the store last spoke; infinite before it ever did."""
        return self._follower.age

    async def until(self, predicate: Callable[[Mapping[str, Member]], object], timeout: float | None = None) -> None:
        """Wait until `predicate(members)` is true. Raises TimedOutError after `timeout` seconds."""
        await self._follower._wait(lambda: predicate(self), checked_timeout(timeout))

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def _open(self) -> Self:
        await self._follower
        return self

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop following."""
        await self._follower.aclose()


class MemberEvents(AsyncIterator[MemberEvent]):
    """`async with group.events() as events`: who is there first, as if they joined now, then what changes."""

    def __init__(self, watch: Watch, table: MemberTable) -> None:
        self._watch = watch
        self._table = table
        self._events: deque[MemberEvent] = deque()

    async def __aenter__(self) -> AsyncIterator[MemberEvent]:
        await self._watch.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._watch.__aexit__(kind, exc, trace)

    async def __anext__(self) -> MemberEvent:
        while not self._events:
            self._events.extend(self._table.apply(await self._watch._next()))
        return self._events.popleft()


class Group:
    """A group by name."""

    def __init__(self, client: Client, session: Session | None, name: str) -> None:
        self.name: Final = name
        self._client = client
        self._session = session
        self._prefix = client._keys.join("grp", name) + "/"

    async def members(self) -> list[Member]:
        """Return who takes part, by id. Linearizable."""
        self._client._connection.check_open()
        snapshot = await self._client._connection.scan(self._prefix)
        table = MemberTable(self._client._keys, self.name)
        table.apply(Change(snapshot.items, {}, snapshot.revision))
        return [table.members[id_] for id_ in sorted(table.members)]

    def view(self) -> Members:
        """Return the live local view; enter or await it."""
        return Members(self._client, self.name)

    def events(self) -> MemberEvents:
        """Return `async with` around an iterator of MemberEvent: joins, updates and leaves."""
        watch = Watch(self._client._feeds, self._client._keys, self._prefix)
        return MemberEvents(watch, MemberTable(self._client._keys, self.name))

    def join(self, id_: str, *, weight: int = 1, info: Mapping[str, Any] | None = None) -> Membership:
        """Return a membership; enter or await it to join. When the session is lost it joins again by itself.

        Only one that hangs on a session of your own (`CoordinationService(client, session=…)`) goes for good with it.

        Args:
            id_: who joins. A process that joins later with the same id takes its place.
            weight: its share of the partitions, from 1 to 10,000.
            info: what others see of it; JSON.

        Raises:
            ConfigError, RecordError: the weight, or info that is not JSON or too large.
        """
        return Membership(self._client, self._session, self.name, Member(id_, weight, _copied(info)))


class _Place(Keeper[Member]):
    def __init__(
        self, client: Client, session: Session | None, group: str, member: Member, view: Follower, changed: Signal
    ) -> None:
        client._keys.join("x", "grp", group, member.id, "0" * 42)  # refuses now the names that are too long for keys
        _check(member)
        super().__init__(client, view, changed, "grp", group, member.id, session=session)
        self.desired = member

    def _record(self, desired: Member) -> bytes:
        return encode(_Record(desired, self.mark))


class Membership:
    """Taking part in a group. Leaving the block leaves the group."""

    def __init__(self, client: Client, session: Session | None, group: str, member: Member) -> None:
        self.group: Final = group
        self.members: Final = Members(client, group, self._on_change)
        self._client = client
        self._changed = Signal()
        self._place = _Place(client, session, group, member, self.members._follower, self._changed)
        self._started = self._left = False

    @property
    def member(self) -> Member:
        """Ourselves, as we should stand in the store."""
        return self._place.desired

    @property
    def joined(self) -> bool:
        """Whether the latest record stands in the store, as far as this process can know. No I/O."""
        return not self._left and self._place.registered

    @property
    def session(self) -> Session | None:
        """What the membership hangs on now; None while it does not stand in the store."""
        return None if self._left else self._place.session

    @property
    def known(self) -> Mapping[str, Member]:
        """The members as last seen; another Mapping as soon as they change."""
        return self.members._table.members

    @property
    def superseded(self) -> bool:
        """Whether another process joined with this id later; this one is then out for good."""
        return self._place.superseded

    async def update(self, *, weight: int | None = None, info: Mapping[str, Any] | None = None) -> None:
        """Change the weight or what is told of us; published as soon as the store can be reached.

        Raises:
            ConfigError, RecordError: the weight, or info that is not JSON or too large.
            LostError: another process joined with this id later, or the session of one's own was lost.
            ClosedError: we have left.
        """
        if self._left or not self._started:
            raise ClosedError(f"not a member of the group {self.group!a}: join first")
        self._place.check_not_lost(f"the group {self.group!a} as {self.member.id!a}")
        member = self.member
        member = member if weight is None else evolve(member, weight=weight)
        member = member if info is None else evolve(member, info=_copied(info))
        _check(member)
        self._place.desired = member
        self._changed.fire()

    @property
    def over(self) -> bool:
        """Whether it does not come back: we have left, another process has our id, or our own session is lost."""
        return self._left or self.superseded or self._place.session_is_lost

    async def wait_joined(self, timeout: float | None = None) -> None:
        """Wait until the latest record stands in the store.

        Raises:
            TimedOutError: after `timeout` seconds.
            LostError: another process joined with this id later, or the session of one's own was lost.
        """

        def done() -> bool:
            if self._left:
                raise ClosedError(f"the group {self.group!a} was left")
            self._place.check_not_lost(f"the group {self.group!a} as {self.member.id!a}")
            return self.joined

        try:
            await self._changed.wait_for(done, checked_timeout(timeout))
        except TimeoutError:
            why = self._place.error or "the store is slow"
            raise TimedOutError(f"not a member of the group {self.group!a} within {timeout} s: {why}") from None

    def partition(self, count: int, *, released: Callable[[int, int], Awaitable[None]] | None = None) -> Partitioning:
        """Return `async with` that divides partitions 0 to `count - 1` among all members who do the same.

        Entered, it gives a live Mapping of the partitions that are ours to their tokens.

        Args:
            count: how many there are, the same for all members.
            released: awaited with a partition and its token when it is to be given up, before another can have it.
        """
        from osdisco.coordination.partition import Partitioning

        return Partitioning(self, count, released)

    def _on_change(self) -> None:
        self._place.meet(self.members._table.rivals(self.member.id, self._place.process))
        self._changed.fire()

    def __await__(self) -> Generator[object, None, Self]:
        return self._join().__await__()

    async def __aenter__(self) -> Self:
        return await self._join()

    async def _join(self) -> Self:
        if self._started:
            raise ClosedError("a membership is joined once; ask the group for a new one")
        self._client._connection.check_open()
        self._started = True
        self.members._follower.start()
        self._place.start()
        try:
            await self.wait_joined(self._client.options.timeout)
        except BaseException as exc:
            await self.leave()
            if isinstance(exc, TimedOutError):
                raise self._place.error or UnavailableError(str(exc)) from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Leave the group; waits as long as one operation may. May be called twice."""
        if self._left or not self._started:
            return
        self._left = True
        self._changed.fire()
        try:
            await self._place.leave()
        finally:
            await self.members.aclose()


def _copied(info: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Copy what the caller may go on to change. What is no Mapping is refused when it is checked."""
    if info is None:
        return {}
    return dict(info) if isinstance(info, Mapping) else info


def _check(member: Member) -> None:
    """Refuse now what no reader would take."""
    weight = member.weight
    if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= WEIGHT_MAX:
        raise ConfigError(f"the weight of a member must be a whole number from 1 to {WEIGHT_MAX}")
    encode_readable(_Record(member, 2**63))
