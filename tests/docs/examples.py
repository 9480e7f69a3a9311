"""The examples in docs, taken out of the pages and run.

`# -> value` behind a line says what it gives, `# raises Error` what it raises; an example without any, or an `assert`,
shows nothing. All pages of an area run in the frame that its front page prints.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
from attrs import field, frozen

from osdisco.client import Client

DOCS = Path(__file__).parents[2] / "docs"

_SHOWN = re.compile(r"(?P<indent>\s*)(?:(?P<name>\w+) = )?(?P<code>.*?\S)\s+# -> (?P<value>.+)")
_RAISED = re.compile(r"(?P<indent>\s*)(?P<code>.*?\S)\s+# raises (?P<error>\w+)")


@frozen
class Example:
    """A block of Python on a page, from its `line` on."""

    page: Path
    line: int
    heading: str
    text: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.page.stem}:{self.line} {self.heading}"

    @property
    def claims(self) -> int:
        """How often it says what it shows."""
        return sum(_checked(line) != line or line.lstrip().startswith("assert ") for line in self.text.splitlines())

    @property
    def checked(self) -> str:
        """The code that runs, line by line as on the page."""
        checked = "\n".join(_checked(line) for line in self.text.splitlines())
        return f"async def example():\n{indent(checked, '    ')}"

    def tree(self) -> ast.AST:
        """What it calls and claims, parsed."""
        return ast.parse(self.checked)

    async def run(self, frame: Example, names: dict[str, Any]) -> None:
        """Run it among names; fails with the line of the page at which it does not show what it says."""
        await self._function(frame, names)()

    def _function(self, frame: Example, given: dict[str, Any]) -> Callable[[], Awaitable[None]]:
        above = "\n" * (self.line - 2)  # so that a failure shows the line of the page
        names = {"shows": shows, "raises": pytest.raises} | given
        exec(frame.text.partition("async def main")[0], names)
        exec(compile(above + self.checked, str(self.page), "exec"), names)
        function: Callable[[], Awaitable[None]] = names["example"]
        return function


def shows(actual: object, value: object) -> None:
    """Fail unless they are equal."""
    __tracebackhide__ = True
    assert actual == value, f"the page says {value!r}"


def _checked(line: str) -> str:
    """Turn what a line claims into code, on the same line."""
    if raised := _RAISED.fullmatch(line):
        return "{indent}with raises({error}): {code}".format(**raised.groupdict())
    if not (shown := _SHOWN.fullmatch(line)):
        return line
    if shown["name"] is None:
        return "{indent}shows({code}, {value})".format(**shown.groupdict())
    return "{indent}{name} = {code}; shows({name}, {value})".format(**shown.groupdict())


def examples_of(page: Path) -> Iterator[Example]:
    """Return the blocks of a page."""
    heading, block, begun = page.stem, None, 0
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if block is None:
            heading = line.lstrip("# ") if line.startswith("#") else heading
            block, begun = ([], number + 1) if line == "```python" else (None, 0)
        elif line == "```":
            yield Example(page, begun, heading, "\n".join(block))
            block = None
        else:
            block.append(line)


@frozen
class Area:
    """A front page, and the pages below it. `names` makes what the frame defines of two clients."""

    name: str
    names: Callable[[Client, Client], dict[str, Any]]

    @property
    def pages(self) -> list[Path]:
        return [DOCS / f"{self.name}.md", *sorted((DOCS / self.name).glob("*.md"))]

    @property
    def frame(self) -> Example:
        """The first block of the front page."""
        return next(examples_of(self.pages[0]))

    @property
    def examples(self) -> list[Example]:
        """All other blocks."""
        return [example for page in self.pages for example in examples_of(page)][1:]

    async def run(self, example: Example, client: Client, other: Client) -> None:
        """Run an example; `other` is another process."""
        await example.run(self.frame, {"client": client, "other": other} | self.names(client, other))
