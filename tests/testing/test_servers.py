"""Real servers: found in the promised order, truly ready, and gone at the end."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest import MonkeyPatch, Pytester  # noqa: PT013
from testcontainers.core.config import ConnectionMode

import osdisco
from osdisco.errors import ConfigError
from osdisco.testing import ApiError, ConsulServer, EtcdContainer, EtcdServer, Servers, make_certificates
from osdisco.testing._api import free_port
from osdisco.testing._stores import Server, in_namespace
from osdisco.testing.processes import ConsulProcess, EtcdProcess, find_binary
from osdisco.testing.servers import docker_problem, missing

QUICK = ("-p", "no:hypothesispytest")
STORES = ("etcd", "etcd+http", "consul", "etcds", "etcd+https", "consul+https")


@pytest.fixture(params=["process", "container"])
def where(request: pytest.FixtureRequest) -> str:
    """Run the test on local processes and on containers."""
    return str(request.param)


def etcd(where: str, **options: Any) -> EtcdServer:
    """Make an etcd of a kind."""
    if where == "process":
        return EtcdProcess(**options) if find_binary("etcd") else missing("etcd", "this test is of local processes")
    if problem := docker_problem("ETCD"):
        missing("etcd", problem)
    from osdisco.testing import EtcdContainer

    return EtcdContainer(**options)


def consul(where: str, **options: Any) -> ConsulServer:
    """Make a Consul of a kind."""
    if where == "process":
        return ConsulProcess(**options) if find_binary("consul") else missing("consul", "this is of local processes")
    if problem := docker_problem("CONSUL"):
        missing("consul", problem)
    from osdisco.testing import ConsulContainer

    return ConsulContainer(**options)


@pytest.mark.osdisco("memory", *STORES)
async def test_every_store_can_be_written_by_its_url(osdisco_url: str) -> None:
    async with osdisco.connect(osdisco_url) as client:
        await client.put("key", b"value")
        item = await client.get("key")
    assert item is not None
    assert item.value == b"value"


@pytest.mark.parametrize(
    ("make", "put", "get"),
    [
        (etcd, ("POST", "/v3/kv/put", {"key": "YQ==", "value": "Yg=="}), ("POST", "/v3/kv/range", {"key": "YQ=="})),
        (consul, ("PUT", "/v1/kv/a", "b"), ("GET", "/v1/kv/a", None)),
    ],
    ids=["etcd", "consul"],
)
def test_a_server_keeps_its_data_over_a_kill_and_falls_silent_when_frozen(
    make: Callable[[str], Server], where: str, put: tuple[str, str, object], get: tuple[str, str, object]
) -> None:
    with make(where) as server:
        server.admin(*put)
        before = server.admin(*get)

        server.kill()
        assert server.death() is not None
        with pytest.raises(OSError, match=r"refused|reset"):
            server.admin(*get)
        server.start()
        after = server.admin(*get)
        assert (after["kvs"] == before["kvs"]) if make is etcd else (after == before)

        server.pause()
        with pytest.raises(TimeoutError):
            server.access.bare_api(server.address, timeout=0.5)(*get)
        server.unpause()
        assert server.admin(*get)
    assert not server.access.folder.exists()


@pytest.mark.parametrize("options", [{"tls": True, "auth": True}, {"mtls": True, "auth": True}], ids=["tls", "mtls"])
def test_a_secured_etcd_refuses_who_does_not_belong(where: str, options: dict[str, bool], tmp_path: Path) -> None:
    with etcd(where, **options) as server:
        with pytest.raises(ApiError, match=r"user name is empty|permission denied"):
            server.access.bare_api(server.address)("POST", "/v3/kv/put", {"key": "YQ=="})
        refuses_strangers(server, tmp_path, client_certificate=options.get("mtls", False))
        assert server.url.startswith("etcds://osdisco@127.0.0.1:")
        assert server.gateway_url.startswith("etcd+https://osdisco@127.0.0.1:")
        assert server.access.password not in server.url


def test_a_secured_consul_refuses_who_does_not_belong(where: str, tmp_path: Path) -> None:
    with consul(where, tls=True, acl=True) as server:
        with pytest.raises(ApiError, match="403"):
            server.access.bare_api(server.address)("PUT", "/v1/kv/a", "b")
        refuses_strangers(server, tmp_path)
        assert server.url.startswith("consul+https://127.0.0.1:")
        assert server.access.token
        assert server.access.token not in server.url


def refuses_strangers(server: Server, folder: Path, *, client_certificate: bool = False) -> None:
    """Hold the server to its certificate, and to asking for one."""
    api = server.access.bare_api(server.address)
    api.context = ssl.create_default_context(cafile=str(make_certificates(folder).ca))
    with pytest.raises(ssl.SSLCertVerificationError):
        api("GET", "/version")
    if client_certificate:
        assert server.access.certificates is not None
        api.context = ssl.create_default_context(cafile=str(server.access.certificates.ca))
        with pytest.raises(OSError, match=r"certificate required|reset|closed|answer|EOF"):
            api("GET", "/version")


def test_a_server_that_cannot_start_says_why() -> None:
    if find_binary("etcd") is None:
        missing("etcd", "this test is of local processes")
    with pytest.raises(RuntimeError, match="flag provided but not defined"):
        EtcdProcess(flags=("--no-such-flag",)).start()


def test_a_local_server_dies_with_the_process_that_started_it() -> None:
    if find_binary("etcd") is None:
        missing("etcd", "this test is of local processes")
    code = """if True:
        from osdisco.testing import EtcdProcess
        server = EtcdProcess().start()
        print(server.access.folder, server.address, flush=True)
        input()
        """
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        folder, _, address = owner.stdout.readline().strip().partition(" ")
        host, _, port = address.partition(":")
        socket.create_connection((host, int(port))).close()
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while (listens(host, int(port)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not listens(host, int(port))
    assert not Path(folder).exists()


def listens(host: str, port: int) -> bool:
    """Return whether a server is there."""
    with suppress(ConnectionRefusedError):
        socket.create_connection((host, port)).close()
        return True
    return False


def test_ports_come_from_the_given_range_and_are_free(monkeypatch: MonkeyPatch) -> None:
    with socket.socket() as taken, socket.socket() as other:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("OSDISCO_TEST_PORTS", f"{port}-{port}")
        with pytest.raises(RuntimeError, match=f"no port from {port} to {port} is free"):
            free_port()
        taken.close()
        assert free_port() == port
        other.bind(("127.0.0.1", free_port()))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("etcd://h:1", "etcd://h:1/x"),
        ("etcd://h:1/", "etcd://h:1/x"),
        ("etcd://u@h:1,i:2/ns?ttl=5s", "etcd://u@h:1,i:2/ns/x?ttl=5s"),
        ("consul://h?token_file=/a/b", "consul://h/x?token_file=/a/b"),
    ],
)
def test_a_namespace_goes_behind_the_hosts(url: str, expected: str) -> None:
    assert in_namespace(url, "x") == expected


ASKS = """
    import pytest, osdisco

    @pytest.mark.osdisco("memory", "etcd", "etcd+https", "consul")
    async def test_asks(osdisco_url):
        print("URL", osdisco_url)
        async with osdisco.connect(osdisco_url) as client:
            await client.put("key", b"value")
    """


@pytest.fixture
def bare_machine(monkeypatch: MonkeyPatch, tmp_path: Path) -> MonkeyPatch:
    """A machine without any server."""
    for name in [name for name in os.environ if name.startswith("OSDISCO_") or name == "CI"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    return monkeypatch


def test_what_is_not_tested_for_want_of_a_server_is_named_at_the_end(
    pytester: Pytester, bare_machine: MonkeyPatch
) -> None:
    pytester.makepyfile(test_asks=ASKS)
    result = pytester.runpytest_subprocess(*QUICK)
    result.assert_outcomes(passed=1, skipped=3)
    nowhere = "Docker does not answer; no {0} on PATH or in the folder that OSDISCO_TEST_SERVERS names"
    result.stdout.fnmatch_lines(
        [
            "*not tested, because there is no server*",
            "no etcd server: " + nowhere.format("etcd"),
            "    test_asks.py: 2 tests",
            "no consul server: " + nowhere.format("consul"),
            "    test_asks.py: 1 test",
            "Start Docker, or put etcd and consul on PATH*",
        ]
    )


def test_in_ci_a_missing_server_is_a_failure(pytester: Pytester, bare_machine: MonkeyPatch) -> None:
    bare_machine.setenv("CI", "true")
    pytester.makepyfile(ASKS)
    result = pytester.runpytest_subprocess(*QUICK)
    result.assert_outcomes(passed=1, errors=3)
    result.stdout.fnmatch_lines(["*no etcd server: *; with CI=true that is a failure*"])


def test_outside_of_a_test_a_missing_server_is_an_error_that_says_so(bare_machine: MonkeyPatch) -> None:
    bare_machine.setenv("CI", "true")
    bare_machine.delenv("PYTEST_VERSION")
    bare_machine.setattr("osdisco.testing.servers.docker_problem", lambda store: "Docker does not answer")
    with Servers() as servers, pytest.raises(ConfigError, match="no etcd server: Docker does not answer; no etcd"):
        servers.fresh_etcd()


def test_a_url_from_the_environment_comes_first_and_is_left_clean(
    pytester: Pytester, bare_machine: MonkeyPatch, etcd_server: EtcdServer
) -> None:
    bare_machine.setenv("OSDISCO_TEST_ETCD_URL", in_namespace(etcd_server.url, "given"))
    pytester.makepyfile(ASKS)
    result = pytester.runpytest_subprocess(*QUICK, "-s")
    result.assert_outcomes(passed=2, skipped=2)
    result.stdout.fnmatch_lines([f"*URL etcd://{etcd_server.address}/given/test-*"])
    left = etcd_server.admin("POST", "/v3/kv/range", {"key": "Z2l2ZW4v", "range_end": "Z2l2ZW4w"})  # given/
    assert "kvs" not in left


def test_shared_servers_start_once_and_a_failed_one_is_not_tried_again(monkeypatch: MonkeyPatch) -> None:
    calls = []

    class Broken:
        def __enter__(self) -> None:
            calls.append(1)
            raise RuntimeError("does not start")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(Servers, "fresh_etcd", lambda *_, **__: Broken())
    with Servers() as servers:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="does not start"):
                servers.etcd()
    assert len(calls) == 1


def test_a_docker_network_that_names_no_gateway_is_reached_at_its_first_address(
    monkeypatch: MonkeyPatch,
) -> None:
    network = SimpleNamespace(attrs={"IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}})
    docker = SimpleNamespace(client=SimpleNamespace(networks={"bridge": network}))
    monkeypatch.setattr(EtcdContainer, "get_docker_client", lambda self: docker)
    assert object.__new__(EtcdContainer)._host_address(ConnectionMode.gateway_ip) == "172.17.0.1"
