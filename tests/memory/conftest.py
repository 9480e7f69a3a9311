"""One memory store in virtual time, and clients of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from osdisco.runtime import Runtime
from osdisco.testing import VirtualClock
from osdisco_memory import MemoryBackend, MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def connect(store: MemoryStore, osdisco_clock: VirtualClock) -> Callable[[], MemoryBackend]:
    return lambda: MemoryBackend(store, Runtime(clock=osdisco_clock))


@pytest.fixture
def backend(connect: Callable[[], MemoryBackend]) -> MemoryBackend:
    return connect()
