"""A fake agent that answers what no real one can be made to answer."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from attrs import define, field

from osdisco.backend import Put
from osdisco_consul import ConsulBackend

Open = Callable[..., ConsulBackend]


@define
class Request:
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)  # so that a token found in a report came from the library
    body: bytes


Fake = Callable[["Script"], Awaitable["FakeAgent"]]
Script = Callable[[Request], "bytes | Awaitable[bytes | None] | None"]

SILENCE = b"an answer that never comes"


def http(status: int, body: str | bytes = b"", **headers: object) -> bytes:
    """Return an answer; `X_Consul_Index=5` is the header X-Consul-Index."""
    raw = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(raw)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + raw


TXN = json.dumps({"Results": [{"KV": {"Key": "ns/k", "ModifyIndex": 7, "CreateIndex": 7}}], "Errors": None})


def kv(*keys: str, index: int = 5) -> bytes:
    """Return what a read of these keys answers."""
    value = base64.b64encode(b"v").decode()
    entries = [{"Key": key, "Value": value, "CreateIndex": 2, "ModifyIndex": 4, "Flags": 0} for key in keys]
    return http(200, json.dumps(entries), X_Consul_Index=index)


async def put(backend: ConsulBackend, timeout: float = 2.0) -> Any:
    """Write what `TXN` answers."""
    return await backend.commit([Put("ns/k", b"v")], {}, timeout=timeout)


async def get(backend: ConsulBackend, timeout: float = 2.0) -> Any:
    """Read a key."""
    return await backend.get("ns/k", timeout=timeout)


@define
class FakeAgent:
    """Answers with what `script` returns for a request; None cuts the connection off."""

    script: Script
    requests: list[Request] = field(factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _stopping: asyncio.Event = field(factory=asyncio.Event)
    _readers: set[asyncio.StreamReader] = field(factory=set)
    _tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = field(factory=dict)

    @property
    def url(self) -> str:
        return f"consul://127.0.0.1:{self.port}"

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._stopping.clear()
        # an agent takes 200 connections at once; above its backlog some are lost, and their requests with them
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    def cut(self) -> None:
        """End all connections, after what was written on them."""
        for writer in self._tasks.values():
            writer.close()

    @property
    def connections(self) -> int:
        """How many connections the other side holds open."""
        return sum(not reader.at_eof() for reader in self._readers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = writer
        self._readers.add(reader)
        try:
            while (answer := await self._answer(await _read(reader))) is not None:
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._readers.discard(reader)
            del self._tasks[task]

    async def _answer(self, request: Request) -> bytes | None:
        self.requests.append(request)
        answer = self.script(request)
        answer = await answer if isinstance(answer, Awaitable) else answer
        if answer is SILENCE:
            await self._stopping.wait()
            return None
        return answer


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    method, target, _ = head[0].split(" ")
    path, _, query = target.partition("?")
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, dict(parse_qsl(query, keep_blank_values=True)), headers, body)
