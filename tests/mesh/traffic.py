"""Rules, endpoints and callers: what tests of traffic rules use."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from osdisco.discovery import ExtensionStatus
from osdisco.mesh import Router, Sample, ServiceRules
from osdisco.registry import ServiceEndpoint
from osdisco.runtime import Runtime
from osdisco.testing import VirtualClock

SUBSETS = {"v1": {"version": ">=1,<2"}, "v2": {"version": ">=2,<3"}}

GOOD = Sample(1000, 100.0, 0.1)
BAD = Sample(1000, 90.0, 0.1)


def document(**fields: Any) -> dict[str, Any]:
    """Rules as JSON has them, with two subsets."""
    return {"subsets": SUBSETS, "default_subset": "v1", **fields}


def rules(**fields: Any) -> ServiceRules:
    return ServiceRules.parse(document(**fields))


def splits(**weights: float) -> list[dict[str, Any]]:
    return [{"subset": subset, "weight": weight} for subset, weight in weights.items()]


def router(documents: Mapping[str, Mapping[str, Any]], seed: int = 0) -> Router:
    """A router of documents as JSON has them, whose randomness is that of the seed."""
    runtime = Runtime(VirtualClock(), random.Random(seed))
    return Router(runtime, {service: ServiceRules.parse(one) for service, one in documents.items()})


def endpoint(version: str = "1.0.0", **fields: Any) -> ServiceEndpoint:
    fields = {"status": ExtensionStatus.HEALTHY, **fields}
    return ServiceEndpoint("a", "10.0.0.7:9700", version=version, **fields)


class Figures:
    """CanaryMetrics that a test sets; `asked` is how often they were asked for."""

    def __init__(self, sample: Sample | Exception | None = None) -> None:
        self.now = sample
        self.asked: list[tuple[str, str]] = []

    async def sample(self, service: str, subset: str, window: float) -> Sample | None:
        self.asked.append((service, subset))
        if isinstance(self.now, Exception):
            raise self.now
        return self.now
