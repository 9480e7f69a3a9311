"""Runs scenarios of simulations by many seeds, in several processes.

    python -m osdisco.testing.simulate FILE:NAME …  [--seeds N] [--first-seed N] [--jobs N] [--json FILE]
    python -m osdisco.testing.simulate FILE:NAME --seed N        one seed again, with its digest

Without `--first-seed` every run takes other seeds, and says which.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import randbits
from typing import IO, Any, Final

from attrs import asdict, define, field

from osdisco.testing.simulation import Outcome, Scenario, outcome_of, run_seed

_COLLECT_EVERY: Final = 10
"""Seeds between two collections of garbage: within a seed there is none."""


@define
class Report:
    """What became of many seeds of a scenario."""

    scenario: str
    first_seed: int
    seeds: int = 0
    seconds: float = 0.0
    steps: int = 0
    seen: Counter[str] = field(factory=Counter)
    failures: list[Outcome] = field(factory=list)
    python: str = field(factory=platform.python_version)

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.seeds += 1
        self.seconds += outcome.seconds
        self.steps += outcome.steps
        self.seen.update(outcome.seen)
        if outcome.error is not None:
            self.failures.append(outcome)

    @property
    def first_failure(self) -> Outcome | None:
        """The failure with the lowest seed."""
        return min(self.failures, key=lambda outcome: outcome.seed, default=None)

    def __str__(self) -> str:
        last = self.first_seed + self.seeds - 1
        said = f"{self.scenario}: seeds {self.first_seed} to {last}, {self.seconds / 3600:.1f} h, {self.steps} steps"
        return f"{said}, {len(self.failures)} failed" if self.failures else said


def first_seed() -> int:
    """Return where the seeds of this run begin: another place each time, or OSDISCO_TEST_FIRST_SEED."""
    given = os.environ.get("OSDISCO_TEST_FIRST_SEED")
    return randbits(31) if given is None else int(given)


def simulate(scenario: Scenario, seeds: range, *, jobs: int | None = None, stop: bool = True) -> Report:
    """Run a scenario by many seeds, in processes of their own.

    Args:
        scenario: what to run; it must be found again at its `address`.
        seeds: which.
        jobs: how many processes; one for each core when None.
        stop: at the first failure.

    Raises:
        RuntimeError: a process ended otherwise than by running its seeds.
    """
    report = Report(scenario.name, seeds.start)
    jobs = max(1, min(jobs or os.cpu_count() or 1, len(seeds)))
    workers = [_worker(scenario.address, seeds[n::jobs]) for n in range(jobs)]
    try:
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda worker: _gather(worker, report, workers, stop), workers))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return report


def _worker(address: str, seeds: range) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "osdisco.testing.simulate", address, "--worker"]
    command += [str(n) for n in (seeds.start, seeds.stop, seeds.step)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True)  # nosec B603 # noqa: S603 - ourselves


def _gather(
    worker: subprocess.Popen[str], report: Report, workers: Sequence[subprocess.Popen[str]], stop: bool
) -> None:
    assert worker.stdout is not None
    with worker.stdout as lines:
        for outcome in _outcomes(lines):
            report.add(outcome)
            if outcome.error is not None and stop:
                for other in workers:
                    other.kill()
    if worker.wait() and not (stop and report.failures):
        raise RuntimeError(f"a process that ran {report.scenario} ended with {worker.returncode}; see its output")


def _outcomes(lines: IO[str]) -> Iterator[Outcome]:
    for line in lines:
        if not line.endswith("\n"):  # it was killed while writing
            return
        yield Outcome(**json.loads(line))


def load(address: str) -> list[Scenario]:
    """Return the scenarios at FILE, FILE:NAME or MODULE:NAME. A file finds beside it what it finds under pytest."""
    place, _, name = address.partition(":")
    module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    if not name:
        return [value for value in vars(module).values() if isinstance(value, Scenario)]
    found = getattr(module, name, None)
    if not callable(found) and not isinstance(found, Scenario):
        raise SystemExit(f"{place} has no scenario {name!r}")
    return [found if isinstance(found, Scenario) else Scenario(found)]


def _load_file(path: Path) -> Any:
    path = path.resolve()
    sys.path[:0] = [str(path.parent), *(str(folder) for folder in path.parents if (folder / "conftest.py").exists())]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise SystemExit(f"no such file: {path}")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _work(scenario: Scenario, seeds: range) -> None:
    gc.freeze()
    for number, seed in enumerate(seeds):
        print(json.dumps(asdict(outcome_of(scenario, seed))), flush=True)  # noqa: T201 - the answer to `simulate`
        if number % _COLLECT_EVERY == 0:
            gc.collect()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command line


def _one(scenario: Scenario, seed: int) -> int:
    outcome = outcome_of(scenario, seed)
    _say(f"{scenario.name}: seed {seed}, {outcome.steps} steps, {outcome.seconds:.1f} s, digest {outcome.digest}")
    _say(json.dumps(outcome.seen))
    if outcome.error is None:
        return 0
    run_seed(scenario, seed)
    raise AssertionError(f"seed {seed} failed and then did not: {outcome.error}")


def _many(scenarios: Sequence[Scenario], seeds: range, jobs: int | None, file: Path | None) -> int:
    reports = []
    for scenario in scenarios:
        reports.append(simulate(scenario, seeds, jobs=jobs, stop=False))
        _say(str(reports[-1]))
        for failure in reports[-1].failures[:10]:
            _say(f"{failure.error}\nrun it again: {scenario.replay(failure.seed)}")
        if file is not None:
            file.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n")
    return int(any(report.failures for report in reports))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m osdisco.testing.simulate", description="Run scenarios by seeds.")
    parser.add_argument("scenarios", nargs="+", metavar="FILE[:NAME]", help="or MODULE:NAME")
    parser.add_argument("--seed", type=int, help="run this one, here, and show its digest")
    parser.add_argument("--seeds", type=int, default=200, help="how many of each scenario (200)")
    parser.add_argument("--first-seed", type=int, help="where they begin; elsewhere each time if not given")
    parser.add_argument("--jobs", type=int, help="how many processes; one for each core if not given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen there")
    parser.add_argument("--worker", type=int, nargs=3, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 when all seeds were well."""
    given = _parser().parse_args(arguments)
    scenarios = [scenario for address in given.scenarios for scenario in load(address)]
    if given.worker is not None:
        _work(scenarios[0], range(*given.worker))
        return 0
    if given.seed is not None:
        return max(_one(scenario, given.seed) for scenario in scenarios)
    first = first_seed() if given.first_seed is None else given.first_seed
    return _many(scenarios, range(first, first + given.seeds), given.jobs, given.json)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # whoever read it has gone
        os._exit(1)
