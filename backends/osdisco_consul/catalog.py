"""Shows this process's extension in Consul's own catalog: its UI, DNS, `/v1/health` and Prometheus then know it.

The service has two TTL checks, because they end differently. `heartbeat` turns critical when the process dies, and the
agent then takes the service away; `status` says how the extension is, and a service that is merely ill stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Self

from osdisco.client import Client
from osdisco.discovery import ExtensionInfo, ExtensionStatus
from osdisco.errors import ConfigError, ConflictError
from osdisco.names import escape
from osdisco.runtime import CredentialProvider, Runtime
from osdisco.url import StoreURL
from osdisco_consul._backend import ConsulBackend
from osdisco_consul._options import SCHEMES, parse_options

REMOVED_AFTER_MIN: Final = 60.0
"""Consul takes no shorter time."""

STATUSES: Final = {
    ExtensionStatus.HEALTHY: "passing",
    ExtensionStatus.STARTING: "warning",
    ExtensionStatus.DEGRADED: "warning",
    ExtensionStatus.UNHEALTHY: "critical",
    ExtensionStatus.STOPPING: "critical",
}

PROCESS: Final = "osdisco_process"
"""Which process published a service, in its meta."""

_META_MAX, _META_KEY_MAX, _META_VALUE_MAX = 64, 128, 512
_NO_META_KEY: Final = re.compile(r"[^A-Za-z0-9_-]")
_RESERVED: Final = "consul-"


class ConsulCatalog:
    """A publication, one for each service: `DiscoveryService(client, me, publish=[ConsulCatalog.of(client)])`.

    Args:
        url: `consul://` and one host, the agent of this machine. Its namespace stands before the ids of services.
        ttl: seconds without a heartbeat after which the service is critical.
        removed_after: seconds of that after which the agent takes it away; 60 at least.
        weights: for those who choose by weight: while passing, and while warning.
        runtime: of the client, by `of`; else its own.

    Raises:
        ConfigError: another kind of URL, several hosts, values out of range, or the driver is not installed.
    """

    name: Final = "consul"

    def __init__(
        self,
        url: str | StoreURL,
        *,
        ttl: float = 15.0,
        removed_after: float = REMOVED_AFTER_MIN,
        weights: tuple[int, int] = (10, 1),
        credentials: CredentialProvider | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        _check_options(ttl, removed_after, weights)
        parsed = url if isinstance(url, StoreURL) else StoreURL.parse(url)
        runtime = runtime or Runtime(credentials=credentials)
        self.heartbeat: Final = ttl / 3
        self._agent = _agent(parsed, runtime, timeout=ttl / 3)
        self._prefix = "".join(f"{segment}:" for segment in parsed.namespace.split("/") if segment)
        self._ttl, self._removed_after, self._weights = ttl, removed_after, weights
        self._process = runtime.unique()
        self._published = False

    def __repr__(self) -> str:
        return f"<ConsulCatalog {self._prefix}*>"

    @classmethod
    def of(cls, client: Client, **options: Any) -> Self:
        """Return one at the agent that the client talks to; options are those of the class.

        Raises:
            ConfigError: the client talks to another store, or not to one agent of this machine.
        """
        if not isinstance(client.backend, ConsulBackend) or client.url is None:
            raise ConfigError(f"{client!r} is no client of Consul; name the agent: ConsulCatalog('consul://127.0.0.1')")
        return cls(client.url, runtime=client.runtime, **options)

    async def publish(self, extension: ExtensionInfo) -> None:
        """Let the agent know the extension as it is, and that this process lives.

        Raises:
            ConflictError: another process has published the same id since.
            OsdiscoError: the agent does not answer, or refuses.
        """
        definition = self._definition(extension)
        there = await self._agent.service(definition["ID"])
        self._check_still_ours(there)
        stands = there is not None and _shows(there, definition)
        if not (stands and await self._beat(definition, extension.status.value)):
            await self._agent.register(definition)
        self._published = True

    async def withdraw(self, extension: ExtensionInfo) -> None:
        """Take the service away, unless another process has published it since."""
        there = await self._agent.service(self._id(extension))
        if there is not None and _process_of(there) == self._process:
            await self._agent.deregister(self._id(extension))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._agent.aclose()

    async def _beat(self, definition: Mapping[str, Any], status: str) -> bool:
        """Renew the checks; returns whether the agent has them."""
        for check in definition["Checks"]:
            if not await self._agent.update_check(check["CheckID"], check["Status"], status):
                return False
        return True

    def _check_still_ours(self, there: Mapping[str, Any] | None) -> None:
        """The first time a predecessor is replaced; whoever came after us has the place."""
        if self._published and there is not None and _process_of(there) != self._process:
            raise ConflictError(f"another process has published {there.get('ID')!a} on this agent since")

    def _id(self, extension: ExtensionInfo) -> str:
        return f"{self._prefix}{escape(extension.id)}"

    def _definition(self, extension: ExtensionInfo) -> dict[str, Any]:
        id_, (passing, warning) = self._id(extension), self._weights
        heartbeat = self._check(id_, "heartbeat", "passing")
        heartbeat["DeregisterCriticalServiceAfter"] = f"{self._removed_after:g}s"
        return {
            "ID": id_,
            "Name": extension.name,
            "Tags": list(extension.capabilities),
            "Address": extension.host,
            "Port": extension.port,
            "Meta": _meta(extension, self._process),
            "Weights": {"Passing": passing, "Warning": warning},
            "Checks": [heartbeat, self._check(id_, "status", STATUSES[extension.status])],
        }

    def _check(self, id_: str, what: str, status: str) -> dict[str, Any]:
        return {
            "CheckID": f"osdisco:{id_}:{what}",
            "Name": f"osdisco {what}",
            "TTL": f"{self._ttl:g}s",
            "Status": status,
        }


def _agent(url: StoreURL, runtime: Runtime, *, timeout: float) -> Any:
    if url.scheme not in SCHEMES:
        raise ConfigError(f"Consul's catalog is reached by {' or '.join(SCHEMES)}, not {url.scheme}://")
    if len(url.hosts) > 1:
        raise ConfigError("a service belongs to the agent of its machine: name that one alone, consul://127.0.0.1:8500")
    options = parse_options(url, runtime)
    if options.session_node is not None:
        raise ConfigError("session_node= tells that there is no agent on this machine, which alone can hold a service")
    try:
        from osdisco_consul._agent import Agent
    except ImportError as exc:
        raise ConfigError(f"ConsulCatalog needs a driver ({exc}): pip install 'osdisco[consul]'") from exc
    return Agent(url, options, runtime, timeout=timeout)


def _check_options(ttl: float, removed_after: float, weights: tuple[int, int]) -> None:
    if not 1 <= ttl <= 86400:
        raise ConfigError(f"ttl is {ttl} s; from 1 s to a day are allowed")
    if not REMOVED_AFTER_MIN <= removed_after <= 30 * 86400:
        raise ConfigError(f"removed_after is {removed_after} s; from {REMOVED_AFTER_MIN:g} s to 30 days are allowed")
    if not all(isinstance(weight, int) and 0 < weight < 65536 for weight in weights) or len(weights) != 2:
        raise ConfigError("weights are two numbers from 1 to 65535: while passing, and while warning")


def _process_of(there: Mapping[str, Any]) -> object:
    return (there.get("Meta") or {}).get(PROCESS)


def _shows(there: Mapping[str, Any], definition: Mapping[str, Any]) -> bool:
    """Return whether the agent has the service as it should be; its checks are not among what it tells."""
    names = {"Service": "Name", "Tags": "Tags", "Address": "Address", "Port": "Port"}
    names |= {"Meta": "Meta", "Weights": "Weights"}
    return all((there.get(theirs) or []) == (definition[ours] or []) for theirs, ours in names.items())


def _meta(extension: ExtensionInfo, process: str) -> dict[str, str]:
    """Return what fits into Consul's meta of the metadata; sorted, so that it is the same each time."""
    meta = {PROCESS: process, "id": extension.id, "version": extension.version}
    meta = {key: value for key, value in meta.items() if _fits(key, value)}
    for name, value in sorted(extension.metadata.items()):
        key = _NO_META_KEY.sub("_", name)
        if len(meta) < _META_MAX and _fits(key, value):
            meta.setdefault(key, value)
    return meta


def _fits(key: str, value: str) -> bool:
    good = 0 < len(key) <= _META_KEY_MAX and not key.startswith(_RESERVED)
    return good and len(value.encode()) <= _META_VALUE_MAX
