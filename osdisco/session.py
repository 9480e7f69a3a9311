"""Sessions: a lease that is kept alive, and says when it is not.

One implementation for all stores, on top of their leases, because vendors' own sessions differ in the ways that lose
data. Rules S10 to S12 of `osdisco.backend`: validity counts from the moment a renewal was *sent*, on a clock that
counts suspend; a good answer is no proof of life, so the session also watches a key of its own; loss is final.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Coroutine, Generator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self

from osdisco._checks import check_commit
from osdisco._connection import LASTING, PAUSE_MIN, Connection, backoff
from osdisco._epoch import EPOCH_KEY, parse_epoch
from osdisco._keys import Keyspace, as_bytes
from osdisco._loss import Loss, Scope
from osdisco._tasks import cancel
from osdisco.backend import ABSENT, Backend, Batch, HeldBy, Lease, Put, Snapshot
from osdisco.errors import (
    ClosedError,
    ConflictError,
    IndeterminateError,
    LeaseExpiredError,
    LimitError,
    LostError,
    OsdiscoError,
    UnavailableError,
)
from osdisco.metrics._catalog import RENEWAL_SECONDS, RENEWALS, SESSION_LOSSES, SESSIONS
from osdisco.runtime import Runtime

log = logging.getLogger("osdisco")

LOOK_EVERY: Final = 1.0
"""Seconds between looks at the clock: how late, after a suspend, the bodies of scopes are cancelled."""

CLOSED: Final = "it was closed"

REVOKING: Final = 2.0
"""Seconds that giving a lease back may take; after that it ends with its ttl."""


class SessionState(enum.Enum):
    """Where a session stands. LOST is final; a new session has a new id."""

    NEW = "new"
    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


_MOVES: Final = {
    SessionState.NEW: {SessionState.CONNECTED, SessionState.LOST},
    SessionState.CONNECTED: {SessionState.SUSPENDED, SessionState.LOST},
    SessionState.SUSPENDED: {SessionState.CONNECTED, SessionState.LOST},
    SessionState.LOST: set[SessionState](),
}


class Session:
    """A lease kept alive: await it, or enter it with `async with`; leaving revokes the lease and all its keys."""

    def __init__(self, connection: Connection, *, ttl: float, root: str, strict: bool = False) -> None:
        self.lost: Final = Loss()
        self.uid: Final = connection.runtime.unique()
        self.epoch = 0
        self._connection = connection
        self._runtime = connection.runtime
        self._backend = connection.backend
        self._now = connection.runtime.clock.now
        self._keys = Keyspace(root, connection.backend.limits)
        self._live_key = self._keys.join("sess", self.uid, "live")
        self._asked = ttl
        self._strict = strict
        self._opened = False
        self._state = SessionState.NEW
        self._lease: Lease | None = None
        self._deadline = 0.0
        self._next_renewal = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._owed: Lease | None = None  # granted, and not revoked yet
        self._live = False  # whether the liveness key was written
        self._endings: set[asyncio.Task[None]] = set()

    @classmethod
    def on(cls, backend: Backend, ttl: float, runtime: Runtime, *, root: str, strict: bool) -> Session:
        """Return a session straight on a backend, without a client."""
        return cls(Connection(backend, runtime), ttl=ttl, root=root, strict=strict)

    def __repr__(self) -> str:
        return f"<Session {self._lease.id if self._lease else '-'} {self._state.value}>"

    @property
    def id(self) -> str:
        """The store's id of the lease. Raises ClosedError before the session is open."""
        return self._granted.id

    @property
    def ttl(self) -> float:
        """Seconds as granted, which can be more than was asked for."""
        return self._granted.ttl

    @property
    def state(self) -> SessionState:
        """CONNECTED, SUSPENDED (renewals fail, ownership still holds) or LOST."""
        return self._state

    @property
    def deadline(self) -> float:
        """Until when, on the runtime's clock, ownership is certain unless renewed."""
        return self._deadline

    @property
    def valid(self) -> bool:
        """Whether it is open and within its deadline. Reads the clock, no I/O."""
        return self._state in (SessionState.CONNECTED, SessionState.SUSPENDED) and self._now() < self._deadline

    @property
    def _granted(self) -> Lease:
        if self._lease is None:
            raise ClosedError("the session is not open yet; await it or enter it first")
        return self._lease

    def check(self) -> None:
        """Raise LostError when the session is lost or past its deadline. Reads the clock, no I/O; from any thread."""
        if self._state is not SessionState.LOST and self._now() >= self._deadline:
            self._granted  # noqa: B018 - says so when it was never open
            reason = f"no renewal was answered in time; the deadline passed {self._now() - self._deadline:.3f} s ago"
            if asyncio._get_running_loop() is None:  # a thread of the caller's: to tell the others is up to the loop
                raise LostError(reason)
            self._lose(reason)
        self.lost.raise_if_set()

    def scope(self) -> Scope:
        """Return an `async with` block whose body is cancelled on loss and then ends in LostError."""
        return Scope(self.lost, self.check)

    async def put(self, name: str, value: bytes) -> int:
        """Write a key that goes with the session; returns its revision.

        Raises:
            ConflictError: the key exists and hangs on another lease, or on none.
            LostError: the session is lost.
        """
        self.check()
        key = self._keys.key(name)
        ops = (Put(key, as_bytes(value), self.id),)
        check_commit(ops, {key: ABSENT}, self._keys.limits)
        deadline = self._now() + self._connection.options.timeout
        held = HeldBy(self.id)
        for guard in (held, ABSENT, held):  # the third time when another put of this session made the key meanwhile
            try:
                return (await self._connection.commit(ops, {key: guard}, deadline - self._now()))[key]
            except ConflictError:
                continue
            except LeaseExpiredError as exc:
                self._lose("the store no longer knows the lease")
                raise LostError("the store no longer knows the lease") from exc
        raise ConflictError(f"the key {name!a} exists and is not this session's; delete it or choose another")

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> Self:
        if self._opened or self._state is not SessionState.NEW:
            raise ClosedError("a session is opened once; ask the client for a new one")
        self._connection.check_open()
        self._opened = True
        opening = self._connection.finishing.spawn(self._grant(), f"open session {self.uid}")
        try:
            await asyncio.shield(opening)
        except BaseException:
            self._lose("it was never opened", revoke=False)
            self._connection.finishing.spawn(self._undo(opening), f"undo session {self.uid}")
            raise
        return self

    async def _undo(self, opening: asyncio.Task[None]) -> None:
        """The caller went away while the lease was being granted; give back what came of it."""
        await asyncio.wait([opening])
        await self._stop()

    async def _grant(self) -> None:
        longest = self._backend.limits.ttl_max
        if not 0 < self._asked <= longest:
            raise LimitError(f"a ttl of {self._asked} s; above 0 and at most {longest} s are granted")
        deadline = self._now() + self._connection.options.timeout
        epoch = await self._connection.get(self._keys.join(EPOCH_KEY))
        self.epoch = parse_epoch(epoch.value) if epoch else 0
        lease, sent = await self._connection.patiently(self._grant_once, deadline - self._now())
        self._lease = self._owed = lease
        if self._strict and lease.ttl != self._asked:
            raise LimitError(f"a ttl of {self._asked} s was asked for with strict_ttl; the store grants {lease.ttl} s")
        if self.lost.is_set():  # closed, or given up by its opener, while the lease was being granted
            await self._stop()
            self.lost.raise_if_set()
        self._extend(sent, lease.ttl)
        self._move(SessionState.CONNECTED)
        spawn = self._connection.supervisor.spawn
        self._tasks = [spawn(self._renew(), f"renew {lease.id}"), spawn(self._guard(lease), f"guard {lease.id}")]

    async def _grant_once(self, timeout: float) -> tuple[Lease, float]:
        sent = self._now()
        try:
            return await self._backend.grant(self._asked, timeout=min(timeout, 2.0)), sent
        except IndeterminateError as exc:  # at worst a lease without keys stays until its ttl
            raise UnavailableError(f"the lease was not granted in time: {exc}") from exc

    def _move(self, state: SessionState, reason: str = "") -> None:
        """The one place that changes the state."""
        if state is self._state:
            return
        if state not in _MOVES[self._state]:
            raise AssertionError(f"no way from {self._state} to {state}")
        # what was never open is told by the error that its opener gets
        expected = state is SessionState.CONNECTED or reason == CLOSED or self._state is SessionState.NEW
        level = logging.INFO if expected else logging.WARNING
        log.log(level, "session %s: %s -> %s: %s", self.uid, self._state.value, state.value, reason or "renewed")
        if self._state is SessionState.NEW and state is SessionState.CONNECTED:
            self._runtime.metrics.count(SESSIONS)
        elif state is SessionState.LOST and not expected:
            self._runtime.metrics.count(SESSION_LOSSES)
        self._state = state

    def _lose(self, reason: str, *, revoke: bool = True) -> None:
        if self._state is SessionState.LOST:
            return
        self._move(SessionState.LOST, reason)
        if self._alarm is not None:
            self._alarm.cancel()
        self.lost.set(reason)
        if revoke and not self._connection.closed:  # best effort: frees what still stands under the lease
            self._connection.finishing.spawn(self._stop(), f"revoke {self.uid}")

    def _extend(self, sent: float, ttl: float) -> None:
        """A renewal sent at `sent` was answered with `ttl`."""
        self._deadline = max(self._deadline, sent + 0.99 * ttl - min(1.0, ttl / 10))
        self._next_renewal = sent + ttl / 3
        if self._alarm is None:
            self._set_alarm()

    def _set_alarm(self) -> None:
        """Timers merely wake; `_ring` looks at the clock. Often, because the loop's timers stop while suspended."""
        left = max(0.0, self._deadline - self._now())
        self._alarm = asyncio.get_running_loop().call_later(min(left, LOOK_EVERY), self._ring)

    def look_in_time(self) -> None:
        """Look at the clock when the deadline comes, though the machine was suspended since the next look was set."""
        if self._alarm is not None and self._state is not SessionState.LOST:
            self._alarm.cancel()
            self._set_alarm()

    def _ring(self) -> None:
        if self._state is SessionState.LOST:
            return
        if self._now() >= self._deadline:
            self._lose("no renewal was answered within the ttl")
        else:
            self._set_alarm()

    async def _renew(self) -> None:
        failures = 0
        while self._state is not SessionState.LOST:
            await asyncio.sleep(self._next_renewal - self._now())
            self._warn_if_late()
            try:
                begun = self._now()
                await self._renew_once()
                self._runtime.metrics.count(RENEWALS, "ok")
                self._runtime.metrics.time(RENEWAL_SECONDS, self._now() - begun)
                failures = 0
            except LeaseExpiredError:
                self._lose("the store no longer knows the lease: it expired or was revoked")
            except OsdiscoError as exc:
                self._runtime.metrics.count(RENEWALS, "failed")
                if not self.lost.is_set():
                    self._move(SessionState.SUSPENDED, str(exc))
                left = self._deadline - self._now()  # an outage that ends before it must not lose the session
                pause = min(backoff(self._runtime, failures), self._granted.ttl / 6, left / 2)
                self._next_renewal = self._now() + max(pause, PAUSE_MIN / 2)
                failures += 1

    async def _renew_once(self) -> None:
        lease = self._granted
        sent = self._now()
        ttl = await self._backend.renew(lease, timeout=min(lease.ttl / 6, 2.0))
        if self.lost.is_set():
            return
        if self._now() >= self._deadline:
            self._lose("the answer to a renewal came after the deadline")
        else:
            self._extend(sent, min(ttl, lease.ttl))
            self._move(SessionState.CONNECTED)

    def _warn_if_late(self) -> None:
        lag = self._now() - self._next_renewal
        if lag > self._granted.ttl / 6:
            log.warning("a renewal of session %s starts %.1f s late: something blocks the event loop", self.uid, lag)

    async def _guard(self, lease: Lease) -> None:
        """Hold a key of our own and follow it: renewals of a dead lease have been seen to succeed (S10)."""
        failures = 0
        while self._state is not SessionState.LOST:
            begun = self._now()
            try:
                await self._put_live_key(lease)
                await self._follow_live_key()
            except LeaseExpiredError:
                self._lose("the store no longer knows the lease: it expired or was revoked")
            except (ClosedError, LostError):
                return
            except OsdiscoError as exc:
                log.info("session %s cannot see its own key for now: %s", self.uid, exc)
            except Exception:
                log.exception("the watch of session %s failed in a way that its backend does not know", self.uid)
            failures = failures + 1 if self._now() - begun < LASTING else 0
            await asyncio.sleep(backoff(self._runtime, failures))

    async def _put_live_key(self, lease: Lease) -> None:
        if self._live:
            return
        put = Put(self._live_key, self._runtime.name.encode(errors="replace"), lease.id)
        try:
            await self._connection.commit([put], {self._live_key: ABSENT})
        except ConflictError:  # an earlier attempt, whose answer was lost, made it
            log.debug("session %s: its key is there already", self.uid)
        self._live = True

    async def _follow_live_key(self) -> None:
        async with aclosing(self._backend.watch(self._live_key)) as frames:
            async for frame in frames:
                if _gone(self._live_key, frame):
                    self._lose(
                        "its key in the store is gone: the lease was revoked, expired, or deleted by an operator"
                    )
                    return

    def keep_until_ended(self, ending: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run the removal of something that hangs on this session; closing waits for it before it revokes."""
        task = self._connection.finishing.spawn(ending, name)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    async def aclose(self) -> None:
        """End the session: waits for what is being removed, then revokes the lease and with it all its keys."""
        await asyncio.shield(self._connection.finishing.spawn(self._close(), f"close {self.uid}"))

    async def _close(self) -> None:
        if self._endings:
            await asyncio.wait(list(self._endings), timeout=self._connection.options.timeout)
        self._lose(CLOSED, revoke=False)
        await self._stop()

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        await cancel(*tasks)
        lease, self._owed = self._owed, None
        if lease is None:
            return
        try:
            await self._revoke(lease)
        except OsdiscoError as exc:
            log.info("session %s could not be revoked and ends with its ttl: %s", self.uid, exc)

    async def _revoke(self, lease: Lease) -> None:
        """Until it succeeds all keys stand, so it is worth some patience; revoking twice does no harm."""
        failures, deadline = 0, self._now() + min(lease.ttl / 2, REVOKING)
        while True:
            try:
                return await self._backend.revoke(lease, timeout=min(deadline - self._now(), REVOKING / 2))
            except (UnavailableError, IndeterminateError):
                pause = backoff(self._runtime, failures)
                if self._now() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            failures += 1


def _gone(key: str, frame: Snapshot | Batch) -> bool:
    if isinstance(frame, Snapshot):
        return key not in frame.items
    return key in frame.deletes and all(item.key != key for item in frame.puts)
