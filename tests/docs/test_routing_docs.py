"""The page on traffic rules: its examples show what they say, on every store, and nothing public lacks one."""

from __future__ import annotations

from apis import Name, without_example
from attrs import fields
from examples import DOCS, Area
from pages import Pages

import osdisco.mesh
from osdisco.mesh import CanaryPlan, ServiceRules

ROUTING = Area("mesh/routing", lambda client, other: {})
SHOWN = {f"osdisco.mesh.{name}" for name in ("_canary", "_matching", "_rules_record", "canary", "canary_figures")}
SHOWN |= {f"osdisco.mesh.{name}" for name in ("mirroring", "prometheus_figures", "rate_limits", "route", "router")}
SHOWN |= {f"osdisco.mesh.{name}" for name in ("rules", "rules_view", "traffic_rules")}


class TestRouting(Pages):
    area = ROUTING
    frame_prints = "None\n"


INTERNAL: set[Name] = {("CanaryState", "moved"), ("RulesVersion", "is_step"), ("Subset", "of")}
INTERNAL |= {("ServiceRules", name) for name in ("check_failover", "elsewhere", "onward", "services")}
INTERNAL |= {("PrometheusFigures", "sample")}
"""For what is built on them; users have other calls."""


def test_every_public_name_has_an_example() -> None:
    """A new public method, property or field fails here until the page shows it."""
    names = [getattr(osdisco.mesh, name) for name in osdisco.mesh.__all__]
    classes = [one for one in names if isinstance(one, type) and one.__module__ in SHOWN]
    assert ServiceRules in classes
    assert without_example(ROUTING, classes) - INTERNAL == set()


def test_the_tables_name_every_field_and_the_defaults_of_a_canary() -> None:
    rows = [line.split("|")[1:3] for line in (DOCS / "mesh/routing.md").read_text().splitlines() if line[:3] == "| `"]
    told = {name.strip(" `"): default.strip() for name, default in rows}
    assert {field.name for field in fields(ServiceRules)} <= told.keys()
    plan = CanaryPlan("v1", "v2")
    shown = {"interval": "60 s", "step": "5 %", "max_weight": "50 %", "success_rate": "99 %", "p99": "500 ms"}
    assert (plan.interval, plan.step, plan.max_weight, plan.success_rate, plan.p99) == (60, 5, 50, 99, 0.5)
    assert (plan.threshold, plan.min_calls, plan.hold) == (5, 1, False)
    assert {name: told[name] for name in shown} == shown
    assert (told["threshold"], told["min_calls"], told["hold"]) == ("5", "1", "no")
