"""Conditions on texts of a call: its method, and what is sent with it.

There are no regular expressions: those of Python can take for ever on a text that a caller chooses, and everybody who
calls would run what one writer of the store has put there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen

from osdisco.mesh import _documents as doc
from osdisco.mesh._documents import refuse, structure

CHOICES_MAX: Final = 64


def _choice(value: Any, path: str) -> Any:
    if why := doc.wrong_text(value):
        raise refuse(path, why)
    return value


@frozen
class Text:
    """One condition on a text, of those that Consul has. In JSON a plain text stands for `exact`.

    Args:
        exact: how it must be.
        prefix: how it must begin.
        suffix: how it must end.
        one_of: it must be one of these.
        present: whether it must be there at all.
        invert: turn the condition round: what is not there meets it, too, unless it is about `present`.
    """

    exact: str | None = doc.text(default=None)
    prefix: str | None = doc.text(default=None)
    suffix: str | None = doc.text(default=None)
    one_of: tuple[str, ...] = doc.many(_choice, CHOICES_MAX, "texts")
    present: bool | None = doc.checked(doc.wrong_flag, default=None)
    invert: bool = doc.flag()

    def __attrs_post_init__(self) -> None:
        said = [name for name in _TESTS if getattr(self, name) not in (None, ())]
        if len(said) != 1:
            has = f"has {' and '.join(said)}" if said else "has none"
            raise refuse("", f"must have one of {', '.join(_TESTS)}, and {has}")

    def meets(self, text: object) -> bool:
        """Return whether a text meets it; None is one that is not there."""
        if self.present is not None:
            return ((text is not None) is self.present) is not self.invert
        return (isinstance(text, str) and self._fits(text)) is not self.invert

    def _fits(self, text: str) -> bool:
        return any(test(text, getattr(self, name)) for name, test in _FITS.items() if getattr(self, name) is not None)


_FITS: Final[dict[str, Callable[[str, Any], bool]]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
    "one_of": lambda text, choices: text in choices,
}
_TESTS: Final = (*_FITS, "present")


def read_text(value: Any, path: str) -> Text:
    """Read a condition; a plain text is `exact`. Raises RulesError."""
    return structure(Text, {"exact": value} if isinstance(value, str) else value, path)
