"""`osdisco doctor`: is the store as it should be, and if not, what to do."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

import click

from osdisco.cli._checks import Finding, Level, examine
from osdisco.cli._errors import Exit
from osdisco.cli._output import document
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.cli._text import visible
from osdisco.client import Client

_CODES: Final = {Level.OK: Exit.DONE, Level.WARN: Exit.DONE, Level.FAIL: Exit.FAILED, Level.DOWN: Exit.UNAVAILABLE}
_MARKS: Final = {
    Level.OK: ("ok", "green"),
    Level.WARN: ("warn", "yellow"),
    Level.FAIL: ("fail", "bold red"),
    Level.DOWN: ("down", "bold red"),
}

_WIDTHS: Final = (4, 10, 0)


@click.command(cls=Command)
@click.pass_obj
def doctor(settings: Settings) -> None:
    """Check the store: endpoints, permissions, limits, clocks and speed, and what to do about each finding.

    Writes under doctor/ in the namespace, and removes it again. Exit code 0 when all is well or merely improvable, 1
    when something fails, 5 when the store cannot be used.
    """

    async def work(client: Client, _: Interrupts) -> int:
        assert client.url is not None
        show = _show_document if settings.json else _Report(str(client.url)).show
        codes = [Exit.DONE]
        async with aclosing(examine(client, client.url)) as findings:
            async for finding in findings:
                show(finding)
                codes.append(_CODES[finding.level])
        return max(codes)

    click.get_current_context().exit(run_with_client(settings, work))


def _show_document(finding: Finding) -> None:
    head = {"check": finding.check, "level": finding.level.value, "said": finding.said}
    document(head | ({"advice": finding.advice} if finding.advice else {}) | dict(finding.measured))


class _Report:
    """Findings for people, as they come."""

    def __init__(self, url: str) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._console.print(f"osdisco doctor: {visible(url)}", style="bold", markup=False, soft_wrap=True)

    def show(self, finding: Finding) -> None:
        """Print one finding, with its advice below."""
        mark, style = _MARKS[finding.level]
        self._print((mark, style), (finding.check, "bold"), (finding.said, ""))
        if finding.advice:
            self._print(("", ""), ("", ""), (finding.advice, "cyan"))

    def _print(self, *cells: tuple[str, str]) -> None:
        from rich.table import Table
        from rich.text import Text

        texts = [Text(visible(text), style) for text, style in cells]
        if not self._console.is_terminal:  # not folded, so that it can be searched
            self._console.print(
                *(f"{text.plain:<{width}}" for text, width in zip(texts, _WIDTHS, strict=True)), soft_wrap=True
            )
            return
        row = Table.grid(padding=(0, 2, 0, 0))
        for width in _WIDTHS:
            row.add_column(min_width=width)
        row.add_row(*texts)
        self._console.print(row)
