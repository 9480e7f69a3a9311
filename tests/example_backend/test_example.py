"""What a third party writes to hold its backend to the contract."""

import pytest

from osdisco.testing import BackendSuite, Harness, UrlHarness, VirtualClock


class TestExample(BackendSuite):
    @pytest.fixture
    def harness(self, osdisco_clock: VirtualClock) -> Harness:
        return UrlHarness("example://here", clock=osdisco_clock)
