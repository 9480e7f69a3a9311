"""The conformance suite: every rule of `osdisco.backend` that shows through the interface, on any store.

A backend's own test is this, and runs by osdisco's pytest plugin::

    class TestMine(BackendSuite):
        @pytest.fixture
        def harness(self, mine_url): return UrlHarness(mine_url)

It needs a store that works; what happens on one that fails is for tests that can break it.
"""

import pytest

_RULES = ("kv", "commit", "watch", "resume", "lease", "limits", "connection")
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in (*_RULES, "_follow", "_harness")))

from osdisco.testing.conformance._follow import Follower  # noqa: E402
from osdisco.testing.conformance._harness import Harness, Peer, UrlHarness  # noqa: E402
from osdisco.testing.conformance.commit import CommitRules  # noqa: E402
from osdisco.testing.conformance.connection import ConnectionRules  # noqa: E402
from osdisco.testing.conformance.kv import KeyValueRules  # noqa: E402
from osdisco.testing.conformance.lease import LeaseRules  # noqa: E402
from osdisco.testing.conformance.limits import LimitRules  # noqa: E402
from osdisco.testing.conformance.resume import ResumeRules  # noqa: E402
from osdisco.testing.conformance.watch import WatchRules  # noqa: E402


class BackendSuite(KeyValueRules, CommitRules, WatchRules, ResumeRules, LeaseRules, LimitRules, ConnectionRules):
    """All rules. A subclass gives the fixture `harness`."""


__all__ = ["BackendSuite", "Follower", "Harness", "Peer", "UrlHarness"]
