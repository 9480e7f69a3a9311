"""A search cluster for tests without a search cluster: the real interface's shapes, over a model that you change.

    async with FakeCluster() as cluster:
        cluster.create_index("logs", shards=2)
        source = OpenSearchHttpSource(cluster.urls)
        cluster.faults.add(Fault.UNAVAILABLE, times=3)

`cluster.source()` gives its state without any socket, in virtual time.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from osdisco.errors import ConfigError
from osdisco.testing._search_answers import Answer, answer
from osdisco.testing._search_faults import Fault as Fault, Faults as Faults
from osdisco.testing._search_model import BLOCKS as BLOCKS, ClusterModel
from osdisco.testing._search_source import FakeSource as FakeSource

if TYPE_CHECKING:
    from osdisco.testing._search_server import SearchServer
    from osdisco.testing.certs import Certificates

ZONES: Final = ("a", "b", "c")


class FakeCluster(ClusterModel):
    """A search cluster: nodes `n1`, `n2`, … that may all manage and hold data, in zones a, b and c, and no index.

    Entered with `async with` it is served over HTTP, and without that it is a model with sources.

    Args:
        name: of the cluster.
        nodes: how many it begins with.
        release: the version of OpenSearch that it is like, 1.x to 3.x.
        servers: how many HTTP ports there are, each of them a node's.
        auth: user and password that are asked for. `auth` and `token` may be changed while it runs.
        token: a bearer token that is let in.
        certificates: serve by TLS with these.
        client_certificates: ask clients for one, too.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        nodes: int = 3,
        release: str = "3.3.0",
        servers: int = 1,
        auth: tuple[str, str] | None = None,
        token: str | None = None,
        certificates: Certificates | None = None,
        client_certificates: bool = False,
    ) -> None:
        super().__init__(name, release)
        self.auth = auth
        self.token = token
        self.faults: Final = Faults()
        self.requests: Final[Counter[str]] = Counter()
        """How many requests came, by path; those of sources, too."""
        self.sent: Final[Counter[str]] = Counter()
        """How many bytes of bodies were sent, by path: packed over HTTP, as they are to sources without sockets."""
        self._server_count = servers
        self._certificates = certificates
        self._client_certificates = client_certificates
        self._servers: list[SearchServer] = []
        self._answers: tuple[int, dict[object, Answer]] = 0, {}
        roles = ("cluster_manager", "data", "ingest", "remote_cluster_client")
        with self.together():
            for number in range(nodes):
                self.join(f"n{number + 1}", zone=ZONES[number % len(ZONES)], roles=roles)

    @classmethod
    def large(cls, indices: int = 1000, shards: int = 10, *, nodes: int = 30, replicas: int = 0) -> FakeCluster:
        """Return one with many indices of so many shards; `replicas` come on top."""
        cluster = cls("large", nodes=nodes)
        with cluster.together():
            for number in range(indices):
                cluster.create_index(f"logs-{number:06}", shards=shards, replicas=replicas)
        return cluster

    def __repr__(self) -> str:
        return (
            f"<FakeCluster {self.name}: {len(self.nodes)} nodes, {len(self.indices)} indices, version {self.version}>"
        )

    def source(self, *, timeout: float = 5.0, state_timeout: float = 60.0) -> FakeSource:
        """Return a source without sockets, for virtual time.

        Args:
            timeout: seconds after which it gives a small question up.
            state_timeout: the same for the whole state.
        """
        return FakeSource(self, timeout=timeout, state_timeout=state_timeout)

    def answer(self, path: str, params: Mapping[str, str]) -> Answer:
        """Return what is answered to a GET. The same question is answered once for each change."""
        changes, answers = self._answers
        if changes != self.changes:
            answers = {}
            self._answers = self.changes, answers
        key = path, tuple(sorted(params.items()))
        if key not in answers:
            answers[key] = answer(self, path, params)
        return answers[key]

    @property
    def urls(self) -> list[str]:
        """The URLs of its servers. Raises ConfigError before it is entered."""
        if not self._servers:
            raise ConfigError("the cluster is not served; enter it by `async with`")
        return [server.url for server in self._servers]

    async def __aenter__(self) -> Self:
        tls = self._tls()
        self._servers = [self._server(number, tls) for number in range(self._server_count)]
        for server in self._servers:
            await server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            await server.aclose()

    async def stop_server(self, number: int) -> None:
        """Let one server listen no more; its connections end."""
        await self._servers[number].aclose()

    async def start_server(self, number: int) -> None:
        """Let it listen again, on the port of before."""
        await self._servers[number].start()

    def _server(self, number: int, tls: ssl.SSLContext | None) -> SearchServer:
        try:
            from osdisco.testing._search_server import SearchServer
        except ImportError as exc:
            raise ConfigError(f"a FakeCluster that is served needs a package ({exc}): pip install aiohttp") from exc
        return SearchServer(number, self, tls)

    def _tls(self) -> ssl.SSLContext | None:
        if (files := self._certificates) is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.server, files.server_key)
        if self._client_certificates:
            context.load_verify_locations(files.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
