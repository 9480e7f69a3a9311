"""A process that counts, and what it has counted."""

from __future__ import annotations

from attrs import evolve
from prometheus_client import CollectorRegistry
from worlds import World

from osdisco.client import Client
from osdisco.metrics import PrometheusMetrics


def counted(world: World) -> tuple[Client, CollectorRegistry]:
    """Return the client of a new process, and where it counts."""
    registry = CollectorRegistry()
    client = world.process()
    runtime = evolve(client.runtime, metrics=PrometheusMetrics(registry))
    world.clients[-1] = Client(client.backend, runtime, options=client.options, namespace="ns")
    return world.clients[-1], registry
