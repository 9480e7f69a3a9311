"""Discovery: extensions register, see each other, and are seen to go."""

from osdisco.discovery._watching import CheckState, CheckStatus
from osdisco.discovery.checks import Check, CheckFailedError, FunctionCheck, HttpCheck, PolledCheck, TcpCheck, TtlCheck
from osdisco.discovery.extension import EndpointInfo, ExtensionInfo, ExtensionStatus
from osdisco.discovery.extensions import Extensions
from osdisco.discovery.health import Health
from osdisco.discovery.leaving import Drain, Leaving, LeavingPhase
from osdisco.discovery.listeners import DiscoveryListener, ExtensionEvent
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
    "FunctionCheck",
    "Health",
    "HttpCheck",
    "Leaving",
    "LeavingPhase",
    "PolledCheck",
    "Publication",
    "TcpCheck",
    "TtlCheck",
]
