"""Every number that the mesh is set to is in a table of its pages, as it is in the code; or it is said why not."""

from __future__ import annotations

import ast
import enum
import importlib
import pkgutil
import re
from collections.abc import Iterator
from inspect import getsource, isfunction, signature
from typing import Any

import attrs
import pytest
from examples import DOCS

import osdisco.mesh
from osdisco.discovery import Drain

PAGES = ("mesh.md", "mesh/balancing.md", "mesh/routing.md", "mesh/seeing.md")


def inventory() -> dict[str, float]:
    """Return each number by its name: constants of modules, defaults of fields, and of arguments of public calls."""
    found: dict[str, Any] = {}
    for info in pkgutil.iter_modules(osdisco.mesh.__path__):
        module = importlib.import_module(f"osdisco.mesh.{info.name}")
        found |= {f"{info.name}.{name}": getattr(module, name) for name in _assigned(getsource(module))}
    for name in osdisco.mesh.__all__:
        if isinstance(cls := getattr(osdisco.mesh, name), type) and not issubclass(cls, enum.Enum):
            found |= _of_class(cls)
    found |= {f"Drain.{one.name}": one.default for one in attrs.fields(Drain)}
    return {name: value for name, value in found.items() if type(value) in (int, float)}


def _assigned(source: str) -> Iterator[str]:
    for node in ast.parse(source).body:
        target = getattr(node, "target", None) or getattr(node, "targets", [None])[0]
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name):
            yield target.id


def _of_class(cls: type) -> dict[str, Any]:
    if attrs.has(cls):
        found = {f"{cls.__name__}.{one.name}": one.default for one in attrs.fields(cls)}
    else:
        found = {f"{cls.__name__}({one.name})": one.default for one in signature(cls).parameters.values()}
    for name, call in vars(cls).items():
        if isfunction(call) and not name.startswith("_"):
            found |= {f"{cls.__name__}.{name}({one.name})": one.default for one in signature(call).parameters.values()}
    return found


NUMBERS = inventory()

ROWS = {
    "`timeout=` of a mesh": "deadline.DEFAULT_TIMEOUT",
    "`HttpTransport(connect_timeout": "HttpTransport(connect_timeout)",
    "share of an attempt's time": "http.CONNECT_SHARE",
    "`Hedging(extra": "Hedging.extra Hedging.least*1000",
    "calls that hedging learns from": "hedging.SAMPLES hedging.LEAST",
    "`request_max`, `response_max`": "transport.REQUEST_MAX/1048576",
    "metadata of a call": "_wire.METADATA_MAX",
    "message of an error": "_wire.MESSAGE_MAX",
    "`serve(at_once": "handlers.AT_ONCE",
    "the body of a request must have come whole": "server.SLOW_MAX",
    "a connection that says nothing": "server.KEPT",
    "files of TLS": "tls.LOOK",
    "idle connections": "http.IDLE_MAX server.KEPT",
    "services without an endpoint": "_services.KEPT_MAX",
    "`drain=` of what is served": "Drain.propagation Drain.grace",
    "`attempts`": "RetryPolicy.attempts",
    "`pause`, `factor`": "0 RetryPolicy.pause*1000 RetryPolicy.pause_max",
    "`budget.share`": "RetryBudget.share",
    "`budget.per_second`": "RetryBudget.per_second RetryBudget.window",
    "`budget.failures`": "RetryBudget.failures",
    "`PoolSettings(panic": "PoolSettings.panic 0",
    "`PoolSettings(concurrency": "PoolSettings.concurrency",
    "`BreakerSettings(failure_rate": "BreakerSettings.failure_rate",
    "`slow_rate`, `slow_after`": "BreakerSettings.slow_rate BreakerSettings.slow_after",
    "`window`": "BreakerSettings.window",
    "`minimum`": "BreakerSettings.minimum",
    "`open_for`": "BreakerSettings.open_for",
    "`permits`": "BreakerSettings.permits",
    "`OutlierSettings(consecutive_failures": "OutlierSettings.consecutive_failures",
    "`interval` | 10": "OutlierSettings.interval",
    "`base_ejection`, `max_ejection`": "OutlierSettings.base_ejection OutlierSettings.max_ejection",
    "`max_share`": "OutlierSettings.max_share",
    "`success_rate_hosts`": (
        "OutlierSettings.success_rate_hosts OutlierSettings.success_rate_volume OutlierSettings.success_rate_stdev"
    ),
    "`failure_rate`, `failure_rate_hosts`": (
        "OutlierSettings.failure_rate OutlierSettings.failure_rate_hosts OutlierSettings.failure_rate_volume"
    ),
    "peak EWMA": "_state.DECAY",
    "the panic of a subset": "pool.UNPICKED",
    "who is much slower": "slowness.SLOW slowness.SLOWEST slowness.OWN slowness.ALL",
    "`ZoneAwareLoadBalancer(overprovisioning": "zones.OVERPROVISIONING 71",
    "`SlowStart(window": "SlowStart.window SlowStart.aggression SlowStart.minimum",
    "`Subsetting(size": "Subsetting.size Subsetting.above",
    "weights": "0.01 100",
    "places that keys": "router.PLACES",
    "splits that lead": "router.DEPTH_MAX",
    "`MirrorRule(percent": "MirrorRule.percent",
    "copies under way": "mirroring.AT_ONCE mirroring.QUEUE_MAX mirroring.BYTES_MAX/1048576 mirroring.TIMEOUT",
    "versions that are kept": "traffic_rules.HISTORY_MAX",
    "figures of callers": "canary_figures.PERIOD",
    "sums of a caller": "canary_figures.KEPT_LEAST/60",
    "asking for figures": "canary.ASKING_MAX",
    "figures that count as none": "_canary.RATE_MAX 2 53",
    "what a document must leave": "_rules_record.STEPS_ROOM",
    "a service that calls only fail over to": "_routing.PATIENCE",
    "an answer of Prometheus": "prometheus_figures.ANSWER_MAX/1048576",
    "document": (
        "rules.SPLITS_MAX rules.MATCHES_MAX rules.CONDITIONS_MAX _matching.CHOICES_MAX rules.SUBSETS_MAX"
        " rules.FAILOVER_MAX _documents.TEXT_MAX rules.SECONDS_MAX"
    ),
    "`interval` | 60": "CanaryPlan.interval",
    "`step`": "CanaryPlan.step",
    "`max_weight`": "CanaryPlan.max_weight",
    "`success_rate`": "CanaryPlan.success_rate",
    "`p99`": "CanaryPlan.p99*1000",
    "`threshold`": "CanaryPlan.threshold",
    "`min_calls`": "CanaryPlan.min_calls",
}
"""The numbers of each row, by name; `*` and `/` for another unit, and a number alone that is no default."""

SAME = {
    "ExtensionServiceMesh(timeout)": "deadline.DEFAULT_TIMEOUT",
    "ExtensionServiceMesh.serve(at_once)": "handlers.AT_ONCE",
    "HttpTransport(request_max)": "transport.REQUEST_MAX",
    "HttpTransport(response_max)": "transport.RESPONSE_MAX",
    "transport.RESPONSE_MAX": "transport.REQUEST_MAX",
    "limits.CONCURRENCY": "PoolSettings.concurrency",
    "ZoneAwareLoadBalancer(overprovisioning)": "zones.OVERPROVISIONING",
    "FaultRule.percent": "MirrorRule.percent",
}
"""What must be another default."""

IN_TEXT = {
    "RetryPolicy.factor": "doubling up to 1 s",
    "_gauges.NAMES_MAX": "only the first 500 are told apart",
    "_reports.PERIOD": "every one to two seconds",
    "_reports.SERVICES_MAX": "the\n100 that it calls most",
}
"""What is said where it matters."""

NO_DEFAULT = {
    "what there is at first": (
        "CanaryState.weight CanaryState.failed CanaryState.checks EndpointState(now) MeshRequest.attempt Refused.known"
        " Refused.matching Refused.serving Refused.fit Refused.closed RulesVersion.previous RulesVersion.at"
    ),
    "nothing, as long as nobody asks for it": "FaultRule.delay ExtensionServiceMesh.serve(port) Mirroring.offer(size)",
    "a grain of time or of a sum": (
        "_alarms.TICK _alarms.LONGEST _histogram.SIZE _windows.BUCKETS slow_start.STEPS hedging.EVERY outliers.EXACT"
        " top.LEAST"
    ),
    "what is remembered to be quicker, or what formats can hold": (
        "balancers.TURNS_MAX http.URLS_MAX nearness.NODES_MAX pool.SUBSETS_MAX pool.MANY pool.DRAWS"
        " _wire._LONGEST _canary.CALLS_MAX canary_figures.COUNT_MAX top.COUNT_MAX rendezvous._MASK tracing.SERVER_FAULT"
        " _own_address._DISCARD"
    ),
    "as long as a socket takes to close": "server._CLOSING",
    "as good as never, as in Finagle": "_state.PENALTY",
}
"""What nobody would set, by the reason."""


def value_of(name: str) -> float:
    name, sign, factor = next((name.partition(sign) for sign in "*/" if sign in name), (name, "", ""))
    value = NUMBERS[name] if name in NUMBERS else float(name)
    return {"*": value * float(factor or 1), "/": value / float(factor or 1), "": value}[sign]


@pytest.mark.parametrize("row", ROWS)
def test_a_default_on_the_page_is_that_of_the_code(row: str) -> None:
    text = "".join((DOCS / page).read_text() for page in PAGES)
    (cell,) = [line.split("|")[2] for line in text.splitlines() if line.startswith(f"| {row}") and line.count("|") == 4]
    assert [float(number) for number in re.findall(r"\d+(?:\.\d+)?", cell)] == pytest.approx(
        [value_of(name) for name in ROWS[row].split()]
    )


def test_every_number_of_the_code_is_on_a_page() -> None:
    """A new one fails here until a table has it, or somebody says why it is no default."""
    shown = {re.split(r"[*/]", name)[0] for names in ROWS.values() for name in names.split()}
    left_out = {name for names in NO_DEFAULT.values() for name in names.split()}
    assert NUMBERS.keys() - shown - SAME.keys() - IN_TEXT.keys() == left_out
    assert {name: NUMBERS[name] for name in SAME} == {name: NUMBERS[same] for name, same in SAME.items()}
    assert (NUMBERS["RetryPolicy.factor"], 100 / NUMBERS["router.PLACES"]) == (2, 0.01)
    text = "".join((DOCS / page).read_text() for page in PAGES)
    assert [words for words in IN_TEXT.values() if words not in text] == []
