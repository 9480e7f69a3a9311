"""What is seen of calls: where those are that look on. Whoever makes or serves calls comes here, if anybody looks on.

`active` is the one thing that a call asks while nobody does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

from osdisco.errors import (
    CallInterruptedError,
    CircuitOpenError,
    DeadlineExceededError,
    EndpointUnreachableError,
    NoHealthyEndpointsError,
    OverloadedError,
    RemoteError,
    RequestError,
    ResponseError,
    RulesError,
    ServiceMeshError,
    ServiceNotFoundError,
)
from osdisco.mesh._listeners import Listeners
from osdisco.mesh._state import Outcome
from osdisco.mesh.breaker import BreakerEvent
from osdisco.mesh.call_events import AttemptFailed, PickRefused
from osdisco.mesh.events import PoolEvent
from osdisco.mesh.refusal import Refused
from osdisco.mesh.transport import MeshRequest, MeshResponse
from osdisco.runtime import Clock

if TYPE_CHECKING:
    from osdisco.mesh._calls import Call
    from osdisco.mesh.tracing import Attempt, Tracing

log = logging.getLogger("osdisco")

MeshEvent = PoolEvent | BreakerEvent | PickRefused | AttemptFailed

OTHER: Final = "_OTHER"
"""What a method is called that a service does not have, by OpenTelemetry's conventions."""

_WORDS: Final[dict[type[BaseException], str]] = {
    ServiceNotFoundError: "not_found",
    NoHealthyEndpointsError: "no_healthy_endpoints",
    CircuitOpenError: "circuit_open",
    DeadlineExceededError: "deadline_exceeded",
    EndpointUnreachableError: "unreachable",
    CallInterruptedError: "interrupted",
    RemoteError: "remote_error",
    OverloadedError: "overloaded",
    RequestError: "request_error",
    ResponseError: "response_error",
    RulesError: "rules_error",
    asyncio.CancelledError: "cancelled",
}


def word_of(error: BaseException | None) -> str:
    """Return how a call ended, in one word of which there are few."""
    return "ok" if error is None else _WORDS.get(type(error), "error")


class Observer(Protocol):
    """Counts what happens, while it happens: it is quick, waits for nothing, and does not raise."""

    def called(self, call: Call, error: BaseException | None, seconds: float) -> None:
        """Learn that a call of this process ended, with all its attempts."""

    def attempted(self, service: str, outcome: Outcome, seconds: float) -> None:
        """Learn that an attempt at an endpoint of a service ended."""

    def refused(self, service: str, refused: Refused) -> None:
        """Learn that nobody of a service was picked for an attempt."""

    def retried(self, call: Call, result: str) -> None:
        """Learn that a call is tried again, `made`, or is not: `no_time`, `no_budget`, `no_hope`."""

    def hedged(self, call: Call) -> None:
        """Learn that a second attempt is made beside the first."""

    def served(self, service: str, method: str, status: int, seconds: float) -> None:
        """Learn that a request of others was answered; `method` is `_OTHER` when there is no such."""

    def told(self, event: PoolEvent) -> None:
        """Learn what happened in a pool."""


class Seeing:
    """All who look on at the calls of one mesh."""

    def __init__(self, clock: Clock, tracing: Tracing | None) -> None:
        self._now = clock.now
        self._observers: tuple[Observer, ...] = ()
        self._listeners = Listeners[MeshEvent]()
        self.tracing: Final = tracing
        self.active = tracing is not None

    def add(self, observer: Observer) -> None:
        """Let somebody look on, until `remove`."""
        self._observers += (observer,)
        self.active = True

    def remove(self, observer: Observer) -> None:
        """Let somebody look on no more."""
        self._observers = tuple(one for one in self._observers if one is not observer)
        self.active = bool(self._observers) or self.tracing is not None

    def listen(self, listener: Callable[[MeshEvent], object]) -> Callable[[], None]:
        """Tell a function of all events; returns a function that ends it."""
        return self._listeners.add(listener)

    def tell(self, event: PoolEvent | BreakerEvent) -> None:
        """Pass on what happened in a pool, or to a breaker."""
        if not isinstance(event, BreakerEvent):
            for observer in self._observers:
                observer.told(event)
        log.debug("%s", event)
        self._listeners.tell(event)

    # Calls

    async def calling(self, call: Call, made: Coroutine[Any, Any, Any]) -> Any:
        """Make a call, and see how it ends."""
        began = self._now()
        span: AbstractContextManager[object] = nullcontext() if self.tracing is None else self.tracing.calling(call)
        try:
            with span:
                result = await made
        except BaseException as exc:
            self._called(call, exc, began)
            raise
        self._called(call, None, began)
        return result

    def _called(self, call: Call, error: BaseException | None, began: float) -> None:
        for observer in self._observers:
            observer.called(call, error, self._now() - began)

    def attempting(self, request: MeshRequest, address: str) -> Attempt | None:
        """See an attempt begin; the request gets the context of its span."""
        return None if self.tracing is None else self.tracing.attempting(request, address)

    def attempted(self, service: str, outcome: Outcome, seconds: float, span: Attempt | None) -> None:
        """See it end."""
        if span is not None:
            span.end(outcome)
        for observer in self._observers:
            observer.attempted(service, outcome, seconds)

    def failed(self, call: Call, outcome: Outcome, error: ServiceMeshError, span: Attempt | None) -> ServiceMeshError:
        """Tell why an attempt failed, also while nobody looks on: failures are seldom. Returns the error."""
        if span is not None:
            span.fail(error)
        log.debug("attempt %d of %s.%s: %s", error.attempt, call.service, call.method, error)
        self._listeners.tell(
            AttemptFailed(call.service, call.method, error.attempt, error.endpoint, outcome, word_of(error), str(error))
        )
        return error

    def refused(self, call: Call, service: str, refused: Refused) -> None:
        """Tell why nobody of a service was picked, also while nobody looks on: a call may go elsewhere then."""
        attempt = call.attempt + 1
        log.debug("nobody of %s for attempt %d of %s.%s: %s", service, attempt, call.service, call.method, refused)
        for observer in self._observers:
            observer.refused(service, refused)
        self._listeners.tell(PickRefused(service, call.method, attempt, refused))

    def retried(self, call: Call, result: str) -> None:
        """See whether a call is tried again."""
        for observer in self._observers:
            observer.retried(call, result)

    def hedged(self, call: Call) -> None:
        """See a second attempt be made beside the first."""
        for observer in self._observers:
            observer.hedged(call)

    # Serving

    async def serving(
        self,
        service: str,
        method: str,
        request: MeshRequest,
        serve: Callable[[MeshRequest], Awaitable[MeshResponse]],
    ) -> MeshResponse:
        """Serve a request, and see how it ends. `method` is `_OTHER` when the service has no such."""
        began, status = self._now(), 499  # who asked has gone, as nginx has it
        try:
            if self.tracing is None:
                response = await serve(request)
            else:
                with self.tracing.serving(service, method, request) as span:
                    response = await serve(request)
                    span.answered(response.status)
            status = response.status
            return response
        finally:
            for observer in self._observers:
                observer.served(service, method, status, self._now() - began)
