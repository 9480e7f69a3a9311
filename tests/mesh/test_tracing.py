"""Spans: one of a call, one below it of each attempt, and below that the one of who serves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import pytest
from mesh_town import INTERRUPTED, NOT_JUDGED, Town, town
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from worlds import World

import osdisco
from osdisco.errors import ClosedError, DeadlineExceededError, RemoteError, ServiceMeshError, ServiceNotFoundError
from osdisco.mesh import ExtensionServiceMesh, OpenTelemetryTracing, RetryPolicy, TrafficRules, incoming
from osdisco.mesh.hedging import Hedging
from osdisco.mesh.mirroring import AT_ONCE
from osdisco.registry import ServiceDefinition


class Spans:
    """A tracer, and what it has seen."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("mine")
        self.tracing = OpenTelemetryTracing(provider)

    def all(self) -> list[ReadableSpan]:
        """Return the spans that ended, in the order in which they began."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def below(self, span: ReadableSpan) -> list[ReadableSpan]:
        assert span.context is not None
        own = span.context.span_id
        return [one for one in self.all() if one.parent is not None and one.parent.span_id == own]

    def root(self) -> ReadableSpan:
        (root,) = [span for span in self.all() if span.parent is None]
        return root


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
async def geo(world: World) -> AsyncGenerator[Town, None]:
    async with town(world) as place:
        yield place


async def test_a_call_its_attempt_and_who_serves_are_one_trace(geo: Town, spans: Spans) -> None:
    server = await geo.serve({"who": lambda: "me"}, mesh=geo.mesh(tracing=spans.tracing))
    await geo.mesh(tracing=spans.tracing).call("geo", "who")
    call = spans.root()
    (attempt,) = spans.below(call)
    (served,) = spans.below(attempt)
    assert [span.name for span in (call, attempt, served)] == ["geo/who"] * 3
    assert [span.kind for span in (call, attempt, served)] == [SpanKind.CLIENT, SpanKind.CLIENT, SpanKind.SERVER]
    assert all(span.status.status_code is StatusCode.UNSET for span in spans.all())
    common = {"rpc.system.name": "osdisco", "rpc.method": "geo/who"}
    host, _, port = server.address.rpartition(":")
    assert said(call) == common | {"osdisco.attempts": 1}
    place = {"server.address": host, "server.port": int(port)}
    fared = {"osdisco.attempt": 1, "osdisco.outcome": "ok", "rpc.response.status_code": "200"}
    assert said(attempt) == common | place | fared
    assert said(served) == common | {"osdisco.attempt": 1, "rpc.response.status_code": "200"}


async def test_calls_within_a_handler_are_below_it(geo: Town, spans: Spans) -> None:
    inner = geo.mesh(tracing=spans.tracing)

    async def outer() -> Any:
        return await inner.call("audit", "note")

    await geo.serve({"outer": outer}, mesh=inner)
    await geo.serve({"note": lambda: None}, "audit", mesh=geo.mesh(tracing=spans.tracing))
    with spans.tracer.start_as_current_span("mine"):
        await geo.mesh(tracing=spans.tracing).call("geo", "outer")
    span, names = spans.root(), []
    while below := spans.below(span):
        (span,) = below
        names.append(span.name)
    assert names == ["geo/outer"] * 3 + ["audit/note"] * 3


async def test_each_attempt_has_a_span_and_says_why_it_failed(geo: Town, spans: Spans) -> None:
    servers = [await geo.serve({"who": lambda: "me"}) for _ in range(2)]
    for server in servers:
        geo.network.fail(server.address, INTERRUPTED)
    mesh = geo.mesh(**NOT_JUDGED, tracing=spans.tracing, retry_policies=RetryPolicy(attempts=2))
    with pytest.raises(ServiceMeshError):
        await mesh.call("geo", "who", idempotent=True)
    call = spans.root()
    attempts = spans.below(call)
    assert [said(one)["osdisco.attempt"] for one in attempts] == [1, 2]
    assert {said(one)["server.address"] for one in attempts} == {server.address.split(":")[0] for server in servers}
    for span in (call, *attempts):
        assert span.status.status_code is StatusCode.ERROR
        assert "the connection ended" in (span.status.description or "")
        assert said(span)["error.type"] == "CallInterruptedError"
    assert said(call)["osdisco.attempts"] == 2


async def test_a_refused_pick_has_no_attempt_and_its_reason(geo: Town, spans: Spans) -> None:
    with pytest.raises(ServiceNotFoundError):
        await geo.mesh(tracing=spans.tracing).call("geo", "who")
    (call,) = spans.all()
    assert (said(call)["error.type"], said(call)["osdisco.refused"]) == ("ServiceNotFoundError", "no endpoints")


async def test_a_handler_that_fails_is_an_error_on_both_sides_and_a_caller_at_fault_on_its_own(
    geo: Town, spans: Spans
) -> None:
    def fail(status: int) -> None:
        raise RemoteError("Gone", "it is gone", status=status)

    await geo.serve({"fail": fail}, mesh=geo.mesh(tracing=spans.tracing))
    mesh = geo.mesh(tracing=spans.tracing)
    for status in (500, 410):
        with pytest.raises(RemoteError):
            await mesh.call("geo", "fail", status)
    served = [span for span in spans.all() if span.kind is SpanKind.SERVER]
    assert [span.status.status_code for span in served] == [StatusCode.ERROR, StatusCode.UNSET]
    assert [said(span)["rpc.response.status_code"] for span in served] == ["500", "410"]
    assert said(served[0])["error.type"] == "500"
    calls = [span for span in spans.all() if span.parent is None]
    assert [(said(one)["error.type"], said(one)["rpc.response.status_code"]) for one in calls] == [
        ("Gone", "500"),
        ("Gone", "410"),
    ]


async def test_a_method_that_there_is_not_names_no_span(geo: Town, spans: Spans) -> None:
    await geo.serve({"who": lambda: "me"}, mesh=geo.mesh(tracing=spans.tracing))
    with pytest.raises(RemoteError):
        await geo.mesh().call("geo", "x" * 100)
    (served,) = spans.all()
    assert (served.name, said(served)["rpc.method"]) == ("osdisco", "_OTHER")


async def test_the_attempt_that_loses_ends_its_span_without_an_error(geo: Town, spans: Spans) -> None:
    servers = [await geo.serve({"who": lambda: "me"}) for _ in range(2)]
    mesh = geo.mesh(
        **NOT_JUDGED,
        tracing=spans.tracing,
        retry_policies=RetryPolicy(idempotent=["who"], hedging=Hedging(extra=0.05)),
    )
    for _ in range(25):
        await mesh.call("geo", "who")
    geo.network.places[servers[0].address].delay = 3.0
    for _ in range(10):
        await mesh.call("geo", "who")
    losers = [span for span in spans.all() if said(span).get("osdisco.outcome") == "cancelled"]
    assert losers
    assert all(span.status.status_code is StatusCode.UNSET for span in losers)
    hedged = [span for span in spans.all() if said(span).get("osdisco.attempts") == 2]
    assert [len(spans.below(span)) for span in hedged] == [2] * len(hedged)


async def test_an_attempt_that_takes_too_long_is_an_error(geo: Town, spans: Spans) -> None:
    await geo.serve({"hang": asyncio.Event().wait})
    with pytest.raises(DeadlineExceededError):
        await geo.mesh(tracing=spans.tracing).call("geo", "hang", timeout=1)
    assert [said(span)["error.type"] for span in spans.all()] == ["DeadlineExceededError"] * 2
    assert said(spans.all()[1])["osdisco.outcome"] == "timeout"


async def test_a_copy_is_below_the_call_that_it_is_of_also_when_it_had_to_wait(geo: Town, spans: Spans) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.5)

    await geo.serve({"who": lambda: "me"})
    await geo.serve({"who": slow}, "shadow")
    await TrafficRules(geo.world.process()).set("geo", {"mirror": {"service": "shadow"}})
    mesh = geo.mesh(tracing=spans.tracing)
    await asyncio.gather(*(mesh.call("geo", "who") for _ in range(2 * AT_ONCE)))
    await asyncio.sleep(5)
    for call in (span for span in spans.all() if span.parent is None):
        attempt, copy = sorted(spans.below(call), key=lambda span: said(span)["rpc.method"])
        assert (said(attempt)["rpc.method"], said(copy)["rpc.method"]) == ("geo/who", "shadow/who")
        assert ("osdisco.mirrored" in said(attempt), said(copy)["osdisco.mirrored"]) == (False, True)


async def test_a_call_that_fails_of_something_else_is_an_error_too(geo: Town, spans: Spans) -> None:
    await geo.serve({"who": lambda: "me"})
    mesh = geo.mesh(tracing=spans.tracing)
    await mesh.call("geo", "who")
    await TrafficRules(geo.world.process()).set("geo", {"redirect": {"service": "maps"}})
    await asyncio.sleep(1)
    mesh._services._closed = True  # as it is when the call is under way while its client leaves
    with pytest.raises(ClosedError):
        await mesh.call("geo", "who")
    call = spans.all()[-1]
    assert (call.name, call.status.status_code, said(call)["error.type"]) == (
        "geo/who",
        StatusCode.ERROR,
        "ClosedError",
    )


async def test_without_an_sdk_calls_go_on_and_no_context_is_sent(geo: Town) -> None:
    await geo.serve({"who": lambda: "me"}, mesh=geo.mesh(tracing=OpenTelemetryTracing()))
    assert await geo.mesh(tracing=OpenTelemetryTracing()).call("geo", "who") == "me"
    assert all("traceparent" not in request.headers for _, request in geo.network.sent)


async def test_what_another_library_began_is_gone_on_with_by_http(spans: Spans) -> None:
    """By real HTTP: the context is W3C's, with its state, and in the handler the span is the current one."""
    seen: dict[str, Any] = {}

    def who() -> None:
        request = incoming()
        assert request is not None
        seen.update(request.headers)
        seen["trace"] = get_current_span().get_span_context().trace_id

    url = f"memory://{uuid4().hex}"
    async with (
        osdisco.connect(url) as client,
        ExtensionServiceMesh(client, tracing=spans.tracing) as mesh,
        mesh.serve(ServiceDefinition("geo", "1"), {"who": who}),
    ):
        with spans.tracer.start_as_current_span("mine") as span:
            await mesh.call("geo", "who")
    trace = span.get_span_context().trace_id
    version, sent, parent, _ = seen["traceparent"].split("-")
    assert (version, int(sent, 16), seen["trace"]) == ("00", trace, trace)
    attempt = next(one for one in spans.all() if one.context is not None and one.context.span_id == int(parent, 16))
    assert "osdisco.attempt" in said(attempt)
    assert {one.context.trace_id for one in spans.all() if one.context is not None} == {trace}


def test_the_mesh_does_not_import_opentelemetry() -> None:
    code = "import sys, osdisco.mesh; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


async def test_an_attempt_whose_span_fails_to_begin_leaves_nothing_under_way(geo: Town, spans: Spans) -> None:
    class Failing(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            if "osdisco.attempt" in span.attributes:
                raise KeyError("no exporter")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Failing())
    server = await geo.serve({"who": lambda: "me"})
    mesh = geo.mesh(tracing=OpenTelemetryTracing(provider))
    for _ in range(3):
        with pytest.raises(KeyError):
            await mesh.call("geo", "who")
    assert mesh.services["geo"].pool.states[server.address].in_flight == 0
