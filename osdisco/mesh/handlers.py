"""What a process does for others: handlers by method, and what becomes of a request. No network is known here.

A request is taken or refused; a refusal says that surely no handler ran, so that the caller may go elsewhere. What a
handler raises is told by its type and message, and its traceback stays in this process's log.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import typing
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from attrs import define, frozen

from osdisco.discovery.leaving import Leaving, LeavingPhase
from osdisco.errors import ConfigError, DeadlineExceededError, OsdiscoError, RemoteError
from osdisco.mesh import deadline
from osdisco.mesh._alarms import Alarms
from osdisco.mesh._seeing import OTHER, Seeing
from osdisco.mesh._wire import Refusal, failed, is_method, refused
from osdisco.mesh.codec import CodecError, check_kind, decode, encode
from osdisco.mesh.deadline import DEFAULT_TIMEOUT
from osdisco.mesh.transport import RESPONSE_MAX, MeshRequest, MeshResponse
from osdisco.runtime import Clock

log = logging.getLogger("osdisco")

AT_ONCE: Final = 1000
"""Requests that are under way at once, beyond which more are refused."""

_GONE: Final = {LeavingPhase.REMOVING, LeavingPhase.LEFT}


@define(eq=False)
class _Served:
    """The request of a handler, as long as it runs: its context may live on in tasks that it began."""

    request: MeshRequest | None


_INCOMING: ContextVar[_Served | None] = ContextVar("osdisco mesh request", default=None)

Handler = Callable[..., Any]
"""A function, or better a coroutine function, of one request or of nothing; what it returns is the result.

The annotation of its parameter says what the request must be; without one it gets JSON as it is.
"""


def incoming() -> MeshRequest | None:
    """Return the request that the running handler serves: its metadata, attempt and headers; None outside of any.

    A task that a handler started gets None, too, when the handler has ended.
    """
    served = _INCOMING.get()
    return None if served is None else served.request


@frozen
class Method:
    """A handler, and what it takes."""

    name: str
    function: Handler
    takes: bool
    kind: Any

    @classmethod
    def of(cls, name: str, function: Handler) -> Method:
        """Look at a handler. Raises ConfigError for what is none."""
        if not is_method(name):
            raise ConfigError(f"{name!a} is no name of a method: letters, digits, '_', '.' and '-', at most 128")
        if not callable(function):
            raise ConfigError(f"the handler of {name} must be a function, not {function!a}")
        parameters = _needed(name, function)
        if len(parameters) > 1 or any(one.kind is one.KEYWORD_ONLY for one in parameters):
            raise ConfigError(f"the handler of {name} must take the request alone, or nothing")
        if not parameters:
            return cls(name, function, False, None)
        return cls(name, function, True, _kind_of(name, function, parameters[0]))

    def call(self, request: Any) -> Any:
        """Call it; what it returns may have to be awaited."""
        return self.function(request) if self.takes else self.function()


def _needed(name: str, function: Handler) -> list[inspect.Parameter]:
    """Return the parameters that must be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        raise ConfigError(f"what the handler of {name} takes cannot be seen; wrap it into a function") from None
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one for one in parameters if one.default is one.empty and one.kind not in open_ended]


def _kind_of(name: str, function: Handler, parameter: inspect.Parameter) -> Any:
    """Return the type that the request must be, by the annotation."""
    kind = parameter.annotation
    if kind is parameter.empty:
        return None
    try:
        if isinstance(kind, str):
            kind = typing.get_type_hints(_written(function))[parameter.name]
        check_kind(kind)
    except (NameError, TypeError, CodecError) as exc:
        said = f"the type of the request of {name} cannot be used: {exc}"
        raise ConfigError(f"{said}; define it in a module, or leave the annotation out to get JSON") from None
    return kind


def _written(function: Handler) -> Any:
    """Return the function behind a partial one or an object that is called: annotations are read where it stands."""
    while isinstance(function, partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


class Handlers:
    """Serves requests for one service. Calling it is an `Answer` of a transport.

    Args:
        at_once: how many requests may be under way.
        seeing: who looks on.

    Raises:
        ConfigError: handlers that are none.
    """

    def __init__(
        self,
        service: str,
        handlers: Mapping[str, Handler],
        clock: Clock,
        at_once: int = AT_ONCE,
        seeing: Seeing | None = None,
    ) -> None:
        if not isinstance(handlers, Mapping) or not handlers:
            raise ConfigError("handlers are functions by the name of their method, such as {'search': search}")
        if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
            raise ConfigError(f"at_once is a number of requests, 1 or more, not {at_once!a}")
        self._service = service
        self._methods = {name: Method.of(name, function) for name, function in handlers.items()}
        self._clock = clock
        self._at_once = at_once
        self._alarms = Alarms()
        self._seeing = seeing
        self.running = 0
        self.leaving: Leaving | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of what can be called."""
        return tuple(self._methods)

    def leave_by(self, leaving: Leaving) -> None:
        """Let a way out wait for what is under way, from now on."""
        self.leaving = leaving
        if self.running:  # or their end would be taken for that of as many later ones
            leaving.count(self.running)

    def __call__(self, request: MeshRequest) -> Awaitable[MeshResponse]:
        """Serve a request; raises nothing but CancelledError."""
        if self._seeing is None or not self._seeing.active:
            return self._serve(request)
        ours = request.service == self._service and request.method in self._methods
        return self._seeing.serving(self._service, request.method if ours else OTHER, request, self._serve)

    async def _serve(self, request: MeshRequest) -> MeshResponse:
        if (refusal := self._turned_away(request)) is not None:
            return refusal
        method = self._methods[request.method]
        try:
            argument = decode(request.body, method.kind) if method.takes else None
        except CodecError as exc:
            return refused(Refusal.BAD_REQUEST, f"the request of {method.name} cannot be read: {exc}")
        self._count(1)
        try:
            response = await self._run(method, argument, request)
        finally:
            self._count(-1)
        response.last = self.leaving is not None and self.leaving.begun
        return response

    def _turned_away(self, request: MeshRequest) -> MeshResponse | None:
        """Return the refusal of a request that is not taken, or None."""
        if self.leaving is not None and self.leaving.phase in _GONE:
            return refused(Refusal.STOPPING, f"this endpoint of {self._service} has left; ask another one")
        if request.service != self._service:
            return refused(Refusal.OTHER_SERVICE, f"this endpoint serves {self._service!a} by now")
        if request.method not in self._methods:
            known = ", ".join(sorted(self._methods))
            return refused(Refusal.NO_METHOD, f"{self._service} has no method {request.method!a}; it has {known}")
        if request.timeout is not None and request.timeout <= 0:
            return refused(Refusal.TOO_LATE, "the time of the call was over when it came")
        if self.running >= self._at_once:
            return refused(Refusal.OVERLOADED, f"{self.running} requests are under way; {self._at_once} are allowed")
        return None

    def _count(self, more: int) -> None:
        self.running += more
        if self.leaving is not None:
            self.leaving.count(more)

    async def _run(self, method: Method, argument: Any, request: MeshRequest) -> MeshResponse:
        timeout = DEFAULT_TIMEOUT if request.timeout is None else request.timeout
        served = _Served(request)
        until, token = deadline.begin(self._clock.now() + timeout), _INCOMING.set(served)
        try:
            with self._alarms.within(timeout) as scope:
                result = method.call(argument)
                if isinstance(result, Awaitable):
                    result = await result
            return self._result(method, result)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return failed(500, "CancelledError", f"{method.name} was cancelled from within")
        except Exception as exc:
            return self._failure(method, exc, timeout if scope.expired else None)
        finally:  # a transport within one process may run it in the context of its caller
            served.request = None
            _INCOMING.reset(token)
            deadline.end(until)

    def _result(self, method: Method, result: Any) -> MeshResponse:
        try:
            body = encode(result)
        except CodecError as exc:
            log.error("the result of %s.%s cannot be sent: %s", self._service, method.name, exc)
            return failed(500, "ResponseError", f"the result of {method.name} cannot be sent: {exc}")
        if len(body) > RESPONSE_MAX:
            said = f"the result of {method.name} takes {len(body)} bytes; {RESPONSE_MAX} are allowed"
            log.error("%s.%s: %s", self._service, method.name, said)
            return failed(500, "ResponseError", said)
        return MeshResponse(200, body)

    def _failure(self, method: Method, exc: Exception, expired: float | None) -> MeshResponse:
        if expired is not None and isinstance(exc, TimeoutError):
            return failed(504, DeadlineExceededError.__name__, f"{method.name} took longer than {expired:g} s")
        if isinstance(exc, RemoteError):  # chosen by the handler, or of a service that it called itself
            return failed(_status(exc.status), _words(exc.type), _words(exc.message))
        if isinstance(exc, DeadlineExceededError):
            return failed(504, DeadlineExceededError.__name__, str(exc))
        kind, words = type(exc).__name__, _words(exc)
        if isinstance(exc, OsdiscoError):  # it says where it is from, and comes with each call while that is away
            log.warning("%s.%s failed: %s: %a", self._service, method.name, kind, words)
        else:
            log.error("%s.%s failed", self._service, method.name, exc_info=exc)
        return failed(500, kind, words)


def _status(said: object) -> int:
    """Return the status that a handler chose, or that of a failure when it is none."""
    return said if isinstance(said, int) and 400 <= said <= 599 else 500


def _words(said: object) -> str:
    """Return text of whatever a handler raised; its class may be unable to."""
    try:
        return str(said)
    except Exception as exc:
        return f"it cannot be told: {type(exc).__name__}"
