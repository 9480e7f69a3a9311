"""The local agent's own services. The calls are built here: python-consul2 knows neither their weights nor meta."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from osdisco.runtime import Runtime
from osdisco.url import StoreURL
from osdisco_consul._calls import Answer, Call
from osdisco_consul._errors import UnknownServiceError
from osdisco_consul._options import ConsulOptions
from osdisco_consul._wire import Wire


class Agent:
    """Requests to one agent; `timeout` is seconds for each. Ids of services and checks must need no quoting."""

    def __init__(self, url: StoreURL, options: ConsulOptions, runtime: Runtime, *, timeout: float) -> None:
        self._wire = Wire(url, options, runtime)
        self._timeout = timeout

    async def service(self, id_: str) -> Mapping[str, Any] | None:
        """Read a service; None when the agent has none of that id."""
        with suppress(UnknownServiceError):
            found: Mapping[str, Any] = await self._send(Call("GET", f"/v1/agent/service/{id_}", "", "", _object))
            return found
        return None

    async def register(self, definition: Mapping[str, Any]) -> None:
        """Register a service with exactly its checks."""
        body = json.dumps(definition)
        query = "replace-existing-checks=true"
        await self._send(Call("PUT", "/v1/agent/service/register", query, body, _nothing, write=True))

    async def deregister(self, id_: str) -> None:
        """Deregister a service, if it is there."""
        with suppress(UnknownServiceError):
            await self._send(Call("PUT", f"/v1/agent/service/deregister/{id_}", "", "", _nothing, write=True))

    async def update_check(self, id_: str, status: str, output: str) -> bool:
        """Tell a TTL check how things are; returns whether the agent has it."""
        body = json.dumps({"Status": status, "Output": output})
        with suppress(UnknownServiceError):
            await self._send(Call("PUT", f"/v1/agent/check/update/{id_}", "", body, _nothing, write=True))
            return True
        return False

    async def aclose(self) -> None:
        """Close the connections."""
        await self._wire.aclose()

    async def _send(self, call: Call) -> Any:
        return await self._wire.send(call, timeout=self._timeout)


def _nothing(answer: Answer) -> None:
    if answer.body.strip():
        raise ValueError("an agent says nothing to that")


def _object(answer: Answer) -> Mapping[str, Any]:
    found = json.loads(answer.body)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found
