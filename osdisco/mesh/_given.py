"""What a mesh is given, checked and completed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from osdisco.errors import ConfigError
from osdisco.mesh._settings import ANY
from osdisco.mesh.retry import RetryPolicy
from osdisco.mesh.tls import TlsFiles
from osdisco.mesh.transport import Transport
from osdisco.runtime import Clock


def policies_of(given: Mapping[str, RetryPolicy] | RetryPolicy | None) -> Mapping[str, RetryPolicy]:
    """Return the policy of each service, and under `ANY` that of all others. Raises ConfigError."""
    if given is None or isinstance(given, RetryPolicy):
        return {ANY: given or RetryPolicy()}
    if not isinstance(given, Mapping) or not all(isinstance(policy, RetryPolicy) for policy in given.values()):
        raise ConfigError("retry_policies are a RetryPolicy, or several by the name of the service")
    return {ANY: RetryPolicy(), **given}


def transport_of(given: Transport | None, tls: TlsFiles | None, clock: Clock) -> Transport:
    """Return how requests travel. Raises ConfigError, also when a package is missing."""
    missing = [
        name for name in ("tenacity", "aiohttp") if find_spec(name) is None and not (given and name == "aiohttp")
    ]
    if missing:
        raise ConfigError(f"the mesh needs {' and '.join(missing)}: pip install 'osdisco[mesh]'")
    if given is not None:
        if tls is not None:
            raise ConfigError("tls is for the transport by HTTP; give it to your own transport instead")
        return given
    from osdisco.mesh.http import HttpTransport

    return HttpTransport(tls=tls, clock=clock)
