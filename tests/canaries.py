"""Secrets must not be shown: what a whole test run says is searched for those that its tests use.

Passwords and tokens of tests, and of the servers for them, hold one of `MARKS`. Searched are log records and their
tracebacks, warnings, captured output, failures, the words of every error of osdisco and of every exception that a test
expects, with what it came from, and the reprs of every client. The test in which one shows fails.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Generator
from typing import Any
from warnings import WarningMessage

import pytest

from osdisco.client import Client
from osdisco.errors import OsdiscoError
from osdisco.testing._stores import CANARIES

MARKS = (*CANARIES, "s3cr3t", "hunter2", "geheim")
_SEARCH = re.compile("|".join(MARKS)).search
_TOKEN = re.compile(r"(?<![\w.])(?=[a-z]*[A-Z][a-zA-Z]*[a-z][a-zA-Z]*[A-Z])[A-Za-z]{16}\.\d{1,7}(?![\w.])")
"""One that etcd gave out: sixteen letters by chance and a number."""
HEARD = ("osdisco", "aiohttp", "grpc", "asyncio")
"""The logs that are searched at every level, with all below them: those of osdisco and of what carries its secrets."""
ALL = logging.DEBUG - 1
"""Their level, which nobody else sets."""


class Canaries:
    """Searches. `found` has what was found since it was last asked, by where."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._warned: set[str] = set()

    def search(self, where: str, text: str) -> None:
        """Look for a secret in a text."""
        if (hit := _SEARCH(text) or _TOKEN.search(text)) is not None:
            around = text[max(hit.start() - 60, 0) : hit.end() + 20].replace(hit[0], "<SECRET>")
            self.found.append(f"{where}: …{around}…")

    def search_record(self, record: logging.LogRecord) -> None:
        """Search a log record."""
        self.search(f"the log of {record.name}", record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            self.search_exception(f"a traceback in the log of {record.name}", record.exc_info[1])

    def search_exception(self, where: str, exc: BaseException) -> None:
        """Search what a traceback says, but for the lines of source in it."""
        seen: set[int] = set()
        pending: list[BaseException | None] = [exc]
        while pending:
            one = pending.pop()
            if one is None or id(one) in seen:
                continue
            seen.add(id(one))
            self.search(where, "".join(traceback.format_exception_only(one)))
            pending += [one.__cause__, None if one.__suppress_context__ else one.__context__]
            pending += one.exceptions if isinstance(one, BaseExceptionGroup) else ()

    def search_warning(self, _: object, message: object, *__: object) -> None:
        """Search a warning. pytest makes each once more, when it has reported the test."""
        if (text := str(message)) not in self._warned:
            self._warned.add(text)
            self.search("a warning", text)

    def search_expected(self, _: object, kind: object, exc: BaseException | None, trace: object) -> None:
        """Search what `pytest.raises` has caught."""
        if exc is not None:
            self.search_exception("an expected error", exc)

    def search_client(self, client: Client) -> None:
        """Search what a client, and what is in it, shows of itself."""
        for shown in (client, client.url, client.runtime, client.options, client.backend):
            self.search("a repr", repr(shown))

    def search_report(self, report: pytest.TestReport) -> None:
        """Search captured output, and what a failure says."""
        for name, text in report.sections:
            if name.endswith(str(report.when)) and "log" not in name:  # logs are searched as they come
                self.search(name, text)
        if report.failed:
            said = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
            self.search("a failure", "\n".join(said))

    def taken(self) -> list[str]:
        """Return what was found, and forget it."""
        found, self.found = list(dict.fromkeys(self.found)), []
        return found


class Plugin:
    """Lets the test fail in which a secret shows."""

    def __init__(self) -> None:
        self.canaries = Canaries()
        self._patch = pytest.MonkeyPatch()

    def pytest_configure(self) -> None:
        """Begin to listen."""
        canaries = self.canaries
        self._hear()
        self._look(Client, "__init__", lambda client, *_: canaries.search_client(client))
        self._look(OsdiscoError, "__init__", lambda _, *said: canaries.search("an error", " ".join(map(str, said))))
        self._look(WarningMessage, "__init__", canaries.search_warning)
        self._look(type(pytest.raises(OsdiscoError)), "__exit__", canaries.search_expected)

    def _hear(self) -> None:
        """Search what is said to any log, also what nobody listens to; all others hear what they would without this."""
        canaries, inner = self.canaries, logging.Logger.callHandlers

        def call_handlers(log: logging.Logger, record: logging.LogRecord) -> None:
            canaries.search_record(record)
            if _would_be_heard(record.levelno, log):
                inner(log, record)

        self._patch.setattr(logging.Logger, "callHandlers", call_handlers)
        for name in HEARD:
            logging.getLogger(name).setLevel(ALL)

    def _look(self, owner: type, name: str, look: Callable[..., object]) -> None:
        """Look at something after each call of a method."""
        inner = getattr(owner, name)

        def method(itself: Any, *args: Any, **kwargs: Any) -> Any:
            result = inner(itself, *args, **kwargs)
            look(itself, *args)
            return result

        self._patch.setattr(owner, name, method)

    def pytest_unconfigure(self) -> None:
        """Leave all as it was."""
        self._patch.undo()
        for name in HEARD:
            logging.getLogger(name).setLevel(logging.NOTSET)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn the report into a failure when anything was found."""
        report = yield
        self.canaries.search_report(report)
        if found := self.canaries.taken():
            report.outcome = "failed"
            report.longrepr = "\n".join(["a secret is shown:", *found[:10]])
        return report


def _would_be_heard(level: int, log: logging.Logger | None) -> bool:
    while log is not None and log.level in (logging.NOTSET, ALL):
        log = log.parent
    return log is None or level >= log.level
