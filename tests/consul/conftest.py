"""Rooms of the Consul tests: real servers of several kinds, and the fake agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from consul_fakes import FakeAgent, Open, Script

from osdisco.runtime import Runtime
from osdisco.testing.servers import ConsulServer, Servers
from osdisco.url import StoreURL
from osdisco_consul import ConsulBackend


@pytest.fixture(autouse=True)
def no_consul_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell says about Consul is not for these tests."""
    for name in ("ADDR", "SSL", "SSL_VERIFY", "TOKEN"):
        monkeypatch.delenv(f"CONSUL_HTTP_{name}", raising=False)


@pytest.fixture
async def open_backend() -> AsyncIterator[Open]:
    """Return a function that builds a backend, closed at the end; arguments are those of `Runtime`."""
    opened: list[ConsulBackend] = []

    def open_one(url: str, **runtime: Any) -> ConsulBackend:
        opened.append(ConsulBackend.from_url(StoreURL.parse(url), Runtime(**runtime)))
        return opened[-1]

    yield open_one
    for backend in opened:
        await backend.aclose()


@pytest.fixture(scope="session")
def consul(osdisco_servers: Servers) -> Iterator[ConsulServer]:
    """A server without ACLs, with the ttl limits that Consul has by default."""
    with osdisco_servers.fresh_consul(config={"session_ttl_min": "10s"}) as server:
        yield server


@pytest.fixture(scope="session")
def acl_consul(osdisco_servers: Servers) -> Iterator[ConsulServer]:
    """A server that denies by default and whose policies tests may change."""
    with osdisco_servers.fresh_consul(acl=True) as server:
        yield server


@pytest.fixture
async def fake() -> AsyncIterator[Callable[[Script], Awaitable[FakeAgent]]]:
    """Return a function that starts a fake agent with a script."""
    agents: list[FakeAgent] = []

    async def start(script: Script) -> FakeAgent:
        agents.append(FakeAgent(script))
        await agents[-1].start()
        return agents[-1]

    yield start
    for agent in agents:
        await agent.stop()
