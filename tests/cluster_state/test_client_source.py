"""A source over a client of opensearch-py: its calls, and what its exceptions mean, without the package itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from osdisco.cluster import OpenSearchClientSource
from osdisco.errors import (
    ClosedError,
    ClusterDeniedError,
    ClusterDocumentError,
    ClusterError,
    ClusterUnavailableError,
    ConfigError,
)
from osdisco.testing import FakeCluster


class TransportError(Exception):
    """As `opensearchpy.exceptions.TransportError`: status, message, details."""

    @property
    def status_code(self) -> Any:
        return self.args[0]


class SerializationError(Exception):
    """As that of opensearch-py."""


class Transport:
    """What `AsyncTransport.perform_request` does, over a FakeCluster."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.calls: list[tuple[str, str, Mapping[str, Any]]] = []
        self.failure: Exception | None = None

    async def perform_request(
        self, method: str, url: str, headers: Any = None, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        params = dict(params or {})
        self.calls.append((method, url, dict(params)))
        if self.failure is not None:
            raise self.failure
        params.pop("request_timeout", None)
        answer = self.cluster.answer(url, {name: str(value) for name, value in params.items()})
        if answer.status != 200:
            raise TransportError(answer.status, "error", answer.document)
        return json.loads(answer.body)


class Client:
    def __init__(self, cluster: FakeCluster) -> None:
        self.transport = Transport(cluster)


@pytest.fixture
def client() -> Client:
    cluster = FakeCluster()
    cluster.create_index("logs", shards=3)
    return Client(cluster)


async def test_it_gives_what_the_other_sources_give(client: Client) -> None:
    source, other = OpenSearchClientSource(client), client.transport.cluster.source()
    assert await source.version() == await other.version()
    assert json.loads(await source.state()) == json.loads(await other.state())
    assert json.loads(await source.nodes()) == json.loads(await other.nodes())
    assert json.loads(await source.settings()) == json.loads(await other.settings())
    assert json.loads(await source.search_shards("logs", "x")) == json.loads(await other.search_shards("logs", "x"))


async def test_each_question_has_its_time(client: Client) -> None:
    source = OpenSearchClientSource(client, timeout="2s", state_timeout=30)
    await source.version()
    await source.state()
    assert [params["request_timeout"] for _, _, params in client.transport.calls] == [2.0, 30.0]
    assert {method for method, _, _ in client.transport.calls} == {"GET"}
    with pytest.raises(ConfigError):
        OpenSearchClientSource(client, timeout=0)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (TransportError(401, "no"), ClusterDeniedError),
        (TransportError(403, "no"), ClusterDeniedError),
        (TransportError(400, "no"), ClusterDocumentError),
        (TransportError(404, "no"), ClusterDocumentError),
        (SerializationError("no"), ClusterDocumentError),
        (TransportError(429, "no"), ClusterUnavailableError),
        (TransportError(503, "no"), ClusterUnavailableError),
        (TransportError("N/A", "no"), ClusterUnavailableError),
        (TransportError("TIMEOUT", "no"), ClusterUnavailableError),
        (OSError("no"), ClusterUnavailableError),
        (RuntimeError("no"), ClusterUnavailableError),
    ],
)
async def test_its_exceptions_are_told_by_what_they_mean(
    client: Client, failure: Exception, kind: type[ClusterError]
) -> None:
    client.transport.failure = failure
    with pytest.raises(kind, match="GET /_cluster/state/version") as caught:
        await OpenSearchClientSource(client).version()
    assert type(caught.value) is kind
    assert caught.value.__cause__ is failure


async def test_an_index_that_there_is_not(client: Client) -> None:
    with pytest.raises(ClusterError, match="no index or alias 'missing'"):
        await OpenSearchClientSource(client).search_shards("missing")


async def test_the_client_stays_its_owners(client: Client) -> None:
    source = OpenSearchClientSource(client)
    await source.aclose()
    with pytest.raises(ClosedError):
        await source.version()
    assert client.transport.calls == []
    assert repr(source) == "<OpenSearchClientSource over Client>"
