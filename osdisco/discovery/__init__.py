"""Discovery: extensions register, see each other, and are seen to go."""

from osdisco.discovery.extension import EndpointInfo, ExtensionInfo, ExtensionStatus
from osdisco.discovery.listeners import DiscoveryListener, ExtensionEvent
from osdisco.discovery.service import DiscoveryService
from osdisco.discovery.table import Extensions

__all__ = [
    "DiscoveryListener",
    "DiscoveryService",
    "EndpointInfo",
    "ExtensionEvent",
    "ExtensionInfo",
    "ExtensionStatus",
    "Extensions",
]
