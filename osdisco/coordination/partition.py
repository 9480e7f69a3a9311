"""Partitions of a group's work: each owned by one member at a time, under `part/<group>/<i>`.

Who should own one is told by weighted rendezvous over the members, so that a member that comes or goes moves no more
than its share. Who does own one is told by the store: who no longer should gives it up first, then the next takes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from hashlib import blake2b
from math import log
from types import TracebackType
from typing import Any, Final, TypeVar

from attrs import frozen

from osdisco._connection import backoff
from osdisco._entries import TOMBSTONES
from osdisco._records import decode, encode
from osdisco._signal import Signal
from osdisco.backend import ABSENT, Delete, Item, Put, Revision
from osdisco.client import Client
from osdisco.coordination._calls import NO_LEASE, checked_count, checked_timeout, until_definite
from osdisco.coordination._handle import token_of
from osdisco.coordination.group import Member, Membership
from osdisco.errors import (
    ClosedError,
    ConfigError,
    ConflictError,
    IndeterminateError,
    LeaseExpiredError,
    LostError,
    OsdiscoError,
    RecordError,
    TimedOutError,
)
from osdisco.session import Session

T = TypeVar("T")

logger = logging.getLogger("osdisco")

COUNT_MAX: Final = 1024
AT_ONCE: Final = 16
"""Partitions that are taken or given up at a time."""


def owner_of(partition: int, members: Iterable[Member]) -> str | None:
    """Return the id of the member that should own a partition: the same for all who see the same members.

    Weighted rendezvous hashing (Schindelhauer and Schomaker): every member draws a number for the partition, scaled by
    its weight; the highest wins.
    """
    drawn = ((member.weight * _draw(partition, member.id), member.id) for member in members)
    return max(drawn, default=(0.0, None))[1]


@lru_cache(maxsize=2**17)
def _draw(partition: int, id_: str) -> float:
    digest = blake2b(f"{partition}/{id_}".encode(), digest_size=8).digest()
    return -1 / log((int.from_bytes(digest, "big") + 0.5) / 2**64)


@frozen
class OwnerRecord:
    """What stands in the store: who owns it, of how many, and the attempt, for who made it to know it again."""

    member: str
    count: int
    attempt: str


class _Claim:
    """One attempt to own one partition. Its key is everybody's, so all about it is guarded by its creation."""

    def __init__(self, client: Client, session: Session, group: str, partition: int, member: str, count: int) -> None:
        self.partition: Final = partition
        self.session: Final = session
        self.created = 0
        self.shown = False  # whether the view has shown it, or a state that is not older
        self._client = client
        attempt = client.runtime.unique()
        self.key: Final = client._keys.join("part", group, str(partition))
        self._tombstone = client._keys.join(TOMBSTONES, "part", group, str(partition), attempt)
        self._value = encode(OwnerRecord(member, count, attempt))
        self._doubt = False
        self._taking: asyncio.Task[bool] | None = None

    @property
    def token(self) -> int:
        """Rises with every owner."""
        return token_of(self.session.epoch, self.created)

    async def take(self) -> bool:
        """Try once; returns whether it is ours. Whatever else comes of it, `end` it."""
        self.session.check()
        self._taking = self._client._connection.finishing.spawn(self._take(), f"take {self.key}")
        return await asyncio.shield(self._taking)

    async def _take(self) -> bool:
        put, connection = Put(self.key, self._value, self.session.id), self._client._connection
        try:
            self.created = (await connection.commit([put], {self.key: ABSENT, self._tombstone: ABSENT}))[self.key]
        except ConflictError:
            return False
        except LeaseExpiredError as exc:
            self.session._lose(NO_LEASE)
            raise LostError(NO_LEASE) from exc
        except IndeterminateError:
            self._doubt = True
            await self._find()
        return self.created > 0

    async def _find(self) -> None:
        """Look whether the attempt with the lost answer came through."""
        item = await self._client._connection.get(self.key)
        if item is not None and item.value == self._value:
            self.created, self._doubt = item.created, False

    async def end(self) -> None:
        """Give it back; one whose outcome is unknown never comes to be. Until definite, or the session is over."""
        if self._taking is not None:
            await asyncio.wait([self._taking])
        if self._doubt:
            tombstone = Put(self._tombstone, b"", self.session.id)
            await until_definite(self._client, self.session, [tombstone], {self._tombstone: ABSENT})
        failures = 0
        while self._doubt and not self.session.lost.is_set():
            try:
                await self._find()
                break
            except OsdiscoError:
                await asyncio.sleep(backoff(self._client.runtime, failures))
                failures += 1
        if self.created:
            await until_definite(self._client, self.session, [Delete(self.key)], {self.key: Revision(self.created)})


class Partitions(Mapping[int, int]):
    """The partitions that are ours, with their tokens; live. Empty as soon as the session is lost. No I/O."""

    def __init__(self) -> None:
        self._claims: dict[int, _Claim] = {}
        self._changed = Signal()

    def __getitem__(self, partition: int) -> int:
        claim = self._claims[partition]
        if not claim.session.valid:
            raise KeyError(partition)
        return claim.token

    def __iter__(self) -> Iterator[int]:
        return iter([number for number, claim in sorted(self._claims.items()) if claim.session.valid])

    def __len__(self) -> int:
        return sum(claim.session.valid for claim in self._claims.values())

    def _add(self, claim: _Claim) -> None:
        self._claims[claim.partition] = claim
        self._changed.fire()

    def _drop(self, partition: int) -> None:
        del self._claims[partition]
        self._changed.fire()

    def __repr__(self) -> str:
        return f"<Partitions {dict(self)}>"

    async def until(self, predicate: Callable[[Mapping[int, int]], object], timeout: float | None = None) -> None:
        """Wait until `predicate(partitions)` is true. Raises TimedOutError after `timeout` seconds."""
        try:
            await self._changed.wait_for(lambda: predicate(self), checked_timeout(timeout))
        except TimeoutError:
            raise TimedOutError(f"not the partitions that were waited for within {timeout} s: {self!r}") from None


class Partitioning:
    """`async with membership.partition(count) as owned`. Leaving the block gives everything up."""

    def __init__(
        self, membership: Membership, count: int, released: Callable[[int, int], Awaitable[None]] | None
    ) -> None:
        self._membership = membership
        self._client = membership._client
        self._count = checked_count(count, "the number of partitions", COUNT_MAX)
        self._released = released
        self._group = membership.group
        self._client._keys.join(TOMBSTONES, "part", self._group, str(count), "0" * 32)  # refuses now what is too long
        self._view = self._client._view_of(self._client._keys.join("part", self._group) + "/")
        self._view.add_listener(lambda _: self._look())
        self._owned = Partitions()
        self._leaving = False
        self._dirty = False
        self._members: Mapping[str, Member] = {}
        self._session: Session | None = None
        self._wanted: set[int] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Partitions:
        if self._task is not None:
            raise ClosedError("a partitioning is entered once; ask the membership for a new one")
        if not self._membership.joined:
            raise ClosedError(f"not a member of the group {self._group!a}: join first")
        await self._view
        try:
            self._check_count()
        except BaseException:
            await self._view.aclose()
            raise
        self._task = self._client._connection.supervisor.spawn(self._run(), f"partitions of {self._group}")
        return self._owned

    def _check_count(self) -> None:
        for item in self._view.values():
            record = read_owner(item)
            if record is not None and record.count != self._count:
                raise ConfigError(
                    f"the group {self._group!a} has {record.count} partitions, as {record.member!a} says, and not "
                    f"{self._count}"
                )

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._leaving = True
        self._look()
        await asyncio.wait([self._task], timeout=self._client.options.timeout)

    def _look(self) -> None:
        self._dirty = True
        self._membership._changed.fire()

    def _changed(self) -> bool:
        membership = self._membership
        return self._dirty or self._members is not membership.known or self._session is not membership.session

    async def _run(self) -> None:
        failures = 0
        while not self._leaving or self._owned._claims:
            pause = None
            try:
                more = await self._settle()
            except OsdiscoError as exc:
                logger.info("partitions of %s, trying again: %s", self._group, exc)
                more = True
            if more:
                pause = backoff(self._client.runtime, failures)
            failures = failures + 1 if more else 0
            if pause or not self._leaving:
                with suppress(TimeoutError):
                    await self._membership._changed.wait_for(self._changed, pause)
        await self._view.aclose()

    async def _settle(self) -> bool:
        """First give up what is no longer wanted, then take what is. Returns whether to look again soon."""
        self._dirty, self._session = False, self._membership.session
        self._forget_lost()
        self._decide()
        claims = self._owned._claims
        await self._each(self._give_up, [claim for number, claim in claims.items() if number not in self._wanted])
        free = [number for number in sorted(self._wanted - claims.keys()) if self._item(number) is None]
        if self._session is not None:
            await self._each(partial(self._take, self._session), free)
        return any(number not in claims for number in free)

    def _decide(self) -> None:
        """Find out what should be ours. While we are not seen among the members, that stays as it is."""
        members, me = self._membership.known, self._membership.member.id
        if self._leaving or self._membership.over:
            self._wanted = set()
        elif members is not self._members and me in members:
            everybody = list(members.values())
            self._wanted = {number for number in range(self._count) if owner_of(number, everybody) == me}
        self._members = members

    def _item(self, number: int) -> Item | None:
        return self._view.get(f"part/{self._group}/{number}")

    def _forget_lost(self) -> None:
        """Let go what the session's end, or an operator, has taken."""
        for number, claim in list(self._owned._claims.items()):
            item = self._item(number)
            stands = item is not None and item.created == claim.created
            claim.shown = claim.shown or stands or self._view.revision >= claim.created
            if not claim.session.valid or (claim.shown and not stands):
                self._owned._drop(number)

    async def _take(self, session: Session, number: int) -> None:
        claim = _Claim(self._client, session, self._group, number, self._membership.member.id, self._count)
        try:
            if await claim.take():
                self._owned._add(claim)
                return
        except BaseException:
            session.keep_until_ended(claim.end(), f"give up {claim.key}")
            raise
        await claim.end()

    async def _give_up(self, claim: _Claim) -> None:
        """The application first: it must have stopped before another may begin."""
        self._owned._drop(claim.partition)
        try:
            if self._released is not None:
                await self._released(claim.partition, claim.token)
        except Exception:
            logger.exception("who was told that partition %s is given up failed", claim.partition)
        finally:
            ending = claim.session.keep_until_ended(claim.end(), f"give up {claim.key}")
        await asyncio.shield(ending)

    async def _each(self, work: Callable[[T], Coroutine[Any, Any, None]], items: Iterable[T]) -> None:
        """Do it for all, some at a time; the first failure is raised when all have ended."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(item: T) -> None:
            async with gate:
                await work(item)

        for result in await asyncio.gather(*map(one, items), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result


def read_owner(item: Item) -> OwnerRecord | None:
    try:
        return decode(item.value, OwnerRecord)
    except RecordError as exc:
        logger.warning("skipped the owner at %r: %s", item.key, exc)
        return None
