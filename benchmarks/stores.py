"""The servers that the benchmarks run on, and what one asks them about the requests that they served."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import osdisco
from osdisco.testing import ConsulServer, EtcdServer, Servers
from osdisco.testing._stores import ConsulAccess, EtcdAccess
from osdisco.testing.processes import ConsulProcess, EtcdProcess, find_binary

PORTS = {"etcd": 2379, "gateway": 2379, "consul": 8500}
_SERVED = re.compile(r'^grpc_server_started_total\{[^}]*grpc_method="(\w+)"[^}]*\} (\S+)$', re.MULTILINE)
_REQUEST = re.compile(rb"(GET|PUT|POST|DELETE) (/[^ ?]*)(\?[^ ]*)? HTTP/1\.1\r\n")


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Start an etcd and a Consul, as processes where their binaries are and else in Docker; yields URLs by kind.

    Unlike the one of the tests this etcd syncs to disk, as everybody's does. Consul takes more than 200 connections
    from an address, because processes that would be on many machines are on one here.
    """
    many = {"config": {"limits": {"http_max_conns_per_client": 2000}}}
    flags = {"flags": ("--unsafe-no-fsync=false",)}
    with Servers() as started:
        etcd: EtcdServer = EtcdProcess(**flags) if find_binary("etcd") else started.fresh_etcd(**flags)
        consul: ConsulServer = ConsulProcess(**many) if find_binary("consul") else started.fresh_consul(**many)
        with etcd, consul:
            yield {"etcd": etcd.url, "gateway": etcd.gateway_url, "consul": consul.url}


def address_of(kind: str, url: str) -> str:
    """Return `host:port`."""
    return osdisco.StoreURL.parse(url).hosts[0].address(PORTS[kind])


def version_of(kind: str, address: str) -> str:
    """Return the server's version."""
    if kind == "consul":
        return str(ConsulAccess().api(address)("GET", "/v1/agent/self")["Config"]["Version"])
    return str(EtcdAccess().api(address)("GET", "/version")["etcdserver"])


def compact(address: str) -> None:
    """Compact etcd, as operators have it done every few minutes: a range otherwise visits every key that ever was."""
    api = EtcdAccess().api(address)
    revision = api("POST", "/v3/kv/range", {"key": "YQ=="})["header"]["revision"]
    api("POST", "/v3/kv/compaction", {"revision": revision, "physical": True})


class Served:
    """Counts the requests that a store is sent by anybody: etcd says itself, before Consul stands a proxy that counts.

    Connect to `url`. Unary requests and streams are counted by their names.
    """

    def __init__(self, kind: str, url: str, counts: Counter[str] | None = None) -> None:
        self.url = url
        self._counts = counts
        self._address = address_of(kind, url)

    async def so_far(self) -> Counter[str]:
        """Return what was served until now."""
        if self._counts is not None:
            return Counter(self._counts)
        text = await asyncio.to_thread(EtcdAccess().api(self._address).text, "GET", "/metrics")
        return Counter({method: int(float(number)) for method, number in _SERVED.findall(text)})


@asynccontextmanager
async def served(kind: str, url: str) -> AsyncIterator[Served]:
    """Count what a store is sent."""
    if kind != "consul":
        yield Served(kind, url)
        return
    host, port = address_of(kind, url).split(":")
    counts: Counter[str] = Counter()
    links: set[asyncio.Task[None]] = set()

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        links.add(task)
        there, back = await asyncio.open_connection(host, int(port))
        with suppress(ConnectionError, asyncio.CancelledError):  # cancelled at the end, by us
            await asyncio.gather(_pass(reader, back, counts), _pass(there, writer, None))
        links.discard(task)

    async with await asyncio.start_server(link, "127.0.0.1", 0) as proxy:
        counted = proxy.sockets[0].getsockname()[1]
        yield Served(kind, url.replace(f"{host}:{port}", f"127.0.0.1:{counted}"), counts)
        for task in list(links):
            task.cancel()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: Counter[str] | None) -> None:
    """Pass bytes on, counting the heads of requests among them."""
    rest = b""
    try:
        while data := await reader.read(65536):
            if counts is not None:
                rest = _count(rest + data, counts)
            writer.write(data)
    finally:
        writer.close()


def _count(data: bytes, counts: Counter[str]) -> bytes:
    """Count what is complete; returns what may be the beginning of the next head."""
    end = 0
    for found in _REQUEST.finditer(data):
        method, path, query = found.groups()
        kind = "poll" if query and b"index=" in query else "/".join(path.decode().split("/")[1:3])
        counts[f"{method.decode()} {kind}"] += 1
        end = found.end()
    return data[end:][-512:]
