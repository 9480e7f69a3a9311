"""Files that are read again when they change, so that a rotated password or certificate needs no restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from osdisco.errors import ConfigError

T = TypeVar("T")

log = logging.getLogger("osdisco")

_Mark = tuple[tuple[int, int, int] | None, ...]


class Reread(Generic[T]):
    """What is read from files. The first reading must succeed; a later one that fails keeps what was read before."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        """Read.

        Raises:
            ConfigError: from `read`.
        """
        self._paths: Final = paths
        self._read: Final = read
        self._mark = self._look()
        self._value = read()

    def current(self) -> T:
        """Return what the files hold."""
        if self._paths and (mark := self._look()) != self._mark:
            self._mark = mark
            self.again()
        return self._value

    def again(self) -> None:
        """Read, whether or not something seems to have changed."""
        try:
            self._value = self._read()
        except ConfigError as exc:  # half of a rotation: the other half changes the mark once more
            log.warning("%s; what was read before is used on", exc)

    def _look(self) -> _Mark:
        return tuple(map(_mark, self._paths))


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def read_secret(path: Path, option: str) -> str:
    """Return the text of a file, without the ends of lines behind it.

    Raises:
        ConfigError: it cannot be read, or is empty. The message holds nothing of it.
    """
    try:
        text = path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{option}={path} cannot be read: {type(exc).__name__}") from None
    if not text:
        raise ConfigError(f"{option}={path} is empty")
    return text
