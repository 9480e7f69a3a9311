"""The channels to an endpoint of etcd. A line whose other end is silent is left: its connection may be dead.

gRPC itself would notice after its keepalive, at best 15 s later, and until then send everything after what was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
import grpc.aio
from aetcd.rpc import rpc_pb2_grpc
from attrs import define, field

from osdisco_etcd._giving_up import Exchange

Methods = Mapping[str, Any]


def _requests(channel: grpc.aio.Channel) -> Methods:
    kv, auth = rpc_pb2_grpc.KVStub(channel), rpc_pb2_grpc.AuthStub(channel)
    return {"Range": kv.Range, "Put": kv.Put, "Txn": kv.Txn, "Authenticate": auth.Authenticate}


def _leases(channel: grpc.aio.Channel) -> Methods:
    lease = rpc_pb2_grpc.LeaseStub(channel)

    def keep_alive(request: Any, *, timeout: float, metadata: Any) -> Exchange:
        return Exchange(lease.LeaseKeepAlive(timeout=timeout, metadata=metadata), request)

    return {
        "Status": rpc_pb2_grpc.MaintenanceStub(channel).Status,
        "LeaseGrant": lease.LeaseGrant,
        "LeaseRevoke": lease.LeaseRevoke,
        "LeaseTimeToLive": lease.LeaseTimeToLive,
        "LeaseKeepAlive": keep_alive,
    }


def _watches(channel: grpc.aio.Channel) -> Methods:
    return {"Watch": rpc_pb2_grpc.WatchStub(channel).Watch}


_LANES: Final[tuple[Callable[[grpc.aio.Channel], Methods], ...]] = (_requests, _leases, _watches)


@define(eq=False)
class Line:
    """One channel. `answers` counts what came back, `users` are those that still wait on it."""

    channel: grpc.aio.Channel
    methods: Methods
    lane: int
    answers: int = 0
    users: set[Hashable] = field(factory=set)


async def settled(channel: grpc.aio.Channel) -> None:
    """Wait until a channel is connected, or has failed to connect.

    A stream that is cancelled while it waits for its connection is never freed: some 8 kB each, with grpcio 1.85.
    """
    while (state := channel.get_state(try_to_connect=True)) in _UNSETTLED:
        with suppress(AssertionError):  # the channel was closed
            await channel.wait_for_state_change(state)


_UNSETTLED: Final = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)


@define(eq=False)
class Node:
    """The lines to one endpoint: a burst of requests delays neither keepalives nor watches."""

    _open: Callable[[], grpc.aio.Channel]
    lines: dict[str, Line] = field(init=False, factory=dict)
    left: set[Line] = field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        for lane in range(len(_LANES)):
            self._join(lane)

    def leave(self, line: Line) -> None:
        """Use another connection from now on for what went by a line. Who still waits on that may go on to do so."""
        if line in self.lines.values():
            self.left.add(line)
            self._join(line.lane)

    def unused(self, line: Line) -> grpc.aio.Channel | None:
        """Return the channel to be closed when a line was left, and nobody waits on it any more."""
        if line.users or line not in self.left:
            return None
        self.left.discard(line)
        return line.channel

    @property
    def unclosed(self) -> set[Line]:
        """All whose channel is not closed."""
        return {*self.lines.values(), *self.left}

    def _join(self, lane: int) -> None:
        channel = self._open()
        line = Line(channel, _LANES[lane](channel), lane)
        self.lines |= dict.fromkeys(line.methods, line)


def opener(
    endpoint: str, credentials: grpc.ChannelCredentials | None, name: str | None, connect_timeout: float
) -> Callable[[], grpc.aio.Channel]:
    """Return a function that opens a channel."""
    target, options = "dns:///" + endpoint, _channel_options(connect_timeout, name)
    if credentials:
        return lambda: grpc.aio.secure_channel(target, credentials, options)
    return lambda: grpc.aio.insecure_channel(target, options)


def _channel_options(connect_timeout: float, name: str | None) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.enable_retries", 0),  # grpc's own resend would make "sent once" untrue
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_channelz", 0),  # statistics of every call, which nobody reads
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.use_local_subchannel_pool", 1),  # else channels to one address share one connection
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.min_reconnect_backoff_ms", int(connect_timeout * 1000)),  # in fact the time that one attempt gets
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.keepalive_time_ms", 10_000),  # etcd hangs up on clients that ping more often than every 5 s
        ("grpc.keepalive_timeout_ms", 5_000),
    ]
    if name is not None:
        options.append(("grpc.ssl_target_name_override", name))
    return options
