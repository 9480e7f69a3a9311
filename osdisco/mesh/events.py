"""What is told of a pool: whom it no longer picks, and when it trusts nobody's health."""

from __future__ import annotations

from attrs import frozen

from osdisco.mesh.outliers import EjectionReason


@frozen
class EndpointEjected:
    """An endpoint is not picked for so many `seconds`, unless there is a panic."""

    service: str
    endpoint: str
    reason: EjectionReason
    seconds: float


@frozen
class EndpointReturned:
    """The ejection of an endpoint is over."""

    service: str
    endpoint: str


@frozen
class PanicBegan:
    """So few endpoints are fit that from now on all that serve are picked, however they are.

    Args:
        subset: what the subset is called of which that is so; None for the whole service.
        serving: endpoints that serve.
    """

    service: str
    subset: str | None
    serving: int


@frozen
class PanicOver:
    """Enough endpoints are fit again."""

    service: str
    subset: str | None


PoolEvent = EndpointEjected | EndpointReturned | PanicBegan | PanicOver
