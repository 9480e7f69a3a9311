"""A service that knows where places are. Run as many as you like: python geo.py PORT"""

import asyncio
import sys

from aiohttp import web

from osdisco.discovery import Drain, ExtensionInfo, HttpCheck
from osdisco.integrations.aiohttp import count_in_flight, discovery_ctx

PLACES = {"Oslo": [59.91, 10.75], "Quito": [-0.18, -78.47]}


async def locate(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.query.get("takes", 0)))  # it may take its time
    place = request.query.get("place", "")
    if place not in PLACES:
        raise web.HTTPNotFound
    return web.json_response({"place": place, "at": PLACES[place], "by": request.app[PORT]})


async def health(request: web.Request) -> web.Response:
    return web.Response()


PORT = web.AppKey("port", int)


def main() -> None:
    port = int(sys.argv[1])
    me = ExtensionInfo(f"geo-{port}", "geo", "1.0.0", "127.0.0.1", port, capabilities=["geo.locate"])
    check = HttpCheck(f"http://127.0.0.1:{port}/health", interval=2)
    app = web.Application(middlewares=[count_in_flight])
    app[PORT] = port
    app.add_routes([web.get("/locate", locate), web.get("/health", health)])
    app.cleanup_ctx.append(discovery_ctx(None, me, checks=[check], drain=Drain(propagation=0.5, grace=20)))
    web.run_app(app, host="127.0.0.1", port=port, print=None)


main()
