"""Coverage-guided fuzzing of what reads other people's bytes, by atheris (libFuzzer): `make fuzz`.

    python tests/security/fuzz.py [TARGET …] [--seconds 60] [--seed N] [--found FOLDER]

Each target starts from the corpus and the findings of before. What it finds is kept in the folder (build/fuzz); put it
into `findings/TARGET/`, where test_corpus.py runs it for ever, with a name that says what it is, and mend the code.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = (
    "codec",
    "url",
    "record",
    "event",
    "rules",
    "mesh_report",
    "envoy_request",
    "etcd_frames",
    "consul_json",
    "cluster_state",
    "cluster_pack",
)
LENGTH = 4096
"""Bytes of an input at most. What is longer is refused before it is looked at, or in the corpus."""


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    sys.path[:0] = [str(HERE), str(HERE.parent)]
    with atheris.instrument_imports(include=["osdisco", "osdisco_etcd", "osdisco_consul", "json", "base64"]):
        import answers
        import targets
    import logging

    logging.disable()
    target = getattr(targets, name, None) or getattr(answers, name)

    def one(data: bytes) -> None:
        target(data)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def run(name: str, seconds: int, seed: int, found: Path) -> bool:
    """Fuzz one target in a process of its own; returns whether nothing was found."""
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for data in seeds(name):
            Path(folder, sha256(data).hexdigest()).write_bytes(data)
        command = [sys.executable, __file__, "--one", name, folder, f"-max_total_time={seconds}", f"-max_len={LENGTH}"]
        command += [f"-seed={seed}", "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={found / name}-"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": "0"})
    executed = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
    if done.returncode == 0 and executed:
        print(f"{name}: {int(executed[1]):,} inputs in {executed[2]} s, nothing found (seed {seed})", flush=True)
        return True
    print(done.stderr[-6000:], f"{name}: see the input in {found} (seed {seed})", sep="\n", flush=True)
    return False


def seeds(name: str) -> list[bytes]:
    """Return the inputs that a target starts from."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    from corpus import seeds_of

    return list(seeds_of(name))


def main() -> int:
    """Return the exit code: 0 when nothing is found."""
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all of them when none")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)) or 1)
    parser.add_argument("--found", type=Path, default=Path("build/fuzz"))
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no target: {', '.join(unknown)}")
    well = [run(name, arguments.seconds, arguments.seed, arguments.found) for name in arguments.targets or TARGETS]
    return int(not all(well))


if __name__ == "__main__":
    sys.exit(main())
