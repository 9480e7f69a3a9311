"""What is counted and measured, by both kinds of collectors; and that nothing is needed for nothing to be counted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from worlds import World, lease_of

import osdisco
from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionInfo, ExtensionStatus, TtlCheck
from osdisco.errors import ConfigError
from osdisco.metrics import METRICS, Kind, Metric, Metrics, OpenTelemetryMetrics, PrometheusMetrics, Sample
from osdisco.registry import ServiceDefinition, ServiceRegistry


class Counted:
    """A collector of one kind with a way to read it."""

    metrics: Metrics

    def read(self) -> dict[str, float]:
        """Return all values by name, with labels as Prometheus writes them."""
        raise NotImplementedError


class InPrometheus(Counted):
    def __init__(self) -> None:
        self.metrics = PrometheusMetrics(CollectorRegistry())

    def read(self) -> dict[str, float]:
        from prometheus_client import generate_latest

        families = text_string_to_metric_families(generate_latest(self.metrics.registry).decode())  # type: ignore[attr-defined]
        return {written(s.name, s.labels): s.value for family in families for s in family.samples}


class InOpenTelemetry(Counted):
    def __init__(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.metrics = OpenTelemetryMetrics(self._provider)

    def read(self) -> dict[str, float]:
        return dict(self._points())

    def _points(self) -> Iterator[tuple[str, float]]:
        data = self._reader.get_metrics_data()
        for metric in (
            m for r in (data.resource_metrics if data else ()) for scope in r.scope_metrics for m in scope.metrics
        ):
            for point in metric.data.data_points:
                yield from _values(metric.name, point)


def _values(name: str, point: Any) -> Iterator[tuple[str, float]]:
    if hasattr(point, "count"):
        yield f"{name}_count", point.count
        return
    counter = name in {metric.name for metric in METRICS if metric.kind is Kind.COUNTER}
    yield written(f"{name}_total" if counter else name, point.attributes), point.value


def written(name: str, labels: Any) -> str:
    inner = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inner}}}" if inner else name


@pytest.fixture(params=[InPrometheus, InOpenTelemetry])
def counted(request: pytest.FixtureRequest) -> Counted:
    made: Counted = request.param()
    return made


def process(world: World, counted: Counted) -> Client:
    """Return a client that counts."""
    client = world.process()
    runtime = client.runtime.__class__(client.runtime.clock, client.runtime.random, "counted", metrics=counted.metrics)
    made = Client(client.backend, runtime, options=client.options, namespace="ns")
    world.clients[-1] = made
    return made


def info(id_: str = "geo", status: ExtensionStatus = ExtensionStatus.HEALTHY) -> ExtensionInfo:
    return ExtensionInfo(id=id_, name="geo", version="1.0.0", host="h", port=1, status=status)


async def test_the_view_is_shown_by_status_and_age(world: World, counted: Counted) -> None:
    await world.process().put("ext/bad/0.1", b"no record")
    async with DiscoveryService(process(world, counted)) as seer:
        before = counted.read()
        assert 'osdisco_view_age_seconds{namespace="ns"}' not in before, "OpenTelemetry takes no infinity"
        assert before['osdisco_view_stale{namespace="ns"}'] == 1
        await seer.wait_known(5)
        async with (
            DiscoveryService(world.process(), info("a")) as one,
            DiscoveryService(world.process(), info("b", ExtensionStatus.DEGRADED)) as two,
        ):
            await one.wait_registered(5)
            await two.wait_registered(5)
            await asyncio.sleep(1)
            now = counted.read()
        assert {
            status.value: now[f'osdisco_extensions{{namespace="ns",status="{status.value}"}}']
            for status in ExtensionStatus
        } == {"starting": 0, "healthy": 1, "degraded": 1, "unhealthy": 0, "stopping": 0}
        assert now['osdisco_view_stale{namespace="ns"}'] == 0
        assert now['osdisco_view_age_seconds{namespace="ns"}'] < 10
        assert now['osdisco_view_skipped_records{namespace="ns"}'] == 1
    assert not [name for name in counted.read() if name.startswith("osdisco_view")], "a stopped service is not shown"
    world.store.commit([osdisco.Delete("ns/ext/bad/0.1")], {})


async def test_registrations_first_changed_and_after_a_loss(world: World, counted: Counted) -> None:
    client = process(world, counted)
    registered = 'osdisco_registered{extension="geo",namespace="ns"}'
    async with DiscoveryService(client, info()) as discovery:
        await discovery.wait_registered(5)
        await discovery.set_status(ExtensionStatus.DEGRADED)
        assert counted.read()[registered] == 1
        client.backend.faults.outage("commit")  # type: ignore[attr-defined]
        world.store.faults.end_lease(await lease_of(client))
        await asyncio.sleep(0.5)
        assert counted.read()[registered] == 0
        client.backend.faults.clear()  # type: ignore[attr-defined]
        await discovery.wait_registered(10)
        now = counted.read()
    assert now[registered] == 1
    assert {
        how: now[f'osdisco_registrations_total{{how="{how}",what="ext"}}'] for how in ("first", "update", "again")
    } == {
        "first": 1,
        "update": 1,
        "again": 1,
    }
    assert now["osdisco_session_losses_total"] == 1
    assert now["osdisco_sessions_opened_total"] == 2


async def test_renewals_that_fail_and_watches_that_break(world: World, counted: Counted) -> None:
    client = process(world, counted)
    async with DiscoveryService(client, info()) as discovery:
        await discovery.wait_registered(5)
        await asyncio.sleep(world.ttl)
        calm = counted.read()
        assert calm['osdisco_renewals_total{result="ok"}'] in (2, 3)
        assert calm["osdisco_renewal_seconds_count"] == calm['osdisco_renewals_total{result="ok"}']
        assert calm.get("osdisco_watch_interruptions_total", 0) == 0
        client.backend.faults.outage()  # type: ignore[attr-defined]
        await asyncio.sleep(world.ttl * 0.9)
        client.backend.faults.clear()  # type: ignore[attr-defined]
        after = counted.read()
    assert after['osdisco_renewals_total{result="failed"}'] >= 1
    assert after["osdisco_watch_interruptions_total"] >= 1


async def test_a_check_is_in_one_state(world: World, counted: Counted) -> None:
    check = TtlCheck(60, name="disk")
    async with DiscoveryService(process(world, counted), info(status=ExtensionStatus.STARTING), checks=[check]):
        for report, wanted in ((None, "starting"), (check.ok, "passing"), (lambda: check.fail("full"), "failing")):
            if report is not None:
                report()
            await asyncio.sleep(1)
            now = counted.read()
            states = ("starting", "passing", "failing")
            shown = {state: now[f'osdisco_check{{check="disk",namespace="ns",state="{state}"}}'] for state in states}
            assert shown == {state: float(state == wanted) for state in states}


async def test_a_registration_in_a_service_shows_whether_it_stands(world: World, counted: Counted) -> None:
    client = process(world, counted)
    registered = 'osdisco_service_registered{endpoint="10.0.0.7:1",namespace="ns",service="geo"}'
    definition = ServiceDefinition(name="geo", version="1", address="10.0.0.7:1")
    async with ServiceRegistry(client).register(definition) as registration:
        assert counted.read()[registered] == 1
        client.backend.faults.outage("commit")  # type: ignore[attr-defined]
        world.store.faults.end_lease(await lease_of(client))
        await asyncio.sleep(0.5)
        assert counted.read()[registered] == 0
        client.backend.faults.clear()  # type: ignore[attr-defined]
        await registration.wait_registered(10)
        assert counted.read()[registered] == 1
    assert registered not in counted.read(), "what was deregistered is not missed"


async def test_a_view_of_a_service_shows_how_much_it_knows(world: World, counted: Counted) -> None:
    service = '{namespace="ns",service="geo"}'
    registry = ServiceRegistry(process(world, counted))
    async with registry.view("geo") as view:
        dying = world.process()
        for number in range(4):
            definition = ServiceDefinition(
                name="geo", version="1", address=f"10.0.0.{number}:1", extension_id=str(number)
            )
            await ServiceRegistry(dying).register(definition)
        await view.until(lambda endpoints: len(endpoints) == 4, 5)
        assert counted.read()[f"osdisco_service_endpoints{service}"] == 4
        world.kill(dying)
        await asyncio.sleep(2 * world.ttl)
        now = counted.read()
        assert (now[f"osdisco_service_protecting{service}"], now[f"osdisco_service_stale{service}"]) == (1, 0)
    assert f"osdisco_service_endpoints{service}" not in counted.read()
    await registry.view("geo")
    assert counted.read()[f"osdisco_service_endpoints{service}"] == 0
    await registry._client.aclose()
    assert f"osdisco_service_endpoints{service}" not in counted.read(), "the view of a closed client is not shown"


async def test_a_session_that_is_closed_is_no_loss(world: World, counted: Counted) -> None:
    async with process(world, counted).session():
        pass
    assert counted.read().get("osdisco_session_losses_total", 0) == 0


async def test_two_clients_of_a_process_share_a_collector(world: World, counted: Counted) -> None:
    """They may see the same namespace: the worse is shown, and no line twice."""
    well, ill = process(world, counted), process(world, counted)
    async with DiscoveryService(well) as one, DiscoveryService(ill) as two:
        await one.wait_known(5)
        await two.wait_known(5)
        ill.backend.faults.outage()  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        assert counted.read()['osdisco_view_stale{namespace="ns"}'] == 1


def test_a_source_that_fails_spoils_nothing(counted: Counted, caplog: pytest.LogCaptureFixture) -> None:
    gauge = next(metric for metric in METRICS if metric.name == "osdisco_view_stale")
    counted.metrics.follow(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    counted.metrics.follow(lambda: [Sample(gauge, 0, ("good",))])
    assert counted.read()['osdisco_view_stale{namespace="good"}'] == 0
    assert "a source of metrics failed" in caplog.text


def test_a_table_that_changes_under_a_scrape_is_read_again(counted: Counted, caplog: pytest.LogCaptureFixture) -> None:
    gauge = next(metric for metric in METRICS if metric.name == "osdisco_view_stale")
    answers = iter([RuntimeError("dictionary changed size during iteration")] * 2)

    def source() -> list[Sample]:
        for error in answers:
            raise error
        return [Sample(gauge, 0, ("good",))]

    counted.metrics.follow(source)
    assert counted.read()['osdisco_view_stale{namespace="good"}'] == 0
    assert not caplog.records


def test_a_registry_takes_one_collector() -> None:
    registry = CollectorRegistry()
    PrometheusMetrics(registry)
    with pytest.raises(ConfigError, match="share one PrometheusMetrics"):
        PrometheusMetrics(registry)


def test_labels_that_somebody_chose_are_escaped() -> None:
    counted = InPrometheus()
    hostile = 'a"} 1\nosdisco_fake{x="'
    gauge = next(metric for metric in METRICS if metric.name == "osdisco_view_stale")
    counted.metrics.follow(lambda: [Sample(gauge, 1, (hostile,))])
    assert not any(name.startswith("osdisco_fake") for name in counted.read())


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("PrometheusMetrics", "prometheus_client", "prometheus"), ("OpenTelemetryMetrics", "opentelemetry", "otel")],
)
def test_a_package_that_is_missing_is_named_when_it_is_asked_for(name: str, package: str, extra: str) -> None:
    code = f"""
import sys; sys.modules[{package!r}] = sys.modules["{package}.metrics"] = None
import osdisco
osdisco.connect("memory://")
try:
    osdisco.{name}()
except osdisco.ConfigError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'osdisco[{extra}]'" in done.stdout


def test_nobody_who_does_not_ask_loads_a_package() -> None:
    code = "import osdisco, sys; osdisco.connect('memory://'); osdisco.DiscoveryService; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"prometheus_client", "opentelemetry"} & {*done.stdout.split()}


def test_a_collector_of_ones_own_needs_no_method() -> None:
    client = osdisco.connect("memory://", metrics=Metrics())
    assert client.runtime.metrics.follow(list)() is None  # type: ignore[func-returns-value]


def test_every_metric_is_named_once_and_explained() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert isinstance(metric, Metric)
        assert metric.name.startswith("osdisco_")
        assert metric.help.endswith(".")
