"""`python -m benchmarks [--etcd URL] [--gateway URL] [--consul URL] [--rounds N] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from benchmarks import kv, startup
from benchmarks.harness import Result, compare, document, table


async def _stores(arguments: argparse.Namespace) -> list[Result]:
    results = []
    for name in ("etcd", "gateway", "consul"):
        if url := getattr(arguments, name):
            async with getattr(kv, name)(url) as cases:
                results += [await compare(case, arguments.rounds) for case in cases]
    return results


def main() -> None:
    """Run what was asked for; without stores only the start-up figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    for store in ("etcd", "gateway", "consul"):
        parser.add_argument(f"--{store}", metavar="URL", help="a server that may be written to, on this machine")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    results = [startup.imports(arguments.rounds), startup.help_text(arguments.rounds)]
    results += asyncio.run(_stores(arguments))
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(document(results), indent=2) + "\n")


main()
