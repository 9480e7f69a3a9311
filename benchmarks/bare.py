"""What a user would write by hand against each store: the requests alone, without a library between."""

from __future__ import annotations

import asyncio
import base64
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Any

TIMEOUT = 5.0


class Bare(ABC):
    """One store by its plainest driver. Keys are the store's own; `create` hangs its key on a lease."""

    @abstractmethod
    async def create(self, key: str, value: bytes) -> None:
        """Write a key that must not exist, in a transaction, on the lease."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Delete a key in a transaction."""

    @abstractmethod
    async def read(self, prefix: str) -> int:
        """Read a prefix, linearizable; returns how many keys it has."""

    @abstractmethod
    async def wait_gone(self, key: str) -> None:
        """Follow a key by the store's own watch until it is gone."""

    async def put(self, values: Mapping[str, bytes]) -> None:
        """Write keys in one transaction, without a lease."""
        raise NotImplementedError

    async def values(self, prefix: str) -> list[bytes]:
        """Read a prefix, linearizable; returns all values."""
        raise NotImplementedError

    async def items(self, prefix: str) -> dict[str, bytes]:
        """Read a prefix, linearizable; returns keys and values, decoded."""
        raise NotImplementedError

    def follow(self, prefix: str) -> AsyncIterator[list[bytes]]:
        """Follow a prefix by the store's own watch: what was put, or, on Consul, all that is there after each poll."""
        raise NotImplementedError


class BareGrpc(Bare):
    """Generated stubs over one grpc.aio channel."""

    def __init__(self, channel: Any, lease: int) -> None:
        from aetcd.rpc import rpc_pb2, rpc_pb2_grpc

        self._rpc = rpc_pb2
        self._kv = rpc_pb2_grpc.KVStub(channel)
        self._watch = rpc_pb2_grpc.WatchStub(channel).Watch
        self._lease = lease

    async def create(self, key: str, value: bytes) -> None:
        rpc, raw = self._rpc, key.encode()
        absent = rpc.Compare(target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, key=raw, create_revision=0)
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=raw, value=value, lease=self._lease))
        await self._kv.Txn(rpc.TxnRequest(compare=[absent], success=[put]), timeout=TIMEOUT)

    async def delete(self, key: str) -> None:
        rpc = self._rpc
        delete = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key.encode()))
        await self._kv.Txn(rpc.TxnRequest(success=[delete]), timeout=TIMEOUT)

    async def read(self, prefix: str) -> int:
        request = self._rpc.RangeRequest(key=prefix.encode(), range_end=_end(prefix).encode())
        return len((await self._kv.Range(request, timeout=TIMEOUT)).kvs)

    async def wait_gone(self, key: str) -> None:
        rpc, raw = self._rpc, key.encode()
        call = self._watch()
        await call.write(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=raw)))
        await call.read()  # it was created
        if not (await self._kv.Range(rpc.RangeRequest(key=raw))).kvs:
            return
        while not any(event.type for event in (await call.read()).events):  # 1 is a delete
            pass
        call.cancel()

    async def put(self, values: Mapping[str, bytes]) -> None:
        rpc = self._rpc
        puts = [rpc.PutRequest(key=key.encode(), value=value) for key, value in values.items()]
        await self._kv.Txn(rpc.TxnRequest(success=[rpc.RequestOp(request_put=put) for put in puts]), timeout=TIMEOUT)

    async def values(self, prefix: str) -> list[bytes]:
        request = self._rpc.RangeRequest(key=prefix.encode(), range_end=_end(prefix).encode())
        return [pair.value for pair in (await self._kv.Range(request, timeout=TIMEOUT)).kvs]

    async def items(self, prefix: str) -> dict[str, bytes]:
        request = self._rpc.RangeRequest(key=prefix.encode(), range_end=_end(prefix).encode())
        return {pair.key.decode(): pair.value for pair in (await self._kv.Range(request, timeout=TIMEOUT)).kvs}

    async def follow(self, prefix: str) -> AsyncIterator[list[bytes]]:
        rpc = self._rpc
        create = rpc.WatchCreateRequest(key=prefix.encode(), range_end=_end(prefix).encode())
        call = self._watch()
        await call.write(rpc.WatchRequest(create_request=create))
        while True:
            yield [event.kv.value for event in (await call.read()).events if not event.type]


class BareGateway(Bare):
    """aiohttp on etcd's JSON gateway."""

    def __init__(self, http: Any, base: str, lease: int) -> None:
        self._http = http
        self._base = base
        self._lease = lease

    async def create(self, key: str, value: bytes) -> None:
        absent = {"target": "CREATE", "result": "EQUAL", "key": _b64(key), "create_revision": 0}
        put = {"key": _b64(key), "value": base64.b64encode(value).decode(), "lease": self._lease}
        await self._post("txn", {"compare": [absent], "success": [{"request_put": put}]})

    async def delete(self, key: str) -> None:
        await self._post("txn", {"success": [{"request_delete_range": {"key": _b64(key)}}]})

    async def read(self, prefix: str) -> int:
        return len((await self._post("range", {"key": _b64(prefix), "range_end": _b64(_end(prefix))})).get("kvs", ()))

    async def items(self, prefix: str) -> dict[str, bytes]:
        answer = await self._post("range", {"key": _b64(prefix), "range_end": _b64(_end(prefix))})
        return {base64.b64decode(kv["key"]).decode(): base64.b64decode(kv["value"]) for kv in answer["kvs"]}

    async def put(self, values: Mapping[str, bytes]) -> None:
        pairs = [{"key": _b64(key), "value": base64.b64encode(value).decode()} for key, value in values.items()]
        await self._post("txn", {"success": [{"request_put": pair} for pair in pairs]})

    async def wait_gone(self, key: str) -> None:
        raise NotImplementedError("the server is the same as over gRPC: watch there")

    async def _post(self, call: str, body: object) -> Any:
        async with self._http.post(f"{self._base}/v3/kv/{call}", json=body) as answer:
            document = json.loads(await answer.read())
            assert answer.status == 200
            return document


class BareConsul(Bare):
    """aiohttp on Consul's HTTP API."""

    def __init__(self, http: Any, base: str, session: str) -> None:
        self._http = http
        self._base = base
        self._session = session

    async def create(self, key: str, value: bytes) -> None:
        lock = {"Verb": "lock", "Key": key, "Session": self._session, "Value": base64.b64encode(value).decode()}
        await self._txn({"Verb": "check-not-exists", "Key": key}, lock)

    async def delete(self, key: str) -> None:
        await self._txn({"Verb": "delete", "Key": key})

    async def read(self, prefix: str) -> int:
        async with self._http.get(f"{self._base}/v1/kv/{prefix}?recurse=1&consistent=1") as answer:
            return len(json.loads(await answer.read() or "[]"))

    async def wait_gone(self, key: str) -> None:
        index = "0"
        while True:
            async with self._http.get(f"{self._base}/v1/kv/{key}?index={index}&wait=60s") as answer:
                index = answer.headers["X-Consul-Index"]
                if answer.status == 404:
                    return
                await answer.read()

    async def put(self, values: Mapping[str, bytes]) -> None:
        pairs = [(key, base64.b64encode(value).decode()) for key, value in values.items()]
        await self._txn(*({"Verb": "set", "Key": key, "Value": value} for key, value in pairs))

    async def values(self, prefix: str) -> list[bytes]:
        async with self._http.get(f"{self._base}/v1/kv/{prefix}?recurse=1&consistent=1") as answer:
            return [base64.b64decode(one["Value"]) for one in json.loads(await answer.read() or "[]")]

    async def items(self, prefix: str) -> dict[str, bytes]:
        async with self._http.get(f"{self._base}/v1/kv/{prefix}?recurse=1&consistent=1") as answer:
            return {one["Key"]: base64.b64decode(one["Value"]) for one in json.loads(await answer.read() or "[]")}

    async def follow(self, prefix: str) -> AsyncIterator[list[bytes]]:
        index = "0"
        while True:
            url = f"{self._base}/v1/kv/{prefix}?recurse=1&index={index}&wait=10s"
            async with self._http.get(url) as answer:
                index = answer.headers["X-Consul-Index"]
                values = [base64.b64decode(one["Value"]) for one in json.loads(await answer.read() or "[]")]
            for value in values:
                json.loads(value)
            yield values

    async def _txn(self, *verbs: object) -> None:
        body = json.dumps([{"KV": verb} for verb in verbs]).encode()
        async with self._http.put(f"{self._base}/v1/txn", data=body) as answer:
            json.loads(await answer.read())
            assert answer.status == 200


@asynccontextmanager
async def bare(kind: str, address: str) -> AsyncIterator[Bare]:
    """Connect to a store and grant a lease of ten minutes. `kind` is `etcd`, `gateway` or `consul`."""
    if kind == "etcd":
        import grpc.aio
        from aetcd.rpc import rpc_pb2, rpc_pb2_grpc

        async with grpc.aio.insecure_channel(address) as channel:
            lease = await rpc_pb2_grpc.LeaseStub(channel).LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=600))
            yield BareGrpc(channel, lease.ID)
        return
    import aiohttp

    base = f"http://{address}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as http:
        if kind == "gateway":
            async with http.post(f"{base}/v3/lease/grant", json={"TTL": 600}) as answer:
                yield BareGateway(http, base, (await answer.json())["ID"])
        else:
            wanted = {"TTL": "600s", "NodeChecks": [], "LockDelay": "0s", "Behavior": "delete"}
            async with http.put(f"{base}/v1/session/create", json=wanted) as answer:
                yield BareConsul(http, base, (await answer.json())["ID"])


async def round_trips(store: Bare, prefix: str, pause: float, ended: asyncio.Event) -> dict[str, list[float]]:
    """Time single writes and reads, `pause` seconds apart, until `ended`; returns seconds by kind."""
    times: dict[str, list[float]] = {"write": [], "read": []}
    number = 0
    while not ended.is_set():
        key = f"{prefix}{number}"
        for kind, call in (
            ("write", partial(store.create, key, b"")),
            ("read", partial(store.read, prefix)),
            ("write", partial(store.delete, key)),
        ):
            await asyncio.sleep(pause)
            start = perf_counter()
            await call()
            times[kind].append(perf_counter() - start)
        number += 1
    return times


def _end(prefix: str) -> str:
    return prefix[:-1] + "0"  # the byte after `/`


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
