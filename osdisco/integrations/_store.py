"""What the frameworks' helpers share."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from osdisco.client import Client, connect
from osdisco.discovery import DiscoveryService, ExtensionInfo


@asynccontextmanager
async def discovering(
    store: Client | str | None, extension: ExtensionInfo | None, **options: Any
) -> AsyncGenerator[DiscoveryService, None]:
    """Run a DiscoveryService on a client, which stays open, or on a URL, OSDISCO_URL when None."""
    async with AsyncExitStack() as stack:
        client = store if isinstance(store, Client) else await stack.enter_async_context(connect(store))
        yield await stack.enter_async_context(DiscoveryService(client, extension, **options))
