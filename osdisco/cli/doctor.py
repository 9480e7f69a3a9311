"""`osdisco doctor`: is the store as it should be, and if not, what to do."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Final

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

        self._console = Console(highlight=False, soft_wrap=True)
        self._print((f"osdisco doctor: {visible(url)}", "bold"))

    def show(self, finding: Finding) -> None:
        mark, style = _MARKS[finding.level]
        self._print((f"  {mark:<5}", style), (f"{visible(finding.check):<12}", "bold"), (visible(finding.said), ""))
        if finding.advice:
            self._print((f"{'':19}{visible(finding.advice)}", "cyan"))

    def _print(self, *parts: Any) -> None:
        from rich.text import Text

        self._console.print(Text.assemble(*parts))
