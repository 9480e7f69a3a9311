"""The demo as a person sees it: a timeline with a colour for each extension, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from osdisco.cli._text import seconds
from osdisco.cli.demo._call_picture import answers
from osdisco.cli.demo._cast import CALLING, CAST, ELECTION, LOCK, ROUNDS, Event
from osdisco.cli.demo._picture import Cell, lanes
from osdisco.cli.demo._telling import Telling, Words, promised

LANE: Final = 70
"""Columns of the picture of who held the lock and who led."""


class Timeline(Telling):
    """A timeline with a colour for each extension."""

    def opening(self, url: str, how: str, asked: float) -> None:
        """Tell what is played where."""
        self._open("demo", f"three extensions, {how}", url, promised(self._facts, asked))

    width = 7

    def _colour(self, who: str) -> str:
        if who in CAST:
            return CAST[who].colour
        return CALLING[who].colour if who in CALLING else "white"

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
        return "✗", "bold red", f"killed while it leads and holds the lock: {_kill(event.data['place'])}"

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

    def _enters(self, event: Event) -> Words:
        return self._started(event)

    def _serves(self, event: Event) -> Words:
        return "●", "", f"serves '{event.data['service']}' {event.data['version']} at {event.data['address']}"

    def _reached(self, event: Event) -> Words:
        return "→", "", f"has called it {event.data['calls']} times, and reached {_shares(event.data['by'])}"

    def _endpoint_killed(self, event: Event) -> Words:
        return "✗", "bold red", f"killed while it is called: {_kill(event.data['place'])}"

    def _survived(self, event: Event) -> Words:
        calls, failed, again = (event.data[name] for name in ("calls", "failed", "again"))
        return "✓", "yellow", f"{calls} calls since then, {failed or 'none'} failed; {again} were made again elsewhere"

    def _canary(self, event: Event) -> Words:
        if event.data["phase"] == "rolled_back":
            return "→", "bold", f"is rolled back, and gets no more calls: {event.data['last']}"
        if event.data["failed"]:
            return "✗", "red", f"fails a check: {event.data['last']}"
        return "◆", "", f"gets {event.data['weight']:g} % of the calls"

    def _all_back(self, event: Event) -> Words:
        calls, failed = event.data["calls"], event.data["failed"]
        return "✓", "yellow", f"{calls} calls since then went to 1.0.0; {failed or 'none'} failed of all"

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Close with who held the lock, and the measurements."""
        width = max(1, min(LANE, self._console.width - 10))
        owned = lanes(self._facts, width)
        self._draw("Who held the lock, and who led", "▒ dead ✗ or paused ‖, until its lease ended", owned)
        if "calls" in facts:
            self._draw("Who answered", "█ many of the calls, ─ some, · none; ✗ killed", answers(self._facts, width))
        self._close(_measured(facts))

    def _draw(self, title: str, legend: str, lines: Sequence[Sequence[Cell]]) -> None:
        self._print()
        self._print((f"  {title}", "bold"), (f"   {legend}", "dim"))
        for line in lines:
            self._print("  ", *line)


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
        *_measured_calls(facts),
        ("left in the store", "nothing"),
        ("took", seconds(facts["took"])),
    ]  # fmt: skip


def _measured_calls(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "calls" not in facts:
        return []
    calls, failed, again = (facts[name] for name in ("calls", "calls_failed", "calls_made_again"))
    back = seconds(facts["canary_rolled_back_after"])
    return [
        ("calls", f"{calls}, {failed or 'none'} failed, {again} made again elsewhere"),
        ("slow version rolled back in", f"{back}, after {facts['calls_of_canary']} of these calls"),
    ]


def _kill(place: str) -> str:
    return f"SIGKILL to {place}" if place.startswith("process") else "its event loop stops dead"


def _shares(by: Mapping[str, int]) -> str:
    return ", ".join(sorted(by))
