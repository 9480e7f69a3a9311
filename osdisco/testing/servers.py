"""Finds the real servers that tests ask for: URLs in the environment, else Docker, else binaries of this machine.

| store | URL in the environment |
|---|---|
| `etcd`, `etcd+http` | `OSDISCO_TEST_ETCD_URL`, `OSDISCO_TEST_ETCD_GATEWAY_URL` |
| `etcds`, `etcd+https` (TLS and auth on) | `OSDISCO_TEST_ETCDS_URL`, `OSDISCO_TEST_ETCDS_GATEWAY_URL` |
| `consul` | `OSDISCO_TEST_CONSUL_URL` |
| `consul+https` (TLS and ACLs on) | `OSDISCO_TEST_CONSULS_URL` |

Binaries are `etcd` and `consul` in the folder that `OSDISCO_TEST_SERVERS` names, or on PATH. A server that is nowhere
skips the tests that ask for it, and the end of the run names them; with `CI=true` they fail instead.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar

import pytest

from osdisco.errors import ConfigError
from osdisco.testing._api import ApiError as ApiError
from osdisco.testing._stores import ConsulServer as ConsulServer, EtcdServer as EtcdServer, Server, in_namespace
from osdisco.testing.processes import ConsulProcess, EtcdProcess, find_binary

if TYPE_CHECKING:
    from osdisco.testing.clusters import ConsulCluster, EtcdCluster

S = TypeVar("S", bound=Server)

_URLS: Final = {
    "etcd": "OSDISCO_TEST_ETCD_URL",
    "etcd+http": "OSDISCO_TEST_ETCD_GATEWAY_URL",
    "etcds": "OSDISCO_TEST_ETCDS_URL",
    "etcd+https": "OSDISCO_TEST_ETCDS_GATEWAY_URL",
    "consul": "OSDISCO_TEST_CONSUL_URL",
    "consul+https": "OSDISCO_TEST_CONSULS_URL",
}


class Servers:
    """The real servers of one test run. `with` ends them.

    Shared ones are started at their first use: leave them as you found them. Fresh ones are for tests that break them,
    and come unstarted.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._shared: dict[tuple[str, bool], Server | Exception] = {}

    def url(self, store: str) -> str:
        """Return the URL of a store, with a namespace that nothing else uses.

        Args:
            store: a scheme: `etcd`, `etcd+http`, `consul`, or `etcds`, `etcd+https`, `consul+https` for those with TLS
                and with auth or ACLs on.
        """
        if store not in _URLS:
            pytest.fail(f"{store!a} is no store to test on; known are memory, {', '.join(_URLS)}", pytrace=False)
        url = os.environ.get(_URLS[store]) or self._own_url(store)
        return in_namespace(url, f"test-{secrets.token_hex(8)}")

    @staticmethod
    def foreign(store: str) -> bool:
        """Return whether the store is one from the environment, which lives on after the tests."""
        return store in _URLS and bool(os.environ.get(_URLS[store]))

    def etcd(self, *, secured: bool = False) -> EtcdServer:
        """Return the shared etcd; secured: with TLS and auth."""
        return self._share("etcd", secured, lambda: self.fresh_etcd(tls=secured, auth=secured))

    def consul(self, *, secured: bool = False) -> ConsulServer:
        """Return the shared Consul; secured: with TLS and ACLs."""
        return self._share("consul", secured, lambda: self.fresh_consul(tls=secured, acl=secured))

    def fresh_etcd(self, **options: Any) -> EtcdServer:
        """Return an etcd of your own. Options are `tls`, `auth`, `mtls` and `flags`."""
        problem = docker_problem("ETCD")
        if problem is None:
            from osdisco.testing.containers import EtcdContainer

            return EtcdContainer(**options)
        return EtcdProcess(**options) if find_binary("etcd") else missing("etcd", problem)

    def fresh_consul(self, **options: Any) -> ConsulServer:
        """Return a Consul of your own. Options are `tls`, `acl` and `config`."""
        problem = docker_problem("CONSUL")
        if problem is None:
            from osdisco.testing.containers import ConsulContainer

            return ConsulContainer(**options)
        return ConsulProcess(**options) if find_binary("consul") else missing("consul", problem)

    def fresh_etcd_cluster(self, **options: Any) -> EtcdCluster:
        """Return an `EtcdCluster` of your own."""
        if problem := docker_problem("ETCD"):
            missing("etcd", problem, cluster=True)
        from osdisco.testing.clusters import EtcdCluster

        return EtcdCluster(**options)

    def fresh_consul_cluster(self, **options: Any) -> ConsulCluster:
        """Return a `ConsulCluster` of your own."""
        if problem := docker_problem("CONSUL"):
            missing("consul", problem, cluster=True)
        from osdisco.testing.clusters import ConsulCluster

        return ConsulCluster(**options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _own_url(self, store: str) -> str:
        secured = store in ("etcds", "etcd+https", "consul+https")
        if store.startswith("consul"):
            return self.consul(secured=secured).url
        server = self.etcd(secured=secured)
        return server.gateway_url if "+" in store else server.url

    def _share(self, name: str, secured: bool, make: Callable[[], S]) -> S:
        """Start once. What failed is not tried again: each test of a suite would wait for it to fail."""
        known = self._shared.get((name, secured))
        if known is None:
            try:
                known = self._stack.enter_context(make())
            except Exception as exc:
                known = exc
            self._shared[name, secured] = known
        if isinstance(known, Exception):
            raise known
        return known  # type: ignore[return-value]


async def clear(url: str) -> None:
    """Delete every key of the URL's namespace."""
    import osdisco

    async with osdisco.connect(url) as client:
        for key in (await client.scan("")).items:
            await client.delete(key)


@cache
def docker_problem(store: str) -> str | None:
    """Return why containers of this store cannot be had, or None when they can. Pulls images if that is needed.

    Args:
        store: `ETCD` or `CONSUL`.
    """
    try:
        import docker
        from testcontainers.core.config import testcontainers_config

        from osdisco.testing import containers
    except ImportError:
        return "the package testcontainers is not installed (osdisco[testing])"
    images = [os.environ.get(f"OSDISCO_TEST_{store}_IMAGE") or getattr(containers, f"{store}_IMAGE")]
    if not testcontainers_config.ryuk_disabled:
        images.append(testcontainers_config.ryuk_image)
    try:
        client = docker.from_env()
    except docker.errors.DockerException:
        return "Docker does not answer"
    with closing(client):
        return next((problem for image in images if (problem := _image_problem(client, image))), None)


def _image_problem(client: Any, image: str) -> str | None:
    from docker.errors import DockerException, ImageNotFound

    with suppress(ImageNotFound):
        client.images.get(image)
        return None
    try:
        client.images.pull(image)
    except DockerException:
        hint = ", which TESTCONTAINERS_RYUK_DISABLED=true makes needless" if "ryuk" in image else ""
        return f"Docker has no image {image} and cannot pull it{hint}"
    return None


def missing(name: str, docker: str, *, cluster: bool = False) -> NoReturn:
    """Skip the test for want of a server, or fail it with CI=true; `docker` says why that has none.

    Raises:
        ConfigError: there is no test to skip.
    """
    said = f"no {name} cluster: {docker}"
    if not cluster:
        said = f"no {name} server: {docker}; no {name} on PATH or in the folder that OSDISCO_TEST_SERVERS names"
    if "PYTEST_VERSION" not in os.environ:  # which pytest sets while it runs
        raise ConfigError(said)
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"{said}; with CI=true that is a failure", pytrace=False)
    pytest.skip(said)
