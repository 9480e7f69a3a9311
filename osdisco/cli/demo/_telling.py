"""How a demo is told to a person: headings, lines that begin with a time and a name, and a spinner while one waits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from osdisco.cli._text import visible
from osdisco.cli.demo._cast import Event
from osdisco.cli.demo._facts import Facts

_ASCII: Final = str.maketrans("●◎■○✗✓→◆‖…─━█▒·", "*o#ox+>^=.--#%.")

Words = tuple[str, str, str]
"""A mark, its style (empty: the colour of who does it), and what is said."""


class Telling:
    """A timeline. What is said of an event is what the method of its name returns; without one it is for programs."""

    width = 6
    """Of the names, with a blank behind them."""

    def __init__(self, facts: Facts, console: Console | None = None) -> None:
        self._facts = facts
        self._console = console or Console(highlight=False)
        self._plain = self._console.options.ascii_only
        self._progress: Progress | None = None
        self._chapters = 0

    def chapter(self, title: str, text: str) -> None:
        """Write a heading."""
        self._chapters += 1
        self._print()
        self._hang((f"  {self._chapters}  {title}", "bold"), ("  ─  ", "dim"), then=(text, "dim italic"))

    def wait(self, text: str) -> None:
        """Show on a terminal that something takes its time."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if text and self._console.is_terminal:
            columns = (TextColumn("          "), SpinnerColumn(), TextColumn("[dim]{task.description}"))
            self._progress = Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True)
            self._progress.add_task(text)
            self._progress.start()

    def event(self, event: Event) -> None:
        """Write a line about what a person wants to see; the rest is for programs."""
        told = getattr(self, f"_{event.what.replace(' ', '_')}", None)
        if told is None or (words := told(event)) is None:
            return
        mark, style, text = words
        colour = self._colour(event.who)
        time, who = (
            (f"{event.at - self._facts.start:9.3f} s  ", "dim"),
            (f"{event.who:<{self.width}}", f"bold {colour}"),
        )
        self._hang(time, who, (f"{mark} ", style or colour), then=(text, style))

    def _colour(self, who: str) -> str:
        """Return the colour of somebody."""
        return "white"

    def _open(self, name: str, cast: str, url: str, leases: str) -> None:
        """Say what is played by whom on which store."""
        self._print()
        played = Text.assemble(f"{cast}, on ", (visible(url), "bold"))
        self._hang((f" osdisco {name} ", "bold reverse"), ("  ", ""), then=played)
        self._hang(("  ", ""), then=(leases, "dim"))

    def _close(self, measured: Iterable[tuple[str, str]]) -> None:
        """Say what was measured."""
        self._print()
        table = Table.grid(padding=(0, 2))
        for name, value in measured:
            table.add_row(Text(name, "dim"), Text(self._plainly(value), "bold"))
        self._console.print(Padding(table, (0, 0, 1, 2), expand=False))

    def _hang(self, *head: tuple[str, str], then: tuple[str, str] | Text) -> None:
        """Print a line; where a terminal is too narrow, what hangs after its head goes on below itself."""
        if not self._console.is_terminal:
            self._print(*head, then)
            return
        grid = Table.grid()
        grid.add_column(no_wrap=True)
        grid.add_column()
        grid.add_row(self._assembled(*head), self._assembled(then))
        self._console.print(grid)

    def _print(self, *parts: Any) -> None:
        self._console.print(self._assembled(*parts), soft_wrap=True)

    def _assembled(self, *parts: Any) -> Text:
        text = Text.assemble(*parts)
        return Text(self._plainly(text.plain)) if self._plain else text

    def _plainly(self, text: str) -> str:
        return text.translate(_ASCII) if self._plain else text


def promised(facts: Facts, asked: float) -> str:
    """Say how long leases last, and so after how long a crash shows."""
    ttl, late = facts.ttl, facts.ttl_late
    told = f"{ttl:g} s" if ttl == asked else f"{ttl:g} s ({asked:g} s asked; the store grants no less)"
    range_ = f"about {late:g} s" if late == ttl else f"{ttl:g} to {late:g} s"
    return f"leases of {told}: a crash shows after {range_}. Without ttl= in the URL it is 15 s."
