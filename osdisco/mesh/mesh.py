"""The mesh of one process: it calls services by name, and serves its own. All else in this package works for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from osdisco._signal import Signal
from osdisco.client import Client
from osdisco.discovery.checks import Check
from osdisco.discovery.extension import ExtensionStatus
from osdisco.discovery.leaving import Drain
from osdisco.errors import (
    ClosedError,
    DeadlineExceededError,
    NoHealthyEndpointsError,
    RequestError,
    ServiceMeshError,
)
from osdisco.mesh._calls import NOTHING, Call, Caller
from osdisco.mesh._gauges import counted
from osdisco.mesh._given import balancer_of, kind_of, policies_of, seconds_of, transport_of
from osdisco.mesh._reports import Reports
from osdisco.mesh._seeing import MeshEvent, Seeing
from osdisco.mesh._services import Service, Services
from osdisco.mesh._settings import ANY, checked
from osdisco.mesh._wire import is_method, pack_metadata
from osdisco.mesh.balancers import LoadBalancer
from osdisco.mesh.breaker import CircuitBreakerRegistry
from osdisco.mesh.codec import CodecError, encode
from osdisco.mesh.deadline import DEFAULT_TIMEOUT, checked_timeout, deadline
from osdisco.mesh.handlers import AT_ONCE, Handler, Handlers
from osdisco.mesh.nearness import Near
from osdisco.mesh.pool import Pool, PoolSettings
from osdisco.mesh.retry import RetryPolicy
from osdisco.mesh.serving import ServiceServer, options
from osdisco.mesh.tls import TlsFiles
from osdisco.mesh.transport import Transport
from osdisco.registry.definition import ServiceDefinition
from osdisco.registry.registration import Registration
from osdisco.registry.service import ServiceRegistry

if TYPE_CHECKING:
    from osdisco.cluster import NodeInfo
    from osdisco.mesh._routing import Routing
    from osdisco.mesh.tracing import Tracing

T = TypeVar("T")


class ExtensionServiceMesh:
    """Calls services by name, and serves this process's own. Enter it with `async with`, or close it.

    Args:
        client: in whose namespace services are found and registered.
        load_balancer: the pattern of what picks; least request of two choices when None.
        retry_policies: by the name of the service, `"*"` for all others; or one for all.
        circuit_breakers: where the breakers are, to be observed; of this mesh alone. An own registry when None.
        pool: who may be picked: panic threshold, limit of concurrency, ejection, slow start, subsetting.
        transport: how requests travel; `HttpTransport` when None.
        tls: certificates for the transport by HTTP, for calling and serving.
        timeout: seconds for a call that says nothing else, all attempts included.
        rules: whether calls follow the rules for traffic that stand in the store.
        reports: whether this process tells of its calls while `osdisco mesh top` asks.
        tracing: who makes spans of calls, such as `OpenTelemetryTracing()`; nobody when None.

    Raises:
        ConfigError: what cannot be used, or a package of `osdisco[mesh]` is missing.
    """

    def __init__(
        self,
        client: Client,
        *,
        load_balancer: LoadBalancer | None = None,
        retry_policies: Mapping[str, RetryPolicy] | RetryPolicy | None = None,
        circuit_breakers: CircuitBreakerRegistry | None = None,
        pool: PoolSettings | None = None,
        transport: Transport | None = None,
        tls: TlsFiles | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        rules: bool = True,
        reports: bool = True,
        tracing: Tracing | None = None,
    ) -> None:
        self._client = client
        self._now = client.runtime.clock.now
        self._timeout = checked_timeout("timeout", timeout)
        self._policies = policies_of(retry_policies)
        self._balancer = balancer_of(load_balancer)
        self._near = Near(client.runtime, load_balancer)
        self._pool = checked("pool", pool, PoolSettings)
        checked("circuit_breakers", circuit_breakers, CircuitBreakerRegistry)
        self.circuit_breakers: Final = (
            CircuitBreakerRegistry(clock=client.runtime.clock) if circuit_breakers is None else circuit_breakers
        )
        self._seeing = Seeing(client.runtime.clock, tracing)
        self._registry = ServiceRegistry(client)
        self._transport = transport_of(transport, tls, client.runtime.clock)
        self._services = Services(self._registry, self._new_pool, self._policy_of)
        judging = self.circuit_breakers.judges_services
        self._caller = Caller(client.runtime, self._transport, self._seeing, judging=judging)
        self._routing = self._new_routing() if rules else None
        self._reports = Reports(client, self._services, self._seeing) if reports else None
        self._servers: set[ServiceServer] = set()
        self._under_way = 0
        self._uncount = counted(client, self, self._seeing)
        self._unlisten = self.circuit_breakers.add_listener(self._seeing.tell)
        self._ended = Signal()
        self._leaving = self._closed = False

    def __repr__(self) -> str:
        return f"<ExtensionServiceMesh of {self._client!r}: {len(self._services)} services called>"

    @property
    def services(self) -> Mapping[str, Service]:
        """The services that were called, each with its `view` and its `pool`."""
        return self._services

    @property
    def under_way(self) -> int:
        """Calls of this process that have not ended."""
        return self._under_way

    # Calling

    @overload
    async def call(
        self,
        service: str,
        method: str,
        request: object = None,
        *,
        response_type: type[T],
        timeout: float | None = None,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        near: NodeInfo | None = None,
    ) -> T: ...

    @overload
    async def call(
        self,
        service: str,
        method: str,
        request: object = None,
        *,
        response_type: Any = None,
        timeout: float | None = None,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        near: NodeInfo | None = None,
    ) -> Any: ...

    async def call(
        self,
        service: str,
        method: str,
        request: object = None,
        *,
        response_type: Any = None,
        timeout: float | None = None,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        near: NodeInfo | None = None,
    ) -> Any:
        """Call a method of a service at one of its endpoints; returns the result.

        Args:
            request: what JSON can hold, attrs classes and dataclasses included.
            response_type: what the result must be, such as an attrs class or `list[int]`; JSON as it is when None.
            timeout: seconds for all attempts; never more than is left to the request that this process is serving.
            key: calls of one key go the same way where rules split, and to one endpoint if the balancer does so.
            metadata: text by name, for rules and for the handler.
            idempotent: whether it may be done again when its outcome is unknown; when None the `RetryPolicy` says so.
            near: a node of the search cluster, such as that of a document's primary: endpoints on its host are asked
                before those in its zone, and these before all others, whatever rules say of how endpoints are picked.

        Raises:
            ServiceNotFoundError: nobody serves it. NoHealthyEndpointsError, CircuitOpenError: somebody, but not now.
            DeadlineExceededError: the time is over. RemoteError: the handler failed.
            OverloadedError, EndpointUnreachableError: nothing was done. CallInterruptedError, ResponseError: unknown.
            RequestError: it cannot be sent. ClosedError: the mesh is closed. InvalidNameError: no name of a service.
        """
        if self._closed:
            raise ClosedError(f"{self!r} is closed")
        self._under_way += 1
        try:
            call = self._prepared(service, method, request, response_type, timeout, key, metadata, idempotent, near)
            made = self._made(call, said_timeout=timeout is not None)
            return await (self._seeing.calling(call, made) if self._seeing.active else made)
        except ServiceMeshError as exc:
            exc.service, exc.method = exc.service or service, exc.method or method
            raise
        finally:
            self._under_way -= 1
            if self._closed:
                self._ended.fire()

    async def _made(self, call: Call, *, said_timeout: bool) -> Any:
        if self._reports is not None and not self._reports.started:
            self._reports.start()
        target = call.ways[0].service
        if not target.known:
            await self._learn(call, target)
        if self._routing is not None:
            return await self._routing.call(call, said_timeout=said_timeout)
        return await self._caller.call(call)

    def add_listener(self, listener: Callable[[MeshEvent], object]) -> Callable[[], None]:
        """Tell a function what happens to calls of this process, while it does: it is to be quick.

        That is PickRefused and AttemptFailed, with why; and of pools and breakers EndpointEjected, EndpointReturned,
        PanicBegan, PanicOver and BreakerEvent. One that fails is logged. Returns a function that ends it.

        Raises:
            ConfigError: it is no function.
        """
        return self._seeing.listen(listener)

    def _prepared(
        self,
        service: str,
        method: str,
        request: object,
        response_type: Any,
        timeout: float | None,
        key: str | None,
        metadata: Mapping[str, str] | None,
        idempotent: bool | None,
        near: NodeInfo | None,
    ) -> Call:
        """Return the call as it goes without rules. Raises RequestError."""
        if not isinstance(service, str):
            raise RequestError(f"the name of a service must be text, not {type(service).__name__}")
        if not is_method(method):
            raise RequestError(f"{method!a} is no name of a method: letters, digits, '_', '.' and '-', at most 128")
        if key is not None and not isinstance(key, str):
            raise RequestError(f"key must be text, not {type(key).__name__}")
        if metadata is not None:
            pack_metadata(metadata)
        try:
            body = encode(request)
        except CodecError as exc:
            raise RequestError(f"the request cannot be encoded: {exc}") from None
        target = self._services.open(service)
        policy = target.policy
        return Call(
            service=service,
            method=method,
            body=body,
            kind=None if response_type is None else kind_of(response_type),
            deadline=min(self._now() + (self._timeout if timeout is None else seconds_of(timeout)), deadline()),
            ways=target.way,
            policy=policy,
            attempts=policy.attempts,
            attempt_timeout=policy.attempt_timeout,
            idempotent=method in policy.idempotent if idempotent is None else idempotent,
            key=key,
            metadata=metadata or NOTHING,
            near=None if near is None else self._near.balancer(near),
        )

    async def _learn(self, call: Call, service: Service) -> None:
        """Wait until it is known who serves, as long as the call and one operation may take."""
        try:
            await service.wait_known(min(max(call.deadline - self._now(), 0.0), self._client.options.timeout))
        except NoHealthyEndpointsError as exc:
            if self._now() < call.deadline:
                raise
            raise DeadlineExceededError(f"its time was over before it was sent: {exc}") from None

    def _new_routing(self) -> Routing:
        from osdisco.mesh._routing import Routing

        return Routing(self._client, self._services, self._caller)

    def _new_pool(self, service: str) -> Pool:
        pool = Pool(
            service,
            self._client.runtime,
            self._pool,
            balancer=self._balancer,
            breakers=self.circuit_breakers,
        )
        pool.add_listener(self._seeing.tell)
        return pool

    def _policy_of(self, service: str) -> RetryPolicy:
        return self._policies.get(service) or self._policies[ANY]

    # Serving

    def register_service(
        self,
        definition: ServiceDefinition,
        *,
        status: ExtensionStatus = ExtensionStatus.HEALTHY,
        checks: Iterable[Check] = (),
        drain: Drain | None = None,
    ) -> Registration:
        """Return a registration of a service that is served by something else; see `ServiceRegistry.register`."""
        return self._registry.register(definition, status=status, checks=checks, drain=drain)

    def serve(
        self,
        definition: ServiceDefinition,
        handlers: Mapping[str, Handler],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        status: ExtensionStatus = ExtensionStatus.HEALTHY,
        checks: Iterable[Check] = (),
        drain: Drain | None = None,
        at_once: int = AT_ONCE,
    ) -> ServiceServer:
        """Return a server of a service; enter or await it. It starts while the store is away, too.

        Args:
            definition: without an address, that of `host` and the port counts; of `0.0.0.0` that towards the store.
            handlers: by the name of their method; see `osdisco.mesh.Handler`.
            host: to listen on.
            port: to listen on; 0 is one that is free.
            status: how it is shown to be; see `ServiceRegistry.register`.
            checks: what decides how it is shown to be.
            drain: how long leaving may take; the defaults of Drain when None.
            at_once: requests that may be under way; more are refused.

        Raises:
            ConfigError: handlers that are none, or, when it is entered, a place that cannot be listened on.
        """
        if self._leaving:
            raise ClosedError(f"{self!r} is closed, or about to be")
        server = ServiceServer(
            self._client,
            self._transport,
            definition,
            Handlers(definition.name, handlers, self._client.runtime.clock, at_once, self._seeing),
            (host, port),
            options(status, checks, drain),
            self._servers.discard,
        )
        self._servers.add(server)
        return server

    # The end

    def __await__(self) -> Generator[Any, None, Self]:
        return self._itself().__await__()

    async def _itself(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave with all that is served, then let calls under way end, as long as one operation may take.

        May be called twice.
        """
        self._leaving = True
        async with AsyncExitStack() as ending:  # each has its end, whatever becomes of those before
            ending.push_async_callback(self._transport.aclose)
            ending.push_async_callback(self._services.aclose)
            ending.push_async_callback(self._caller.aclose)
            if self._routing is not None:
                ending.push_async_callback(self._routing.aclose)
            if self._reports is not None:
                ending.push_async_callback(self._reports.aclose)
            ending.callback(self._unlisten)
            ending.callback(self._uncount)
            left = await asyncio.gather(*(server.aclose() for server in list(self._servers)), return_exceptions=True)
            self._closed = True
            with suppress(TimeoutError):
                await self._ended.wait_for(lambda: not self._under_way, self._client.options.timeout)
            for failure in filter(None, left):
                raise failure
