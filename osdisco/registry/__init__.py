"""The service registry: instances of services register, are found by name, and are not forgotten in a panic."""

from osdisco.discovery.events import ViewProtecting, ViewProtectionOver
from osdisco.registry.definition import ServiceDefinition, ServiceEndpoint
from osdisco.registry.events import ServiceEvent
from osdisco.registry.listeners import ServiceListener
from osdisco.registry.registration import Registration
from osdisco.registry.service import ServiceRegistry
from osdisco.registry.view import ServiceView
from osdisco.registry.watch import ServiceWatch

__all__ = [
    "Registration",
    "ServiceDefinition",
    "ServiceEndpoint",
    "ServiceEvent",
    "ServiceListener",
    "ServiceRegistry",
    "ServiceView",
    "ServiceWatch",
    "ViewProtecting",
    "ViewProtectionOver",
]
