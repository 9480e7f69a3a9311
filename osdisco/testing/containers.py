"""Servers for tests as Docker containers, on testcontainers; published on this machine's loopback only.

    with EtcdContainer() as etcd:
        client = osdisco.connect(etcd.url)

Images come from `OSDISCO_TEST_ETCD_IMAGE` and `OSDISCO_TEST_CONSUL_IMAGE`, else the official ones.
"""

from __future__ import annotations

import json
import os
from ipaddress import ip_network
from typing import Any, Final, Self, cast

from testcontainers.core.config import ConnectionMode
from testcontainers.core.container import DockerContainer

from osdisco.testing._api import free_port
from osdisco.testing._stores import (
    ConsulAccess,
    ConsulServer,
    EtcdAccess,
    EtcdServer,
    Server,
    consul_config,
    etcd_command,
)

ETCD_IMAGE: Final = "quay.io/coreos/etcd:v3.5.24"
CONSUL_IMAGE: Final = "hashicorp/consul:1.20"

DNS: Final = 8600
TLS: Final = "/tmp/tls"  # nosec B108 # noqa: S108 - inside of the container, where nothing else is
DATA: Final = "/tmp/data"  # nosec B108 # noqa: S108


class ServerContainer(DockerContainer, Server):
    """A server that is a container. `with` starts and removes it."""

    def __init__(self, image: str, port: int) -> None:
        super().__init__(image)
        self._port = port
        self._published = 0

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        host = self.get_container_host_ip()
        # the name could lead to ::1 first, where nothing listens
        return f"{'127.0.0.1' if host == 'localhost' else host}:{self._published or self._port}"

    def start(self) -> Self:
        """Start, also again after `kill`, with the data and on the port of before; returns when it writes."""
        if self._container is None:
            self._publish()
            super().start()
        else:
            for transfer in self._certificates():
                self.copy_into_container(*transfer)
            self._container.start()
        self.started()
        self.wait_ready()
        return self

    def started(self) -> None:
        """Do what comes between the start of the container and waiting for the server in it."""

    def kill(self) -> None:
        """End it by SIGKILL; its data stays."""
        if self._status() in ("running", "paused"):
            self.get_wrapped_container().kill()
            self.get_wrapped_container().wait()

    def pause(self) -> None:
        """Freeze all of it: connections stay open and silent."""
        if self._status() != "paused":
            self.get_wrapped_container().pause()

    def unpause(self) -> None:
        """Let it go on."""
        if self._status() == "paused":
            self.get_wrapped_container().unpause()

    def stop(self, force: bool = True, delete_volume: bool = True) -> None:
        """Remove the container and its files."""
        super().stop(force=force, delete_volume=delete_volume)
        self.access.cleanup()

    def logs(self) -> str:
        """Return what it wrote."""
        return b"".join(self.get_logs()).decode(errors="replace")

    def death(self) -> str | None:
        """Return the end of its log if it is dead."""
        if self._status() in ("created", "running", "paused"):
            return None
        return self.logs()[-2000:] or "without a word"

    def _status(self) -> str:
        self.get_wrapped_container().reload()
        return str(self.get_wrapped_container().status)

    def _publish(self) -> None:
        """Choose the port ourselves: one that Docker chooses changes at each start."""
        mode = self.get_docker_client().get_connection_mode()
        if mode is not ConnectionMode.bridge_ip:
            self._published = self._publish_port(self._port, mode)

    def _publish_port(self, port: int, mode: ConnectionMode) -> int:
        published = free_port()
        binding = (self._host_address(mode), published)
        self.ports[f"{port}/tcp"] = cast(Any, binding)  # the library's type knows only numbers, Docker takes both
        return published

    def _host_address(self, mode: ConnectionMode) -> str:
        """Return the narrowest address of Docker's machine on which tests reach the port."""
        docker = self.get_docker_client()
        if mode is ConnectionMode.gateway_ip:  # the tests are in a container too
            config = docker.client.networks.get("bridge").attrs["IPAM"]["Config"][0]
            return str(config.get("Gateway") or ip_network(config["Subnet"])[1])  # Docker takes the first address
        return "127.0.0.1" if docker.host() == "localhost" else "0.0.0.0"  # nosec B104 # noqa: S104 - Docker's machine is another one

    def _certificates(self) -> list[tuple[bytes, str]]:
        """Return what must be in the container, and where. Tests may change the certificates between two starts."""
        if self.access.certificates is None:
            return []
        names = ("ca.pem", "server.pem", "server-key.pem")
        return [((self.access.folder / "tls" / name).read_bytes(), f"{TLS}/{name}") for name in names]


class EtcdContainer(ServerContainer, EtcdServer):
    """An etcd in a container.

    Args:
        image: instead of the one from the environment.
        tls: clients must talk TLS.
        auth: a user and a password are asked for.
        mtls: clients must show a certificate.
        flags: more of its command line.
        access: how one gets in, when it is that of a cluster; `tls`, `auth` and `mtls` are then not looked at.
    """

    def __init__(
        self,
        image: str | None = None,
        *,
        tls: bool = False,
        auth: bool = False,
        mtls: bool = False,
        flags: tuple[str, ...] = (),
        access: EtcdAccess | None = None,
    ) -> None:
        super().__init__(image or os.environ.get("OSDISCO_TEST_ETCD_IMAGE") or ETCD_IMAGE, 2379)
        self.access = access or EtcdAccess(tls=tls, auth=auth, mtls=mtls)
        self._flags = flags

    def _configure(self) -> None:
        for transfer in self._certificates():
            self.with_copy_into_container(*transfer)
        name, peers = self._members()
        command = etcd_command(
            self.access,
            name=name,
            data=DATA,
            client="0.0.0.0:2379",
            advertised=f"127.0.0.1:{self._published or self._port}",
            peer="0.0.0.0:2380",
            peers=peers,
            tls_folder=TLS,
        )
        self.with_command([*command, *self._flags])

    def _members(self) -> tuple[str, dict[str, str]]:
        return "n1", {"n1": "127.0.0.1:2380"}


class ConsulContainer(ServerContainer, ConsulServer):
    """A Consul server in a container.

    Args:
        image: instead of the one from the environment.
        tls: clients must talk TLS.
        acl: a token is asked for.
        config: more of its configuration, over ours.
        access: how one gets in, when it is that of a cluster; `tls` and `acl` are then not looked at.
    """

    def __init__(
        self,
        image: str | None = None,
        *,
        tls: bool = False,
        acl: bool = False,
        config: dict[str, Any] | None = None,
        access: ConsulAccess | None = None,
    ) -> None:
        access = access or ConsulAccess(tls=tls, acl=acl)
        image = image or os.environ.get("OSDISCO_TEST_CONSUL_IMAGE") or CONSUL_IMAGE
        super().__init__(image, 8501 if access.tls else 8500)
        self.access = access
        self._config = config or {}
        self._dns = DNS

    @property
    def dns_address(self) -> str:
        """`host:port` of its DNS, over TCP."""
        return f"{self.address.rpartition(':')[0]}:{self._dns}"

    def _publish(self) -> None:
        super()._publish()
        if self._published:
            self._dns = self._publish_port(DNS, self.get_docker_client().get_connection_mode())

    def _configure(self) -> None:
        for transfer in self._certificates():
            self.with_copy_into_container(*transfer)
        config = consul_config(self.access, data=DATA, tls_folder=TLS)
        config["ports"] = {"http": -1, "https": 8501} if self.access.tls else {"http": 8500}
        config["client_addr"] = "0.0.0.0"  # nosec B104 # noqa: S104 - all of the container
        self.with_command(["agent", f"-hcl={json.dumps(config | self._member() | self._config)}"])

    def _member(self) -> dict[str, Any]:
        return {"node_name": "n1", "bootstrap_expect": 1, "bind_addr": "127.0.0.1"}
