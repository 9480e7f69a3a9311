"""Starlette and FastAPI: registered while the application runs, drained before it stops to listen.

app = Starlette(lifespan=discovery_lifespan("etcd://…", me), middleware=[Middleware(CountInFlight)])
…
request.app.state.discovery.find_by_capability("geo.search")
"""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from osdisco.client import Client
from osdisco.discovery import ExtensionInfo
from osdisco.integrations._store import discovering
from osdisco.integrations.signals import SIGNALS, is_of_loop, leave_on_signals


def discovery_lifespan(
    store: Client | str | None, extension: ExtensionInfo | None = None, *, signals: bool = True, **options: Any
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """Return a `lifespan`: register when the application starts, drain when it stops.

    Under uvicorn SIGTERM and SIGINT begin the drain, and reach uvicorn once it is over; by itself it would stop to
    listen first, while others still come. `signals=False` leaves them alone.

    Args:
        store: a client, which is left open, or a URL; None for OSDISCO_URL.
        options: of DiscoveryService, such as `drain`.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[dict[str, Any], None]:
        async with AsyncExitStack() as stack:
            app.state.discovery = await stack.enter_async_context(discovering(store, extension, **options))
            if signals and _server_handles_signals():
                await stack.enter_async_context(leave_on_signals(app.state.discovery))
            yield {"discovery": app.state.discovery}

    return lifespan


def _server_handles_signals() -> bool:
    """Whether there is a server that can be told later, as uvicorn; a test client has none."""
    if threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(SIGNALS[0])
    return callable(handler) and not is_of_loop(handler)


class CountInFlight:
    """Middleware that counts requests and websockets, so that the drain waits for them."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        async with scope["app"].state.discovery.in_flight():
            await self.app(scope, receive, send)
