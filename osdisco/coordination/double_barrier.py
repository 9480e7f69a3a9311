"""The double barrier: so many members begin together, and nobody goes on before all have finished.

Under `db/<name>/`: `m/N` (leased) stands for each member, `ready` names those of the round under way by their entries,
`done/<revision of ready>/N` says that one of them has finished. A round is a roster and never a count: by rank alone a
third member passes a barrier of two when one of the two has left. A member's `m/N` stands until it has seen how the
round ended, and `ready` goes with the last of them, so that everybody learns who died inside.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final

from attrs import field, frozen

from osdisco._connection import backoff
from osdisco._entries import TOMBSTONES, Entry, in_order
from osdisco._records import decode, encode
from osdisco.backend import ABSENT, Condition, Delete, Item, Op, Put, Revision
from osdisco.client import Client
from osdisco.coordination._acquire import Enterable
from osdisco.coordination._calls import checked_count, checked_timeout, in_client, until_definite, within
from osdisco.coordination._handle import Handle
from osdisco.errors import (
    BarrierBrokenError,
    ConfigError,
    ConflictError,
    DeniedError,
    IndeterminateError,
    LostError,
    OsdiscoError,
    RecordError,
    TimedOutError,
    UnavailableError,
)
from osdisco.session import Session
from osdisco.view import View

log = logging.getLogger("osdisco")

PARTIES_MAX: Final = 500
"""What a roster has room for."""


@frozen
class _Member:
    """What `m/N` holds."""

    owner: str
    parties: int


@frozen
class _Roster:
    """What `ready` holds: the members of a round by N, with the creation of their entries, and who they are."""

    members: Mapping[str, int]
    owners: Mapping[str, str] = field(factory=dict)


class RoundState:
    """What stands under the prefix at one moment."""

    def __init__(self, items: Mapping[str, Item], prefix: str) -> None:
        self.ready: Final = items.get(f"{prefix}ready")
        self.roster: Final = _roster(self.ready)
        self._members: Final = {
            key[len(prefix) + 2 :]: item for key, item in items.items() if key[len(prefix) :][:2] == "m/"
        }
        self.done: Final = {key[len(prefix) :] for key in items if key[len(prefix) :].startswith("done/")}

    @property
    def round(self) -> int | None:
        """The revision of `ready`."""
        return self.ready.revision if self.ready else None

    def stands(self, number: str, created: int) -> bool:
        """Whether a member is there as it was made."""
        return number in self._members and self._members[number].created == created

    @property
    def survivors(self) -> list[str]:
        """The members of the round that are there."""
        return [number for number, created in self.roster.members.items() if self.stands(number, created)]

    @property
    def unfinished(self) -> list[str]:
        """The members of the round that have not said that they are done."""
        return [number for number in self.roster.members if f"done/{self.round}/{number}" not in self.done]

    @property
    def waiting(self) -> list[tuple[str, Item, _Member]]:
        """The members that are in no round, in order. What is no member's record is left out."""
        found = [(item.key.rpartition("/")[2], item, read_member(item)) for item in in_order(self._members)]
        return [
            (number, item, member)
            for number, item, member in found
            if member is not None and self.roster.members.get(number) != item.created
        ]

    def clearing(self, root: str) -> list[Op]:
        """What takes the round away: `ready` last, so that what one commit has no room for is taken by the next."""
        return [*(Delete(root + key) for key in sorted(self.done)), Delete(f"{root}ready")]


class DoubleBarrier(Enterable["BarrierStay"]):
    """A double barrier by name. `async with` it, or `enter` it as often as you like, for a fresh handle each time."""

    def __init__(
        self, client: Client, session: Session | None, name: str, *, parties: int, timeout: float | None
    ) -> None:
        super().__init__(timeout)
        self.name: Final = name
        self.parties: Final = checked_count(parties, "the parties of a double barrier", PARTIES_MAX)
        self._client = client
        self._connection = client._connection
        self._session = session
        client._keys.join(TOMBSTONES, "db", name, "m", "0" * 32)  # refuses now the names that are too long for the keys
        self._root = client._keys.join("db", name) + "/"
        self._prefix = f"db/{name}/"

    async def enter(self, timeout: float | None = None) -> BarrierStay:
        """Wait until there are as many as it takes, and begin with them.

        Raises:
            TimedOutError: they were not there within `timeout` seconds.
            ConfigError: who came earlier waits for another number of parties.
            LostError: the session was lost while waiting, or somebody removed our entry.
            UnavailableError: the store could not be reached to begin with. Later outages are waited out.
        """
        timeout = self._timeout if timeout is None else checked_timeout(timeout)
        return await self._acquire(timeout)

    async def _acquire(self, timeout: float | None) -> BarrierStay:
        async with within(timeout, f"{self.parties} were not at the barrier {self.name!a}"):
            return await self._enter()

    async def _enter(self) -> BarrierStay:
        client = self._client
        session = self._session or await client.shared_session()
        entry = Entry(self._connection, client._keys, session, "db", self.name, "m", client.runtime.unique())
        record = encode(_Member(client.runtime.name, self.parties))
        try:
            number = await self._join(entry, record)
            return BarrierStay(self, entry, number)  # no await from here on: whoever is cancelled later has the handle
        except BaseException:
            entry.abandon()
            session.keep_until_ended(self._tidy_after(entry), f"tidy {self.name}")
            raise

    async def _join(self, entry: Entry, record: bytes) -> int:
        view = self._client._view_of(self._root)
        view.start()
        try:
            await entry.create(record, within=self._client.options.timeout)
            async with entry.session.scope():
                return await self._admitted(entry, view)
        finally:
            await view.aclose()

    async def _admitted(self, entry: Entry, view: View) -> int:
        """Wait until a roster names our entry; returns its revision."""
        number, failures = entry.key.rpartition("/")[2], 0
        while True:
            seen, pause = dict(view), None
            state = RoundState(seen, self._prefix)
            if state.roster.members.get(number) == entry.created:
                entry.session.check()
                return state.round or 0
            if view.known and not state.stands(number, entry.created):
                pause = backoff(self._client.runtime, failures)  # for the case that nothing comes
                await self._check_stands(entry)
            elif move := self._move(state, number):
                pause = backoff(self._client.runtime, failures)
                await self._try(*move)
            failures = failures + 1 if pause else 0
            await changed(view, seen, pause)

    async def _check_stands(self, entry: Entry) -> None:
        """Tell an entry that is gone from one that the view does not show yet."""
        try:
            if not await entry.stands():
                raise LostError("the entry at the double barrier is gone: somebody removed it")
        except UnavailableError:
            return

    def _move(self, state: RoundState, number: str) -> tuple[Sequence[Op], Mapping[str, Condition]] | None:
        """Return what there is to do for one who waits."""
        waiting = state.waiting
        self._check_parties(waiting, number)
        if state.ready is not None:
            return None if state.survivors else (self._clearing(state), {f"{self._root}ready": state.ready.unchanged})
        first = [one for one in waiting if one[2].parties == self.parties][: self.parties]
        if len(first) < self.parties or number not in [one[0] for one in first]:
            return None
        roster = _Roster({one: item.created for one, item, _ in first}, {one: member.owner for one, _, member in first})
        ready, own = f"{self._root}ready", f"{self._root}m/{number}"
        guards = {f"{self._root}m/{one}": Revision(item.created) for one, item, _ in first}
        guards = {own: guards[own], **dict(list(guards.items())[: self._client.limits.ops_max - 3])}
        return [Put(ready, encode(roster))], {ready: ABSENT, **guards}

    def _check_parties(self, waiting: Sequence[tuple[str, Item, _Member]], number: str) -> None:
        for one, _, member in waiting:
            if one == number:
                return
            if member.parties != self.parties:
                raise ConfigError(
                    f"the double barrier {self.name!a} is for {member.parties} parties, as {member.owner!a} says who "
                    f"came earlier, and not for {self.parties}"
                )

    def _clearing(self, state: RoundState) -> list[Op]:
        return state.clearing(self._root)[: self._client.limits.ops_max - 1]

    async def _try(self, ops: Sequence[Op], expect: Mapping[str, Condition]) -> None:
        """Commit; what came of it is seen in the view."""
        try:
            await in_client(self._client, self._connection.commit(ops, expect), f"move {self.name}")
        except (ConflictError, IndeterminateError, UnavailableError) as exc:
            log.debug("double barrier %r: %s", self.name, exc)

    async def _tidy_after(self, entry: Entry) -> None:
        await entry.gone.wait()
        await self._tidy(entry.session)

    async def _tidy(self, session: Session) -> None:
        """Take a round away of which nobody is left. Whoever ends its entry looks afterwards, so the last one sees."""
        failures = 0
        while True:
            try:
                state = RoundState((await self._connection.scan(self._root)).items, self._root)
                if state.survivors or not (state.ready or state.done):
                    return
                ready = {f"{self._root}ready": state.ready.unchanged if state.ready else ABSENT}
                await self._connection.commit(self._clearing(state), ready)
                continue
            except ConflictError:
                return
            except OsdiscoError:
                if session.lost.is_set():
                    return
            await asyncio.sleep(backoff(self._client.runtime, failures))
            failures += 1


class BarrierStay(Handle):
    """One member's time inside. Entered with `async with`, the body is cancelled when the session is lost.

    A body that ends well waits for the others. One that fails goes at once, and counts as died inside.
    """

    def __init__(self, barrier: DoubleBarrier, entry: Entry, number: int) -> None:
        super().__init__(barrier._client, f"the place in the double barrier {barrier.name!a}", entry)
        self._barrier = barrier
        self._round = number

    async def leave(self, timeout: float | None = None) -> None:
        """Say that we have finished, and wait until all others have.

        Raises:
            BarrierBrokenError: a member died inside: its session ended, or it failed, before it had finished; or
                somebody removed the round.
            TimedOutError: the others had not finished within `timeout` seconds. We have left.
            LostError: our own place was lost before that.
        """
        timeout = self._barrier._timeout if timeout is None else checked_timeout(timeout)
        self.check()
        try:
            told = f"the others at {self._barrier.name!a} had not finished"
            async with within(timeout, told), self._entry.session.scope():
                dead = await self._finish()
        finally:
            if not await self._given_up():
                log.warning("giving up %s is not confirmed; it is tried on", self._what)
        self.lost.raise_if_set()
        if dead is None:
            raise BarrierBrokenError(f"somebody removed the round of {self._barrier.name!a} that we were in")
        if dead:
            raise BarrierBrokenError(f"died inside the double barrier {self._barrier.name!a}: {', '.join(dead)}")

    async def _finish(self) -> list[str] | None:
        """Say that we are done, wait for the others, and return who never said so; None when that cannot be known."""
        entry, client = self._entry, self._client
        done = Put(f"{self._barrier._root}done/{self._round}/{entry.key.rpartition('/')[2]}", b"")
        saying = until_definite(client, entry.session, [done], {entry.key: Revision(entry.created)})
        if not await in_client(client, saying, f"finish {self._barrier.name}"):
            self._lose("its entry in the store was gone when it was left")
            self.lost.raise_if_set()
        view = client._view_of(self._barrier._root)
        view.start()
        try:
            return await self._others_finished(view)
        finally:
            await view.aclose()

    async def _others_finished(self, view: View) -> list[str] | None:
        failures = 0
        while True:
            seen, pause = dict(view), None
            state = RoundState(seen, self._barrier._prefix)
            if state.round == self._round:
                if not set(state.unfinished).intersection(state.survivors):
                    return sorted(state.roster.owners.get(number, number) for number in state.unfinished)
            elif await self._is_over():
                return None  # while our entry stands, no member takes the round away
            else:
                pause = backoff(self._client.runtime, failures)  # for the case that nothing comes
                failures += 1
            await changed(view, seen, pause)

    async def _is_over(self) -> bool:
        """Tell a round that somebody took away from one that the view does not show yet."""
        try:
            ready = await self._client._connection.get(f"{self._barrier._root}ready")
        except UnavailableError:
            return False
        return ready is None or ready.revision != self._round

    async def _end(self) -> None:
        await super()._end()
        await self._barrier._tidy(self._entry.session)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._ending is None and not self.lost.is_set():
            assert self._scope is not None
            try:
                self._scope.exit(kind, exc)
            except BaseException:
                await self._given_up()
                raise
            await self.leave()
        else:
            await super().__aexit__(kind, exc, trace)


async def changed(view: View, seen: Mapping[str, Item], timeout: float | None) -> None:
    """Wait until a view shows something else than it did, or for `timeout` seconds. Raises DeniedError."""
    known = view.known

    def differs() -> bool:
        if isinstance(view.error, DeniedError):
            raise view.error
        return view.known != known or view != seen

    try:
        await view._wait(differs, timeout)
    except TimedOutError:
        return


def _roster(ready: Item | None) -> _Roster:
    if ready is None:
        return _Roster({})
    try:
        return decode(ready.value, _Roster)
    except RecordError as exc:  # names nobody, and is taken away by whoever waits
        log.warning("skipped the roster at %r: %s", ready.key, exc)
        return _Roster({})


def read_member(item: Item) -> _Member | None:
    try:
        return decode(item.value, _Member)
    except RecordError as exc:
        log.warning("skipped the member at %r: %s", item.key, exc)
        return None
