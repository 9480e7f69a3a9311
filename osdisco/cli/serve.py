"""`osdisco serve`: for Prometheus, load balancers and whoever else asks by HTTP."""

from __future__ import annotations

import asyncio

import click

from osdisco.cli._output import document, line, warn
from osdisco.cli._running import Interrupts, run_with_client
from osdisco.cli._settings import Command, Settings
from osdisco.client import Client
from osdisco.metrics import Metrics, PrometheusMetrics
from osdisco.serve import DEFAULT_LISTEN, serve as serve_to


@click.command(cls=Command)
@click.option("--listen", metavar="HOST:PORT", default=DEFAULT_LISTEN, show_default=True, help="Where; port 0: any.")
@click.pass_obj
def serve(settings: Settings, listen: str) -> None:
    """Serve extensions, endpoints and metrics by HTTP until interrupted; only reads.

    /sd: Prometheus' http_sd, with ?capability=, ?name=, ?status=, ?endpoint=. /metrics. /healthz: it lives.
    /readyz: it sees the store. /v3/discovery:endpoints: services by Envoy's EDS over REST.
    There is neither TLS nor a password, so it listens on loopback unless told otherwise.
    """

    async def work(client: Client, _: Interrupts) -> None:
        async with serve_to(client, listen) as server:
            if not server.only_loopback:
                warn(f"whoever reaches {server.address} sees all extensions and services; there is no password")
            document({"url": server.url}) if settings.json else line(f"serving {server.url}")
            await asyncio.Event().wait()

    run_with_client(settings, work, metrics=_metrics())


def _metrics() -> Metrics | None:
    try:
        from prometheus_client import CollectorRegistry
    except ImportError:
        warn("no /metrics without a package: pip install 'osdisco[prometheus]'")
        return None
    return PrometheusMetrics(CollectorRegistry())
