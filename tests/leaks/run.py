"""Ten thousand cycles a transport, and ten minutes of churn, that leave nothing behind: `make leaks`.

    python tests/leaks/run.py [--cycles 10000] [--seconds 600] [--seed N] [--json FILE]

Prints what it sees, keeps the figures in the file, and ends with 1 when anything is left or memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does for those that share the folder's parts

from cycles import AT_ONCE, TRANSPORTS, TTL, Before, Counts, Cycles, Place, enough
from footprint import SAMPLES_LEAST, WARM_UP, Sample, growth, verdict
from soak import soak

from osdisco.testing import Servers

EXPIRY = 2 * TTL + 5.0
"""Seconds after which every store has ended the leases that nobody renews."""
SAMPLES = 60


async def transport_of(transport: str, servers: Servers, cycles: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Run cycles on one transport; return figures, and what is wrong."""
    run = Cycles(Place.of(transport, servers, f"leaks-{seed}"), seed)
    await run.run(max(round(WARM_UP * cycles), 2 * AT_ONCE))
    run.counts = Counts()
    before, begun, samples = await Before.now(run.place), time.monotonic(), list[Sample]()
    for part in range(SAMPLES):
        await run.run(cycles // SAMPLES + (part < cycles % SAMPLES))
        await before.left()
        run.place.forget()
        samples.append(Sample.taken(begun))
    seconds = time.monotonic() - begun
    at_once = await before.left()
    later = await before.left(EXPIRY) if at_once else at_once
    wrong = [f"{transport}: left after {EXPIRY:.0f} s: {later}"] if later else []
    wrong += [f"{transport}: {one}" for one in verdict(samples, seconds)]
    wrong += [] if enough(run.counts) else [f"{transport}: only {run.counts.cut} were cut"]
    figures = {
        "cycles": cycles,
        "cancelled": run.counts.cut,
        "failed": run.counts.failed,
        "seconds": round(seconds),
        "left_when_closed": dict(+at_once.counts),
        "left_after_expiry": dict(+later.counts),
        "grown_bytes": round(growth(samples, seconds)),
        "first": held(samples[0]),
        "last": held(samples[-1]),
    }
    print(f"{transport}: {figures}", flush=True)
    return figures, wrong


def held(sample: Sample) -> str:
    """Return what the process held, in words."""
    return str(sample).partition(": ")[2].strip()


async def churn(seconds: float) -> tuple[dict[str, Any], list[str]]:
    """Run `make soak`."""
    samples = await soak(seconds, leak=False)
    wrong = [f"churn: {one}" for one in verdict(samples, seconds)]
    if len(samples) < SAMPLES_LEAST:
        return {}, wrong
    figures = {
        "seconds": round(seconds),
        "grown_bytes": round(growth(samples, seconds)),
        "first": held(samples[0]),
        "last": held(samples[-1]),
    }
    return figures, wrong


async def whole(cycles: int, seconds: float, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Run all of it."""
    machine = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores"
    found: dict[str, Any] = {"seed": seed, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine}
    found["transports"], wrong = {}, list[str]()
    with Servers() as servers:
        for transport in TRANSPORTS if cycles else ():
            figures, said = await transport_of(transport, servers, cycles, seed)
            found["transports"][transport] = figures
            wrong += said
    if seconds:
        found["churn"], said = await churn(seconds)
        wrong += said
    return found | {"wrong": wrong}, wrong


def main() -> int:
    """Return the exit code: 0 when nothing is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600, help="of churn; 0 for none")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    found, wrong = asyncio.run(whole(arguments.cycles, arguments.seconds, arguments.seed))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(*wrong or ["nothing is left"], sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
