"""A server as its users hold it. aiohttp is loaded when one is made."""

from __future__ import annotations

import logging
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from osdisco.client import Client
from osdisco.discovery import DiscoveryService
from osdisco.errors import ClosedError, ConfigError
from osdisco.metrics import PrometheusMetrics
from osdisco.serve._listen import parse_listen

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger("osdisco")

DEFAULT_LISTEN: Final = "127.0.0.1:9717"


def serve(
    client: Client,
    listen: str = DEFAULT_LISTEN,
    *,
    discovery: DiscoveryService | None = None,
    registry: CollectorRegistry | None = None,
) -> Serving:
    """Return a server; await it or enter it with `async with`. It starts while the store is away, too.

    Args:
        client: whose namespace is shown.
        listen: `HOST:PORT`. A host that is not loopback is warned about: there is neither TLS nor a password.
        discovery: a service that somebody else starts and stops; when None one that observes.
        registry: what `/metrics` shows; that of the client's `PrometheusMetrics` when None.

    Raises:
        ConfigError: no place to listen on, also later when it is taken; or aiohttp is not installed.
    """
    return Serving(client, listen, discovery, registry)


class Serving:
    """A server; see `serve`."""

    def __init__(
        self, client: Client, listen: str, discovery: DiscoveryService | None, registry: CollectorRegistry | None
    ) -> None:
        try:
            from osdisco.serve._envoy import Assignments
            from osdisco.serve._site import Site
        except ImportError as exc:
            raise ConfigError(f"serve needs a package ({exc}): pip install 'osdisco[serve]'") from exc
        if registry is None and isinstance(client.runtime.metrics, PrometheusMetrics):
            registry = client.runtime.metrics.registry
        self._listen = parse_listen(listen)
        self._own = DiscoveryService(client) if discovery is None else None
        shown = discovery or self._own
        assert shown is not None
        self._site = Site(shown.extensions, Assignments(client), registry, only_loopback=self._listen.loopback)
        self._port: int | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Serving {self.url if self._port else 'not started'}>"

    @property
    def address(self) -> str:
        """`host:port`, with the port that is really listened on. Raises ClosedError before it is started."""
        if self._port is None:
            raise ClosedError("the server is not started yet; await it or enter it first")
        return self._listen.address(0).rpartition(":")[0] + f":{self._port}"

    @property
    def url(self) -> str:
        """`http://host:port`."""
        return f"http://{self.address}"

    @property
    def only_loopback(self) -> bool:
        """Whether nobody but this machine can come."""
        return self._listen.loopback

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> Self:
        if self._port is not None or self._closed:
            raise ClosedError("a server is started once; make a new one")
        try:
            if self._own is not None:
                await self._own.start()
            self._port = await self._site.start(self._listen)
        except BaseException as exc:
            await self.aclose()
            if isinstance(exc, OSError):
                raise ConfigError(f"cannot listen on {self._listen.address(0)}: {exc.strerror or exc}") from exc
            raise
        if not self.only_loopback:
            log.warning(
                "serving on %s: whoever reaches it sees all extensions and services, there is no password", self.address
            )
        return self

    async def aclose(self) -> None:
        """Stop listening. What the store holds is not touched."""
        self._closed = True
        await self._site.aclose()
        if self._own is not None:
            await self._own.stop()
