"""What mkdocs is told beyond mkdocs.yml: pages from files at the top level, pages of the API, and what must not be.

The pages of the API are made from `__all__` of the public packages, so that none of their names lacks one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]

TAKEN = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "compose/README.md": "compose.md",
}
"""Files outside of docs, and what they are on the site."""

SOURCES = {
    "osdisco/backend.py": "api/backend.md",
    "backends/osdisco_memory/__init__.py": "api/osdisco_memory.md",
}
"""Files of the source that pages link to, and where the site has them."""

APIS = {
    "osdisco": "Clients, sessions, views, errors",
    "osdisco.coordination": "Coordination",
    "osdisco.discovery": "Discovery",
    "osdisco.registry": "Services and their instances",
    "osdisco.mesh": "The mesh",
    "osdisco.cluster": "The state of a search cluster",
    "osdisco.backend": "The backend interface",
    "osdisco.url": "URLs",
    "osdisco.runtime": "Clocks, randomness, credentials",
    "osdisco.metrics": "Metrics",
    "osdisco.serve": "Serving what is known",
    "osdisco.integrations": "Signals and web frameworks",
    "osdisco.testing": "Testing",
    "osdisco_memory": "The store in memory",
    "osdisco_consul": "Consul's own catalog",
}
"""Public packages and their titles, in the order of the menu."""

_WHOLE = {
    "osdisco.backend": ["osdisco.backend"],
    "osdisco.url": ["osdisco.url"],
    "osdisco.runtime": ["osdisco.runtime"],
    "osdisco.integrations": [f"osdisco.integrations.{name}" for name in ("signals", "aiohttp", "starlette")],
}
"""Modules that are shown whole, because all that is public in them is meant for everybody."""

_LINK = re.compile(r"(\]\()([^)#\s]+)([)#])")
_REMOTE = re.compile(
    r'<(?:script|img|iframe|source)[^>]* src="?(?:https?:)?//|<link[^>]* rel="?(?:stylesheet|preload)[^>]*//'
)


def on_config(config: Any) -> Any:
    """Put the pages of the API into the menu."""
    for entry in config.nav:
        if "API" in entry:
            entry["API"] = [{title: page_of(package)} for package, title in APIS.items()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that do not stand in docs."""
    from mkdocs.structure.files import File  # not at the top: tests look at this file without mkdocs

    for source, page in TAKEN.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for package in APIS:
        files.append(File.generated(config, page_of(package), content=api(package)))
    return files


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse what a browser would load from elsewhere."""
    if found := _REMOTE.search(output):
        raise ValueError(f"{page.file.src_uri} loads something from elsewhere: {output[found.start() :][:200]}")
    return output


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to what stands outside of docs, which a reader of the repository follows, to where the site has it."""
    here = page.file.src_uri
    if here.startswith("api/"):
        return markdown
    source = next((source for source, taken in TAKEN.items() if taken == here), f"docs/{here}")
    return _LINK.sub(partial(_link, posixpath.dirname(source), posixpath.dirname(here)), markdown)


def _link(source: str, here: str, match: re.Match[str]) -> str:
    before, target, after = match.groups()
    if "://" in target:
        return match[0]
    path = posixpath.normpath(posixpath.join(source, target))
    there = TAKEN.get(path) or SOURCES.get(path) or path.removeprefix("docs/")
    return f"{before}{posixpath.relpath(there, here or '.')}{after}"


def page_of(package: str) -> str:
    """Return where the API of a package is."""
    return f"api/{package.removeprefix('osdisco.').replace('.', '-')}.md"


def api(package: str) -> str:
    """Return the page of a package: what its docstring says, then each public name."""
    said = (import_module(package).__doc__ or "").strip()
    parts = [f"# {APIS[package]}", f"`{package}`", said]
    parts += [f"::: {path}" for path in shown(package)]
    return "\n\n".join(parts) + "\n"


def shown(package: str) -> Iterator[str]:
    """Return what the page of a package shows; a name that several packages offer is shown by the inner one."""
    if package in _WHOLE:
        yield from _WHOLE[package]
        return
    elsewhere = {name for other in APIS if other.startswith(f"{package}.") for name in _public(other)}
    yield from (f"{package}.{name}" for name in sorted(set(_public(package)) - elsewhere))


def _public(package: str) -> list[str]:
    module = import_module(package)
    names: list[str] = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return [name for name in names if not name.startswith("__")]
