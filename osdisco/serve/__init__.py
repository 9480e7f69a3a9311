"""HTTP for the operator's other tools: what to scrape, metrics, whether this process lives and sees the store.

    async with serve(client) as server:
        print(server.url)

| path | answer |
|---|---|
| `/sd` | the extensions as Prometheus' `http_sd` takes them; 503 as long as the store was never seen |
| `/metrics` | metrics of osdisco |
| `POST /v3/discovery:endpoints` | the endpoints of services as Envoy takes them, by EDS over REST |
| `/healthz` | 200: the process lives |
| `/readyz` | 200 while the store is seen; else 503 and why |

It only reads, asks nobody who they are, and therefore listens on loopback unless told otherwise.
"""

from osdisco.serve._server import DEFAULT_LISTEN, Serving, serve

__all__ = ["DEFAULT_LISTEN", "Serving", "serve"]
