"""Files that describe something, in JSON, TOML or YAML; what is wrong in one is told with its line."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from attrs import frozen

from osdisco.errors import ConfigError

SIZE_MAX: Final = 1 << 20
"""Bytes of a file that is read at all."""

Place = Sequence[str | int]
"""The way to a value: names, and numbers in lists."""


@frozen
class Described:
    """What a file says."""

    path: Path
    text: str
    content: dict[str, Any]

    def wrong(self, place: Place, what: str) -> NoReturn:
        """Raise ConfigError: the file, the line of a place in it, and what was expected there."""
        name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
        raise ConfigError(f"{self.path}:{line_of(self.text, place)}: {name + ': ' if name else ''}{what}")


def read(path: Path) -> Described:
    """Read a file by its ending.

    Raises:
        ConfigError: it cannot be read or parsed, with the line; or it is no object.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise ConfigError(f"{path}: the ending says what it is: .json, .toml, .yaml or .yml, not {path.suffix!a}")
    return _described(path, _text(path), parse)


def read_stdin() -> Described:
    """Read JSON from stdin. Raises ConfigError as `read` does."""
    path = Path("stdin")
    return _described(path, _decoded(path, sys.stdin.buffer.read(SIZE_MAX + 1)), _json)


def _described(path: Path, text: str, parse: Callable[[Path, str], Any]) -> Described:
    content = parse(path, text)
    described = Described(path, text, content)
    if not isinstance(content, dict):
        described.wrong((), f"expected an object with fields such as id and port, not {_kind(content)}")
    return described


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _decoded(path, file.read(SIZE_MAX + 1))
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from None


def _decoded(path: Path, data: bytes) -> str:
    if len(data) > SIZE_MAX:
        raise ConfigError(f"{path}: over {SIZE_MAX} bytes: expected a few lines")
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"{path}:{line}: expected UTF-8") from None


def _kind(value: object) -> str:
    return {type(None): "nothing", list: "a list", str: "text"}.get(type(value), type(value).__name__)


def _json(path: Path, text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                Described(path, text, {}).wrong((name,), "is there twice")
            found[name] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as exc:
        raise ConfigError(f"{path}:{exc.lineno}: not JSON: {exc.msg}, in column {exc.colno}") from None
    except (RecursionError, ValueError) as exc:
        why = "nested too deep" if isinstance(exc, RecursionError) else f"not JSON: {exc}"
        raise ConfigError(f"{path}: {why}") from None


def _toml(path: Path, text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", str(exc))
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        raise ConfigError(f"{path}:{line}: not TOML: {str(exc).partition(' (at ')[0]}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deep") from None


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigError(f"{path}: YAML needs pyyaml: pip install 'osdisco[cli]', or write JSON or TOML") from None

    class Once(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!a} is there twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        return Once(text).get_single_data()
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {exc.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise ConfigError(f"{path}: not YAML: {exc}") from None


_PARSERS: Final[dict[str, Callable[[Path, str], Any]]] = {
    ".json": _json,
    ".toml": _toml,
    ".yaml": _yaml,
    ".yml": _yaml,
}


def line_of(text: str, place: Place) -> int:
    """Return the line of a place, as far as its names can be followed through the text: all three kinds write them.

    Numbers in lists are not counted: the first name fits that comes after the one of the list.
    """
    position = 0
    for name in (step for step in place if isinstance(step, str)):
        found = re.compile(rf"(?<![\w-])[\"']?{re.escape(name)}[\"']?\s*[\]:=.]").search(text, position)
        if found is None:
            break
        position = found.start()
    return text.count("\n", 0, position) + 1
