"""The settings in compose/, and what a test does with one: starts it beside all others, and removes all of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from attrs import frozen

from osdisco.testing._api import free_port
from osdisco.testing.servers import docker_problem, missing

COMPOSE = Path(__file__).parents[2] / "compose"
FILES = sorted(COMPOSE.glob("*.yaml"))
HEALTHY_SECONDS = 90.0


@cache
def tools() -> tuple[tuple[str, ...], ...]:
    """Return the commands of this machine that read such files."""
    known = (("docker", "compose"), ("docker-compose",))
    return tuple(tool for tool in known if shutil.which(tool[0]) and _said(*tool, "version"))


def tool_for(store: str) -> tuple[str, ...]:
    """Return a command that starts containers. Without one the test is skipped, or fails with CI=true."""
    if problem := docker_problem(store.upper()):
        missing(store, problem)
    if not tools():
        missing(store, "there is neither docker compose nor docker-compose")
    return tools()[0]


def _said(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0


@frozen
class Started:
    """A setting that runs, under a name of its own and on free ports."""

    file: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        """The URL of all its nodes."""
        store = self.file.stem.partition("-")[0]
        ports = [value for name, value in self.environment.items() if name.endswith("_PORT")]
        return f"{store}://{','.join(f'127.0.0.1:{port}' for port in ports)}/smoke"

    def run(self, *arguments: str) -> str:
        """Run the tool on it, and return what it says."""
        done = subprocess.run(
            [*self.command, *arguments], env=os.environ | self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def up(self) -> None:
        """Start it, and wait for its health."""
        self.run("up", "-d")
        end = time.monotonic() + HEALTHY_SECONDS
        while (health := self.health()) != dict.fromkeys(health, "healthy"):
            if "unhealthy" in health.values() or time.monotonic() > end:
                raise AssertionError(f"{health}\n{self.run('logs', '--tail=20')}")
            time.sleep(0.3)

    def health(self) -> dict[str, str]:
        """Return what Docker thinks of each container."""
        states = [(one["Name"], one["State"]) for one in self._containers()]
        return {name: state.get("Health", {}).get("Status", state["Status"]) for name, state in states}

    def published(self) -> set[str]:
        """Return the addresses of this machine at which it is reached."""
        bindings = [ports for one in self._containers() for ports in one["HostConfig"]["PortBindings"].values()]
        return {binding["HostIp"] for ports in bindings for binding in ports}

    def left(self) -> list[str]:
        """Return the containers, volumes and networks of it that there are."""
        kinds = (("ps", "-aq"), ("volume", "ls", "-q"), ("network", "ls", "-q"))
        return [line for kind in kinds for line in _output("docker", *kind, "--filter", self._label).split()]

    @property
    def _label(self) -> str:
        return f"label=com.docker.compose.project={self.environment['COMPOSE_PROJECT_NAME']}"

    def _containers(self) -> list[dict[str, Any]]:
        ids = _output("docker", "ps", "-aq", "--filter", self._label).split()
        containers: list[dict[str, Any]] = json.loads(_output("docker", "inspect", *ids))
        return containers


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@contextmanager
def started(file: Path) -> Iterator[Started]:
    """Start a setting; in the end nothing of it is left."""
    store = file.stem.partition("-")[0]
    environment = {name: str(free_port()) for name in ports_of(file)}
    environment["OSDISCO_HEALTH_INTERVAL"] = "1s"
    environment["COMPOSE_PROJECT_NAME"] = f"osdisco-smoke-{file.stem}-{os.getpid()}"
    if image := os.environ.get(f"OSDISCO_TEST_{store.upper()}_IMAGE"):
        environment[f"OSDISCO_{store.upper()}_IMAGE"] = image
    setting = Started(file, (*tool_for(store), "-f", str(file)), environment)
    try:
        setting.up()
        yield setting
    finally:
        setting.run("down", "--volumes", "--timeout=0")


def ports_of(file: Path) -> list[str]:
    """Return the variables of the published ports, in order."""
    ports = [port for service in services(file).values() for port in service["ports"]]
    return [port.split("${")[1].partition(":-")[0] for port in ports]


def services(file: Path) -> dict[str, dict[str, Any]]:
    """Return the services of a setting as they stand there, with their variables."""
    read: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["services"]
    return read
