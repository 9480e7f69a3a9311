"""A source over a client that you have already: `opensearchpy.AsyncOpenSearch`, with its connections and signatures.

osdisco does not depend on opensearch-py: what is called of it is `client.transport.perform_request` (2.x and 3.x).
That parses each answer as a whole and holds the interpreter meanwhile, so that for large clusters
`OpenSearchHttpSource` is the better one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

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
from osdisco.url import parse_duration

_NO_JSON: Final = "SerializationError"
"""The exception of a client that could not read an answer; all its others have a status or are of the connection."""


class Transport(Protocol):
    """What is used of `AsyncTransport`."""

    async def perform_request(self, method: str, url: str, *, params: Mapping[str, Any]) -> Any:
        """Return the answer, parsed. Raises an exception with a `status_code` when there is none."""


class Client(Protocol):
    """What is used of `AsyncOpenSearch`."""

    @property
    def transport(self) -> Transport:
        """What sends its requests."""


class OpenSearchClientSource:
    """Asks by an `AsyncOpenSearch`, which stays yours: closing the source does not close it.

    Args:
        client: the client. How often and where it tries again is its own configuration.
        timeout: seconds for one attempt at a small question.
        state_timeout: the same for the whole state.
        left_out: fields of the state that are not asked for, as patterns of `filter_path`.

    Raises:
        ConfigError: a timeout that is none.
    """

    def __init__(
        self,
        client: Client,
        *,
        timeout: float | str = 5.0,
        state_timeout: float | str = 60.0,
        left_out: Sequence[str] = LEFT_OUT,
    ) -> None:
        self._client = client
        self._timeout = parse_duration(timeout)
        self._state_timeout = parse_duration(state_timeout)
        self._state = _questions.state(left_out)
        self._closed = False

    def __repr__(self) -> str:
        return f"<OpenSearchClientSource over {type(self._client).__name__}>"

    async def version(self) -> StateVersion:
        """Return which state the cluster has; see `ClusterStateSource`, also for the errors."""
        return parse_version(await self._ask(_questions.VERSION), f"GET {_questions.VERSION.path}")

    async def state(self) -> bytes:
        """Return the state as JSON, without what is left out."""
        return await self._ask(self._state)

    async def nodes(self) -> bytes:
        """Return roles, addresses and versions of the nodes that answer, as JSON."""
        return await self._ask(_questions.nodes(self._timeout))

    async def settings(self) -> bytes:
        """Return the cluster's settings as flat JSON."""
        return await self._ask(_questions.SETTINGS)

    async def search_shards(self, index: str, routing: str | None = None) -> bytes:
        """Return the copies that a search with this routing value goes to, as JSON."""
        return await self._ask(_questions.search_shards(index, routing))

    async def aclose(self) -> None:
        """Ask no more."""
        self._closed = True

    async def _ask(self, question: Question) -> bytes:
        if self._closed:
            raise ClosedError("the source of the cluster's state is closed")
        limit = self._state_timeout if question.whole else self._timeout
        asked = f"GET {question.path}"
        try:
            answer = await self._client.transport.perform_request(
                "GET", question.path, params={**question.params, "request_timeout": limit}
            )
        except Exception as exc:  # its own tree, which is not imported here
            raise _meaning(question, asked, exc) from exc
        body = answer.encode(errors="replace") if isinstance(answer, str) else json.dumps(answer).encode()
        question.check(body, asked)
        return body


def _meaning(question: Question, asked: str, exc: Exception) -> ClusterError:
    """Say what an exception of the client means; its message stays with it, for it may hold an answer."""
    status = getattr(exc, "status_code", None)
    kind = type(exc).__name__
    if status in (401, 403):
        return ClusterDeniedError(f"{asked}: {status}; check the client's credentials and their privileges")
    if status == 404 and question.index is not None:
        return _questions.no_such_index(question, asked)
    if kind == _NO_JSON or (isinstance(status, int) and 300 <= status < 500 and status not in (408, 429)):
        return ClusterDocumentError(f"{asked}: {status or kind}; is it a node of OpenSearch?")
    return ClusterUnavailableError(f"{asked}: {status or 'no answer'} ({kind})")
