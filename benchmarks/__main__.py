"""`python -m benchmarks [--start | --etcd URL --gateway URL --consul URL] [--only PART] [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks import churn, discovery, kv, registry, startup
from benchmarks.coordination import QUICK, Effort, figures
from benchmarks.figures import Figure, shown
from benchmarks.harness import Result, compare, document, load, table
from benchmarks.stores import address_of, servers, version_of

PARTS = ("startup", "kv", "coordination", "discovery", "churn", "registry")


async def _kv(urls: Mapping[str, str], rounds: int) -> list[Result]:
    results = []
    for name, url in urls.items():
        async with getattr(kv, name)(url) as cases:
            results += [await compare(case, rounds) for case in cases]
    return results


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
    """Run what was asked for; without stores only the start-up figures."""
    arguments = _arguments()
    results: list[Result] = []
    found: list[Figure] = []
    facts = {"load at the start": load()}
    try:
        _measure(arguments, facts, results, found)
    finally:  # what is known after an hour is worth keeping
        facts["load at the end"] = load()
        if arguments.json:
            arguments.json.write_text(json.dumps(document(results, found, facts), indent=2) + "\n")


def _measure(arguments: argparse.Namespace, facts: dict[str, str], results: list[Result], found: list[Figure]) -> None:
    parts = arguments.only or PARTS
    with ExitStack() as stack:
        given = {name: url for name in ("etcd", "gateway", "consul") if (url := getattr(arguments, name))}
        urls = stack.enter_context(servers()) if arguments.start else given
        facts |= {f"{name} server": version_of(name, address_of(name, url)) for name, url in urls.items()}
        if "startup" in parts:
            results += [startup.imports(arguments.rounds), startup.help_text(arguments.rounds)]
        if "kv" in parts:
            results += asyncio.run(_kv(urls, arguments.rounds))
        if results:
            print(table(results))
        if "coordination" in parts and urls:
            _note(figures(urls, QUICK if arguments.quick else Effort()), found)
        if "discovery" in parts:
            for kind, url in urls.items():
                _note(asyncio.run(discovery.measure(kind, url, 3 if arguments.quick else 9)), found)
        if "churn" in parts and urls:
            _note(churn.figures(urls, churn.QUICK if arguments.quick else churn.Churn()), found)
        if "registry" in parts:
            _note(asyncio.run(registry.measure(3 if arguments.quick else 9, 20_000)), found)


main()
