"""What a client asks of its store while nothing happens: renewals, and what finds out whether watches still live."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack

import osdisco
from benchmarks.figures import Figure
from benchmarks.stores import PORTS, address_of, served
from osdisco.testing._stores import EtcdAccess

GROUP = "An idle client"
TTL = 15.0
VIEWS = 3
"""Of one prefix, by one client: they are to share a watch."""
WATCHES = 2
"""That one, and the one of the session's own key."""
SETTLING = 2.0
PERIOD = 10.0
"""Seconds of silence after which a watch may be asked after."""

_RENEWALS = {"LeaseKeepAlive", "PUT v1/session"}
_WATCHING = {"GET poll", "Watch", "messages"}
_METRICS = {
    "messages": re.compile(r'^grpc_server_msg_received_total\{[^}]*grpc_method="Watch"[^}]*\} (\S+)$', re.MULTILINE),
    "watchers": re.compile(r"^etcd_debugging_mvcc_watcher_total (\S+)$", re.MULTILINE),
}


async def measure(kind: str, url: str, ttls: int) -> list[Figure]:
    """Count what a client with a session and several views of one prefix asks for during so many ttls."""
    seconds = ttls * TTL
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(served(kind, url))
        watchers = await _watching(kind, url)
        client = await stack.enter_async_context(osdisco.connect(f"{store.url}?ttl={TTL:g}s"))
        await client.shared_session()
        for _ in range(VIEWS):
            await stack.enter_async_context(client.view("quiet/"))
        await asyncio.sleep(SETTLING)
        before, watching = await store.so_far(), await _watching(kind, url)
        await asyncio.sleep(seconds)
        asked, now = await store.so_far() - before, await _watching(kind, url)
    asked["messages"] = now["messages"] - watching["messages"] - asked["Watch"]  # the first message opens a watch
    renewals = sum(asked[name] for name in _RENEWALS) / ttls
    probes = sum(asked[name] for name in _WATCHING) / WATCHES / (seconds / PERIOD)
    others = float(sum(count for name, count in asked.items() if name not in _RENEWALS | _WATCHING))
    opened = {"watches that etcd counts": now["watchers"] - watchers["watchers"]} if kind != "consul" else {}
    detail = {name: count for name, count in sorted(asked.items()) if count} | {"seconds": seconds}
    against = f"{VIEWS} views of one prefix and a session: {WATCHES} watches"
    name = f"{kind}: probes or polls of each watch in {PERIOD:g} s"
    return [
        Figure(GROUP, f"{kind}: renewals per ttl", renewals, "", most=3, detail=detail),
        Figure(GROUP, name, probes, "", against, most=1, detail=opened),
        Figure(GROUP, f"{kind}: other requests", others, "", most=0),
    ]


async def _watching(kind: str, url: str) -> dict[str, int]:
    """Return what etcd has got on its streams of watches, and how many watches there are; nothing of Consul."""
    if PORTS[kind] != PORTS["etcd"]:
        return dict.fromkeys(_METRICS, 0)
    text = await asyncio.to_thread(EtcdAccess().api(address_of(kind, url)).text, "GET", "/metrics")
    return {name: int(sum(float(one) for one in pattern.findall(text))) for name, pattern in _METRICS.items()}
