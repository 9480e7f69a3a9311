"""osdisco: discovery and clustering for OpenSearch extensions, on etcd, Consul or memory, chosen by a URL.

Names are loaded when they are first used: the pytest plugin and the command line live in this package, and must not
cost every test run and every `--help` the whole library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from osdisco._version import __version__ as __version__

if TYPE_CHECKING:
    from osdisco._feed import (
        Change as Change,
    )
    from osdisco.backend import (
        ABSENT as ABSENT,
        Backend as Backend,
        Batch as Batch,
        Condition as Condition,
        Delete as Delete,
        EndpointStatus as EndpointStatus,
        HeldBy as HeldBy,
        Item as Item,
        Lease as Lease,
        Limits as Limits,
        Op as Op,
        Put as Put,
        Revision as Revision,
        Snapshot as Snapshot,
    )
    from osdisco.client import (
        Client as Client,
        connect as connect,
    )
    from osdisco.cluster import (
        Block as Block,
        BlocksChanged as BlocksChanged,
        ClusterBlocks as ClusterBlocks,
        ClusterChange as ClusterChange,
        ClusterManagerChanged as ClusterManagerChanged,
        ClusterMetadata as ClusterMetadata,
        ClusterNodes as ClusterNodes,
        ClusterReplaced as ClusterReplaced,
        ClusterState as ClusterState,
        ClusterStateEvent as ClusterStateEvent,
        ClusterStateListener as ClusterStateListener,
        ClusterStateService as ClusterStateService,
        ClusterStateSource as ClusterStateSource,
        ComponentSize as ComponentSize,
        IndexChanged as IndexChanged,
        IndexCreated as IndexCreated,
        IndexDeleted as IndexDeleted,
        IndexMetadata as IndexMetadata,
        IndexRouting as IndexRouting,
        Indices as Indices,
        MirrorState as MirrorState,
        MirrorStatus as MirrorStatus,
        NodeAddress as NodeAddress,
        NodeChanged as NodeChanged,
        NodeInfo as NodeInfo,
        NodeJoined as NodeJoined,
        NodeLeft as NodeLeft,
        NodeRole as NodeRole,
        NodeStatus as NodeStatus,
        OpenSearchClientSource as OpenSearchClientSource,
        OpenSearchHttpSource as OpenSearchHttpSource,
        RoutingTable as RoutingTable,
        ShardChanged as ShardChanged,
        ShardGroup as ShardGroup,
        ShardHashing as ShardHashing,
        ShardMoved as ShardMoved,
        ShardRouting as ShardRouting,
        ShardState as ShardState,
        StateComponent as StateComponent,
        StateHeader as StateHeader,
        StateVersion as StateVersion,
        UnassignedInfo as UnassignedInfo,
        changes_between as changes_between,
    )
    from osdisco.coordination import (
        BarrierStatus as BarrierStatus,
        BarrierStay as BarrierStay,
        CandidateStatus as CandidateStatus,
        ConsensusRegister as ConsensusRegister,
        Contender as Contender,
        CoordinationService as CoordinationService,
        DistributedBarrier as DistributedBarrier,
        DistributedBarrierManager as DistributedBarrierManager,
        DistributedCounter as DistributedCounter,
        DistributedLock as DistributedLock,
        DistributedLockManager as DistributedLockManager,
        DistributedReadWriteLock as DistributedReadWriteLock,
        DistributedSemaphore as DistributedSemaphore,
        DoubleBarrier as DoubleBarrier,
        DoubleBarrierStatus as DoubleBarrierStatus,
        ElectionStatus as ElectionStatus,
        Fence as Fence,
        Group as Group,
        GroupStatus as GroupStatus,
        Leader as Leader,
        LeaderElection as LeaderElection,
        LeadershipListener as LeadershipListener,
        LockGuard as LockGuard,
        Member as Member,
        MemberEvent as MemberEvent,
        Members as Members,
        Membership as Membership,
        MultiLock as MultiLock,
        MultiLockGuard as MultiLockGuard,
        NamespaceStatus as NamespaceStatus,
        Partitioning as Partitioning,
        Partitions as Partitions,
        QueueStatus as QueueStatus,
        RevocationRequest as RevocationRequest,
        SessionStatus as SessionStatus,
        SharedValue as SharedValue,
        StatusWatch as StatusWatch,
        Term as Term,
    )
    from osdisco.discovery import (
        Check as Check,
        CheckFailedError as CheckFailedError,
        CheckState as CheckState,
        CheckStatus as CheckStatus,
        DiscoveryListener as DiscoveryListener,
        DiscoveryService as DiscoveryService,
        Drain as Drain,
        EndpointInfo as EndpointInfo,
        ExtensionEvent as ExtensionEvent,
        ExtensionInfo as ExtensionInfo,
        Extensions as Extensions,
        ExtensionStatus as ExtensionStatus,
        Finding as Finding,
        Findings as Findings,
        FindingState as FindingState,
        FunctionCheck as FunctionCheck,
        Health as Health,
        HttpCheck as HttpCheck,
        Leaving as Leaving,
        LeavingPhase as LeavingPhase,
        PolledCheck as PolledCheck,
        Probing as Probing,
        Publication as Publication,
        Superseded as Superseded,
        TcpCheck as TcpCheck,
        TtlCheck as TtlCheck,
        ViewFresh as ViewFresh,
        ViewStale as ViewStale,
    )
    from osdisco.errors import (
        BarrierBrokenError as BarrierBrokenError,
        CallInterruptedError as CallInterruptedError,
        CircuitOpenError as CircuitOpenError,
        ClosedError as ClosedError,
        ClusterDeniedError as ClusterDeniedError,
        ClusterDocumentError as ClusterDocumentError,
        ClusterError as ClusterError,
        ClusterUnavailableError as ClusterUnavailableError,
        ConfigError as ConfigError,
        ConflictError as ConflictError,
        CoordinationError as CoordinationError,
        DeadlineExceededError as DeadlineExceededError,
        DeniedError as DeniedError,
        DiscoveryError as DiscoveryError,
        EndpointUnreachableError as EndpointUnreachableError,
        IndeterminateError as IndeterminateError,
        InvalidCommitError as InvalidCommitError,
        InvalidNameError as InvalidNameError,
        LeaseExpiredError as LeaseExpiredError,
        LimitError as LimitError,
        LostError as LostError,
        NoHealthyEndpointsError as NoHealthyEndpointsError,
        OsdiscoError as OsdiscoError,
        OverloadedError as OverloadedError,
        RecordError as RecordError,
        RemoteError as RemoteError,
        RequestError as RequestError,
        ResponseError as ResponseError,
        RulesError as RulesError,
        ServiceMeshError as ServiceMeshError,
        ServiceNotFoundError as ServiceNotFoundError,
        StaleTokenError as StaleTokenError,
        TimedOutError as TimedOutError,
        UnavailableError as UnavailableError,
    )
    from osdisco.mesh import (
        CircuitBreakerRegistry as CircuitBreakerRegistry,
        ExtensionServiceMesh as ExtensionServiceMesh,
        HttpTransport as HttpTransport,
        LoadBalancer as LoadBalancer,
        OpenTelemetryTracing as OpenTelemetryTracing,
        RetryPolicy as RetryPolicy,
        RoundRobinLoadBalancer as RoundRobinLoadBalancer,
        ServiceServer as ServiceServer,
        TlsFiles as TlsFiles,
        TrafficRules as TrafficRules,
        Transport as Transport,
    )
    from osdisco.metrics import (
        Metrics as Metrics,
        OpenTelemetryMetrics as OpenTelemetryMetrics,
        PrometheusMetrics as PrometheusMetrics,
    )
    from osdisco.registry import (
        Registration as Registration,
        ServiceDefinition as ServiceDefinition,
        ServiceEndpoint as ServiceEndpoint,
        ServiceEvent as ServiceEvent,
        ServiceListener as ServiceListener,
        ServiceRegistry as ServiceRegistry,
        ServiceView as ServiceView,
        ServiceWatch as ServiceWatch,
        ViewProtecting as ViewProtecting,
        ViewProtectionOver as ViewProtectionOver,
    )
    from osdisco.runtime import (
        Clock as Clock,
        Credentials as Credentials,
        Runtime as Runtime,
        Secret as Secret,
        SystemClock as SystemClock,
    )
    from osdisco.session import (
        Session as Session,
        SessionState as SessionState,
    )
    from osdisco.url import (
        StoreURL as StoreURL,
    )
    from osdisco.view import (
        View as View,
    )

_HOMES = {
    "osdisco._feed": "Change",
    "osdisco.backend": (
        "ABSENT Backend Batch Condition Delete EndpointStatus HeldBy Item Lease Limits Op Put Revision Snapshot"
    ),
    "osdisco.client": "Client connect",
    "osdisco.cluster": (
        "Block BlocksChanged ClusterBlocks ClusterChange ClusterManagerChanged ClusterMetadata ClusterNodes "
        "ClusterReplaced ClusterState ClusterStateEvent ClusterStateListener ClusterStateService ClusterStateSource "
        "ComponentSize IndexChanged IndexCreated IndexDeleted IndexMetadata IndexRouting Indices MirrorState "
        "MirrorStatus NodeAddress NodeChanged NodeInfo NodeJoined NodeLeft NodeRole NodeStatus OpenSearchClientSource "
        "OpenSearchHttpSource RoutingTable ShardChanged ShardGroup ShardHashing ShardMoved ShardRouting ShardState "
        "StateComponent StateHeader StateVersion UnassignedInfo changes_between"
    ),
    "osdisco.coordination": (
        "BarrierStatus BarrierStay CandidateStatus ConsensusRegister Contender CoordinationService "
        "DistributedBarrier DistributedBarrierManager DistributedCounter DistributedLock DistributedLockManager "
        "DistributedReadWriteLock DistributedSemaphore DoubleBarrier DoubleBarrierStatus ElectionStatus Fence "
        "Group GroupStatus Leader LeaderElection LeadershipListener LockGuard Member MemberEvent Members "
        "Membership MultiLock MultiLockGuard NamespaceStatus Partitioning Partitions QueueStatus "
        "RevocationRequest SessionStatus SharedValue StatusWatch Term"
    ),
    "osdisco.discovery": (
        "Check CheckFailedError CheckState CheckStatus DiscoveryListener DiscoveryService Drain EndpointInfo "
        "ExtensionEvent ExtensionInfo ExtensionStatus Extensions Finding FindingState Findings FunctionCheck "
        "Health HttpCheck Leaving LeavingPhase PolledCheck Probing Publication Superseded TcpCheck TtlCheck ViewFresh "
        "ViewStale"
    ),
    "osdisco.errors": (
        "BarrierBrokenError CallInterruptedError CircuitOpenError ClosedError ClusterDeniedError ClusterDocumentError "
        "ClusterError ClusterUnavailableError ConfigError ConflictError "
        "CoordinationError DeadlineExceededError DeniedError DiscoveryError EndpointUnreachableError "
        "IndeterminateError InvalidCommitError InvalidNameError LeaseExpiredError LimitError LostError "
        "NoHealthyEndpointsError OsdiscoError OverloadedError RecordError RemoteError RequestError ResponseError "
        "RulesError ServiceMeshError ServiceNotFoundError StaleTokenError TimedOutError UnavailableError"
    ),
    "osdisco.mesh": (
        "CircuitBreakerRegistry ExtensionServiceMesh HttpTransport LoadBalancer OpenTelemetryTracing "
        "RetryPolicy RoundRobinLoadBalancer ServiceServer TlsFiles TrafficRules Transport"
    ),
    "osdisco.metrics": "Metrics OpenTelemetryMetrics PrometheusMetrics",
    "osdisco.registry": (
        "Registration ServiceDefinition ServiceEndpoint ServiceEvent ServiceListener ServiceRegistry ServiceView "
        "ServiceWatch ViewProtecting ViewProtectionOver"
    ),
    "osdisco.runtime": "Clock Credentials Runtime Secret SystemClock",
    "osdisco.session": "Session SessionState",
    "osdisco.url": "StoreURL",
    "osdisco.view": "View",
}
"""Where each name lives; a test holds it against the imports above, which type checkers read."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
