"""A third party's backend is installed like any package, found by its scheme, and treated like our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "example_backend"

USE = """if True:
    import asyncio, json, osdisco

    async def main():
        async with osdisco.connect("example://here/ns?colour=red&ttl=20s") as client:
            await client.put("key", b"value")
            said = {"value": (await client.get("key")).value.decode()}
        for url in "exampel://here", "example://here?color=red":
            try:
                osdisco.connect(url)
            except osdisco.ConfigError as exc:
                said[url] = str(exc)
        return said

    print(json.dumps(asyncio.run(main())))
    """


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package, as pip does it for anybody, into a folder; returns that."""
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "example")
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return target


def python(installed: Path, *arguments: str, cwd: Path) -> str:
    """Run Python where the package is installed."""
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": path}, cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_found_by_its_scheme_and_has_options_of_its_own(installed: Path, tmp_path: Path) -> None:
    said = json.loads(python(installed, "-c", USE, cwd=tmp_path))
    assert said["value"] == "value"
    assert (
        "known are consul, consul+https, etcd, etcd+http, etcd+https, etcds, example, memory" in said["exampel://here"]
    )
    assert "did you mean 'example'?" in said["exampel://here"]
    assert "did you mean 'colour'?" in said["example://here?color=red"]


def test_it_passes_the_conformance_suite(installed: Path, tmp_path: Path) -> None:
    shutil.copy(PACKAGE / "test_example.py", tmp_path)
    said = python(installed, "-m", "pytest", "-q", "-p", "no:hypothesispytest", cwd=tmp_path)
    assert " passed in " in said
    assert "skipped" not in said
