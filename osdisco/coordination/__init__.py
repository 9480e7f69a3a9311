"""Coordination, written once on the backend interface and the same on every store."""

from osdisco.coordination._board import Leader
from osdisco.coordination._contend import Contender
from osdisco.coordination._ears import LeadershipListener
from osdisco.coordination._guard import LockGuard
from osdisco.coordination._term import Term
from osdisco.coordination.barrier import DistributedBarrier, DistributedBarrierManager
from osdisco.coordination.consensus import ConsensusRegister
from osdisco.coordination.counter import DistributedCounter
from osdisco.coordination.double_barrier import BarrierStay, DoubleBarrier
from osdisco.coordination.election import LeaderElection
from osdisco.coordination.fence import Fence
from osdisco.coordination.group import Group, Member, MemberEvent, Members, Membership
from osdisco.coordination.lock import DistributedLock
from osdisco.coordination.multilock import MultiLock, MultiLockGuard
from osdisco.coordination.partition import Partitioning, Partitions
from osdisco.coordination.rwlock import DistributedReadWriteLock
from osdisco.coordination.semaphore import DistributedSemaphore
from osdisco.coordination.service import CoordinationService, DistributedLockManager
from osdisco.coordination.shared_value import SharedValue
from osdisco.coordination.status import (
    BarrierStatus,
    CandidateStatus,
    DoubleBarrierStatus,
    ElectionStatus,
    GroupStatus,
    NamespaceStatus,
    QueueStatus,
    RevocationRequest,
    SessionStatus,
    StatusWatch,
)

__all__ = [
    "BarrierStatus",
    "BarrierStay",
    "CandidateStatus",
    "ConsensusRegister",
    "Contender",
    "CoordinationService",
    "DistributedBarrier",
    "DistributedBarrierManager",
    "DistributedCounter",
    "DistributedLock",
    "DistributedLockManager",
    "DistributedReadWriteLock",
    "DistributedSemaphore",
    "DoubleBarrier",
    "DoubleBarrierStatus",
    "ElectionStatus",
    "Fence",
    "Group",
    "GroupStatus",
    "Leader",
    "LeaderElection",
    "LeadershipListener",
    "LockGuard",
    "Member",
    "MemberEvent",
    "Members",
    "Membership",
    "MultiLock",
    "MultiLockGuard",
    "NamespaceStatus",
    "Partitioning",
    "Partitions",
    "QueueStatus",
    "RevocationRequest",
    "SessionStatus",
    "SharedValue",
    "StatusWatch",
    "Term",
]
