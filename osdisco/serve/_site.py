"""The paths, by aiohttp. Only `_server` comes here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from osdisco.discovery import ExtensionInfo, Extensions
from osdisco.errors import ConfigError, InvalidNameError, OsdiscoError
from osdisco.serve._connections import SILENCE_MAX, Connections
from osdisco.serve._envoy import Assignments, DiscoveryRequest
from osdisco.serve._listen import names_loopback, one_label
from osdisco.serve._targets import Query, target_groups
from osdisco.url import Host

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HEADERS: Final = {"Server": "osdisco", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

ENDPOINTS: Final = "/v3/discovery:endpoints"
"""Where Envoy asks, by the `google.api.http` option of `FetchEndpoints` in its `eds.proto`."""

_REQUEST_MAX: Final = 1024 * 1024
"""Bytes of a request; Envoy tells with each what it was built with."""

AT_ONCE: Final = 250
"""Extensions that are written in one step of the loop."""

_SHUTDOWN: Final = 2.0
"""Seconds that answers under way get at the end."""


class Site:
    """Serves a view of extensions, assignments for Envoy and a registry of metrics."""

    def __init__(
        self,
        extensions: Extensions,
        assignments: Assignments,
        registry: CollectorRegistry | None,
        *,
        only_loopback: bool,
    ) -> None:
        self._extensions = extensions
        self._assignments = assignments
        self._registry = registry
        self._only_loopback = only_loopback
        self._server: asyncio.Server | None = None
        self._connections: Connections | None = None

        @web.middleware  # which marks a function, and could not mark a method
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=_REQUEST_MAX)
        paths = {"/sd": self._sd, "/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}
        app.add_routes([web.get(path, handler) for path, handler in paths.items()])
        app.add_routes([web.post(ENDPOINTS, self._endpoints)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN, keepalive_timeout=30)

    async def start(self, listen: Host) -> int:
        """Listen; returns the port. Raises OSError."""
        await self._runner.setup()
        assert self._runner.server is not None
        self._connections = Connections(self._runner.server)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connections, listen.name, listen.port)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def aclose(self) -> None:
        """Listen no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        if self._connections is not None:
            self._connections.close()
        await self._runner.cleanup()
        await self._assignments.aclose()

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Say no in JSON, and set what every answer has."""
        assert self._connections is not None
        self._connections.spoke(request.protocol)
        try:
            response = await self._checked(request, handler)
        except web.HTTPException as exc:
            allow = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else None
            response = _json({"error": f"{request.method} {request.path}: {exc.reason}"}, exc.status, allow)
        response.headers.update(_HEADERS)
        return response

    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        envoy = request.path == ENDPOINTS
        if request.method not in ("GET", "HEAD") and not (envoy and request.method == "POST"):
            raise web.HTTPMethodNotAllowed(request.method, ("GET", "HEAD"))
        host = request.headers.get("Host")
        trusted = host is None or names_loopback(host) or (envoy and one_label(host))
        if self._only_loopback and not trusted:
            assert host is not None
            return _json({"error": f"this is served to this machine alone, not as {host[:80]!a}"}, 403)
        return await handler(request)

    @property
    def _known(self) -> bool:
        return isfinite(self._extensions.age)

    async def _sd(self, request: web.Request) -> web.StreamResponse:
        try:
            query = Query.parse(request.query.items())
        except ConfigError as exc:
            return _json({"error": str(exc)}, 400)
        if not self._known:  # Prometheus keeps its targets at an error, and would drop all at an empty list
            return _json({"error": "the store was not seen yet"}, 503)
        age = f"{self._extensions.age:.3f}"
        headers = {"Osdisco-Stale": str(self._extensions.stale).lower(), "Osdisco-Age": age}
        return _response(await listed(self._extensions, query), headers=headers)

    async def _endpoints(self, request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(SILENCE_MAX):
                body = await request.read()
            answer = await self._assignments.answer(DiscoveryRequest.parse(body))
        except TimeoutError:
            return _json({"error": "the request did not come whole in time"}, 408)
        except (ConfigError, InvalidNameError) as exc:
            return _json({"error": str(exc)}, 400)
        except OsdiscoError as exc:  # Envoy keeps its endpoints at an error
            return _json({"error": str(exc)}, 503)
        return web.Response(status=304) if answer is None else _response(answer)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        if self._registry is None:
            return _json({"error": "nothing is counted: osdisco.connect(metrics=PrometheusMetrics())"}, 501)
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": kind})

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        return _json({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.StreamResponse:
        error = {"error": str(self._extensions.error)} if self._extensions.error else {}
        if not self._known:
            return _json({"ready": False, "why": "the store was not seen yet", **error}, 503)
        about = {"extensions": len(self._extensions), "age": round(self._extensions.age, 3)}
        if self._extensions.stale:
            why = "the store is not seen; what is shown is the last known"
            return _json({"ready": False, "why": why, **error, **about}, 503)
        return _json({"ready": True, **about})


async def listed(extensions: Mapping[str, ExtensionInfo], query: Query) -> str:
    """Return the groups of targets as JSON. Of thousands the loop gets a breath in between."""
    groups = []
    for number, group in enumerate(target_groups(list(extensions.values()), query), 1):
        groups.append(json.dumps(group))
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
    return f"[{','.join(groups)}]"


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return _response(json.dumps(content), status, headers)


def _response(text: str, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")
