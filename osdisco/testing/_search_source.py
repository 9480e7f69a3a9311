"""A source without sockets, over a cluster on paper: for virtual time, where simulations live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from osdisco.cluster import _questions
from osdisco.cluster._questions import LEFT_OUT, Question
from osdisco.cluster.source import StateVersion, parse_version
from osdisco.errors import (
    ClosedError,
    ClusterDeniedError,
    ClusterDocumentError,
    ClusterError,
    ClusterUnavailableError,
)
from osdisco.testing._search_answers import Answer
from osdisco.testing._search_faults import RETRY_AFTER, SLOW, TEXTS, Fault, Faults, Rule

if TYPE_CHECKING:
    from osdisco.testing.opensearch import FakeCluster


class FakeSource:
    """A `ClusterStateSource` that reads a FakeCluster. It sleeps by the loop's own time, and opens nothing.

    Faults are the cluster's, which all of its sources have, and its own (`faults`), as when only one process cannot
    reach the cluster.
    """

    def __init__(self, cluster: FakeCluster, *, timeout: float = 5.0, state_timeout: float = 60.0) -> None:
        self._cluster = cluster
        self.faults: Final = Faults()
        self._timeout = timeout
        self._state_timeout = state_timeout
        self._closed = False

    def __repr__(self) -> str:
        return f"<FakeSource of {self._cluster!r}>"

    async def version(self) -> StateVersion:
        """Return which state the cluster has; see `ClusterStateSource`."""
        return parse_version(await self._ask(_questions.VERSION), f"GET {_questions.VERSION.path}")

    async def state(self) -> bytes:
        """Return the state as JSON."""
        return await self._ask(_questions.state(LEFT_OUT))

    async def nodes(self) -> bytes:
        """Return the nodes that answer as JSON."""
        return await self._ask(_questions.nodes(self._timeout))

    async def settings(self) -> bytes:
        """Return the settings as flat JSON."""
        return await self._ask(_questions.SETTINGS)

    async def search_shards(self, index: str, routing: str | None = None) -> bytes:
        """Return the copies that a search goes to as JSON."""
        return await self._ask(_questions.search_shards(index, routing))

    async def aclose(self) -> None:
        """Answer no more."""
        self._closed = True

    async def _ask(self, question: Question) -> bytes:
        self._check_open()
        self._cluster.requests[question.path] += 1
        asked = f"GET {question.path}"
        body = await self._sent(question, asked)
        self._check_open()
        self._cluster.sent[question.path] += len(body)
        question.check(body, asked)
        return body

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the source of the cluster's state is closed")

    async def _sent(self, question: Question, asked: str) -> bytes:
        rule = self.faults.take(question.path) or self._cluster.faults.take(question.path)
        if rule is not None and rule.fault in TEXTS:
            return TEXTS[rule.fault].encode()
        if rule is not None:
            await self._delay(rule, question, asked)
            if (failure := _failure(rule, asked)) is not None:
                raise failure
        else:
            await asyncio.sleep(0)
        answer = self._cluster.answer(question.path, dict(question.params))
        if answer.status != 200:
            raise _refusal(question, answer, asked)
        return answer.body

    async def _delay(self, rule: Rule, question: Question, asked: str) -> None:
        """Wait as long as the fault lets one wait, at most as long as a source does."""
        limit = self._state_timeout if question.whole else self._timeout
        seconds = (SLOW if rule.seconds is None else rule.seconds) if rule.fault is Fault.SLOW else 0.0
        if rule.fault is Fault.HANG or seconds > limit:
            await asyncio.sleep(limit)
            raise ClusterUnavailableError(f"{asked}: no answer within {limit:.3g} s")
        await asyncio.sleep(seconds)


def _failure(rule: Rule, asked: str) -> ClusterError | None:
    """Return what `OpenSearchHttpSource` makes of a fault; None when the answer is one."""
    make = _FAILURES.get(rule.fault)
    return make(asked, rule) if make else None


_FAILURES: Final[dict[Fault, Callable[[str, Rule], ClusterError]]] = {
    Fault.UNAVAILABLE: lambda asked, rule: ClusterUnavailableError(f"{asked}: 503", rule.seconds),
    Fault.BUSY: lambda asked, rule: ClusterUnavailableError(
        f"{asked}: 429", RETRY_AFTER if rule.seconds is None else rule.seconds
    ),
    Fault.CUT: lambda asked, rule: ClusterUnavailableError(f"{asked}: the connection ended without an answer"),
    Fault.HALF: lambda asked, rule: ClusterDocumentError(f"{asked}: the connection ended in the middle of the answer"),
    Fault.HUGE: lambda asked, rule: ClusterDocumentError(f"{asked}: the answer has more bytes than are allowed"),
    Fault.BOMB: lambda asked, rule: ClusterDocumentError(f"{asked}: the answer has more bytes than are allowed"),
    Fault.REDIRECT: lambda asked, rule: ClusterDocumentError(f"{asked}: 302, a redirect, which is never followed"),
    Fault.NOT_FOUND: lambda asked, rule: ClusterDocumentError(f"{asked}: 404; there is no such path here"),
    Fault.DENIED: lambda asked, rule: ClusterDeniedError(f"{asked}: 401"),
    Fault.FORBIDDEN: lambda asked, rule: ClusterDeniedError(f"{asked}: 403"),
}


def _refusal(question: Question, answer: Answer, asked: str) -> ClusterError:
    if answer.status == 404 and question.index is not None:
        return _questions.no_such_index(question, asked)
    return ClusterDocumentError(f"{asked}: {answer.status}")
