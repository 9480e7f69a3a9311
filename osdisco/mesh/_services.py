"""The services that a mesh calls: of each a live view, opened with the first call and kept, and a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from osdisco._tasks import Supervisor
from osdisco.errors import ClosedError, NoHealthyEndpointsError, OsdiscoError, TimedOutError
from osdisco.mesh._choice import EndpointSubset
from osdisco.mesh.pool import Pool
from osdisco.mesh.retry import Balance, RetryPolicy
from osdisco.registry.service import ServiceRegistry
from osdisco.registry.view import ServiceView

KEPT_MAX: Final = 1000
"""Services beyond which those without an endpoint are let go of: names may come from whoever calls the caller."""


class Service:
    """One service: who there is of it, whom to pick, and what is left to retry."""

    def __init__(self, name: str, view: ServiceView, pool: Pool, policy: RetryPolicy) -> None:
        self.name: Final = name
        self.view: Final = view
        self.policy: Final = policy
        self.balance = Balance(policy.budget)
        self.way: Final = (Way(self),)
        self.known = False
        self.breaker: Final = pool.breakers.of_service(name)
        self._pool: Final = pool
        self._changed = True
        self._successions = 0
        view._hearers[self] = None
        view.start()

    def put(self, told: Any) -> None:
        """Learn that something changed. The pool is told with the next pick, of everything since the last one."""
        self._changed = True

    def end(self, error: OsdiscoError) -> None:
        """Learn that the client was closed, or lost its permission. What was known last is gone on with."""

    @property
    def pool(self) -> Pool:
        """The pool, up to date."""
        if self._changed or self._successions != self.view._successions:
            self._changed, self._successions = False, self.view._successions
            self._pool.update(self.view.endpoints, self.view._incarnation)
        return self._pool

    async def wait_known(self, timeout: float) -> None:
        """Wait until the store was seen once. Raises NoHealthyEndpointsError."""
        if self.known:
            return
        try:
            await self.view.until(lambda _: self.view.known, timeout)
        except TimedOutError:
            why = self.view.error or "it has not answered yet"
            raise NoHealthyEndpointsError(
                f"who serves {self.name!a} is not known, for the store was not seen: {why}; 'osdisco doctor' tells more"
            ) from None
        self.known = True

    async def aclose(self) -> None:
        """Follow no more."""
        self.view._hearers.pop(self, None)
        self._pool.close()
        if self.breaker is not None:
            self._pool.breakers.forget(self.name)
        await self.view.aclose()


@frozen(eq=False)
class Way:
    """Endpoints that a call may go to: of a service, and of one of its subsets if there is one."""

    service: Service
    subset: EndpointSubset | None = None


class Services(Mapping[str, Service]):
    """All services of a mesh, by name. `open` adds one."""

    def __init__(
        self, registry: ServiceRegistry, new_pool: Callable[[str], Pool], policy_of: Callable[[str], RetryPolicy]
    ) -> None:
        self._registry = registry
        self._new_pool = new_pool
        self._policy_of = policy_of
        self._services: dict[str, Service] = {}
        self._closing = Supervisor()
        self._closed = False

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._services)

    def __len__(self) -> int:
        return len(self._services)

    def open(self, name: str) -> Service:
        """Return a service, followed from now on if it was not. Raises InvalidNameError, ClosedError."""
        service = self._services.get(name)
        if service is None:
            if self._closed:
                raise ClosedError("the mesh is closed")
            if len(self._services) >= KEPT_MAX:
                self._let_go()
            view = self._registry.view(name)
            service = self._services[name] = Service(name, view, self._new_pool(name), self._policy_of(name))
        return service

    def _let_go(self) -> None:
        for name, service in list(self._services.items()):
            if service.known and not service.view:
                del self._services[name]
                self._closing.spawn(service.aclose(), f"let go of the service {name!a}")

    async def aclose(self) -> None:
        """Follow none of them any more."""
        self._closed = True
        while self._services:
            await self._services.popitem()[1].aclose()
        await self._closing.drain(5.0)
