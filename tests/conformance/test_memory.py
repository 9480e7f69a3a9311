"""The store in memory keeps the contract, in virtual time; also when it behaves like Consul."""

from __future__ import annotations

import pytest

from osdisco.backend import Backend
from osdisco.runtime import Runtime
from osdisco.testing import BackendSuite, Harness, UrlHarness, VirtualClock
from osdisco_memory import CONSUL, MemoryBackend, MemoryStore


class TestMemory(BackendSuite):
    @pytest.fixture
    def harness(self, osdisco_clock: VirtualClock) -> Harness:
        return UrlHarness("memory://conformance/ns", clock=osdisco_clock)


class LikeConsul(Harness):
    """A store with Consul's limits and habits."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(Runtime(clock=clock))
        self._store = MemoryStore(limits=CONSUL)
        self._store.faults.imitate_consul()

    def make_backend(self) -> Backend:
        return MemoryBackend(self._store, self.runtime)


class TestMemoryLikeConsul(BackendSuite):
    @pytest.fixture
    def harness(self, osdisco_clock: VirtualClock) -> Harness:
        return LikeConsul(osdisco_clock)
