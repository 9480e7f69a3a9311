"""A source that asks the REST interface of OpenSearch, 1.x to 3.x."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from osdisco.cluster import _questions
from osdisco.cluster._credentials import Given, Headers
from osdisco.cluster._questions import LEFT_OUT, Question
from osdisco.cluster._ring import Node, Ring, parse_nodes
from osdisco.cluster._sending import OverlongError, Sending
from osdisco.cluster._tls import Tls
from osdisco.cluster.source import StateVersion, parse_version
from osdisco.errors import (
    ClusterDeniedError,
    ClusterDocumentError,
    ClusterError,
    ClusterUnavailableError,
    ConfigError,
)
from osdisco.runtime import Runtime, Secret, secret
from osdisco.url import parse_duration

T = TypeVar("T")

BODY_MAX: Final = 256 * 2**20
"""Bytes of an answer that are read when `body_max` is not given."""


class OpenSearchHttpSource:
    """Asks the nodes of a search cluster by HTTP: one of them until it fails, then the next. Close it when done.

    It needs the privileges `cluster:monitor/state` and `cluster:monitor/nodes/info`, and for `search_shards`
    `indices:admin/shards/search_shards`.

    Args:
        nodes: URLs such as `https://os1:9200`; in text with commas between them.
        auth: user and password.
        username: goes with `password_file`.
        password_file: holds the password; read again when it changes, as all files here.
        token: a bearer token.
        token_file: holds the token.
        tls_ca: authorities that are trusted instead of the machine's, as a file in PEM form.
        tls_cert: the certificate that is shown, with `tls_key`.
        tls_key: its key, not encrypted.
        tls_verify: False believes every server, and is logged.
        plaintext_credentials: send credentials over plain http to another machine.
        timeout: seconds for one small question, over all attempts.
        state_timeout: the same for the whole state.
        body_max: bytes that an answer may have, unpacked.
        left_out: fields of the state that are not asked for, as patterns of `filter_path`.
        runtime: where time and randomness come from.
        environ: where credentials and files come from that are not given; the process's own when None.
            `OSDISCO_OPENSEARCH_USERNAME` and `…_PASSWORD`, or `…_TOKEN`; `…_TLS_CA`, `…_TLS_CERT` and `…_TLS_KEY`.

    Raises:
        ConfigError: saying which argument cannot be used, and why; or aiohttp is not installed.
    """

    def __init__(
        self,
        nodes: str | Iterable[str],
        *,
        auth: tuple[str, str | Secret] | None = None,
        username: str | None = None,
        password_file: str | os.PathLike[str] | None = None,
        token: str | Secret | None = None,
        token_file: str | os.PathLike[str] | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        tls_verify: bool = True,
        plaintext_credentials: bool = False,
        timeout: float | str = 5.0,
        state_timeout: float | str = 60.0,
        body_max: int = BODY_MAX,
        left_out: Sequence[str] = LEFT_OUT,
        runtime: Runtime | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        try:
            from osdisco.cluster._wire import Wire
        except ImportError as exc:
            raise ConfigError(
                f"OpenSearchHttpSource needs a package ({exc}): pip install 'osdisco[opensearch]'"
            ) from exc
        self._runtime = runtime or Runtime()
        self._ring = Ring(parse_nodes(nodes), self._runtime)
        given = Given(auth, username, _path(password_file), secret(token), _path(token_file))
        environ = os.environ if environ is None else environ
        self._headers = given.headers(environ)
        tls = Tls(_path(tls_ca), _path(tls_cert), _path(tls_key), tls_verify)
        _check_transport(self._ring.nodes, tls, bool(self._headers.current()) and not plaintext_credentials)
        self._tls = tls.or_from(environ).context() if any(node.tls for node in self._ring.nodes) else None
        self._timeout = parse_duration(timeout)
        self._state_timeout = parse_duration(state_timeout)
        self._body_max = _checked_size(body_max)
        self._state = _questions.state(left_out)
        self._wire = Wire()

    def __repr__(self) -> str:
        return f"<OpenSearchHttpSource {', '.join(node.name for node in self._ring.nodes)}>"

    async def version(self) -> StateVersion:
        """Return which state the cluster has; see `ClusterStateSource`, also for the errors."""
        return await self._ask(_questions.VERSION, parse_version)

    async def state(self) -> bytes:
        """Return the state as JSON, without what is left out."""
        return await self._ask(self._state, _body)

    async def nodes(self) -> bytes:
        """Return roles, addresses and versions of the nodes that answer, as JSON."""
        return await self._ask(_questions.nodes(self._timeout), _body)

    async def settings(self) -> bytes:
        """Return the cluster's settings as flat JSON."""
        return await self._ask(_questions.SETTINGS, _body)

    async def search_shards(self, index: str, routing: str | None = None) -> bytes:
        """Return the copies that a search with this routing value goes to, as JSON."""
        return await self._ask(_questions.search_shards(index, routing), _body)

    async def aclose(self) -> None:
        """Close all connections. What still waits for an answer ends in ClosedError."""
        await self._wire.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _ask(self, question: Question, read: Callable[[bytes, str], T]) -> T:
        """Ask node after node within one deadline; a silent one is given half of what is left, the last one all."""
        now = self._runtime.clock.now
        deadline = now() + (self._state_timeout if question.whole else self._timeout)
        turn, failures = self._ring.in_turn(), list[ClusterError]()
        for n, node in enumerate(turn, 1):
            if (left := deadline - now()) <= 0:
                break
            try:
                answer = await self._asked(question, node, left if n == len(turn) else left / 2, read)
            except (ClusterUnavailableError, ClusterDocumentError) as exc:
                self._fail(node, exc)
                failures.append(exc)
            else:
                self._ring.did_well(node)
                return answer
        raise _summed_up(failures)

    def _fail(self, node: Node, exc: ClusterError) -> None:
        """Turn away from a node; an answer that is too long ends the attempts, for the next one would be as long."""
        self._ring.failed(node, exc.retry_after if isinstance(exc, ClusterUnavailableError) else None)
        if isinstance(exc, OverlongError):
            raise exc

    async def _asked(self, question: Question, node: Node, limit: float, read: Callable[[bytes, str], T]) -> T:
        """Ask one node, once more when it refuses credentials that were changed meanwhile."""
        now = self._runtime.clock.now
        deadline = now() + limit
        headers = self._headers.current()
        sending = self._sending(question, node, headers)
        try:
            body = await self._wire.send(sending, limit)
        except ClusterDeniedError:
            self._headers.again()  # a change of the same size within one tick of the file system is not seen
            left = deadline - now()
            if self._headers.current() == headers or left <= 0:
                raise
            body = await self._wire.send(self._sending(question, node, self._headers.current()), left)
        return read(body, str(sending))

    def _sending(self, question: Question, node: Node, headers: Headers) -> Sending:
        tls = self._tls.current() if self._tls is not None and node.tls else None
        body_max = self._body_max if question.body_max is None else min(question.body_max, self._body_max)
        return Sending(question, node, headers, tls, body_max)


def _body(body: bytes, asked: str) -> bytes:
    return body


def _summed_up(failures: Sequence[ClusterError]) -> ClusterError:
    """Return one error for those of all nodes."""
    if len(failures) == 1:
        return failures[0]
    said = "; ".join(map(str, failures)) or "no time was left to ask any node"
    if failures and all(isinstance(one, ClusterDocumentError) for one in failures):
        return ClusterDocumentError(said)
    hints = [one.retry_after for one in failures if isinstance(one, ClusterUnavailableError) and one.retry_after]
    return ClusterUnavailableError(said, min(hints) if len(hints) == len(failures) else None)


def _check_transport(nodes: Sequence[Node], tls: Tls, guarded: bool) -> None:
    """Refuse what would be insecure or without effect; `guarded` are credentials that must not be overheard."""
    if tls.given and not any(node.tls for node in nodes):
        raise ConfigError(f"{tls.given} has no effect: no node is an https:// one")
    exposed = next((node.name for node in nodes if not node.tls and not node.loopback), None)
    if guarded and exposed:
        raise ConfigError(
            f"credentials would cross the network to {exposed} in plain text; use https, "
            "or say plaintext_credentials=True if the network itself is protected"
        )


def _path(given: str | os.PathLike[str] | None) -> Path | None:
    if given is None:
        return None
    try:
        path = Path(given)
    except TypeError:
        raise ConfigError(f"a file is named by text or a path, not by {type(given).__name__}") from None
    if not str(given) or "\0" in str(given):
        raise ConfigError("an empty path")
    return path


def _checked_size(body_max: int) -> int:
    if isinstance(body_max, bool) or not isinstance(body_max, int) or body_max < 1:
        raise ConfigError("body_max is a number of bytes above zero")
    return body_max
