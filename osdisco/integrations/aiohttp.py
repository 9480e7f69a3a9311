"""aiohttp: registered while the application runs, drained before it stops to listen.

app.cleanup_ctx.append(discovery_ctx("etcd://…", me))
app.middlewares.append(count_in_flight)
…
request.app[DISCOVERY].find_by_capability("geo.search")
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from aiohttp import web

from osdisco.client import Client
from osdisco.discovery import DiscoveryService, ExtensionInfo
from osdisco.integrations._store import discovering
from osdisco.integrations.signals import SIGNALS, is_of_loop, leave_on_signals

DISCOVERY: Final = web.AppKey("osdisco_discovery", DiscoveryService)
"""Where handlers find the application's DiscoveryService."""


def discovery_ctx(
    store: Client | str | None, extension: ExtensionInfo | None = None, *, signals: bool = True, **options: Any
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what belongs into `app.cleanup_ctx`: register when the application starts, drain when it stops.

    Under `web.run_app` SIGTERM and SIGINT begin the drain, and end the application once it is over; by itself it would
    stop to listen first, while others still come. `signals=False` leaves them alone.

    Args:
        store: a client, which is left open, or a URL; None for OSDISCO_URL.
        options: of DiscoveryService, such as `drain`.
    """

    async def context(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            discovery = await stack.enter_async_context(discovering(store, extension, **options))
            app[DISCOVERY] = discovery
            if signals and all(is_of_loop(signal.getsignal(number)) for number in SIGNALS):  # run_app's
                await stack.enter_async_context(leave_on_signals(discovery, then=_exit))
            yield

    return context


def _exit(_: signal.Signals) -> None:
    raise web.GracefulExit  # as run_app's own handler


@web.middleware
async def count_in_flight(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Count requests, so that the drain waits for them."""
    async with request.config_dict[DISCOVERY].in_flight():
        return await handler(request)
