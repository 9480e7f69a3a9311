"""What the mesh decides for each attempt: what a pick of few and of many endpoints costs, and a change."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from attrs import evolve

from benchmarks.figures import Figure
from benchmarks.harness import microseconds
from osdisco.discovery import ExtensionStatus
from osdisco.mesh import (
    EndpointState,
    LeastRequestLoadBalancer,
    LoadBalancer,
    Outcome,
    PeakEwmaLoadBalancer,
    Pool,
    RandomLoadBalancer,
    Refused,
    RendezvousLoadBalancer,
    RoundRobinLoadBalancer,
    WeightedRoundRobinLoadBalancer,
)
from osdisco.mesh._state import Candidates
from osdisco.registry import ServiceEndpoint
from osdisco.runtime import Runtime

GROUP = "The mesh: picking an endpoint"
SIZES = (10, 10_000)
PICK_MOST_US = 1.0
CHANGING, CHANGES = 1_000, 100
CHANGE_MOST_MS = 5.0


def measure(rounds: int, calls: int) -> Iterator[Figure]:
    """Yield the figures; the best of `rounds` of so many picks, and the longest of all changes."""
    for size in SIZES:
        yield _picked(size, rounds, calls)
    yield _attempted(rounds, calls)
    yield _policies(rounds, calls // 100)
    yield _changed(rounds)


def _endpoint(number: int, weight: int = 50) -> ServiceEndpoint:
    address = f"10.{number // 62_500}.{number // 250 % 250}.{number % 250 + 1}:9700"
    return ServiceEndpoint(address, address, weight=weight, status=ExtensionStatus.HEALTHY)


def _pool(size: int, *, uneven: bool = False) -> Pool:
    pool = Pool("geo", Runtime())
    pool.update([_endpoint(number, 50 + number % 2 * 50 if uneven else 50) for number in range(size)])
    return pool


def _picked(size: int, rounds: int, calls: int) -> Figure:
    """Of the whole pool: with its clock, what is due, who may be picked, and the policy."""
    even, uneven = _pool(size), _pool(size, uneven=True)
    states = Candidates(even.states.values())
    policy = LeastRequestLoadBalancer(Runtime())
    detail = {
        "the policy alone, us": microseconds(lambda: policy.pick(states), rounds, calls),
        "of different weights, us": microseconds(uneven.pick, rounds, calls),
    }
    value = microseconds(even.pick, rounds, calls)
    return Figure(GROUP, f"a pick of {size:,}, by default", value, "us", most=PICK_MOST_US, detail=detail)


def _attempted(rounds: int, calls: int) -> Figure:
    """All that an attempt costs here: it is picked, begins, and ends well."""
    pool = _pool(1_000)

    def attempt() -> None:
        state = pool.pick()
        assert not isinstance(state, Refused)
        pool.begin(state)
        pool.end(state, Outcome.OK, 0.001)

    return Figure(GROUP, "an attempt at one of 1,000: pick, begin, end", microseconds(attempt, rounds, calls), "us")


def _policies(rounds: int, calls: int) -> Figure:
    states = Candidates(EndpointState(_endpoint(number)) for number in range(300))
    runtime = Runtime()
    policies: dict[str, LoadBalancer] = {
        "round robin": RoundRobinLoadBalancer(runtime),
        "random": RandomLoadBalancer(runtime),
        "peak EWMA": PeakEwmaLoadBalancer(runtime),
        "smooth weighted": WeightedRoundRobinLoadBalancer(runtime),
    }
    detail = {f"{name}, us": _of(policy, states, rounds, calls) for name, policy in policies.items()}
    value = _of(RendezvousLoadBalancer(runtime=runtime), states, rounds, calls)
    return Figure(GROUP, "a pick of 300 by key, rendezvous", value, "us", detail=detail)


def _of(policy: LoadBalancer, states: Candidates, rounds: int, calls: int) -> float:
    return microseconds(lambda: policy.pick(states, "user-7"), rounds, calls)


def _changed(rounds: int) -> Figure:
    """One of 1,000 changes, again and again, and somebody picks after each: how long the loop is held each time.

    Each change is made in every round, and the best counts, for other processes only add to it.
    """
    pool, endpoints = _pool(CHANGING), [_endpoint(number) for number in range(CHANGING)]
    took = [[_change(pool, endpoints, number) for number in range(CHANGES)] for _ in range(rounds)]
    best = [min(times) * 1e3 for times in zip(*took, strict=True)]
    detail = {"median, ms": statistics.median(best), "share of a core at 100 a second": statistics.fmean(best) / 10}
    name = f"one of {CHANGING:,} endpoints changes, and a pick after it: the longest of {CHANGES}"
    return Figure(GROUP, name, max(best), "ms", most=CHANGE_MOST_MS, detail=detail)


def _change(pool: Pool, endpoints: list[ServiceEndpoint], number: int) -> float:
    at = number * 7 % CHANGING
    endpoints[at] = evolve(endpoints[at], weight=150 - endpoints[at].weight)
    shown = tuple(endpoints)
    start = time.perf_counter()
    pool.update(shown)
    pool.pick()
    return time.perf_counter() - start
