"""The contract of a transport: how bytes of one call get to one endpoint and back. No policy lives here.

Requests and answers are bytes with headers, as in HTTP; names of headers are lower case. What a transport raises says
whether anything may have been done, and nothing is ever sent twice by it:

* `EndpointUnreachableError`: nothing was sent;
* `CallInterruptedError`: sent, and no answer came, because the connection ended;
* `ResponseError`: sent, and what came is no answer;
* `RequestError`: the request is nothing that can be sent.

Time is not its business but for `connect`: who calls `send` ends it by cancelling.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from attrs import define, field

from osdisco.registry.definition import ServiceEndpoint

REQUEST_MAX: Final = 4 * 1024 * 1024
RESPONSE_MAX: Final = 4 * 1024 * 1024
"""Bytes, as gRPC takes them unless told otherwise."""


@define
class MeshRequest:
    """One attempt of a call.

    Args:
        timeout: seconds that the endpoint has left, as its caller knows them; None when it said nothing.
        attempt: its number, from 1.
        metadata: text by name, which came with the call.
        headers: what else goes along, such as W3C's `traceparent`.
    """

    service: str
    method: str
    body: bytes = field(repr=False)
    timeout: float | None = None
    attempt: int = 1
    metadata: Mapping[str, str] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)


@define
class MeshResponse:
    """What came back. `status` and `headers` are as in HTTP.

    Args:
        last: whether the connection ends with it: who serves is leaving.
    """

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(factory=dict)
    last: bool = False


Answer = Callable[[MeshRequest], Awaitable[MeshResponse]]
"""What serves requests. It raises nothing."""


class Listener(Protocol):
    """A place where requests are taken."""

    @property
    def port(self) -> int:
        """The port that is really listened on."""

    async def aclose(self) -> None:
        """Take nothing any more, and end all connections; what is under way is cancelled. May be called twice."""


class Transport(Protocol):
    """Carries requests of this process, and takes those of others."""

    async def send(self, endpoint: ServiceEndpoint, request: MeshRequest, timeout: float) -> MeshResponse:
        """Send a request once, and return what came back.

        Args:
            timeout: seconds that are left; the endpoint is told. The caller cancels when they are over.

        Raises:
            EndpointUnreachableError, CallInterruptedError, ResponseError, RequestError: see above.
        """

    async def listen(self, answer: Answer, host: str, port: int) -> Listener:
        """Take requests. Port 0 is one that is free. Raises ConfigError when that place cannot be had."""

    async def aclose(self) -> None:
        """End all connections. May be called twice."""
