"""The settings in compose/ start, are well, take recipes, keep their data, and are gone; on free ports of loopback."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from settings import COMPOSE, FILES, Started, ports_of, services, started, tool_for, tools

import osdisco
from osdisco.coordination import CoordinationService
from osdisco.testing.containers import CONSUL_IMAGE, ETCD_IMAGE

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
KEYS = {"image", "command", "environment", "hostname", "ports", "volumes", "healthcheck", "restart"}
"""That both tools know."""

pytestmark = pytest.mark.timeout(240)


@each_file
@pytest.mark.usefixtures("osdisco_servers")  # it needs real ones, though not these
async def test_it_starts_is_well_and_keeps_its_data(file: Path) -> None:
    with started(file) as setting:
        assert setting.published() == {"127.0.0.1"}
        assert _doctor(setting) == []
        token = await _lock(setting)
        await _fail_one(setting)
        setting.run("down", "--timeout=0")
        setting.up()
        async with osdisco.connect(setting.url) as client:
            item = await client.get("kept")
        assert item is not None
        assert item.value == b"%d" % token
    assert setting.left() == []


def _doctor(setting: Started) -> list[dict[str, object]]:
    """Return all that `osdisco doctor` does not like; it looked at every node."""
    command = [sys.executable, "-m", "osdisco.cli", "--url", setting.url, "--json", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["check"] for one in found].count("endpoint") == len(ports_of(setting.file)), done.stderr
    assert {"write", "watch", "session"} <= {one["check"] for one in found}
    # a slow disk is the machine's matter, an old version that of who names the image
    return [one for one in found if one["level"] not in ("ok", "warn")] + [done.returncode] * (done.returncode != 0)


async def _lock(setting: Started) -> int:
    """Hold a lock, and leave its token behind."""
    async with (
        osdisco.connect(f"{setting.url}?timeout=10s") as client,
        CoordinationService(client).lock("smoke", timeout=30) as guard,
    ):
        await guard.commit([osdisco.Put("kept", b"%d" % guard.token)])
        return guard.token


async def _fail_one(setting: Started) -> None:
    """Of three any one may be away, also the one that leads."""
    first, *others = services(setting.file)
    if not others:
        return
    setting.run("kill", first)
    async with asyncio.timeout(60), osdisco.connect(setting.url) as client:
        while True:
            with suppress(osdisco.IndeterminateError, osdisco.UnavailableError):  # as another one comes to lead
                await client.put("without", first.encode())
                return


@pytest.mark.usefixtures("osdisco_servers")  # as where these are, the tools must be
def test_they_are_valid_for_each_tool_of_this_machine() -> None:
    assert tool_for("etcd") in tools()
    assert FILES
    for tool, file in product(tools(), FILES):
        subprocess.run([*tool, "-f", str(file), "config", "-q"], check=True, timeout=60)


def test_they_are_valid_for_the_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, FILES)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@each_file
def test_it_says_what_both_tools_know_and_is_safe_as_it_stands(file: Path) -> None:
    text = file.read_text()
    assert "\nversion:" not in text  # v2 calls it obsolete
    assert "\nname:" not in text  # docker-compose 1.29 does not know it
    for name, service in services(file).items():
        assert set(service) <= KEYS, name
        assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries", "start_period"}
        assert service["restart"] == "unless-stopped"
        assert all(port.startswith("127.0.0.1:${OSDISCO_") for port in service["ports"])
        assert service["image"] in (_image("ETCD", ETCD_IMAGE), _image("CONSUL", CONSUL_IMAGE))


def _image(store: str, image: str) -> str:
    return f"${{OSDISCO_{store}_IMAGE:-{image}}}"


def test_the_readme_names_every_file_and_every_variable() -> None:
    told = (COMPOSE / "README.md").read_text()
    variables = {part.partition(":-")[0] for file in FILES for part in file.read_text().split("${")[1:]}
    assert [name for name in (*(file.name for file in FILES), *variables) if f"`{name}`" not in told] == []
