"""What servers for tests have in common, wherever they run: how one gets in, what they are told, when they are ready.

Blocking and without drivers: tests set up and break servers through this, whatever they test.
"""

from __future__ import annotations

import base64
import secrets
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode
from uuid import uuid4
from weakref import finalize

from osdisco.testing._api import Api, wait_for
from osdisco.testing.certs import Certificates, make_certificates

USER: Final = "osdisco"
"""The user of etcd whom the URLs name, where auth is on. It has the least role that osdisco needs."""
NAMESPACE: Final = "osdisco"
"""Where auth or ACLs are on, the namespace in the URLs, outside of which their user or token may do nothing."""

CANARIES: Final = ("c4n4ry", "ca4a47ca4a47")
"""One of them is in every password and token of a secured server, so that logs can be searched for all of them."""

START_SECONDS: Final = 60.0
TIMEOUT: Final = 10.0
"""Seconds for one call of an API."""


class Access(ABC):
    """How one gets into a server or a cluster: certificates and credentials, in files of a folder of its own."""

    def __init__(self, *, tls: bool, mtls: bool = False, names: Sequence[str] = ()) -> None:
        self.folder = Path(mkdtemp(prefix="osdisco-test-"))
        self.cleanup = finalize(self, rmtree, self.folder, ignore_errors=True)
        self.mtls = mtls
        self.certificates: Certificates | None = None
        if tls or mtls:
            self.certificates = make_certificates(self.folder / "tls", names=names)
        self.secured = False

    @property
    def tls(self) -> bool:
        """Whether clients talk TLS."""
        return self.certificates is not None

    def bare_api(self, address: str, *, timeout: float = TIMEOUT) -> Api:
        """Return the API of the server at an address, without credentials."""
        if self.certificates is None:
            return Api(address, timeout)
        context = ssl.create_default_context(cafile=str(self.certificates.ca))
        if self.mtls:
            context.load_cert_chain(self.certificates.client, self.certificates.client_key)
        return Api(address, timeout, context)

    @abstractmethod
    def api(self, address: str, *, timeout: float = TIMEOUT) -> Api:
        """Return the API with all rights."""

    def secret_file(self, name: str, value: str) -> Path:
        """Write a secret where only this user reads it."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(value)
        return path

    def _url(self, scheme: str, addresses: Sequence[str], options: dict[str, str], *, user: str, namespace: str) -> str:
        if self.certificates is not None:
            options["tls_ca"] = str(self.certificates.ca)
        if self.certificates is not None and self.mtls:
            options |= {"tls_cert": str(self.certificates.client), "tls_key": str(self.certificates.client_key)}
        query = urlencode(options, quote_via=quote, safe="/")
        there = f"{','.join(addresses)}{'/' if namespace else ''}{namespace}"
        return f"{scheme}://{user}{'@' if user else ''}{there}{'?' if query else ''}{query}"


class EtcdAccess(Access):
    """etcd: user and password by a file, root for the operator."""

    def __init__(self, *, tls: bool = False, auth: bool = False, mtls: bool = False, names: Sequence[str] = ()) -> None:
        super().__init__(tls=tls, mtls=mtls, names=names)
        self.auth = auth
        self.password = f"{CANARIES[0]}-{secrets.token_hex(8)}"
        self.password_file = self.secret_file("password", self.password) if auth else None

    def url(self, addresses: Sequence[str], *, gateway: bool = False) -> str:
        """Return the URL for clients: over gRPC, or the JSON gateway."""
        scheme = {
            (False, False): "etcd",
            (False, True): "etcds",
            (True, False): "etcd+http",
            (True, True): "etcd+https",
        }
        options = {"password_file": str(self.password_file)} if self.password_file else {}
        user, namespace = (USER, NAMESPACE) if self.auth else ("", "")
        return self._url(scheme[gateway, self.tls], addresses, options, user=user, namespace=namespace)

    @property
    def environment(self) -> dict[str, str]:
        """The credentials for a process that takes them from its environment."""
        return {"OSDISCO_USERNAME": USER, "OSDISCO_PASSWORD": self.password} if self.auth else {}

    def api(self, address: str, *, timeout: float = TIMEOUT) -> Api:
        """Return the API with all rights; logs in each time, because tests let tokens expire."""
        api = self.bare_api(address, timeout=timeout)
        if self.secured:
            login = api("POST", "/v3/auth/authenticate", {"name": "root", "password": self.password})
            api.headers["Authorization"] = login["token"]
        return api

    def open(self, api: Api) -> None:
        """Write once; then, with auth, make the users and switch it on."""
        key = base64.b64encode(b"osdisco-ready").decode()
        api("POST", "/v3/kv/put", {"key": key})
        api("POST", "/v3/kv/deleterange", {"key": key})
        if not self.auth or self.secured:
            return
        first, end = (base64.b64encode(f"{NAMESPACE}{mark}".encode()).decode() for mark in "/0")  # all that begins so
        for name, permission in ("root", None), (USER, {"permType": "READWRITE", "key": first, "range_end": end}):
            api("POST", "/v3/auth/user/add", {"name": name, "password": self.password})
            api("POST", "/v3/auth/role/add", {"name": name})
            if permission:
                api("POST", "/v3/auth/role/grant", {"name": name, "perm": permission})
            api("POST", "/v3/auth/user/grant", {"user": name, "role": name})
        api("POST", "/v3/auth/enable", {})
        self.secured = True


class ConsulAccess(Access):
    """Consul: a token by a file, with the least policy that osdisco needs; the management token for the operator."""

    RULES = f"""key_prefix "{NAMESPACE}/" {{ policy = "write" }} session_prefix "" {{ policy = "write" }}"""

    def __init__(self, *, tls: bool = False, acl: bool = False, names: Sequence[str] = ()) -> None:
        super().__init__(tls=tls, names=names)
        self.acl = acl
        self.token: str | None = None
        self.token_file: Path | None = None
        self._management: str | None = None

    def url(self, addresses: Sequence[str]) -> str:
        """Return the URL for clients."""
        options = {"token_file": str(self.token_file)} if self.token_file else {}
        scheme, namespace = "consul+https" if self.tls else "consul", NAMESPACE if self.acl else ""
        return self._url(scheme, addresses, options, user="", namespace=namespace)

    @property
    def environment(self) -> dict[str, str]:
        """The credentials for a process that takes them from its environment."""
        return {"CONSUL_HTTP_TOKEN": self.token} if self.token else {}

    def api(self, address: str, *, timeout: float = TIMEOUT) -> Api:
        """Return the API with all rights."""
        api = self.bare_api(address, timeout=timeout)
        if self._management:
            api.headers["X-Consul-Token"] = self._management
        return api

    def open(self, api: Api) -> None:
        """With ACLs, make the tokens; then open a session once, which needs a leader and a registered node."""
        if self.acl and self._management is None:
            self._management = api("PUT", "/v1/acl/bootstrap")["SecretID"]
            api.headers["X-Consul-Token"] = self._management
        if self.acl and not self.secured:
            api("PUT", "/v1/acl/policy", {"Name": USER, "Rules": self.RULES})
            self.token = f"{uuid4()}"[:-12] + CANARIES[1]
            api("PUT", "/v1/acl/token", {"SecretID": self.token, "Policies": [{"Name": USER}]})
            self.token_file = self.secret_file("token", self.token)
            self.secured = True
        if self.acl:  # without it the agent may not register its own node
            api("PUT", "/v1/agent/token/agent", {"Token": self._management})
        session = api("PUT", "/v1/session/create", {"TTL": "10s", "NodeChecks": [], "LockDelay": "0s"})["ID"]
        api("PUT", f"/v1/session/destroy/{session}")


class Server(ABC):
    """One server, wherever it runs."""

    access: Access

    @property
    @abstractmethod
    def address(self) -> str:
        """`host:port` for clients."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for `osdisco.connect`; a namespace goes behind it by `in_namespace`."""

    @abstractmethod
    def start(self) -> Self:
        """Start, also again after `kill`, with the data and on the port of before; returns when it writes."""

    @abstractmethod
    def kill(self) -> None:
        """End it as SIGKILL does; its data stays."""

    @abstractmethod
    def pause(self) -> None:
        """Freeze it: connections stay open and silent."""

    @abstractmethod
    def unpause(self) -> None:
        """Let it go on."""

    @abstractmethod
    def stop(self) -> None:
        """End it and remove all that it wrote."""

    @abstractmethod
    def logs(self) -> str:
        """Return what it wrote."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def open(self, api: Api) -> None:
        """Do something that only a working server can."""

    @abstractmethod
    def death(self) -> str | None:
        """Return the server's last words if it is dead."""

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """Call the server's HTTP API with all rights (etcd: its JSON gateway) and return the JSON of its answer.

        Raises:
            ApiError: any status but 200.
        """
        return self.access.api(self.address)(method, path, body)

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Return once the server truly writes. Raises TimeoutError, or RuntimeError when it is dead."""
        wait_for(lambda: self.open(self.access.api(self.address)), seconds=seconds, death=self.death)


class EtcdServer(Server):
    """One etcd."""

    access: EtcdAccess

    @property
    def url(self) -> str:
        """The URL over gRPC."""
        return self.access.url([self.address])

    @property
    def gateway_url(self) -> str:
        """The URL over the JSON gateway."""
        return self.access.url([self.address], gateway=True)

    def open(self, api: Api) -> None:
        """Write a key; the first time, switch auth on if it is wanted."""
        self.access.open(api)


class ConsulServer(Server):
    """One Consul server."""

    access: ConsulAccess

    @property
    def url(self) -> str:
        """The URL."""
        return self.access.url([self.address])

    @property
    @abstractmethod
    def dns_address(self) -> str:
        """`host:port` of its DNS, over TCP."""

    def open(self, api: Api) -> None:
        """Open a session; the first time, make the ACL tokens if they are wanted."""
        self.access.open(api)


def etcd_command(
    access: EtcdAccess,
    *,
    name: str,
    data: str,
    client: str,
    advertised: str,
    peer: str,
    peers: Mapping[str, str],
    tls_folder: str,
) -> list[str]:
    """Return the command line of one member.

    Args:
        access: how clients get in.
        name, data: its name, its data directory.
        client, peer: `host:port` to listen on.
        advertised: `host:port` that it tells clients.
        peers: the `host:port` that each member, by name, is reached at by the others.
        tls_folder: where it finds the certificates.
    """
    scheme = "https" if access.tls else "http"
    command = ["etcd", f"--name={name}", f"--data-dir={data}", "--log-level=warn", "--unsafe-no-fsync"]
    command += [f"--listen-client-urls={scheme}://{client}", f"--advertise-client-urls={scheme}://{advertised}"]
    command += [f"--listen-peer-urls=http://{peer}", f"--initial-advertise-peer-urls=http://{peers[name]}"]
    command += ["--initial-cluster=" + ",".join(f"{member}=http://{address}" for member, address in peers.items())]
    command += ["--bcrypt-cost=4"]  # logins in a millisecond
    if access.tls:
        command += [f"--cert-file={tls_folder}/server.pem", f"--key-file={tls_folder}/server-key.pem"]
    if access.mtls:
        command += ["--client-cert-auth", f"--trusted-ca-file={tls_folder}/ca.pem"]
    return command


def consul_config(access: ConsulAccess, *, data: str, tls_folder: str) -> dict[str, Any]:
    """Return what every Consul server for tests is told, for the command line's `-hcl`; its place is the caller's."""
    config: dict[str, Any] = {
        "server": True,
        "data_dir": data,
        "log_level": "warn",
        "disable_update_check": True,
        # timings for tests: by default a leader change takes 15 s and the shortest TTL is 10 s
        "session_ttl_min": "1s",
        "performance": {"raft_multiplier": 1},
        "autopilot": {"cleanup_dead_servers": False, "server_stabilization_time": "1s"},
    }
    if access.tls:
        config |= {"cert_file": f"{tls_folder}/server.pem", "key_file": f"{tls_folder}/server-key.pem"}
    if access.acl:
        config["acl"] = {
            "enabled": True,
            "default_policy": "deny",
            "enable_token_persistence": True,  # nosec B105
        }
    return config


def in_namespace(url: str, namespace: str) -> str:
    """Return the URL with a namespace, which must need no escaping; below the one that it already has."""
    head, mark, query = url.partition("?")
    return f"{head.rstrip('/')}/{namespace}{mark}{query}"
