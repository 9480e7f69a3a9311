"""Fixtures of our own tests, thin over `osdisco.testing`."""

from __future__ import annotations

import pytest

from osdisco.testing.servers import ConsulServer, EtcdServer, Servers

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def etcd_server(osdisco_servers: Servers) -> EtcdServer:
    """The shared etcd, in the open."""
    return osdisco_servers.etcd()


@pytest.fixture(scope="session")
def secured_etcd_server(osdisco_servers: Servers) -> EtcdServer:
    """The shared etcd with TLS and auth."""
    return osdisco_servers.etcd(secured=True)


@pytest.fixture(scope="session")
def consul_server(osdisco_servers: Servers) -> ConsulServer:
    """The shared Consul, in the open."""
    return osdisco_servers.consul()


@pytest.fixture(scope="session")
def secured_consul_server(osdisco_servers: Servers) -> ConsulServer:
    """The shared Consul with TLS and ACLs."""
    return osdisco_servers.consul(secured=True)
