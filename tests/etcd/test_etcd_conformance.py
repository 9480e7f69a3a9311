"""The conformance suite on etcd: both transports, in the open and with TLS and users."""

from __future__ import annotations

import pytest

from osdisco.testing import BackendSuite, UrlHarness
from osdisco.testing.servers import Servers


class TestEtcd(BackendSuite):
    @pytest.fixture(params=["etcd", "etcds"])
    def harness(self, osdisco_servers: Servers, request: pytest.FixtureRequest) -> UrlHarness:
        return UrlHarness(osdisco_servers.url(request.param))


class TestEtcdGateway(BackendSuite):
    @pytest.fixture(params=["etcd+http", "etcd+https"])
    def harness(self, osdisco_servers: Servers, request: pytest.FixtureRequest) -> UrlHarness:
        return UrlHarness(osdisco_servers.url(request.param))
