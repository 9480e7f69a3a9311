"""Fixtures of the core's tests: one store in virtual time, and a client whose calls are noted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from random import Random

import pytest
from core_fakes import Spy, client_of

from osdisco import Client, Runtime
from osdisco.testing import VirtualClock
from osdisco_memory import MemoryStore


@pytest.fixture
def clock(osdisco_clock: VirtualClock) -> VirtualClock:
    """Return the clock of the test's virtual time."""
    return osdisco_clock


@pytest.fixture
def store(osdisco_clock: VirtualClock) -> MemoryStore:
    """Return the store, in virtual time."""
    return MemoryStore(clock=osdisco_clock)


@pytest.fixture
def spy(store: MemoryStore, osdisco_clock: VirtualClock) -> Spy:
    """Return the backend of `client`."""
    return Spy(store, Runtime(clock=osdisco_clock, random=Random(2)))


@pytest.fixture
async def client(spy: Spy, osdisco_clock: VirtualClock) -> AsyncGenerator[Client, None]:
    """Yield a client under `ns/` with a ttl of 10 s."""
    async with client_of(spy, osdisco_clock, ttl=10.0) as client:
        yield client
