"""The protocol between the backend and a transport, and what both transports share: endpoints, token, outcomes.

A request goes to one endpoint, once. Only a refused token, which proves that nothing was applied, makes it go again,
once, with a new one. After a failure that speaks against the endpoint the next request uses the next one.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

from attrs import define, evolve

from osdisco.backend import EndpointStatus, Item
from osdisco.errors import ClosedError, DeniedError, IndeterminateError, OsdiscoError, UnavailableError
from osdisco.runtime import Clock, Secret
from osdisco_etcd._auth import Auth
from osdisco_etcd._errors import Failure, Refused, Verdict, error_for, verdict_on
from osdisco_etcd._options import Settings

T = TypeVar("T")

CREATED, MODIFIED, LEASE = "CREATE", "MOD", "LEASE"
_MALFORMED: Final = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError)


class Compare(NamedTuple):
    """A condition as etcd has it: `field` of `key` equals `number`."""

    key: bytes
    field: str
    number: int


class Write(NamedTuple):
    """A put, or a delete when there is no value."""

    key: bytes
    value: bytes | None
    lease: int


class Event(NamedTuple):
    """One change; `item` is None for a delete."""

    revision: int
    key: str
    item: Item | None


@define
class Response:
    """One message of a watch."""

    revision: int
    events: list[Event]
    created: bool = False
    canceled: bool = False
    compacted: bool = False
    fragment: bool = False
    reason: str = ""


class Stream(ABC):
    """One watch at one endpoint, from the revision `start` on.

    The read under way is a task: silence must not cancel it, and closing the backend must.
    """

    answers_probes: ClassVar[bool] = False

    def __init__(self, wire: Wire, endpoint: int, carried: object, start: int) -> None:
        self.endpoint = endpoint
        self.carried = carried
        self.start = start
        self.ended = False
        self.heard = False  # whether any message came
        self._streams = wire.streams
        self._streams.add(self)
        self._read: asyncio.Task[Response] | None = None
        self._doubt = asyncio.get_running_loop().create_future()

    async def receive(self, timeout: float) -> Response | None:
        """Return the next message, or None after `timeout` seconds of silence, from which the stream goes on.

        After a `doubt` it does not wait.
        """
        read = self._read = self._read or asyncio.create_task(self._next())
        await asyncio.wait((read, self._doubt), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if self._doubt.done():
            self._doubt = self._doubt.get_loop().create_future()
        if not read.done():
            return self._part()
        self._read, self.heard = None, True
        if read.cancelled():
            raise ClosedError("this etcd backend was closed meanwhile")
        return read.result()

    def doubt(self) -> None:
        """Wait no longer for the server to speak by itself: something else has failed at this endpoint."""
        if not self._doubt.done():
            self._doubt.set_result(None)

    async def probe(self) -> None:
        """Ask the server for its progress; only where `answers_probes`, and after it was `heard`."""
        raise NotImplementedError

    def give_up(self) -> None:  # noqa: B027 - over HTTP a watch has a connection of its own, which ends with it
        """Let nobody else use the connection on which the server was silent, also when it was asked."""

    def cut(self) -> asyncio.Task[Response] | None:
        """End the stream at once; returns the read that was under way, to be waited for."""
        ends_by_that = self._hang_up()
        if self._read is not None and not ends_by_that:
            self._read.cancel()
        return self._read

    async def aclose(self) -> None:
        """End the stream and leave nothing behind."""
        self._streams.discard(self)
        read = self.cut()
        try:
            if read is not None:
                await asyncio.wait((read,))
                _ = read.cancelled() or read.exception()
                self._read = None  # else task, traceback and stream hold each other, and the stream its connection
        finally:
            self._ended()

    def _part(self) -> Response | None:
        """Return a message without content if a part of the next one has come, else None."""
        return None

    @abstractmethod
    async def _next(self) -> Response:
        """Open the stream, the first time, and read a message."""

    @abstractmethod
    def _hang_up(self) -> bool:
        """Tell the transport that nobody listens any more; returns whether the read under way ends by that."""

    def _ended(self) -> None:  # noqa: B027 - over HTTP nothing is shared that could be let go
        """Let go what is shared with others; nothing is under way any more."""


class Wire(ABC):
    """One transport. What a subclass sends and how it reads the answer is its own; when and to whom is decided here."""

    errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, settings: Settings, clock: Clock, anonymous: object) -> None:
        self.settings = settings
        self.endpoint = 0
        self.closed = False
        self.streams: set[Stream] = set()
        self.auth = Auth(settings.credentials, self._login, anonymous)
        self._anonymous = anonymous
        self._clock = clock

    @abstractmethod
    async def get(self, key: str, timeout: float) -> Item | None:
        """Read one key."""

    @abstractmethod
    async def range(self, key: bytes, end: bytes, timeout: float) -> tuple[list[Item], int]:
        """Read a range, or one key when `end` is empty, and the revision at which it was read."""

    @abstractmethod
    async def put(self, key: str, value: bytes, timeout: float) -> int:
        """Write one key and return the revision."""

    @abstractmethod
    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write], timeout: float) -> int | None:
        """Apply the writes if all compares hold and return the revision; None when one does not."""

    @abstractmethod
    async def txn_and_range(
        self, compares: Sequence[Compare], writes: Sequence[Write], key: bytes, end: bytes, timeout: float
    ) -> tuple[list[Item], int] | None:
        """Apply the writes if all compares hold; return what is in a range then, and the revision; None as `txn`."""

    @abstractmethod
    async def grant(self, lease: int, ttl: int, timeout: float) -> int:
        """Grant a lease under an id of the caller's choice and return its ttl."""

    @abstractmethod
    async def renew(self, lease: int, timeout: float) -> int:
        """Renew a lease and return its ttl, 0 when it is gone."""

    @abstractmethod
    async def revoke(self, lease: int, timeout: float) -> None:
        """End a lease."""

    @abstractmethod
    async def lease_status(self, lease: int, timeout: float) -> tuple[int, int] | None:
        """Return the ttl that a lease was granted and the seconds that are left; None when it is gone."""

    @abstractmethod
    async def status(self, endpoint: int, timeout: float) -> EndpointStatus:
        """Ask one endpoint how it is."""

    @abstractmethod
    def watch(self, endpoint: int, carried: object, key: bytes, end: bytes, start: int) -> Stream:
        """Prepare a watch from a revision on; the first `receive` opens it."""

    @abstractmethod
    def failure(self, exc: Exception) -> Failure:
        """Put one of `errors` into common words."""

    @abstractmethod
    async def _send(self, endpoint: int, method: str, request: Any, timeout: float, carried: object) -> Any:
        """Send one request, once."""

    @abstractmethod
    async def _login(self, username: str, password: Secret) -> object:
        """Fetch a token in the form in which requests carry it."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Close all connections."""

    async def call(
        self,
        method: str,
        request: Any,
        decode: Callable[[Any], T],
        timeout: float,
        *,
        subject: str,
        mutates: bool = True,
        to: int | None = None,
    ) -> T:
        """Send a request, `to` one endpoint or the present one, and decode its answer; `timeout` seconds for all."""
        started = self._clock.now()
        left = timeout
        for again in (False, True):
            endpoint = self.endpoint if to is None else to
            carried = self.auth.carried
            try:
                if self.closed:
                    raise ClosedError("this etcd backend is closed")
                if carried is None:
                    carried = await self.auth.renew(None, left)
                    left = self._left(started, timeout)
                answer = await self._send(endpoint, method, request, left, carried)
                return decoded(answer, decode)
            except asyncio.CancelledError as exc:
                self._raise_if_closed(exc, mutates)
                raise
            except self.errors as exc:
                failure = self.failure(exc)
                if not again and self.auth.renewable and verdict_on(failure) is Verdict.STALE_TOKEN:
                    await self.auth.renew(carried, self._left(started, timeout))
                    left = self._left(started, timeout)
                    continue
                raise self.failed(failure, endpoint, f"{method} of {subject!a}", mutates) from exc
        raise AssertionError("the second round returns or raises")

    def failed(self, failure: Failure, endpoint: int, what: str, mutates: bool) -> OsdiscoError:
        """Turn away from an endpoint that failed, and return the error to raise."""
        if self.closed and not (mutates and failure.sent):
            return ClosedError("this etcd backend was closed meanwhile")
        if verdict_on(failure) in (Verdict.UNAVAILABLE, Verdict.UNKNOWN):
            self.rotate(endpoint)
        return error_for(failure, what=what, endpoint=self.settings.endpoints[endpoint], mutates=mutates)

    def not_logged_in(self, failure: Failure, endpoint: int) -> object:
        """Go on without a token where the server has no users, as etcd's own clients do; otherwise raise."""
        if verdict_on(failure) is Verdict.AUTH_OFF:
            return self._anonymous
        raise self.failed(failure, endpoint, "the login", mutates=False)

    def rotate(self, endpoint: int) -> None:
        """Go on with the next endpoint, unless somebody else has already turned away from this one.

        Watches cannot tell a dead server from one that has no news: whoever can tell them does.
        """
        if endpoint == self.endpoint:
            self.endpoint = (endpoint + 1) % len(self.settings.endpoints)
            for stream in self.streams:
                if stream.endpoint == endpoint:
                    stream.doubt()

    async def inspect(self, timeout: float) -> Sequence[EndpointStatus]:
        """Ask all endpoints how they are, at once."""
        if self.closed:
            raise ClosedError("this etcd backend is closed")
        if self.auth.carried is None:
            with suppress(OsdiscoError):  # each endpoint will say so itself
                await self.auth.renew(None, timeout)
        return await asyncio.gather(*(self._status(n, timeout) for n in range(len(self.settings.endpoints))))

    async def _status(self, endpoint: int, timeout: float) -> EndpointStatus:
        started = self._clock.now()
        try:
            found = await self.status(endpoint, timeout)
        except OsdiscoError as exc:
            known = isinstance(exc, DeniedError) and self.auth.logged_in  # well, but tells root only
            found = EndpointStatus("", None if known else str(exc), details={"status": "denied"} if known else {})
        return evolve(found, endpoint=self.settings.endpoints[endpoint], latency=self._clock.now() - started)

    async def aclose(self) -> None:
        """Cut all that is under way."""
        self.closed = True
        reads = [read for stream in self.streams if (read := stream.cut())]
        if reads:
            await asyncio.wait(reads)
        await self.auth.aclose()
        await self._disconnect()

    def _left(self, started: float, timeout: float) -> float:
        left = started + timeout - self._clock.now()
        if left <= 0:
            raise UnavailableError("etcd: the time ran out during the login; not applied")
        return left

    def _raise_if_closed(self, exc: asyncio.CancelledError, mutates: bool) -> None:
        """A driver that is closed cancels its calls; to the caller, who was not cancelled, that is an error."""
        task = asyncio.current_task()
        if not self.closed or (task is not None and task.cancelling()):
            return
        if mutates:
            raise IndeterminateError(
                "this etcd backend was closed during the request, which may have been applied"
            ) from exc
        raise ClosedError("this etcd backend was closed meanwhile") from exc


def decoded(answer: Any, decode: Callable[[Any], T]) -> T:
    """Decode an answer; what does not have the shape of etcd's is Refused."""
    try:
        return decode(answer)
    except _MALFORMED as exc:
        raise Refused(Failure("the answer is not one of etcd")) from exc


def text(key: bytes) -> str:
    """Return a key as text; bytes of foreign writers survive."""
    return key.decode("utf-8", "surrogateescape")


def raw(key: str) -> bytes:
    """Return a key as bytes."""
    return key.encode("utf-8", "surrogateescape")
