"""The Consul adapter keeps the contract, in the open and with TLS and ACLs on."""

from __future__ import annotations

import pytest

from osdisco.testing import BackendSuite, Harness, UrlHarness
from osdisco.testing.servers import Servers


class TestConsul(BackendSuite):
    @pytest.fixture
    def harness(self, osdisco_servers: Servers) -> Harness:
        return UrlHarness(osdisco_servers.url("consul"))


class TestSecuredConsul(BackendSuite):
    @pytest.fixture
    def harness(self, osdisco_servers: Servers) -> Harness:
        return UrlHarness(osdisco_servers.url("consul+https"))
