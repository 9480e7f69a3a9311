"""The entrance to coordination: one object per client that hands out the recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from osdisco.client import Client
from osdisco.coordination._contend import Places
from osdisco.coordination._guard import LockGuard
from osdisco.coordination.barrier import DistributedBarrier, DistributedBarrierManager
from osdisco.coordination.consensus import ConsensusRegister
from osdisco.coordination.counter import DistributedCounter
from osdisco.coordination.double_barrier import DoubleBarrier
from osdisco.coordination.election import LeaderElection
from osdisco.coordination.group import Group
from osdisco.coordination.lock import DistributedLock
from osdisco.coordination.multilock import MultiLock
from osdisco.coordination.rwlock import DistributedReadWriteLock
from osdisco.coordination.semaphore import DistributedSemaphore
from osdisco.coordination.shared_value import SharedValue
from osdisco.coordination.status import NamespaceStatus, StatusWatch, read_status
from osdisco.session import Session


class CoordinationService:
    """The recipes on a client. All share the client's session unless `session` is given."""

    def __init__(self, client: Client, *, session: Session | None = None) -> None:
        self._client = client
        self._session = session
        self.locks = DistributedLockManager(self)
        self.barriers = DistributedBarrierManager(client, session)

    def lock(
        self, name: str, *, info: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> DistributedLock:
        """Return the lock called `name` (one segment, any text); reusable, and nothing happens until it is acquired.

        Args:
            name: what is locked.
            info: JSON that is shown to others that look at the queue.
            timeout: seconds to wait for it when entered with `async with`; for ever when None.

        Raises:
            InvalidNameError, ConfigError, RecordError: a name, timeout or info that cannot be used.
        """
        places = Places(self._client, self._session, "lock", name, info=_given(info))
        return DistributedLock(self._client, places, f"the lock {name!a}", timeout=timeout)

    def rwlock(self, name: str) -> DistributedReadWriteLock:
        """Return the read/write lock called `name`: many read together, one writes alone, in the order they came."""
        return DistributedReadWriteLock(self._client, self._session, name)

    def semaphore(
        self, name: str, *, limit: int, info: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> DistributedSemaphore:
        """Return the semaphore called `name`, of which at most `limit` permits are held at a time.

        Args:
            name: what is limited.
            limit: the same for all who use the name, from 1 to 10,000.
            info: as for `lock`.
            timeout: as for `lock`.
        """
        return DistributedSemaphore(self._client, self._session, name, limit=limit, info=_given(info), timeout=timeout)

    def multilock(
        self, names: Iterable[str], *, info: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> MultiLock:
        """Return the locks called `names`, up to 32, to be held together: all or none, and without deadlocks.

        Args:
            names: of locks, in any order, each once.
            info: as for `lock`.
            timeout: as for `lock`, one for all.
        """
        return MultiLock(self._client, self._session, names, info=_given(info), timeout=timeout)

    def counter(self, name: str) -> DistributedCounter:
        """Return the counter called `name`; 0 until something was added."""
        return DistributedCounter(self._client, self._session, name)

    def shared_value(self, name: str, default: Any = None) -> SharedValue:
        """Return the JSON value called `name`; `default` stands for it until it is set.

        Raises:
            RecordError: the default is not JSON, or takes more than 64 KiB.
        """
        return SharedValue(self._client, name, default)

    def consensus(self, name: str) -> ConsensusRegister:
        """Return the decision called `name`; whoever proposes first decides it."""
        return ConsensusRegister(self._client, name)

    def election(
        self,
        name: str,
        *,
        candidate_id: str | None = None,
        priority: int = 0,
        info: Mapping[str, Any] | None = None,
    ) -> LeaderElection:
        """Return a candidate in the election called `name` (one segment, any text); it stands when told to.

        Args:
            name: what is led.
            candidate_id: shown to others, and to whom a leader transfers; the client's name when None.
            priority: the highest one leads next. It never unseats a living leader.
            info: JSON that others see while it leads, until it proclaims something else.

        Raises:
            InvalidNameError, ConfigError, RecordError: a name, priority or info that cannot be used.
        """
        return LeaderElection(
            self._client, self._session, name, candidate_id=candidate_id, priority=priority, info=_given(info)
        )

    def barrier(self, name: str) -> DistributedBarrier:
        """Return the barrier called `name`; down until somebody holds it."""
        return DistributedBarrier(self._client, self._session, name)

    def double_barrier(self, name: str, *, parties: int, timeout: float | None = None) -> DoubleBarrier:
        """Return the double barrier called `name`: `parties` begin together, and nobody goes on before all finished.

        Args:
            name: the same for all.
            parties: how many it takes, the same for all.
            timeout: seconds to wait for the others at entering, and again at leaving; for ever when None.
        """
        return DoubleBarrier(self._client, self._session, name, parties=parties, timeout=timeout)

    async def status(self) -> NamespaceStatus:
        """Return everything that is held or waited for in the client's namespace, and all sessions. Linearizable.

        One atomic scan of all of it, and one request for each session: for operators, not for every few milliseconds.

        Raises:
            UnavailableError, DeniedError: the store could not be reached, or does not let us look.
        """
        return await read_status(self._client)

    def watch_status(self) -> StatusWatch:
        """Return `async with` around an iterator of `status()`: the present one first, then after every change."""
        return StatusWatch(self._client)

    def group(self, name: str) -> Group:
        """Return the group called `name`."""
        return Group(self._client, self._session, name)


class DistributedLockManager:
    """Locks by name in one call, as in the specification."""

    def __init__(self, service: CoordinationService) -> None:
        self._service = service

    async def acquire(self, name: str, *, timeout: float | None = None) -> LockGuard:
        """Acquire the lock called `name`. Raises TimedOutError after `timeout` seconds."""
        return await self._service.lock(name).acquire(timeout=timeout)


def _given(info: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if info is None else info
