"""The demo as a person sees it: a timeline with a colour for each extension, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from osdisco.cli._text import seconds
from osdisco.cli.demo._cast import CAST, ELECTION, LOCK, ROUNDS, Event
from osdisco.cli.demo._picture import lanes
from osdisco.cli.demo._telling import Telling, Words, promised

LANE: Final = 70
"""Columns of the picture of who held the lock and who led."""


class Timeline(Telling):
    """A timeline with a colour for each extension."""

    def opening(self, url: str, how: str, asked: float) -> None:
        """Tell what is played where."""
        self._open("demo", f"three extensions, {how}", url, promised(self._facts, asked))

    def _colour(self, who: str) -> str:
        return CAST[who].colour if who in CAST else "white"

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
        self._close(_measured(facts))


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
