"""gRPC: stubs that call whoever serves now, on channels to real servers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

import grpc.aio
import pytest

import osdisco
from osdisco.client import Client
from osdisco.discovery import ExtensionStatus
from osdisco.errors import (
    ClosedError,
    InvalidNameError,
    NoHealthyEndpointsError,
    ServiceMeshError,
    ServiceNotFoundError,
)
from osdisco.integrations.grpc import ServiceChannel, target_of
from osdisco.mesh import Subset
from osdisco.registry import Registration, ServiceDefinition, ServiceRegistry


class Geo:
    """A server of gRPC without protobuf: it answers with its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = asyncio.Event()
        self.waiting = 0
        self.hosts: set[str] = set()
        self.registration: Registration

    async def who(self, request: bytes, context: Any) -> bytes:
        self.hosts.add(context.peer())
        return self.name.encode() + request

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.waiting += 1
        await self.held.wait()
        return self.name.encode()

    async def echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def count(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return str([request async for request in requests]).encode()

    async def twice(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield request
        yield request


@asynccontextmanager
async def geo(client: Client, name: str, host: str = "127.0.0.1", **definition: Any) -> AsyncGenerator[Geo, None]:
    """Serve and be registered."""
    server, serves = grpc.aio.server(), Geo(name)
    handlers = {
        "who": grpc.unary_unary_rpc_method_handler(serves.who),
        "wait": grpc.unary_unary_rpc_method_handler(serves.wait),
        "echo": grpc.stream_stream_rpc_method_handler(serves.echo),
        "count": grpc.stream_unary_rpc_method_handler(serves.count),
        "twice": grpc.unary_stream_rpc_method_handler(serves.twice),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("geo", handlers),))
    port = server.add_insecure_port(f"{host}:0")
    await server.start()
    definition = {"version": "1", "address": f"{host}:{port}", **definition}
    async with ServiceRegistry(client).register(ServiceDefinition("geo", extension_id=name, **definition)) as one:
        serves.registration = one
        yield serves
    await server.stop(5)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with osdisco.connect(f"memory://{uuid4().hex}") as client:
        yield client


async def until(condition: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def addresses(channel: ServiceChannel) -> int:
    return 0 if channel.target is None else len(channel.target.split(","))


async def called(channel: ServiceChannel, calls: int = 60) -> set[str]:
    """Return who answers of many calls."""
    who = channel.unary_unary("/geo/who")
    return set(Counter([(await who(b"", timeout=5)).decode() for _ in range(calls)]))


async def test_a_stub_calls_whoever_serves_now(client: Client) -> None:
    await _calls_whoever_serves(client)


@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_so_it_does_on_real_stores(osdisco_url: str) -> None:
    async with osdisco.connect(osdisco_url) as client:
        await _calls_whoever_serves(client)


async def _calls_whoever_serves(client: Client) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(geo(client, "a"))
        channel = await stack.enter_async_context(ServiceChannel(client, "geo"))
        who = channel.unary_unary("/geo/who")
        await until(lambda: addresses(channel) == 1)
        assert await who(b"!", timeout=5) == b"a!"
        b = await stack.enter_async_context(geo(client, "b"))
        await until(lambda: addresses(channel) == 2)
        seen: set[bytes] = set()
        async with asyncio.timeout(10):
            while seen != {b"a", b"b"}:  # the same stub, as soon as it is connected
                seen.add(await who(b"", timeout=5))
        await b.registration.set_status(ExtensionStatus.UNHEALTHY)
        await until(lambda: addresses(channel) == 1)
        assert await called(channel) == {"a"}


async def test_calls_end_where_they_began_and_then_that_channel_is_closed(client: Client) -> None:
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(geo(client, "a"))
        channel = await stack.enter_async_context(ServiceChannel(client, "geo"))
        await until(lambda: addresses(channel) == 1)
        old = channel._current
        assert old is not None
        waiting = channel.unary_unary("/geo/wait")(b"", timeout=30)
        await until(lambda: a.waiting)
        await stack.enter_async_context(geo(client, "b"))
        await until(lambda: addresses(channel) == 2)
        await until(lambda: channel._leaving == {old})
        assert not waiting.done()
        a.held.set()
        assert await waiting == b"a"
        await until(lambda: not channel._leaving)
        assert old.channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_nothing_is_made_anew_when_the_addresses_stay(client: Client) -> None:
    async with geo(client, "a") as a, ServiceChannel(client, "geo") as channel:
        await until(lambda: addresses(channel) == 1)
        current, seen = channel._current, channel._seen
        await a.registration.update(metadata={"rack": "7"})
        await until(lambda: channel._seen is not seen)
        assert channel._current is current


async def test_streams_of_all_kinds_go_through(client: Client) -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    async with geo(client, "a"), ServiceChannel(client, "geo") as channel:
        await until(lambda: addresses(channel) == 1)
        assert [one async for one in channel.stream_stream("/geo/echo")(requests(), timeout=5)] == [b"1", b"2"]
        assert [one async for one in channel.unary_stream("/geo/twice")(b"x", timeout=5)] == [b"x", b"x"]
        assert await channel.stream_unary("/geo/count")(requests(), timeout=5) == b"[b'1', b'2']"


async def test_it_says_why_nobody_is_called(client: Client) -> None:
    async with ServiceChannel(client, "geo") as channel:
        who = channel.unary_unary("/geo/who")
        assert (channel.target, channel.get_state()) == (None, grpc.ChannelConnectivity.TRANSIENT_FAILURE)
        with pytest.raises(ServiceNotFoundError) as caught:
            who(b"")
        assert caught.value.service == "geo"
        async with geo(client, "a") as a:
            await until(lambda: addresses(channel) == 1)
            await channel.channel_ready()
            await a.registration.set_status(ExtensionStatus.STARTING)
            await until(lambda: addresses(channel) == 0)
            with pytest.raises(NoHealthyEndpointsError):
                who(b"")
            with pytest.raises(ServiceMeshError):
                await channel.channel_ready()
    with pytest.raises(ClosedError):
        who(b"")
    with pytest.raises(InvalidNameError):
        ServiceChannel(client, "")


async def test_who_waits_for_a_connection_waits_through_a_change_of_addresses(client: Client) -> None:
    nobody = ServiceDefinition("geo", "1", "127.0.0.1:1", extension_id="x")
    states = grpc.ChannelConnectivity
    async with ServiceRegistry(client).register(nobody) as gone, ServiceChannel(client, "geo") as channel:
        await until(lambda: channel.target)
        ready = asyncio.ensure_future(channel.channel_ready())
        await until(lambda: channel.get_state() is states.TRANSIENT_FAILURE)
        changed = asyncio.ensure_future(channel.wait_for_state_change(states.TRANSIENT_FAILURE))
        async with geo(client, "a"):
            await gone.set_status(ExtensionStatus.STOPPING)
            await asyncio.wait_for(asyncio.gather(ready, changed), 20)
            assert channel.get_state() is states.READY
            waits = asyncio.ensure_future(channel.wait_for_state_change(states.READY))
            await asyncio.sleep(0.1)
            await channel.close()
            await asyncio.wait_for(waits, 5)
            with pytest.raises(ClosedError):
                await channel.channel_ready()


async def test_it_is_shut_down_only_when_it_was_closed(client: Client) -> None:
    async with ServiceChannel(client, "geo") as channel:
        assert channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_a_subset_is_all_that_is_called(client: Client) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(geo(client, "a", version="1.0"))
        await stack.enter_async_context(geo(client, "b", version="2.0"))
        channel = await stack.enter_async_context(ServiceChannel(client, "geo", subset=Subset("v2", ">=2")))
        await until(lambda: addresses(channel) == 1)
        assert await called(channel, 10) == {"b"}


async def test_a_name_is_resolved_and_one_that_does_not_is_left_out(client: Client) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(geo(client, "a", host="localhost"))
        gone = ServiceDefinition("geo", "1", "nowhere.invalid:1")
        await stack.enter_async_context(ServiceRegistry(client).register(gone))
        channel = await stack.enter_async_context(ServiceChannel(client, "geo"))
        await until(lambda: channel._seen is not None and len(channel._seen) == 2)
        await until(lambda: addresses(channel))
        assert await called(channel, 3) == {"a"}


async def test_closing_twice_ends_calls_that_are_under_way(client: Client) -> None:
    async with geo(client, "a") as a, ServiceChannel(client, "geo") as channel:
        await until(lambda: addresses(channel) == 1)
        waiting = channel.unary_unary("/geo/wait")(b"")
        await until(lambda: a.waiting)
        await channel.close()
        assert waiting.cancelled()
        await channel.close()


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ([], None),
        (["10.0.0.8", "10.0.0.7"], "ipv4:10.0.0.7:9,10.0.0.8:9"),
        (["fd00::7"], "ipv6:[fd00::7]:9"),
        (["10.0.0.7", "fd00::7"], "ipv6:[::ffff:a00:7]:9,[fd00::7]:9"),
    ],
)
def test_a_target_is_of_one_family_and_always_in_the_same_order(given: list[str], target: str | None) -> None:
    assert target_of((ip_address(one), 9) for one in given) == target


async def test_interceptors_and_options_are_those_of_grpc(client: Client) -> None:
    class Loud(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return await continuation(details, request + b"!")

    options = [("grpc.primary_user_agent", "mine")]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(geo(client, "a"))
        channel = await stack.enter_async_context(
            ServiceChannel(client, "geo", interceptors=[Loud()], options=options, authority="geo.example")
        )
        await until(lambda: addresses(channel) == 1)
        assert await channel.unary_unary("/geo/who")(b"", timeout=5) == b"a!"
        await stack.enter_async_context(geo(client, "b"))
        await until(lambda: addresses(channel) == 2)
        await until(lambda: not channel._leaving)
