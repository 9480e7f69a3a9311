"""The service mesh: calls that reach a healthy endpoint, in time, or say why not."""

from osdisco.mesh._choice import EndpointSubset
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
from osdisco.mesh.events import EndpointEjected, EndpointReturned, PanicBegan, PanicOver
from osdisco.mesh.outliers import EjectionReason, OutlierSettings
from osdisco.mesh.pool import Pool, PoolSettings
from osdisco.mesh.refusal import Refused, RefusedReason
from osdisco.mesh.rendezvous import RendezvousLoadBalancer
from osdisco.mesh.slow_start import SlowStart
from osdisco.mesh.subsets import Subsetting
from osdisco.mesh.zones import ZoneAwareLoadBalancer

__all__ = [
    "BreakerEvent",
    "BreakerReason",
    "BreakerSettings",
    "BreakerState",
    "CircuitBreaker",
    "CircuitBreakerRegistry",
    "EjectionReason",
    "EndpointEjected",
    "EndpointReturned",
    "EndpointState",
    "EndpointSubset",
    "LeastRequestLoadBalancer",
    "LoadBalancer",
    "Outcome",
    "OutlierSettings",
    "PanicBegan",
    "PanicOver",
    "PeakEwmaLoadBalancer",
    "Pool",
    "PoolSettings",
    "RandomLoadBalancer",
    "Refused",
    "RefusedReason",
    "RendezvousLoadBalancer",
    "RoundRobinLoadBalancer",
    "SlowStart",
    "Subsetting",
    "WeightedRoundRobinLoadBalancer",
    "ZoneAwareLoadBalancer",
]
