"""What a mesh, or one call of it, is given, checked and completed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from osdisco.errors import ConfigError, RequestError
from osdisco.mesh._settings import ANY, checked
from osdisco.mesh.balancers import LoadBalancer
from osdisco.mesh.codec import CodecError, check_kind
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


def balancer_of(given: LoadBalancer | None) -> LoadBalancer | None:
    """Return the pattern of what picks. Raises ConfigError, also for one by which nothing can be kept."""
    checked("load_balancer", given, LoadBalancer)
    try:
        hash(given)
    except TypeError:
        raise ConfigError(f"load_balancer {given!a} has no hash; give a class by attrs eq=False") from None
    return given


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


def seconds_of(timeout: object) -> float:
    """Return the seconds that a call may take: that none are left is said with its attempt. Raises RequestError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout != timeout:
        raise RequestError(f"timeout is a number of seconds, not {timeout!a}")
    try:
        return float(timeout)
    except OverflowError:
        raise RequestError("timeout is a number of seconds, not one that no float can hold") from None


def kind_of(response_type: Any) -> Any:
    """Return what a result is to be: before anything was done for it. Raises RequestError."""
    try:
        _check_once(response_type)
    except CodecError as exc:
        raise RequestError(f"response_type: {exc}") from None
    except TypeError:  # it has no hash
        raise RequestError(f"response_type: {response_type!a} is no type that JSON can be read into") from None
    return response_type


_check_once = lru_cache(1024)(check_kind)
