"""Puts and gets through `Client`, beside the bare driver on the same server, and what a user would pick instead."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from attrs import frozen

import osdisco
from benchmarks.figures import Figure
from benchmarks.harness import Call, Case, compare
from benchmarks.stores import address_of

GROUP = "Keys, through the client"
VALUE = b"v" * 64
LEAST_BARE, LEAST_ETCD3_PY, LEAST_PYTHON_CONSUL2 = 0.9, 10.0, 2.0
AT_ONCE = {"etcd": 64, "gateway": 64, "consul": 32}
CALLS, CALLS_ALONE, CALLS_PEER = 1920, 300, 640


@frozen
class Side:
    """One way to put and get."""

    put: Call
    get: Call


async def measure(kind: str, url: str, rounds: int, effort: float = 1.0) -> list[Figure]:
    """Return the figures of one store; `effort` is the share of the calls that are made."""
    async with osdisco.connect(url) as client, _BARE[kind](url) as bare:
        ours = _ours(client)
        cases = _cases(kind, ours, bare, "the bare driver", LEAST_BARE, CALLS, AT_ONCE[kind], effort)
        cases += _cases(kind, ours, bare, "the bare driver", None, CALLS_ALONE, 1, effort)
        figures = [await compare(GROUP, case, rounds) for case in cases]
        if peer := _PEERS.get(kind):
            name, opened, least = peer
            async with opened(url) as theirs:
                cases = _cases(kind, ours, theirs, name, least, CALLS_PEER, AT_ONCE[kind], effort)
                figures += [await compare(GROUP, case, rounds) for case in cases]
        return figures


def _ours(client: osdisco.Client) -> Side:
    async def put(n: int) -> None:
        await client.put(f"bench/{n % 100}", VALUE)

    async def get(n: int) -> None:
        item = await client.get(f"bench/{n % 100}")
        assert item is not None

    return Side(put, get)


def _cases(
    kind: str, ours: Side, theirs: Side, against: str, least: float | None, calls: int, at_once: int, effort: float
) -> list[Case]:
    calls = max(at_once, int(calls * effort))
    return [
        Case(f"{kind}: put", against, ours.put, theirs.put, least, calls, at_once),
        Case(f"{kind}: get", against, ours.get, theirs.get, least, calls, at_once),
    ]


@asynccontextmanager
async def _bare_grpc(url: str) -> AsyncIterator[Side]:
    """Bare grpc.aio stubs: the Put and Range calls."""
    import grpc.aio
    from aetcd import rpc

    root = osdisco.StoreURL.parse(url).namespace
    async with grpc.aio.insecure_channel(address_of("etcd", url)) as channel:
        stub = rpc.KVStub(channel)

        async def put(n: int) -> None:
            await stub.Put(rpc.PutRequest(key=f"{root}/bench/{n % 100}".encode(), value=VALUE), timeout=5)

        async def get(n: int) -> None:
            answer = await stub.Range(rpc.RangeRequest(key=f"{root}/bench/{n % 100}".encode()), timeout=5)
            assert answer.kvs[0].value

        yield Side(put, get)


@asynccontextmanager
async def _bare_gateway(url: str) -> AsyncIterator[Side]:
    """Bare aiohttp, posting the same bodies."""
    import aiohttp

    root = osdisco.StoreURL.parse(url).namespace
    base = f"http://{address_of('gateway', url)}/v3/kv"

    def b64(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    async with aiohttp.ClientSession() as http:

        async def put(n: int) -> None:
            body = {"key": b64(f"{root}/bench/{n % 100}"), "value": base64.b64encode(VALUE).decode()}
            async with http.post(f"{base}/put", json=body) as answer:
                json.loads(await answer.read())

        async def get(n: int) -> None:
            async with http.post(f"{base}/range", json={"key": b64(f"{root}/bench/{n % 100}")}) as answer:
                base64.b64decode(json.loads(await answer.read())["kvs"][0]["value"])

        yield Side(put, get)


@asynccontextmanager
async def _bare_consul(url: str) -> AsyncIterator[Side]:
    """Bare aiohttp: the same transaction, the same consistent read."""
    import aiohttp

    root = osdisco.StoreURL.parse(url).namespace
    base = f"http://{address_of('consul', url)}/v1"
    value = base64.b64encode(VALUE).decode()
    async with aiohttp.ClientSession() as http:

        async def put(n: int) -> None:
            body = [{"KV": {"Verb": "set", "Key": f"{root}/bench/{n % 100}", "Value": value}}]
            async with http.put(f"{base}/txn", data=json.dumps(body).encode()) as answer:
                json.loads(await answer.read())

        async def get(n: int) -> None:
            async with http.get(f"{base}/kv/{root}/bench/{n % 100}?consistent") as answer:
                base64.b64decode(json.loads(await answer.read())[0]["Value"])

        yield Side(put, get)


@asynccontextmanager
async def _etcd3_py(url: str) -> AsyncIterator[Side]:
    """etcd3-py's own calls, whose answers are made into models."""
    import etcd3

    host, _, port = address_of("etcd", url).rpartition(":")
    root = osdisco.StoreURL.parse(url).namespace
    with _old_code():
        client = etcd3.AioClient(host, int(port))  # asks for the version, blocking

        async def put(n: int) -> None:
            await client.put(f"{root}/bench/{n % 100}", VALUE)

        async def get(n: int) -> None:
            assert (await client.range(f"{root}/bench/{n % 100}")).kvs[0].value

        try:
            yield Side(put, get)
        finally:
            await client.session.close()


@asynccontextmanager
async def _python_consul2(url: str) -> AsyncIterator[Side]:
    """python-consul2 as it comes: a plain put and a read by Consul's default, each in a session of its own."""
    from consul.aio import Consul

    host, _, port = address_of("consul", url).rpartition(":")
    root = osdisco.StoreURL.parse(url).namespace
    with _old_code():
        client = Consul(host=host, port=int(port))

        async def put(n: int) -> None:
            assert await client.kv.put(f"{root}/bench/{n % 100}", VALUE)

        async def get(n: int) -> None:
            assert (await client.kv.get(f"{root}/bench/{n % 100}"))[1]["Value"]

        yield Side(put, get)


@contextmanager
def _old_code() -> Iterator[None]:
    """Keep peers' warnings off the terminal: of what is no longer the way, and of what they leave open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_BARE = {"etcd": _bare_grpc, "gateway": _bare_gateway, "consul": _bare_consul}
_PEERS: dict[str, tuple[str, Any, float]] = {
    "etcd": ("etcd3-py, its models", _etcd3_py, LEAST_ETCD3_PY),
    "consul": ("python-consul2 as it comes", _python_consul2, LEAST_PYTHON_CONSUL2),
}
