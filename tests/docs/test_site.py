"""What docs/hooks.py makes of the pages: every public name is on one, links lead somewhere, nothing is loaded remotely.

The site itself is built by `make docs`, which fails at the first broken link.
"""

from __future__ import annotations

import pkgutil
import runpy
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from examples import DOCS

import osdisco

HOOKS: dict[str, Any] = runpy.run_path(str(DOCS / "hooks.py"))
INTERNAL = ("osdisco.cli", "osdisco.testing.")
"""The command line, and homes of what `osdisco.testing` offers."""


def test_every_public_name_is_on_a_page_of_the_api() -> None:
    shown = {path for package in HOOKS["APIS"] for path in HOOKS["shown"](package)}
    whole = [module for path in shown if isinstance(module := _located(path), ModuleType)]
    names = {path.rpartition(".")[2] for path in shown} | {name for module in whole for name in vars(module)}
    for package in ["osdisco", *_packages()]:
        public = getattr(import_module(package), "__all__", ())
        assert {name for name in public if not name.startswith("__")} <= names, package


def _packages() -> list[str]:
    found = [module.name for module in pkgutil.walk_packages(osdisco.__path__, "osdisco.") if "._" not in module.name]
    return [name for name in found if not name.startswith(INTERNAL)]


def _located(path: str) -> object:
    package, _, name = path.rpartition(".")
    try:
        return import_module(path)
    except ImportError:
        return getattr(import_module(package), name)


def test_each_name_is_on_one_page() -> None:
    for package in HOOKS["APIS"]:
        shown = list(HOOKS["shown"](package))
        assert shown
        assert len(shown) == len(set(shown))
    assert "osdisco.Client" in HOOKS["shown"]("osdisco")
    assert not {"osdisco.Backend", "osdisco.DiscoveryService"} & set(HOOKS["shown"]("osdisco"))


LINKS = [
    ("index.md", "[a](docs/guarantees.md)", "[a](guarantees.md)"),
    ("index.md", "[a](osdisco/backend.py)", "[a](api/backend.md)"),
    ("index.md", "[a](CONTRIBUTING.md#add-a-backend)", "[a](contributing.md#add-a-backend)"),
    ("compose.md", "[a](../docs/discovery/operating.md#privileges)", "[a](discovery/operating.md#privileges)"),
    ("stores/etcd.md", "[a](../../compose/README.md)", "[a](../compose.md)"),
    ("stores/etcd.md", "[a](etcd-gateway.md)", "[a](etcd-gateway.md)"),
    ("stores/etcd.md", "[a](https://etcd.io/docs)", "[a](https://etcd.io/docs)"),
    ("stores/etcd.md", "[a](#tuning-the-store)", "[a](#tuning-the-store)"),
]


@pytest.mark.parametrize(("page", "link", "there"), LINKS)
def test_a_link_leads_where_the_site_has_it(page: str, link: str, there: str) -> None:
    assert HOOKS["on_page_markdown"](link, _page(page), None, None) == there


REMOTE = [
    '<script src="https://unpkg.com/a.js"></script>',
    "<script async src=//cdn/a.js></script>",
    '<link rel="stylesheet" href="https://fonts.googleapis.com/css">',
    '<img alt="" src="https://badge/a.svg">',
]


@pytest.mark.parametrize("text", REMOTE)
def test_what_is_loaded_from_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from elsewhere"):
        HOOKS["on_post_page"](f"<p>{text}</p>", _page("index.md"), None)


def test_links_and_own_files_are_not_refused() -> None:
    text = '<a href="https://etcd.io">e</a><script src="assets/a.js"></script><link rel="stylesheet" href="../a.css">'
    assert HOOKS["on_post_page"](text, _page("index.md"), None) == text


def test_the_menu_has_every_page_and_fonts_are_the_readers() -> None:
    text = (DOCS.parent / "mkdocs.yml").read_text()
    assert yaml.safe_load(text)["theme"]["font"] is False
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} | set(HOOKS["TAKEN"].values())
    assert [page for page in sorted(pages) if f" {page}\n" not in text] == []


def _page(src: str) -> Any:
    return SimpleNamespace(file=SimpleNamespace(src_uri=src))
