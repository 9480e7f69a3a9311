"""What `import osdisco` offers: everything that is listed, from where the type checkers see it, and loaded late."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import osdisco

SOURCE = Path(osdisco.__file__ or "").read_text()


@pytest.mark.parametrize("name", osdisco.__all__)
def test_every_name_that_is_listed_is_there(name: str) -> None:
    assert getattr(osdisco, name) is not None
    assert name in dir(osdisco)


def test_type_checkers_and_python_find_the_same_names_in_the_same_places() -> None:
    seen = {
        (node.module, alias.name)
        for block in ast.parse(SOURCE).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(module, name) for module, names in osdisco._HOMES.items() for name in names.split()}
    assert {name for _, name in seen} | {"__version__"} == set(osdisco.__all__)


@pytest.mark.parametrize("package", ["osdisco.coordination", "osdisco.discovery", "osdisco.cluster"])
def test_what_the_services_export_is_offered_at_the_top_too(package: str) -> None:
    assert set(import_module(package).__all__) <= set(osdisco.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'conect'"):
        _ = osdisco.conect


def test_importing_the_package_loads_neither_drivers_nor_the_library() -> None:
    code = "import osdisco, sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"asyncio", "attrs", "cattrs", "click", "rich", "aiohttp", "grpc", "consul", "etcd3"} & {
        *done.stdout.split()
    }


def test_checks_and_probing_load_aiohttp_only_when_they_ask() -> None:
    code = (
        "from osdisco.discovery import HttpCheck, Probing; HttpCheck('http://a/'); Probing(allow=['10.0.0.0/8']);"
        "import sys; print('aiohttp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_source_of_cluster_state_loads_aiohttp_only_when_it_is_made() -> None:
    code = "from osdisco import OpenSearchHttpSource; import sys; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_using_the_client_loads_no_driver_and_no_cattrs() -> None:
    code = "from osdisco import Client, connect; import sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"cattrs", "click", "rich", "aiohttp", "grpc", "consul", "etcd3"} & {*done.stdout.split()}
