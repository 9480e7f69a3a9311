"""Coordination, written once on the backend interface and the same on every store."""

from osdisco.coordination.consensus import ConsensusRegister
from osdisco.coordination.counter import DistributedCounter
from osdisco.coordination.fence import Fence
from osdisco.coordination.lock import Contender, DistributedLock, LockGuard
from osdisco.coordination.service import CoordinationService, DistributedLockManager
from osdisco.coordination.shared_value import SharedValue

__all__ = [
    "ConsensusRegister",
    "Contender",
    "CoordinationService",
    "DistributedCounter",
    "DistributedLock",
    "DistributedLockManager",
    "Fence",
    "LockGuard",
    "SharedValue",
]
