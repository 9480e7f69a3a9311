"""Spans of calls, by OpenTelemetry's API alone: without an SDK they go nowhere, and without `tracing=` there are none.

A call has a span, each of its attempts one below it, and what the endpoint does one below that: W3C's `traceparent` and
`tracestate` go along as headers. Names and attributes are those of OpenTelemetry's stable conventions for RPC
(v1.45); those of ours begin with `osdisco.`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from osdisco._version import __version__
from osdisco.errors import ConfigError, RemoteError, ServiceMeshError
from osdisco.mesh._state import Outcome
from osdisco.mesh.transport import MeshRequest

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from osdisco.mesh._calls import Call

SYSTEM: Final = "osdisco"
OTHER: Final = "_OTHER"
SERVER_FAULT: Final = 500

MIRRORED: Final = "x-osdisco-mirrored"
"""The header of a copy, by which a handler can tell."""


class Attempt(Protocol):
    """The span of one attempt."""

    def fail(self, error: ServiceMeshError) -> None:
        """Learn what failed."""

    def end(self, outcome: Outcome) -> None:
        """End it."""


class Served(Protocol):
    """The span of a request that is served."""

    def answered(self, status: int) -> None:
        """Learn with which status, as in HTTP, it was answered."""


class Tracing(Protocol):
    """Makes spans of calls. It raises nothing."""

    def calling(self, call: Call) -> AbstractContextManager[object]:
        """Return the span of a call with all its attempts, to be entered."""

    def attempting(self, request: MeshRequest, address: str) -> Attempt:
        """Begin the span of an attempt; what leads others to it is put into the headers of the request."""

    def serving(self, service: str, method: str, request: MeshRequest) -> AbstractContextManager[Served]:
        """Return the span of a request of others, to be entered. `method` is `_OTHER` when there is no such."""


class OpenTelemetryTracing:
    """Spans by a tracer of OpenTelemetry: `ExtensionServiceMesh(client, tracing=OpenTelemetryTracing())`.

    Args:
        tracer_provider: of the SDK; the global one when None.

    Raises:
        ConfigError: `opentelemetry-api` is not installed.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry.trace import get_tracer
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as exc:
            raise ConfigError(f"OpenTelemetryTracing needs a package ({exc}): pip install 'osdisco[otel]'") from exc
        self._tracer: Tracer = get_tracer("osdisco", __version__, tracer_provider)
        self._context = TraceContextTextMapPropagator()

    @contextmanager
    def calling(self, call: Call) -> Iterator[Span]:
        """Give the span of a call; see `Tracing`."""
        from opentelemetry.trace import SpanKind

        name = f"{call.service}/{call.method}"
        with self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=_of(name), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as exc:
                _set_error(span, exc)
                raise
            finally:
                span.set_attribute("osdisco.attempts", call.attempt)
                if call.target != call.service:
                    span.set_attribute("osdisco.target", call.target)

    def attempting(self, request: MeshRequest, address: str) -> Attempt:
        """Begin the span of an attempt; see `Tracing`."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        name = f"{request.service}/{request.method}"
        attributes = _of(name) | _place(address) | {"osdisco.attempt": request.attempt}
        if MIRRORED in request.headers:
            attributes["osdisco.mirrored"] = True
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        headers = dict(request.headers)
        self._context.inject(headers, set_span_in_context(span))
        request.headers = headers
        return _Attempt(span)

    @contextmanager
    def serving(self, service: str, method: str, request: MeshRequest) -> Iterator[Served]:
        """Give the span of a request of others; see `Tracing`."""
        from opentelemetry.trace import SpanKind

        name = f"{service}/{method}"
        attributes = _of(OTHER if method == OTHER else name) | {"osdisco.attempt": request.attempt}
        with self._tracer.start_as_current_span(
            SYSTEM if method == OTHER else name,
            self._context.extract(_lower(request.headers)),
            SpanKind.SERVER,
            attributes,
        ) as span:
            yield _Served(span)


class _Attempt:
    def __init__(self, span: Span) -> None:
        self._span = span

    def fail(self, error: ServiceMeshError) -> None:
        _set_error(self._span, error)

    def end(self, outcome: Outcome) -> None:
        self._span.set_attribute("osdisco.outcome", outcome.value)
        if outcome is Outcome.OK:
            self._span.set_attribute("rpc.response.status_code", "200")
        self._span.end()


class _Served:
    def __init__(self, span: Span) -> None:
        self._span = span

    def answered(self, status: int) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("rpc.response.status_code", str(status))
        if status >= SERVER_FAULT:  # below it is who asked who is at fault
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(StatusCode.ERROR)


def _of(method: str) -> dict[str, Any]:
    return {"rpc.system.name": SYSTEM, "rpc.method": method}


def _place(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"server.address": host.strip("[]"), "server.port": int(port)}


def _set_error(span: Span, error: Exception) -> None:
    from opentelemetry.trace import StatusCode

    kind = type(error).__name__
    if isinstance(error, RemoteError):
        kind = error.type
        span.set_attribute("rpc.response.status_code", str(error.status))
    span.set_attribute("error.type", kind)
    reason = getattr(getattr(error, "reason", None), "reason", None)
    if reason is not None:
        span.set_attribute("osdisco.refused", reason.value)
    span.set_status(StatusCode.ERROR, str(error))


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Return W3C's headers; whoever carries others may write them in any case."""
    return {name.lower(): value for name, value in headers.items() if name.lower() in ("traceparent", "tracestate")}
