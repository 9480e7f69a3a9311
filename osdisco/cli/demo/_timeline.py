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
from osdisco.cli.demo._cast import CAST, ELECTION, LOCK, ROUNDS, Event
from osdisco.cli.demo._facts import Facts
from osdisco.cli.demo._picture import lanes

LANE: Final = 70
"""Columns of the picture of who held the lock and who led."""
_ASCII: Final = str.maketrans("●◎■○✗✓→◆‖…─━█▒·", "*o#ox+>^=.--#%.")

Words = tuple[str, str, str]
"""A mark, its style (empty: the extension's colour), and what is said."""


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
        played = Text.assemble(f"three extensions, {how}, on ", (visible(url), "bold"))
        self._hang((" osdisco demo ", "bold reverse"), ("  ", ""), then=played)
        told = f"{ttl:g} s" if ttl == asked else f"{ttl:g} s ({asked:g} s asked; the store grants no less)"
        range_ = f"about {late:g} s" if late == ttl else f"{ttl:g} to {late:g} s"
        leases = f"leases of {told}: a crash shows after {range_}. Without ttl= in the URL it is 15 s."
        self._hang(("  ", ""), then=(leases, "dim"))

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
        colour = CAST[event.who].colour if event.who in CAST else "white"
        time, who = (f"{event.at - self._facts.start:9.3f} s  ", "dim"), (f"{event.who:<6}", f"bold {colour}")
        self._hang(time, who, (f"{mark} ", style or colour), then=(text, style))

    def _started(self, event: Event) -> Words:
        return "·", "dim", f"starts as {event.data['place']}"

    def _registered(self, event: Event) -> Words:
        return "●", "", f"registers {event.data['capability']} at 127.0.0.1:{event.data['port']}"

    def _discovered(self, event: Event) -> Words | None:
        who = event.data["extension"]
        if self._facts.all("gone", event.who, extension=who):
            return ("○", "", f"sees that {who} is back") if who != event.who else None
        found = {seen.data["extension"] for seen in self._facts.all("discovered", event.who)}
        return ("◎", "", f"sees {', '.join(sorted(found))}") if found == set(CAST) else None

    def _ails(self, event: Event) -> Words:
        return "✗", "red", "stops to listen: its check fails"

    def _recovers(self, event: Event) -> Words:
        return "✓", "", "listens again"

    def _status(self, event: Event) -> Words | None:
        who, now = event.data["extension"], event.data["now"]
        turned = [*self._facts.all("ails", who), *self._facts.all("recovers", who)][-1:]
        if who == event.who or not turned:
            return None
        return "○", "", f"sees that {who} is {now}, {seconds(event.at - turned[0].at)} later"

    def _stopped(self, event: Event) -> Words:
        return "✗", "bold red", f"stops: {event.data['how']}"

    def _started_again(self, event: Event) -> Words:
        return "✓", "bold", "is there again"

    def _unregistered(self, event: Event) -> Words | None:
        if not self._facts.all("stopped") or self._facts.all("started again"):
            return None
        return "·", "", f"is no longer registered; still knows {event.data['known']} extensions, and that this is stale"

    def _returned(self, event: Event) -> Words:
        return "●", "", "is registered again"

    def _wrote(self, event: Event) -> Words:
        held = f"holds '{LOCK}' with token {event.data['token']}"
        return "■", "", f"{held} → writes batch {event.data['batch']}"

    def _planned(self, event: Event) -> Words:
        *earlier, term = (event.data["token"] for event in self._facts.terms)
        risen = f"{term} > {earlier[-1]}" if earlier else str(term)
        return "◆", "bold", f"leads{self._since_the_last_one()}: term {risen} → writes plan {event.data['plan']}"

    def _since_the_last_one(self) -> str:
        spans, newest = self._facts.leads, self._facts.terms[-1]
        if not spans:
            return ""
        after = {"killed": "the kill", "paused": "the pause", "leaving": "the goodbye"}[spans[-1].end]
        return f" {seconds(newest.at - spans[-1].until)} after {after}"

    def _killed(self, event: Event) -> Words:
        place = event.data["place"]
        how = f"SIGKILL to {place}" if place.startswith("process") else "its event loop stops dead"
        return "✗", "bold red", f"killed while it leads and holds the lock: {how}"

    def _waiting(self, event: Event) -> Words | None:
        waits = self._facts.seen("waiting", event.who, n=ROUNDS + 1) and event.who != self._facts.leader
        return ("·", "dim", "waits for the lock") if waits else None

    def _gone(self, event: Event) -> Words | None:
        who = event.data["extension"]
        if who == event.who:
            return None
        for end, after in (("leaving", "its goodbye"), ("killed", "the kill"), ("paused", "the pause")):
            for ended in self._facts.all(end, who):
                return "○", "", f"sees that {who} is gone, {seconds(event.at - ended.at)} after {after}"
        return "○", "", f"sees that {who} is gone"

    def _acquired(self, event: Event) -> Words | None:
        if not self._facts.all("killed") or event is not self._facts.next_holder:
            return None
        after = seconds(event.at - self._facts.killed.at)
        risen = f"token {event.data['token']} > {self._facts.killed_token}"
        return "→", "bold", f"takes over the lock {after} after the kill: {risen}"

    def _late_write_refused(self, event: Event) -> Words:
        return "✓", "yellow", f"its write with token {event.data['token']}, delayed until now, is refused by the store"

    def _token_refused(self, event: Event) -> Words:
        return "✓", "yellow", "and by any resource with a fence: its token is older than one seen there"

    def _paused(self, event: Event) -> Words:
        place = self._facts.all("started", event.who)[0].data["place"]
        how = f"SIGSTOP to {place}" if place.startswith("process") else "its thread stands still"
        return "‖", "bold red", f"stopped while it leads, about to write plan {event.data['plan']}: {how}"

    def _woke(self, event: Event) -> Words:
        slept = seconds(event.at - self._facts.paused.at)
        return "→", "bold", f"goes on after {slept}: is_leader is {event.data['is_leader']}"

    def _late_plan_refused_by_itself(self, event: Event) -> Words:
        deadline = event.data["said"].rpartition("; ")[2]
        return "✓", "yellow", f"its write ends in LostError, unsent: {deadline}"

    def _late_plan_refused_by_the_store(self, event: Event) -> Words:
        return "✓", "yellow", "the same write, sent past that check, is refused by the store"

    def _plan_stands(self, event: Event) -> Words:
        return "✓", "yellow", f"its plan {event.data['plan']} stands"

    def _leaving(self, event: Event) -> Words:
        return "●", "dim", "says goodbye" + (" and resigns" if event.who == self._facts.leader else "")

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Close with who held the lock, and the measurements."""
        self._print()
        self._print(
            ("  Who held the lock, and who led", "bold"), ("   ▒ dead ✗ or paused ‖, until its lease ended", "dim")
        )
        for lane in lanes(self._facts, max(1, min(LANE, self._console.width - 10))):
            self._print("  ", *lane)
        self._print()
        table = Table.grid(padding=(0, 2))
        for name, value in _measured(facts):
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


def _measured(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    seen = ", ".join(seconds(value) for value in facts["crash_seen_after"].values())
    ill, well = seconds(facts["illness_seen_after"]), seconds(facts["recovery_seen_after"])
    returned = facts["returned_after"]
    back = () if returned is None else (("all registered again", f"{seconds(returned)} after the store's return"),)
    leads = (f"{seconds(facts[f'leader_{why}_next_after'])} {why}" for why in ("killed", "paused", "left"))
    return [
        ("found each other", f"{seconds(facts['all_found_after'])} after the start"),
        ("illness seen after", f"{ill}, recovery {well}"),
        *back,
        ("lock handed over in", f"{seconds(facts['handover'])} (median)"),
        ("crash seen after", f"{seen} (leases of {facts['ttl']:g} s)"),
        ("lock taken over after", f"{seconds(facts['lock_taken_over_after'])}, token {facts['next_token']} > "
         f"{facts['killed_token']}"),
        ("write of the dead holder", "refused"),
        (f"terms of '{ELECTION}'", " < ".join(f"{term['token']} {term['who']}" for term in facts["terms"])),
        ("next leader after", ", ".join(leads)),
        ("write of the paused leader", "refused unsent, then by the store"),
        ("goodbye seen after", seconds(facts["goodbye_seen_after"])),
        ("left in the store", "nothing"),
        ("took", seconds(facts["took"])),
    ]  # fmt: skip
