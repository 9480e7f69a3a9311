"""The numbers in the tables on the mesh are those of the code."""

from __future__ import annotations

import re
from inspect import signature

import pytest
from examples import DOCS

from osdisco.discovery import Drain
from osdisco.mesh import (
    CanaryPlan,
    HttpTransport,
    RetryBudget,
    _services,
    _wire,
    canary,
    canary_figures,
    deadline,
    handlers,
    hedging,
    http,
    mirroring,
    retry,
    router,
    rules,
    server,
    tls,
    traffic_rules,
    transport,
)

HEDGING, RETRIES, BUDGET, CANARY = hedging.Hedging(), retry.RetryPolicy(), RetryBudget(), CanaryPlan("v1", "v2")
assert CANARY.p99 is not None
DEFAULTS = {
    "`timeout=` of a mesh": [deadline.DEFAULT_TIMEOUT],
    "`HttpTransport(connect_timeout": [signature(HttpTransport).parameters["connect_timeout"].default],
    "`Hedging(extra": [HEDGING.extra, HEDGING.least * 1000],
    "calls that hedging learns from": [hedging.SAMPLES, hedging.LEAST],
    "`request_max`, `response_max`": [transport.REQUEST_MAX / 2**20],
    "metadata of a call": [_wire.METADATA_MAX],
    "message of an error": [_wire.MESSAGE_MAX],
    "`serve(at_once": [handlers.AT_ONCE],
    "the body of a request must have come whole": [server.SLOW_MAX],
    "a connection that says nothing": [server.KEPT],
    "files of TLS": [tls.LOOK],
    "idle connections": [http.IDLE_MAX, server.KEPT],
    "services without an endpoint": [_services.KEPT_MAX],
    "`drain=` of what is served": [Drain().propagation, Drain().grace],
    "`attempts`": [RETRIES.attempts],
    "`pause`, `factor`": [0, RETRIES.pause * 1000, RETRIES.pause_max],
    "`budget.share`": [BUDGET.share],
    "`budget.per_second`": [BUDGET.per_second, BUDGET.window],
    "`budget.failures`": [BUDGET.failures],
    "weights": [100 / router.PLACES, 100],
    "places that keys": [router.PLACES],
    "splits that lead": [router.DEPTH_MAX],
    "`MirrorRule(percent": [rules.MirrorRule(subset="v1").percent],
    "copies under way": [mirroring.AT_ONCE, mirroring.QUEUE_MAX, mirroring.TIMEOUT],
    "versions that are kept": [traffic_rules.HISTORY_MAX],
    "figures of callers": [canary_figures.PERIOD],
    "asking for figures": [canary.ASKING_MAX],
    "document": [
        *(rules.SPLITS_MAX, rules.MATCHES_MAX, rules.CONDITIONS_MAX, rules.SUBSETS_MAX, rules.FAILOVER_MAX),
        rules.SECONDS_MAX,
    ],
    "`interval`": [CANARY.interval],
    "`step`": [CANARY.step],
    "`max_weight`": [CANARY.max_weight],
    "`success_rate`": [CANARY.success_rate],
    "`p99`": [CANARY.p99 * 1000],
    "`threshold`": [CANARY.threshold],
    "`min_calls`": [CANARY.min_calls],
}
"""Which numbers the rows of the tables say."""


@pytest.mark.parametrize("row", DEFAULTS)
def test_a_default_on_the_page_is_that_of_the_code(row: str) -> None:
    text = "".join((DOCS / page).read_text() for page in ("mesh.md", "mesh/routing.md"))
    (cell,) = [line.split("|")[2] for line in text.splitlines() if line.startswith(f"| {row}") and line.count("|") == 4]
    assert [float(number) for number in re.findall(r"\d+(?:\.\d+)?", cell)] == pytest.approx(DEFAULTS[row])
