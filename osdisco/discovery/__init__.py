"""Discovery: extensions register, see each other, and are seen to go."""

from osdisco.discovery.extension import EndpointInfo, ExtensionInfo, ExtensionStatus
from osdisco.discovery.leaving import Drain, Leaving, LeavingPhase
from osdisco.discovery.listeners import DiscoveryListener, ExtensionEvent
from osdisco.discovery.publication import Publication
from osdisco.discovery.service import DiscoveryService
from osdisco.discovery.table import Extensions

__all__ = [
    "DiscoveryListener",
    "DiscoveryService",
    "Drain",
    "EndpointInfo",
    "ExtensionEvent",
    "ExtensionInfo",
    "ExtensionStatus",
    "Extensions",
    "Leaving",
    "LeavingPhase",
    "Publication",
]
