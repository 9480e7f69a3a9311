"""Discovery: extensions register, see each other, and are seen to go."""

from osdisco.discovery._watching import CheckState, CheckStatus
from osdisco.discovery.checks import Check, CheckFailedError, FunctionCheck, HttpCheck, PolledCheck, TcpCheck, TtlCheck
from osdisco.discovery.events import (
    ExtensionEvent,
    Superseded,
    ViewFresh,
    ViewProtecting,
    ViewProtectionOver,
    ViewStale,
)
from osdisco.discovery.extension import EndpointInfo, ExtensionInfo, ExtensionStatus
from osdisco.discovery.extensions import Extensions
from osdisco.discovery.findings import Finding, Findings, FindingState
from osdisco.discovery.health import Health
from osdisco.discovery.leaving import Drain, Leaving, LeavingPhase
from osdisco.discovery.listeners import DiscoveryListener
from osdisco.discovery.probing import Probing
from osdisco.discovery.publication import Publication
from osdisco.discovery.service import DiscoveryService

__all__ = [
    "Check",
    "CheckFailedError",
    "CheckState",
    "CheckStatus",
    "DiscoveryListener",
    "DiscoveryService",
    "Drain",
    "EndpointInfo",
    "ExtensionEvent",
    "ExtensionInfo",
    "ExtensionStatus",
    "Extensions",
    "Finding",
    "FindingState",
    "Findings",
    "FunctionCheck",
    "Health",
    "HttpCheck",
    "Leaving",
    "LeavingPhase",
    "PolledCheck",
    "Probing",
    "Publication",
    "Superseded",
    "TcpCheck",
    "TtlCheck",
    "ViewFresh",
    "ViewProtecting",
    "ViewProtectionOver",
    "ViewStale",
]
