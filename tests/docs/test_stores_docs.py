"""The pages on stores: their examples run on the stores that they are about, and they tell every option as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from examples import DOCS, Area, Example
from worlds import connect

from osdisco.url import ClientOptions, Duration, TlsOptions
from osdisco_consul._options import ConsulOptions
from osdisco_etcd._options import EtcdOptions

STORES = Area("stores", lambda client, other: {"url": client.url})
OWN = {"memory": "memory", "etcd": "etcd", "etcd-gateway": "etcd+http", "consul": "consul"}
ALL = list(OWN.values())
URLS = (DOCS / "stores/urls.md").read_text()
ROOT = DOCS.parent

HERE = [
    pytest.param(example, store, marks=pytest.mark.osdisco(store), id=f"{example}-{store}")
    for example in STORES.examples
    for store in ([OWN[example.page.stem]] if example.page.stem in OWN else ALL)
]


@pytest.mark.parametrize(("example", "osdisco_url"), HERE, indirect=["osdisco_url"])
async def test_an_example_shows_what_it_says(example: Example, osdisco_url: str) -> None:
    async with connect(osdisco_url) as client, connect(osdisco_url) as other:
        await STORES.run(example, client, other)


def test_the_frame_runs_as_printed() -> None:
    done = subprocess.run([sys.executable, "-c", STORES.frame.text], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_example_shows_something() -> None:
    assert [str(example) for example in STORES.examples if not example.claims] == []


def test_every_store_has_a_page_with_an_example_and_all_that_one_asks_of_it() -> None:
    shown = {example.page.stem for example in STORES.examples}
    assert {page.stem for page in (DOCS / "stores").glob("*.md")} == {*OWN, "urls"} <= shown
    for name in OWN:
        headings = re.findall(r"^## (.*)$", (DOCS / f"stores/{name}.md").read_text(), re.MULTILINE)
        assert {"How long things take", "What it cannot do"} <= set(headings)


OPTIONS: dict[str, tuple[type[Any], type[Any] | None]] = {
    "Options of all stores": (ClientOptions, None),
    "Options of etcd and Consul": (TlsOptions, ClientOptions),
    "Options of etcd": (EtcdOptions, TlsOptions),
    "Options of Consul": (ConsulOptions, TlsOptions),
}


@pytest.mark.parametrize("heading", OPTIONS)
def test_every_option_is_on_the_page_with_its_default(heading: str) -> None:
    options, base = OPTIONS[heading]
    known = {field.name: _as_written(field.type, field.default) for field in fields(options)}
    inherited = {field.name for field in fields(base)} if base else set()
    told = {name: default.strip().strip("`") for name, default in _rows(heading)}
    assert told == {name: default for name, default in known.items() if name not in inherited}


def test_the_options_that_a_scheme_knows_are_those_of_the_page() -> None:
    """A class of options that is not in the tables above would pass them by."""
    classes = {*ClientOptions.__subclasses__(), *TlsOptions.__subclasses__(), ClientOptions}
    ours = {one for one in classes if one.__module__.startswith("osdisco")}
    assert ours == {options for options, _ in OPTIONS.values()}


def test_every_scheme_is_on_the_page_with_its_extra() -> None:
    known = {point.name for point in entry_points(group="osdisco.backends") if point.value.startswith("osdisco_")}
    rows = re.findall(r"^\| `([a-z+]+)` \| .* \| `(osdisco.*?)` \|$", URLS, re.MULTILINE)
    assert {scheme for scheme, _ in rows} == known
    for scheme, install in rows:
        connected = f"import osdisco; osdisco.connect('{scheme}://localhost')"
        driverless = "import sys; sys.modules.update(dict.fromkeys(['grpc', 'aetcd', 'etcd3', 'consul', 'aiohttp']))"
        done = subprocess.run([sys.executable, "-c", f"{driverless}; {connected}"], capture_output=True, text=True)
        assert (done.returncode == 0 and install == "osdisco") or f"pip install '{install}'" in done.stderr


def test_every_variable_of_the_environment_is_on_the_page() -> None:
    sources = [*(ROOT / "osdisco").glob("*.py"), *(ROOT / "backends").glob("osdisco_*/*.py")]
    read = {name for source in sources for name in _variables(source)}
    assert read == {name for name, _ in _rows("Environment")}


def _variables(source: Path) -> list[str]:
    return re.findall(r'"(OSDISCO_[A-Z]+|CONSUL_[A-Z_]+)"', source.read_text())


def _rows(heading: str) -> list[tuple[str, str]]:
    section = URLS.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|(.*?)\|", section, re.MULTILINE)


def _as_written(kind: Any, default: object) -> str:
    if kind in (Duration, "Duration"):
        return f"{default:g}s"
    return {True: "true", False: "false", None: ""}[default]  # type: ignore[index]


def test_what_is_said_of_docker_compose_and_tuning_is_what_is_set() -> None:
    etcd, consul = ((ROOT / f"compose/{name}.yaml").read_text() for name in ("etcd", "consul"))
    assert "ETCD_AUTO_COMPACTION_RETENTION: ${OSDISCO_ETCD_RETENTION:-10m}" in etcd
    assert "--auto-compaction-retention=10m" in (DOCS / "stores/etcd.md").read_text()
    for option, value in re.findall(r"(raft_multiplier|http_max_conns_per_client) = (?:\$\{\w+:-)?(\d+)", consul):
        assert re.search(rf"^\| `\w+\.{option}` \| {value}\b", (DOCS / "stores/consul.md").read_text(), re.MULTILINE)
