"""What users talk to: asks whichever geo service is well. python front.py PORT"""

import random
import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from osdisco.discovery import ExtensionInfo, ExtensionStatus
from osdisco.integrations.aiohttp import DISCOVERY, count_in_flight, discovery_ctx

SESSION = web.AppKey("session", aiohttp.ClientSession)


async def ask(request: web.Request) -> web.Response:
    """Ask one after the other, in a random order, until one answers."""
    found = request.app[DISCOVERY].find(capability="geo.locate", status=ExtensionStatus.HEALTHY)  # no I/O: a live view
    for geo in random.sample(found, len(found)):
        try:
            url = f"http://{geo.host}:{geo.port}/locate"
            async with request.app[SESSION].get(url, params=request.query) as answer:
                return web.json_response(await answer.json() if answer.ok else None, status=answer.status)
        except aiohttp.ClientError:
            continue  # it has just died, and its lease has not run out yet
    raise web.HTTPServiceUnavailable(text="no geo service is well\n")


async def session(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession() as app[SESSION]:
        yield


def main() -> None:
    port = int(sys.argv[1])
    me = ExtensionInfo("front", "front", "1.0.0", "127.0.0.1", port, status=ExtensionStatus.HEALTHY)
    app = web.Application(middlewares=[count_in_flight])
    app.add_routes([web.get("/where", ask)])
    app.cleanup_ctx.extend([session, discovery_ctx(None, me)])
    web.run_app(app, host="127.0.0.1", port=port, print=None)


main()
