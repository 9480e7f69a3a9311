"""What can be wrong with a search cluster's answers, switched on and off while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final

from attrs import define

RETRY_AFTER: Final = 2.0
"""Seconds that `BUSY` says when it is given none."""

SLOW: Final = 1.0
"""Seconds that `SLOW` takes when it is given none."""


class Fault(StrEnum):
    """One thing that is wrong."""

    SLOW = "slow"
    """The answer comes after `seconds`."""
    UNAVAILABLE = "unavailable"
    """503, as without a cluster manager; with `seconds` as `Retry-After` if they are given."""
    BUSY = "busy"
    """429, with `seconds` as `Retry-After`."""
    HALF = "half"
    """The connection ends in the middle of the body."""
    WRONG_JSON = "wrong_json"
    """A JSON object, whose fields have the wrong types."""
    NO_JSON = "no_json"
    """Text that is no JSON."""
    HTML = "html"
    """A web page, with status 200, as from a log-in page in between."""
    EMPTY = "empty"
    """Status 200, and nothing."""
    REDIRECT = "redirect"
    """302 to another place."""
    DENIED = "denied"
    """401."""
    FORBIDDEN = "forbidden"
    """403: known, but without the privilege."""
    NOT_FOUND = "not_found"
    """404, as from something that is no search cluster."""
    HANG = "hang"
    """No answer at all."""
    CUT = "cut"
    """The connection ends before the answer begins."""
    HUGE = "huge"
    """A body without an end."""
    BOMB = "bomb"
    """A body of a few hundred KiB that unpacks to a GiB."""


@define(eq=False)
class Rule:
    """A fault, and for whom. `left` counts down the requests that it is for; None is all of them."""

    fault: Fault
    path: str
    server: int | None
    seconds: float | None
    left: int | None

    def concerns(self, path: str, server: int | None) -> bool:
        """Whether a request is one that goes wrong."""
        return self.left != 0 and path.startswith(self.path) and self.server in (None, server)


TEXTS: Final = {
    Fault.WRONG_JSON: '{"cluster_name":7,"cluster_uuid":["x"],"version":"172","state_uuid":null,"nodes":[]}',
    Fault.NO_JSON: "upstream connect error or disconnect/reset before headers",
    Fault.HTML: "<!DOCTYPE html><title>Log in</title>",
    Fault.EMPTY: "",
}
"""What is answered by the faults that are a text."""


class Faults:
    """The faults that are on. The newest that concerns a request is its own."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(
        self,
        fault: Fault | str,
        path: str = "/",
        *,
        server: int | None = None,
        seconds: float | None = None,
        times: int | None = None,
    ) -> Rule:
        """Switch a fault on.

        Args:
            fault: which.
            path: what the paths begin with that it is for.
            server: the number of the one server that has it; all when None.
            seconds: how long `SLOW` takes, or what `BUSY` and `UNAVAILABLE` say as `Retry-After`.
            times: for so many requests; for all when None.
        """
        rule = Rule(Fault(fault), path, server, seconds, times)
        self._rules.append(rule)
        return rule

    @contextmanager
    def on(self, fault: Fault | str, path: str = "/", **options: Any) -> Iterator[None]:
        """Have a fault within a `with`; the arguments are those of `add`."""
        rule = self.add(fault, path, **options)
        try:
            yield
        finally:
            self._rules = [one for one in self._rules if one is not rule]

    def clear(self) -> None:
        """Switch all off."""
        self._rules.clear()

    def take(self, path: str, server: int | None = None) -> Rule | None:
        """Return what goes wrong with a request, and count it."""
        rule = next((one for one in reversed(self._rules) if one.concerns(path, server)), None)
        if rule is not None and rule.left is not None:
            rule.left -= 1
        return rule
