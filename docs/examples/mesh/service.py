"""What the three services have in common: each serves from a process of its own until SIGTERM, and then drains."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

import osdisco
from osdisco.discovery import Drain
from osdisco.integrations import run_until_terminated
from osdisco.mesh import ExtensionServiceMesh, RetryPolicy
from osdisco.registry import ServiceDefinition

Handlers = Callable[[ExtensionServiceMesh, str], Mapping[str, Any]]
"""Makes what a service can do, of the mesh by which it calls others, and its version."""

DRAIN = Drain(propagation=0.5, grace=5)
RETRIES = RetryPolicy(idempotent=["complete", "locate", "record"])  # what may be done twice


async def serve(name: str, version: str, handlers: Handlers) -> None:
    async with osdisco.connect() as client, ExtensionServiceMesh(client, retry_policies=RETRIES) as mesh:
        definition = ServiceDefinition(name, version)
        async with mesh.serve(definition, handlers(mesh, version), drain=DRAIN) as server:
            print(server.address, flush=True)
            await run_until_terminated(server.registration)


def main(name: str, handlers: Handlers) -> None:
    asyncio.run(serve(name, sys.argv[1] if len(sys.argv) > 1 else "1.0.0", handlers))
