"""Every metric there is. Labels hold only what is bounded: no keys, no ids of others, no messages."""

from __future__ import annotations

import enum
from typing import Final

from attrs import frozen


class Kind(enum.Enum):
    """How a metric behaves."""

    COUNTER = "counter"  # only rises
    GAUGE = "gauge"  # as it is at present
    DURATION = "duration"  # seconds, spread over buckets


@frozen
class Metric:
    """A metric; `name` as Prometheus writes it, to which that adds `_total` for a counter."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_C, _G, _D = Kind.COUNTER, Kind.GAUGE, Kind.DURATION

EXTENSIONS: Final = Metric("osdisco_extensions", _G, "Extensions in the live view, by status.", ("namespace", "status"))
VIEW_STALE: Final = Metric(
    "osdisco_view_stale", _G, "1 while the store may know better than the live view.", ("namespace",)
)
VIEW_AGE: Final = Metric(
    "osdisco_view_age_seconds", _G, "Seconds since the store last spoke; absent before it ever did.", ("namespace",)
)
VIEW_SKIPPED: Final = Metric(
    "osdisco_view_skipped_records", _G, "Records in the store that are none of ours and are not shown.", ("namespace",)
)
SERVICE_ENDPOINTS: Final = Metric(
    "osdisco_service_endpoints", _G, "Endpoints in a live view of a service.", ("namespace", "service")
)
SERVICE_STALE: Final = Metric(
    "osdisco_service_stale", _G, "1 while the store may know better than that view.", ("namespace", "service")
)
SERVICE_PROTECTING: Final = Metric(
    "osdisco_service_protecting",
    _G,
    "1 while that view shows endpoints on of which too many vanished at once.",
    ("namespace", "service"),
)
REGISTERED: Final = Metric(
    "osdisco_registered",
    _G,
    "1 while the latest record of this process's extension stands in the store.",
    ("namespace", "extension"),
)
SERVICE_REGISTERED: Final = Metric(
    "osdisco_service_registered",
    _G,
    "1 while the latest record of this process's instance of a service stands in the store.",
    ("namespace", "service", "endpoint"),
)
CHECK: Final = Metric(
    "osdisco_check", _G, "1 for the state that a check of this extension is in.", ("namespace", "check", "state")
)
REGISTRATIONS: Final = Metric(
    "osdisco_registrations",
    _C,
    "Records put into the store, by what (ext: extensions) and how: first, update, or again after they were lost.",
    ("what", "how"),
)
SESSIONS: Final = Metric("osdisco_sessions_opened", _C, "Leases that were granted.")
SESSION_LOSSES: Final = Metric(
    "osdisco_session_losses", _C, "Sessions that ended otherwise than by closing them: their keys are gone."
)
RENEWALS: Final = Metric("osdisco_renewals", _C, "Renewals of leases, by result: ok or failed.", ("result",))
RENEWAL_SECONDS: Final = Metric("osdisco_renewal_seconds", _D, "Seconds that an answered renewal took.")
PUBLISHED: Final = Metric(
    "osdisco_published",
    _G,
    "1 while another catalog shows this extension as it is.",
    ("namespace", "catalog"),
)
PUBLICATION_FAILURES: Final = Metric(
    "osdisco_publication_failures", _C, "Attempts to publish into another catalog that failed.", ("catalog",)
)
WATCH_INTERRUPTIONS: Final = Metric(
    "osdisco_watch_interruptions", _C, "Watches that broke, and were opened again with what was missed."
)
CLUSTER_STALE: Final = Metric(
    "osdisco_cluster_stale",
    _G,
    "1 while the search cluster may have another state than the one that is shown.",
    ("namespace", "cluster"),
)
CLUSTER_AGE: Final = Metric(
    "osdisco_cluster_age_seconds",
    _G,
    "Seconds since the shown state was last known to be the present one; absent before there is any.",
    ("namespace", "cluster"),
)
CLUSTER_VERSION: Final = Metric(
    "osdisco_cluster_version", _G, "The version of the shown state.", ("namespace", "cluster")
)
CLUSTER_MIRRORING: Final = Metric(
    "osdisco_cluster_mirroring", _G, "1 while this process is the mirror of the cluster.", ("namespace", "cluster")
)
CLUSTER_POLLS: Final = Metric(
    "osdisco_cluster_polls",
    _C,
    "Questions to the search cluster for its version, by result: ok or failed.",
    ("result",),
)
CLUSTER_HEADS: Final = Metric("osdisco_cluster_heads", _C, "States that this process has put into the store.")
MESH_REQUESTS: Final = Metric(
    "osdisco_mesh_requests",
    _C,
    "Calls of this process, each with all its attempts, by how they ended: ok, or what failed.",
    ("service", "method", "outcome"),
)
MESH_REQUEST_SECONDS: Final = Metric(
    "osdisco_mesh_request_seconds", _D, "Seconds that a call took, with all its attempts.", ("service", "method")
)
MESH_ATTEMPTS: Final = Metric(
    "osdisco_mesh_attempts", _C, "Attempts, by what the endpoint is judged by.", ("service", "outcome")
)
MESH_RETRIES: Final = Metric(
    "osdisco_mesh_retries",
    _C,
    "Calls to be tried again: made, or not: no_time, no_budget, or no_hope, as nothing succeeds.",
    ("service", "result"),
)
MESH_HEDGES: Final = Metric("osdisco_mesh_hedges", _C, "Second attempts beside a slow first one.", ("service",))
MESH_REFUSED: Final = Metric(
    "osdisco_mesh_refused_picks", _C, "Attempts for which nobody was picked, by the reason.", ("service", "reason")
)
MESH_EJECTIONS: Final = Metric(
    "osdisco_mesh_ejections", _C, "Endpoints that were ejected, by the reason.", ("service", "reason")
)
MESH_EJECTED: Final = Metric("osdisco_mesh_ejected", _G, "Endpoints that are ejected now.", ("namespace", "service"))
MESH_BREAKERS: Final = Metric(
    "osdisco_mesh_breakers", _G, "Circuit breakers of endpoints, by their state.", ("namespace", "service", "state")
)
MESH_SERVICE_BREAKER: Final = Metric(
    "osdisco_mesh_service_breaker",
    _G,
    "1 for the state of the circuit breaker of the whole service; absent where calls ask none.",
    ("namespace", "service", "state"),
)
MESH_BUDGET: Final = Metric(
    "osdisco_mesh_retry_budget", _G, "Retries that are left to the service now.", ("namespace", "service")
)
MESH_PANIC: Final = Metric(
    "osdisco_mesh_panic", _G, "1 while so few are fit that health does not count.", ("namespace", "service")
)
MESH_IN_FLIGHT: Final = Metric(
    "osdisco_mesh_in_flight", _G, "Attempts of this process that are under way.", ("namespace", "service")
)
MESH_SERVED: Final = Metric(
    "osdisco_mesh_served",
    _C,
    "Requests of others, by the status of the answer as in HTTP; 499 when who asked had gone.",
    ("service", "method", "status"),
)
MESH_SERVED_SECONDS: Final = Metric(
    "osdisco_mesh_served_seconds", _D, "Seconds that a request of others took.", ("service", "method")
)
MESH_SERVING: Final = Metric(
    "osdisco_mesh_serving", _G, "Requests of others that are under way.", ("namespace", "service")
)
MESH_COPIES: Final = Metric(
    "osdisco_mesh_copies",
    _C,
    "Copies of calls for a mirror, by result: sent, failed or dropped.",
    ("service", "result"),
)
MESH_FAULTS: Final = Metric(
    "osdisco_mesh_faults", _C, "Calls that a rule let be late, or fail, on purpose.", ("service",)
)
CANARY_LEADING: Final = Metric(
    "osdisco_mesh_canary_leading",
    _G,
    "1 while this process is the one that controls canaries; those below are its own.",
    ("namespace",),
)
CANARY_PHASE: Final = Metric(
    "osdisco_mesh_canary_phase",
    _G,
    "1 for the phase that the canary under way is in: progressing or holding.",
    ("namespace", "service", "phase"),
)
CANARY_WEIGHT: Final = Metric(
    "osdisco_mesh_canary_weight_ratio",
    _G,
    "Share of the calls that the canary gets, from 0 to 1.",
    ("namespace", "service"),
)
CANARY_FAILED: Final = Metric(
    "osdisco_mesh_canary_failed_checks",
    _G,
    "Checks of the canary under way that have failed so far.",
    ("namespace", "service"),
)
CANARY_CALLS: Final = Metric(
    "osdisco_mesh_canary_interval_calls", _G, "Calls to the canary that the last check saw.", ("namespace", "service")
)
CANARY_SUCCESS: Final = Metric(
    "osdisco_mesh_canary_success_ratio",
    _G,
    "Share of those that did not fail, from 0 to 1; absent when nobody knows.",
    ("namespace", "service"),
)
CANARY_P99: Final = Metric(
    "osdisco_mesh_canary_p99_seconds",
    _G,
    "Seconds within which 99 % of those were answered; absent when nobody knows.",
    ("namespace", "service"),
)
CANARY_CHECKS: Final = Metric(
    "osdisco_mesh_canary_checks",
    _C,
    "Checks of canaries by this process: good, or what failed: no_figures, too_few_calls, success_rate, latency.",
    ("service", "verdict"),
)
CANARY_ENDS: Final = Metric(
    "osdisco_mesh_canary_ends",
    _C,
    "Canaries that ended while this process controlled them: promoted, rolled_back, or replaced by other rules.",
    ("service", "how"),
)

METRICS: Final = (
    EXTENSIONS,
    VIEW_STALE,
    VIEW_AGE,
    VIEW_SKIPPED,
    SERVICE_ENDPOINTS,
    SERVICE_STALE,
    SERVICE_PROTECTING,
    REGISTERED,
    SERVICE_REGISTERED,
    CHECK,
    REGISTRATIONS,
    SESSIONS,
    SESSION_LOSSES,
    RENEWALS,
    RENEWAL_SECONDS,
    PUBLISHED,
    PUBLICATION_FAILURES,
    WATCH_INTERRUPTIONS,
    CLUSTER_STALE,
    CLUSTER_AGE,
    CLUSTER_VERSION,
    CLUSTER_MIRRORING,
    CLUSTER_POLLS,
    CLUSTER_HEADS,
    MESH_REQUESTS,
    MESH_REQUEST_SECONDS,
    MESH_ATTEMPTS,
    MESH_RETRIES,
    MESH_HEDGES,
    MESH_REFUSED,
    MESH_EJECTIONS,
    MESH_EJECTED,
    MESH_BREAKERS,
    MESH_SERVICE_BREAKER,
    MESH_BUDGET,
    MESH_PANIC,
    MESH_IN_FLIGHT,
    MESH_SERVED,
    MESH_SERVED_SECONDS,
    MESH_SERVING,
    MESH_COPIES,
    MESH_FAULTS,
    CANARY_LEADING,
    CANARY_PHASE,
    CANARY_WEIGHT,
    CANARY_FAILED,
    CANARY_CALLS,
    CANARY_SUCCESS,
    CANARY_P99,
    CANARY_CHECKS,
    CANARY_ENDS,
)
