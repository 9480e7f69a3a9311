"""Puts and gets through `Client`, beside the bare driver on the same server."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import osdisco
from benchmarks.harness import Case

VALUE = b"v" * 64


@asynccontextmanager
async def etcd(url: str) -> AsyncIterator[list[Case]]:
    """Ours over gRPC against bare grpc.aio stubs: the Put and Range calls."""
    import grpc.aio
    from aetcd import rpc

    host = osdisco.StoreURL.parse(url).hosts[0].address(2379)
    async with osdisco.connect(url) as client, grpc.aio.insecure_channel(host) as channel:
        stub = rpc.KVStub(channel)
        root = osdisco.StoreURL.parse(url).namespace

        async def put(n: int) -> None:
            await stub.Put(rpc.PutRequest(key=f"{root}/bench/{n % 100}".encode(), value=VALUE), timeout=5)

        async def get(n: int) -> None:
            await stub.Range(rpc.RangeRequest(key=f"{root}/bench/{n % 100}".encode()), timeout=5)

        yield _cases("etcd grpc", client, put, get)


@asynccontextmanager
async def gateway(url: str) -> AsyncIterator[list[Case]]:
    """Ours over the JSON gateway against bare aiohttp posting the same bodies."""
    import aiohttp

    parsed = osdisco.StoreURL.parse(url)
    base = f"http://{parsed.hosts[0].address(2379)}/v3/kv"

    def b64(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    async with osdisco.connect(url) as client, aiohttp.ClientSession() as http:

        async def put(n: int) -> None:
            body = {"key": b64(f"{parsed.namespace}/bench/{n % 100}"), "value": base64.b64encode(VALUE).decode()}
            async with http.post(f"{base}/put", json=body) as answer:
                json.loads(await answer.read())

        async def get(n: int) -> None:
            async with http.post(f"{base}/range", json={"key": b64(f"{parsed.namespace}/bench/{n % 100}")}) as answer:
                base64.b64decode(json.loads(await answer.read())["kvs"][0]["value"])

        yield _cases("etcd gateway", client, put, get)


@asynccontextmanager
async def consul(url: str) -> AsyncIterator[list[Case]]:
    """Ours against bare aiohttp: the same transaction, the same consistent read."""
    import aiohttp

    parsed = osdisco.StoreURL.parse(url)
    base = f"http://{parsed.hosts[0].address(8500)}/v1"
    value = base64.b64encode(VALUE).decode()
    async with osdisco.connect(url) as client, aiohttp.ClientSession() as http:

        async def put(n: int) -> None:
            body = [{"KV": {"Verb": "set", "Key": f"{parsed.namespace}/bench/{n % 100}", "Value": value}}]
            async with http.put(f"{base}/txn", data=json.dumps(body).encode()) as answer:
                json.loads(await answer.read())

        async def get(n: int) -> None:
            async with http.get(f"{base}/kv/{parsed.namespace}/bench/{n % 100}?consistent") as answer:
                base64.b64decode(json.loads(await answer.read())[0]["Value"])

        yield _cases("consul", client, put, get)


def _cases(store: str, client: osdisco.Client, put: object, get: object) -> list[Case]:
    async def our_put(n: int) -> None:
        await client.put(f"bench/{n % 100}", VALUE)

    async def our_get(n: int) -> None:
        await client.get(f"bench/{n % 100}")

    return [
        Case(f"{store} {what}", ours, theirs, calls, at_once)  # type: ignore[arg-type]
        for what, ours, theirs in (("put", our_put, put), ("get", our_get, get))
        for calls, at_once in ((300, 1), (1500, 32))
    ]
