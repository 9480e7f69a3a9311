"""`python -m benchmarks [--start | --etcd URL --gateway URL --consul URL] [--only PART] [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks import (
    churn,
    cluster_decode,
    cluster_mirror,
    discovery,
    endpoint,
    kv,
    memory,
    mesh_call,
    mesh_pick,
    mesh_storm,
    quiet,
    registry,
    startup,
    views,
)
from benchmarks.coordination import QUICK, Effort, figures
from benchmarks.figures import Figure, shown
from benchmarks.harness import document, load
from benchmarks.stores import address_of, servers, version_of

PARTS = (
    "startup",
    "kv",
    "memory",
    "views",
    "quiet",
    "coordination",
    "discovery",
    "churn",
    "registry",
    "mesh",
    "failover",
    "cluster",
)


def _note(figures: Iterable[Figure], found: list[Figure]) -> None:
    for figure in figures:
        print(shown(figure), flush=True)
        found.append(figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", action="store_true", help="start an etcd and a Consul for it")
    for store in ("etcd", "gateway", "consul"):
        parser.add_argument(f"--{store}", metavar="URL", help="a server that may be written to, on this machine")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="see that it runs; the figures are worth little")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def main() -> None:
    """Run what was asked for; without stores only what needs none."""
    arguments = _arguments()
    found: list[Figure] = []
    facts = {"load at the start": load()}
    try:
        _measure(arguments, facts, found)
    finally:  # what is known after an hour is worth keeping
        facts["load at the end"] = load()
        if arguments.json:
            arguments.json.write_text(json.dumps(document(found, facts), indent=2) + "\n")


def _measure(arguments: argparse.Namespace, facts: dict[str, str], found: list[Figure]) -> None:
    parts = arguments.only or PARTS
    with ExitStack() as stack:
        given = {name: url for name in ("etcd", "gateway", "consul") if (url := getattr(arguments, name))}
        urls = stack.enter_context(servers()) if arguments.start else given
        facts |= {f"{name} server": version_of(name, address_of(name, url)) for name, url in urls.items()}
        for part in PARTS:  # in this order, so that later ones find the servers as full as in every run
            if part in parts:
                _note(_PARTS[part](urls, arguments.quick, arguments.rounds), found)


def _startup(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    return startup.measure(rounds)


def _kv(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    for kind, url in urls.items():
        yield from asyncio.run(kv.measure(kind, f"{url}/kv", rounds, 0.1 if quick else 1.0))


def _memory(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    return asyncio.run(memory.measure(rounds, 2_000 if quick else 50_000))


def _views(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    for kind, url in urls.items():
        yield asyncio.run(views.measure(kind, f"{url}/views", rounds, 1_000 if quick else views.KEYS))


def _quiet(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    for kind, url in urls.items():
        yield from asyncio.run(quiet.measure(kind, f"{url}/quiet", 1 if quick else 4))


def _coordination(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    return figures(urls, QUICK if quick else Effort()) if urls else ()


def _discovery(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    for kind, url in urls.items():
        yield from asyncio.run(discovery.measure(kind, url, 3 if quick else 9))


def _churn(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    return churn.figures(urls, churn.QUICK if quick else churn.Churn()) if urls else ()


def _registry(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    return asyncio.run(registry.measure(3 if quick else 9, 20_000))


def _mesh(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    yield from mesh_pick.measure(3 if quick else 9, 2_000 if quick else 20_000)
    yield from asyncio.run(mesh_call.measure(2 if quick else 9, 1_000 if quick else 10_000))
    yield from mesh_storm.figures(mesh_storm.QUICK if quick else mesh_storm.Storm())


def _failover(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    return endpoint.figures(2 if quick else 6) if urls else ()


def _cluster(urls: Mapping[str, str], quick: bool, rounds: int) -> Iterable[Figure]:
    yield from cluster_decode.measure(rounds, 100 if quick else cluster_decode.INDICES)
    yield from cluster_mirror.figures(urls, cluster_mirror.QUICK if quick else cluster_mirror.Effort())


_PARTS = {
    "startup": _startup,
    "kv": _kv,
    "memory": _memory,
    "views": _views,
    "quiet": _quiet,
    "coordination": _coordination,
    "discovery": _discovery,
    "churn": _churn,
    "registry": _registry,
    "mesh": _mesh,
    "failover": _failover,
    "cluster": _cluster,
}

main()
