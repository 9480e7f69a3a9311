"""gRPC: a channel whose addresses are those of a service in the registry, as long as it is open.

    async with ServiceChannel(client, "geo") as channel:
        stub = GeoStub(channel)                       # for as long as the channel is open
        reply = await stub.Search(request, timeout=2)

gRPC for Python has no way to plug in a resolver (grpc/grpc#11685). So with every change of the addresses there is a new
channel beneath, of a target like `ipv4:10.0.0.7:9700,10.0.0.8:9700` and with `round_robin`; calls that began on the one
before end there, and then it is closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote
from weakref import WeakKeyDictionary

import grpc.aio

from osdisco._tasks import Supervisor
from osdisco.client import Client
from osdisco.errors import ClosedError, ServiceMeshError
from osdisco.mesh._calls import error_of_refusal
from osdisco.mesh._choice import EndpointSubset, choose
from osdisco.mesh._state import EndpointState
from osdisco.mesh.pool import PoolSettings
from osdisco.mesh.refusal import Refused, RefusedReason
from osdisco.registry.definition import ServiceEndpoint
from osdisco.registry.service import ServiceRegistry

log = logging.getLogger("osdisco")

ROUND_ROBIN: Final = '{"loadBalancingConfig":[{"round_robin":{}}]}'

Options = Sequence[tuple[str, Any]]


class ServiceChannel(grpc.aio.Channel):
    """A `grpc.aio.Channel` to the endpoints of a service. Enter it.

    Who is HEALTHY is called, else who is DEGRADED; below the panic threshold all that serve. Nobody who is leaving or
    of weight 0 is; other weights are not known to `round_robin`.

    Args:
        client: in whose namespace the service is looked for.
        subset: only these, such as a `Subset` of the traffic rules.
        credentials: for TLS; none is plaintext.
        authority: the name that servers, and certificates, are asked for; the service's when None.
        options, compression, interceptors: as of `grpc.aio.insecure_channel`; a `grpc.service_config` among the options
            takes the place of `round_robin`.
    """

    def __init__(
        self,
        client: Client,
        service: str,
        *,
        subset: EndpointSubset | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        authority: str | None = None,
        options: Options = (),
        compression: grpc.Compression | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> None:
        self._service = service
        self._subset = subset
        self._view = ServiceRegistry(client).view(service)
        self._seen: Sequence[ServiceEndpoint] | None = None
        self._refused = Refused(RefusedReason.NO_ENDPOINTS)
        self._new = _maker(authority or quote(service), credentials, options, compression, interceptors)
        self._current: _Beneath | None = None
        self._leaving: set[_Beneath] = set()
        self._supervisor = Supervisor()
        self._closed = False

    def __repr__(self) -> str:
        return f"<ServiceChannel of {self._service!a} to {self.target or 'nobody'}>"

    @property
    def target(self) -> str | None:
        """Where calls go now, as gRPC writes it; None when there is nobody."""
        return None if self._current is None else self._current.target

    async def __aenter__(self) -> Self:
        """Follow the service. Raises TimedOutError when the store is not seen."""
        await self._view
        try:
            await self._renew()
        except BaseException:
            await self._view.aclose()
            raise
        self._supervisor.spawn(self._follow(), f"keep the addresses of {self._service!a} up to date")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Take no more calls; those under way get `grace` seconds, and are then cancelled. May be called twice."""
        self._closed = True
        await self._supervisor.aclose()
        await self._view.aclose()
        current, self._current = self._current, None
        everything = self._leaving | ({current} if current is not None else set())
        await asyncio.gather(*(one.channel.close(grace) for one in everything))
        self._leaving.clear()

    # What is beneath

    async def _follow(self) -> None:
        with suppress(ClosedError):
            while True:
                await self._view.until(lambda _: self._view.endpoints is not self._seen)
                await self._renew()

    async def _renew(self) -> None:
        self._seen = self._view.endpoints
        states = list(map(EndpointState, self._seen))
        choice = choose(states, self._subset, PoolSettings().panic, lambda all_, _: all_)
        self._refused = choice.counts
        first = choice.tiers[0] if choice.tiers else ()
        target = target_of(await _addresses(state.endpoint.address for state in first))
        if target == self.target:
            return
        old, self._current = self._current, None if target is None else _Beneath(target, self._new(target))
        if old is not None:
            self._leaving.add(old)
            self._supervisor.spawn(self._let_go(old), f"let calls to {old.target} end")

    async def _let_go(self, beneath: _Beneath) -> None:
        await beneath.idle.wait()
        await beneath.channel.close()
        self._leaving.discard(beneath)

    def _beneath(self) -> _Beneath:
        if self._closed:
            raise ClosedError(f"{self!r} is closed")
        if self._current is None:
            error: ServiceMeshError = error_of_refusal(self._refused)
            error.service = self._service
            raise error
        return self._current

    # What a channel does

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return how the channel beneath stands.

        TRANSIENT_FAILURE while there is nobody to connect to, as for a name that resolves to nothing; SHUTDOWN, from
        which nothing returns, only when it was closed.
        """
        if self._current is None:
            states = grpc.ChannelConnectivity
            return states.SHUTDOWN if self._closed else states.TRANSIENT_FAILURE
        return self._current.channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the channel beneath stands otherwise, also when it is another one by then.

        Raises:
            ServiceMeshError: there is nobody to connect to. ClosedError: it is closed.
        """
        while True:
            beneath = self._beneath()
            with self._unless_replaced(beneath):
                await beneath.channel.wait_for_state_change(last_observed_state)
            if beneath is self._current or self.get_state() is not last_observed_state:
                return

    async def channel_ready(self) -> None:
        """Wait until a connection is there, also through changes of the addresses.

        Raises:
            ServiceMeshError: there is nobody to connect to. ClosedError: it is closed.
        """
        while True:
            beneath = self._beneath()
            with self._unless_replaced(beneath):
                await beneath.channel.channel_ready()
            if beneath is self._current:
                return

    @contextmanager
    def _unless_replaced(self, beneath: _Beneath) -> Iterator[None]:
        """Take what gRPC says of a channel that was closed while somebody waited for it only of the present one."""
        try:
            yield
        except grpc.aio.UsageError:
            if beneath is self._current:
                raise

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        """Return what makes calls of one request and one answer.

        As with all of these, a call raises ServiceMeshError at once when nobody may be called.
        """
        return _MultiCallable(self._beneath, lambda channel: channel.unary_unary(*args, **options))

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        """Return what makes calls of one request and many answers."""
        return _MultiCallable(self._beneath, lambda channel: channel.unary_stream(*args, **options))

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        """Return what makes calls of many requests and one answer."""
        return _MultiCallable(self._beneath, lambda channel: channel.stream_unary(*args, **options))

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        """Return what makes calls of many requests and many answers."""
        return _MultiCallable(self._beneath, lambda channel: channel.stream_stream(*args, **options))


class _Beneath:
    """A channel to fixed addresses, and the calls on it."""

    def __init__(self, target: str, channel: grpc.aio.Channel) -> None:
        self.target: Final = target
        self.channel: Final = channel
        self.callables: Final = WeakKeyDictionary[_MultiCallable, Any]()
        self.idle: Final = asyncio.Event()
        self._running = 0
        self.idle.set()

    def begin(self, call: Any) -> None:
        """Count a call until it is done."""
        self._running += 1
        self.idle.clear()
        call.add_done_callback(self._end)

    def _end(self, _: object) -> None:
        self._running -= 1
        if not self._running:
            self.idle.set()


class _MultiCallable:
    """Calls on the channel that there is when the call is made."""

    def __init__(self, beneath: Callable[[], _Beneath], make: Callable[[grpc.aio.Channel], Any]) -> None:
        self._beneath = beneath
        self._make = make

    def __call__(self, *args: Any, **options: Any) -> Any:
        beneath = self._beneath()
        made = beneath.callables.get(self)
        if made is None:
            made = beneath.callables[self] = self._make(beneath.channel)
        call = made(*args, **options)
        beneath.begin(call)
        return call


def _maker(
    authority: str,
    credentials: grpc.ChannelCredentials | None,
    options: Options,
    compression: grpc.Compression | None,
    interceptors: Sequence[grpc.aio.ClientInterceptor],
) -> Callable[[str], grpc.aio.Channel]:
    """Return what makes a channel to a target. Its authority would be all addresses with commas."""
    given = dict([("grpc.service_config", ROUND_ROBIN), ("grpc.default_authority", authority), *options])

    def make(target: str) -> grpc.aio.Channel:
        options = list(given.items())
        if credentials is None:
            channel = grpc.aio.insecure_channel(target, options, compression, interceptors)
        else:
            channel = grpc.aio.secure_channel(target, credentials, options, compression, interceptors)
        channel.get_state(try_to_connect=True)  # so that the first call finds it connected
        return channel

    return make


async def _addresses(addresses: Iterable[str]) -> set[tuple[IPv4Address | IPv6Address, int]]:
    """Return addresses with their ports; of a name those that it resolves to now."""
    found = set()
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            found.add((ip_address(host.strip("[]")), int(port)))
        except ValueError:
            found |= {(one, int(port)) for one in await _resolved(host)}
    return found


async def _resolved(name: str) -> set[IPv4Address | IPv6Address]:
    try:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        return {ip_address(info[4][0]) for info in infos}
    except (OSError, UnicodeError, ValueError) as exc:
        log.warning("gRPC is not told of an endpoint at %r, which does not resolve: %s", name, exc)
        return set()


def target_of(addresses: Iterable[tuple[IPv4Address | IPv6Address, int]]) -> str | None:
    """Return a target that names all addresses, always in the same order; None when there are none.

    A target is of one family: where there are both, those of IPv4 are written as IPv6.
    """
    there = list(addresses)
    if all(address.version == 4 for address, _ in there):
        return f"ipv4:{','.join(sorted(f'{address}:{port}' for address, port in there))}" if there else None
    six = (address if address.version == 6 else IPv6Address(f"::ffff:{address}") for address, _ in there)
    return f"ipv6:{','.join(sorted(f'[{address}]:{port}' for address, (_, port) in zip(six, there, strict=True)))}"
