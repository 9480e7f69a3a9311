"""The service registry: instances of services register, are found by name, and are not forgotten in a panic."""

from osdisco.registry.definition import ServiceDefinition, ServiceEndpoint
from osdisco.registry.events import ServiceEvent, ViewProtecting, ViewProtectionOver
from osdisco.registry.registration import Registration
from osdisco.registry.service import ServiceRegistry
from osdisco.registry.view import ServiceView
from osdisco.registry.watch import ServiceWatch

__all__ = [
    "Registration",
    "ServiceDefinition",
    "ServiceEndpoint",
    "ServiceEvent",
    "ServiceRegistry",
    "ServiceView",
    "ServiceWatch",
    "ViewProtecting",
    "ViewProtectionOver",
]
