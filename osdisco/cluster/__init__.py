"""The state of a search cluster: read by one elected mirror, and known to every extension."""

from osdisco.cluster.http_source import OpenSearchHttpSource
from osdisco.cluster.opensearch_py import OpenSearchClientSource
from osdisco.cluster.source import ClusterStateSource, StateVersion

__all__ = ["ClusterStateSource", "OpenSearchClientSource", "OpenSearchHttpSource", "StateVersion"]
