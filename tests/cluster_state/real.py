"""A search cluster for tests that take what there is: the one on paper always, a real one where it is named.

`OSDISCO_TEST_OPENSEARCH_URL` names one, with `OSDISCO_OPENSEARCH_USERNAME` and the other variables of
`OpenSearchHttpSource`; tests make an index of their own in it and delete it.
`OSDISCO_TEST_OPENSEARCH_IMAGE` lets testcontainers start one, which needs opensearch-py.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import aiohttp
import pytest
from attrs import frozen

from osdisco.cluster import ClusterStateSource, OpenSearchHttpSource
from osdisco.cluster._credentials import Given
from osdisco.testing import FakeCluster

URL = "OSDISCO_TEST_OPENSEARCH_URL"
IMAGE = "OSDISCO_TEST_OPENSEARCH_IMAGE"


class SearchCluster(Protocol):
    """A cluster, and how a test changes it."""

    @property
    def source(self) -> ClusterStateSource: ...

    async def create_index(self, name: str, shards: int) -> None: ...

    async def delete_index(self, name: str) -> None: ...


@frozen
class OnPaper:
    """A FakeCluster."""

    cluster: FakeCluster
    source: ClusterStateSource

    async def create_index(self, name: str, shards: int) -> None:
        self.cluster.create_index(name, shards=shards, replicas=0)

    async def delete_index(self, name: str) -> None:
        self.cluster.delete_index(name)


@frozen
class Real:
    """A cluster somewhere."""

    session: aiohttp.ClientSession
    source: ClusterStateSource

    async def create_index(self, name: str, shards: int) -> None:
        settings = {"index": {"number_of_shards": shards, "number_of_replicas": 0}}
        await self._ask("PUT", f"/{name}?wait_for_active_shards=all", json={"settings": settings})

    async def delete_index(self, name: str) -> None:
        await self._ask("DELETE", f"/{name}")

    async def _ask(self, method: str, path: str, **options: Any) -> None:
        async with self.session.request(method, path, **options) as response:
            assert response.status == 200, await response.text()


@asynccontextmanager
async def on_paper() -> AsyncGenerator[SearchCluster, None]:
    """Serve one that there is not."""
    async with FakeCluster() as cluster, OpenSearchHttpSource(cluster.urls, environ={}) as source:
        yield OnPaper(cluster, source)


@asynccontextmanager
async def somewhere(urls: str) -> AsyncGenerator[SearchCluster, None]:
    """Connect to one that there is."""
    async with OpenSearchHttpSource(urls) as source:
        tls = source._tls.current() if source._tls else True
        headers = Given().headers(os.environ).current()
        connector = aiohttp.TCPConnector(ssl=tls)
        async with aiohttp.ClientSession(urls.split(",")[0], connector=connector, headers=headers) as session:
            yield Real(session, source)


@contextmanager
def real_urls() -> Iterator[str]:
    """Give the URL of a real one, or skip, which the end of the run names; with CI=true, too: none runs there yet."""
    if url := os.environ.get(URL):
        yield url
        return
    image = os.environ.get(IMAGE)
    if not image:
        pytest.skip(
            f"no OpenSearch cluster: neither {URL} nor {IMAGE} is set; no failure with CI=true, for CI has none"
        )
    try:
        from testcontainers.community.opensearch import OpenSearchContainer
    except ImportError as exc:
        pytest.skip(f"no OpenSearch cluster: the container of {IMAGE} needs a package ({exc})")
    with OpenSearchContainer(image) as container:
        config = container.get_config()
        yield f"http://{config['host']}:{config['port']}"


def name_of_an_index() -> str:
    return f"osdisco-test-{secrets.token_hex(8)}"
