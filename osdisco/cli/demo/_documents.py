"""The demo as a program reads it: every event a JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from osdisco.cli._output import document
from osdisco.cli.demo._cast import Event
from osdisco.cli.demo._facts import Facts


class Documents:
    """Events as JSON, one a line; `t` is seconds since the start."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def opening(self, url: str, how: str, asked: float) -> None:
        """Tell what is played where."""
        ttls = {"ttl_asked": asked, "ttl": self._facts.ttl, "crash_seen_after_max": self._facts.ttl_late}
        document({"event": "start", "url": url, "extensions": how} | ttls)

    def chapter(self, title: str, text: str) -> None:
        """A part begins."""
        document({"event": "chapter", "title": title, "text": text})

    def event(self, event: Event) -> None:
        """Something happened."""
        head = {"event": event.what, "t": round(event.at - self._facts.start, 6), "who": event.who}
        document(head | dict(event.data))

    def wait(self, text: str) -> None:
        """A program needs no spinner."""

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Close with the measurements."""
        document({"event": "summary"} | dict(facts))
