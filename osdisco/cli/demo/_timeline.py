"""The demo as a person sees it: a timeline with a colour for each extension, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from osdisco.cli._text import seconds, visible
from osdisco.cli.demo._cast import CAST, LOCK, ROUNDS, VICTIM, Event
from osdisco.cli.demo._facts import Facts

LANE: Final = 60
"""Columns of the picture of who held the lock."""
BLOCKED_MAX: Final = 2.0
"""Seconds to scale for which the picture shows a dead holder."""
_ASCII: Final = str.maketrans("●◎■○✗✓→…─━█▒·", "*o#ox+>.--#%.")


class Timeline:
    """A timeline with a colour for each extension."""

    def __init__(self, facts: Facts, console: Console | None = None) -> None:
        self._facts = facts
        self._console = console or Console(highlight=False)
        self._plain = self._console.options.ascii_only
        self._progress: Progress | None = None
        self._chapters = 0

    def opening(self, url: str, how: str, asked: float) -> None:
        """Tell what is played where."""
        ttl, late = self._facts.ttl, self._facts.ttl_late
        self._print()
        self._print((" osdisco demo ", "bold reverse"), f"  three extensions, {how}, on ", (visible(url), "bold"))
        told = f"{ttl:g} s" if ttl == asked else f"{ttl:g} s ({asked:g} s asked; the store grants no less)"
        range_ = f"about {late:g} s" if late == ttl else f"{ttl:g} to {late:g} s"
        self._print((f"  leases of {told}: a crash shows after {range_}. Without ttl= in the URL it is 15 s.", "dim"))

    def chapter(self, title: str, text: str) -> None:
        """Write a heading."""
        self._chapters += 1
        self._print()
        self._print((f"  {self._chapters}  {title}", "bold"), ("  ─  ", "dim"), (text, "dim italic"))

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
        time = Text(f"{event.at - self._facts.start:9.3f} s  ", "dim")
        who = Text(f"{event.who:<5}", f"bold {CAST[event.who].colour}")
        self._print(time, who, (f"{mark} ", style or CAST[event.who].colour), (text, style))

    def _started(self, event: Event) -> tuple[str, str, str]:
        return "·", "dim", f"starts as {event.data['place']}"

    def _registered(self, event: Event) -> tuple[str, str, str]:
        return "●", "", f"registers {event.data['capability']} at 127.0.0.1:{event.data['port']}"

    def _discovered(self, event: Event) -> tuple[str, str, str] | None:
        found = {seen.data["extension"] for seen in self._facts.all("discovered", event.who)}
        return ("◎", "", f"sees {', '.join(sorted(found))}") if found == set(CAST) else None

    def _wrote(self, event: Event) -> tuple[str, str, str]:
        held = f"holds '{LOCK}' with token {event.data['token']}"
        return "■", "", f"{held} → writes batch {event.data['batch']}"

    def _killed(self, event: Event) -> tuple[str, str, str]:
        place = event.data["place"]
        how = f"SIGKILL to {place}" if place.startswith("process") else "its event loop stops dead"
        return "✗", "bold red", f"killed while it holds the lock: {how}"

    def _waiting(self, event: Event) -> tuple[str, str, str] | None:
        held = self._facts.all("wrote", VICTIM)
        return ("·", "dim", "waits for the lock") if len(held) > ROUNDS and event.who != VICTIM else None

    def _gone(self, event: Event) -> tuple[str, str, str] | None:
        who = event.data["extension"]
        if who == event.who:
            return None
        if self._facts.all("killed", who):
            return "○", "", f"sees that {who} is gone, {seconds(event.at - self._facts.killed.at)} after the kill"
        leaving = self._facts.all("leaving", who)
        return "○", "", f"sees {who} leave" + (f", {seconds(event.at - leaving[0].at)} later" if leaving else "")

    def _acquired(self, event: Event) -> tuple[str, str, str] | None:
        if not self._facts.all("killed") or event is not self._facts.next_holder:
            return None
        after = seconds(event.at - self._facts.killed.at)
        return (
            "→",
            "bold",
            f"takes over {after} after the kill: token {event.data['token']} > {self._facts.killed_token}",
        )

    def _late_write_refused(self, event: Event) -> tuple[str, str, str]:
        return "✓", "yellow", f"its write with token {event.data['token']}, delayed until now, is refused by the store"

    def _token_refused(self, event: Event) -> tuple[str, str, str]:
        return "✓", "yellow", "and by any resource with a fence: its token is older than one seen there"

    def _leaving(self, event: Event) -> tuple[str, str, str]:
        return "●", "dim", "says goodbye"

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Close with who held the lock, and the measurements."""
        self._print()
        blocked = seconds(facts["lock_taken_over_after"])
        self._print(("  Who held the lock", "bold"), (f"   ▒ a dead holder, for {blocked}", "dim"))
        for lane in self._lanes():
            self._print(*lane)
        self._print()
        table = Table.grid(padding=(0, 2))
        for name, value in _measured(facts):
            table.add_row(Text(name, "dim"), Text(self._plainly(value), "bold"))
        self._console.print(Padding(table, (0, 0, 1, 2), expand=False))

    def _lanes(self) -> list[list[Any]]:
        holds = self._facts.holds
        width = max(1, min(LANE, self._console.width - 12))
        scale = _Scale(self._facts, width)
        lanes = []
        for role in CAST.values():
            cells = [("·", "dim")] * width
            for hold in (hold for hold in holds if hold.who == role.id):
                _paint(cells, scale.column(hold.since), scale.column(hold.until), ("█", role.colour))
                if hold.died:
                    _paint(cells, scale.column(hold.until), scale.column(scale.takeover) - 1, ("▒", "red"))
                    cells[scale.column(hold.until)] = ("✗", "bold red")
            lanes.append([("  ", ""), (f"{role.id:<5}", f"bold {role.colour}"), *cells])
        return lanes

    def _print(self, *parts: Any) -> None:
        text = Text.assemble(*parts)
        if self._plain:
            text = Text(self._plainly(text.plain))
        self._console.print(text, soft_wrap=True)

    def _plainly(self, text: str) -> str:
        return text.translate(_ASCII) if self._plain else text


class _Scale:
    """Moments as columns. The time for which a dead holder blocks the lock is cut short where it would fill all."""

    def __init__(self, facts: Facts, width: int) -> None:
        following = facts.next_holder
        assert following is not None
        self.takeover = following.at
        self._width = width
        self._start = facts.holds[0].since
        self._killed = facts.killed.at
        blocked = self.takeover - self._killed
        self._shrink = min(1.0, BLOCKED_MAX / blocked)
        self._length = self._moved(facts.holds[-1].until)

    def _moved(self, at: float) -> float:
        blocked = min(max(at - self._killed, 0.0), self.takeover - self._killed)
        return at - self._start - blocked * (1 - self._shrink)

    def column(self, at: float) -> int:
        """Return the column of a moment."""
        return min(self._width - 1, int(self._moved(at) / self._length * self._width))


def _paint(cells: list[tuple[str, str]], first: int, last: int, cell: tuple[str, str]) -> None:
    cells[first : last + 1] = [cell] * (last + 1 - first)


def _measured(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    seen = ", ".join(seconds(value) for value in facts["crash_seen_after"].values())
    return [
        ("found each other", f"{seconds(facts['all_found_after'])} after the start"),
        ("lock handed over in", f"{seconds(facts['handover'])} (median)"),
        ("crash seen after", f"{seen} (leases of {facts['ttl']:g} s)"),
        ("lock taken over after", f"{seconds(facts['lock_taken_over_after'])}, token {facts['next_token']} > "
         f"{facts['killed_token']}"),
        ("write of the dead holder", "refused"),
        ("goodbye seen after", seconds(facts["goodbye_seen_after"])),
        ("left in the store", "nothing"),
        ("took", seconds(facts["took"])),
    ]  # fmt: skip
