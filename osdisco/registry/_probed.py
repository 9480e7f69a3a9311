"""What probers ask of an endpoint of a service. They are those of discovery."""

from __future__ import annotations

from typing import Final

from osdisco.discovery._prober import Probed
from osdisco.discovery._target import RefusedError, Target
from osdisco.discovery.probing import Probing, admitted
from osdisco.registry.definition import ServiceEndpoint

PLACE: Final = "svcprobe"
"""Where the probers of a service, and what they found, stand; the service comes next."""


def target_of(endpoint: ServiceEndpoint, probing: Probing) -> Target | None:
    """Return what is asked; None when the endpoint has no `health_check_url`.

    The record says which host and port, as that of an extension does, but not what is asked of them: else whoever can
    write to the store could have probers fetch anything on the networks that they may reach.

    Raises:
        RefusedError: what its record says may not be asked.
    """
    if endpoint.health_check_url is None:
        return None
    target = Target.parse(endpoint.health_check_url)
    if (target.scheme, target.path) != (probing.scheme, probing.path):
        raise RefusedError(f"only {probing.scheme} and {probing.path} are asked here, whatever a record says")
    return admitted(target, probing)


PROBED: Final = Probed[ServiceEndpoint](target_of, lambda endpoint, _: endpoint.health_check_url or endpoint.address)
