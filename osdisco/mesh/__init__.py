"""The service mesh: calls that reach a healthy endpoint, in time, or say why not."""

from typing import TYPE_CHECKING, Any

from osdisco.mesh._canary import CanaryPhase, CanaryPlan, CanaryState, Sample
from osdisco.mesh._choice import EndpointSubset
from osdisco.mesh._matching import Text
from osdisco.mesh._rules_record import RulesVersion
from osdisco.mesh._state import EndpointState, Outcome
from osdisco.mesh.balancers import (
    LeastRequestLoadBalancer,
    LoadBalancer,
    PeakEwmaLoadBalancer,
    RandomLoadBalancer,
    RoundRobinLoadBalancer,
    WeightedRoundRobinLoadBalancer,
)
from osdisco.mesh.breaker import (
    BreakerEvent,
    BreakerReason,
    BreakerSettings,
    BreakerState,
    CircuitBreaker,
    CircuitBreakerRegistry,
)
from osdisco.mesh.call_events import AttemptFailed, PickRefused
from osdisco.mesh.canary import CanaryController
from osdisco.mesh.canary_figures import CallFigures, CallSummaries, CanaryMetrics
from osdisco.mesh.deadline import deadline_scope, remaining
from osdisco.mesh.events import EndpointEjected, EndpointReturned, PanicBegan, PanicOver
from osdisco.mesh.handlers import incoming
from osdisco.mesh.hedging import Hedging
from osdisco.mesh.mesh import ExtensionServiceMesh
from osdisco.mesh.mirroring import Mirroring
from osdisco.mesh.nearness import NearestLoadBalancer
from osdisco.mesh.outliers import EjectionReason, OutlierSettings
from osdisco.mesh.pool import Pool, PoolSettings
from osdisco.mesh.prometheus_figures import PrometheusFigures
from osdisco.mesh.rate_limits import TokenBucket
from osdisco.mesh.refusal import Refused, RefusedReason
from osdisco.mesh.rendezvous import RendezvousLoadBalancer
from osdisco.mesh.retry import RetryBudget, RetryPolicy
from osdisco.mesh.route import Route, Subset, Target
from osdisco.mesh.router import Router
from osdisco.mesh.rules import (
    FailoverTarget,
    FaultRule,
    LoadBalancing,
    Match,
    MirrorRule,
    RateLimit,
    Redirect,
    RetryRule,
    ServiceRules,
    Split,
    SubsetRule,
)
from osdisco.mesh.rules_view import RulesView
from osdisco.mesh.serving import ServiceServer
from osdisco.mesh.slow_start import SlowStart
from osdisco.mesh.subsets import Subsetting
from osdisco.mesh.tls import TlsFiles
from osdisco.mesh.top import MeshWatch, ServiceFigures
from osdisco.mesh.tracing import OpenTelemetryTracing, Tracing
from osdisco.mesh.traffic_rules import TrafficRules
from osdisco.mesh.transport import Listener, MeshRequest, MeshResponse, Transport
from osdisco.mesh.zones import ZoneAwareLoadBalancer

if TYPE_CHECKING:
    from osdisco.mesh.http import HttpTransport as HttpTransport

__all__ = [
    "AttemptFailed",
    "BreakerEvent",
    "BreakerReason",
    "BreakerSettings",
    "BreakerState",
    "CallFigures",
    "CallSummaries",
    "CanaryController",
    "CanaryMetrics",
    "CanaryPhase",
    "CanaryPlan",
    "CanaryState",
    "CircuitBreaker",
    "CircuitBreakerRegistry",
    "EjectionReason",
    "EndpointEjected",
    "EndpointReturned",
    "EndpointState",
    "EndpointSubset",
    "ExtensionServiceMesh",
    "FailoverTarget",
    "FaultRule",
    "Hedging",
    "HttpTransport",
    "LeastRequestLoadBalancer",
    "Listener",
    "LoadBalancer",
    "LoadBalancing",
    "Match",
    "MeshRequest",
    "MeshResponse",
    "MeshWatch",
    "MirrorRule",
    "Mirroring",
    "NearestLoadBalancer",
    "OpenTelemetryTracing",
    "Outcome",
    "OutlierSettings",
    "PanicBegan",
    "PanicOver",
    "PeakEwmaLoadBalancer",
    "PickRefused",
    "Pool",
    "PoolSettings",
    "PrometheusFigures",
    "RandomLoadBalancer",
    "RateLimit",
    "Redirect",
    "Refused",
    "RefusedReason",
    "RendezvousLoadBalancer",
    "RetryBudget",
    "RetryPolicy",
    "RetryRule",
    "RoundRobinLoadBalancer",
    "Route",
    "Router",
    "RulesVersion",
    "RulesView",
    "Sample",
    "ServiceFigures",
    "ServiceRules",
    "ServiceServer",
    "SlowStart",
    "Split",
    "Subset",
    "SubsetRule",
    "Subsetting",
    "Target",
    "Text",
    "TlsFiles",
    "TokenBucket",
    "Tracing",
    "TrafficRules",
    "Transport",
    "WeightedRoundRobinLoadBalancer",
    "ZoneAwareLoadBalancer",
    "deadline_scope",
    "incoming",
    "remaining",
]


def __getattr__(name: str) -> Any:
    if name != "HttpTransport":  # the one that needs aiohttp
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from osdisco.mesh.http import HttpTransport

    return HttpTransport
