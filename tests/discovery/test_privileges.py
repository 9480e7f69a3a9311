"""The role and the policy that the page on operating prints are enough, and allow nothing else. On secured servers.

They are those of all other tests on secured servers, too, such as the conformance suites, but for the namespace.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from worlds import until

import osdisco
from osdisco.backend import Put
from osdisco.cli._checks import Level, examine
from osdisco.client import Client
from osdisco.coordination import CoordinationService
from osdisco.discovery import DiscoveryService, ExtensionInfo, ExtensionStatus
from osdisco.errors import DeniedError
from osdisco.registry import ServiceDefinition, ServiceRegistry
from osdisco.runtime import Credentials
from osdisco.testing._stores import NAMESPACE as TEST_NAMESPACE, USER
from osdisco.testing.servers import ConsulServer, EtcdServer, Servers
from osdisco_consul import ConsulCatalog

PAGE = (Path(__file__).parents[2] / "docs/discovery/operating.md").read_text()
NAMESPACE = "search"
ELSEWHERE = ["elsewhere", "search2", "sear"]
Connect = Callable[[str], Client]


def blocks(kind: str) -> list[str]:
    """Return the blocks of a kind on the page."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


# etcd


@pytest.fixture
def scheme(request: pytest.FixtureRequest) -> str:
    """Return that of etcd, as the test's parameter says."""
    return str(request.node.callspec.params["connect"])


@pytest.fixture
def etcd(osdisco_servers: Servers, scheme: str) -> Iterator[Connect]:
    """Do as the page says; return a function that connects as the user in it, to a namespace."""
    server = osdisco_servers.etcd(secured=True)
    role, prefix, user = _etcd_role()
    _grant(server, role, prefix, user)
    yield lambda namespace: osdisco.connect(
        f"{scheme}://{server.address}/{namespace}?tls_ca={_ca(server)}",
        credentials=lambda: Credentials(user, server.access.password),  # type: ignore[arg-type]
    )
    server.admin("POST", "/v3/auth/user/delete", {"name": user})
    server.admin("POST", "/v3/auth/role/delete", {"role": role})


def _etcd_role() -> tuple[str, str, str]:
    (page,) = (block for block in blocks("sh") if "etcdctl role" in block)
    ((role, prefix),) = re.findall(
        r"^etcdctl role grant-permission (\S+) readwrite --prefix=true (\S+)$", page, re.MULTILINE
    )
    assert f"etcdctl role add {role}\n" in page
    ((user,),) = [re.findall(rf"^etcdctl user grant-role (\S+) {role}$", page, re.MULTILINE)]
    return role, prefix, user


def _grant(server: EtcdServer, role: str, prefix: str, user: str) -> None:
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    server.admin("POST", "/v3/auth/role/add", {"name": role})
    permission = {"permType": "READWRITE"} | _range(prefix, end)
    server.admin("POST", "/v3/auth/role/grant", {"name": role, "perm": permission})
    server.admin("POST", "/v3/auth/user/add", {"name": user, "password": server.access.password})
    server.admin("POST", "/v3/auth/user/grant", {"user": user, "role": role})


def _range(key: str, end: str) -> dict[str, str]:
    return {name: b64encode(text.encode()).decode() for name, text in (("key", key), ("range_end", end))}


# Consul


@pytest.fixture
def consul_server(osdisco_servers: Servers) -> ConsulServer:
    return osdisco_servers.consul(secured=True)


@pytest.fixture
def consul(consul_server: ConsulServer) -> Iterator[Connect]:
    """Make a token with the page's policy; return a function that connects with it, to a namespace."""
    (rules,) = (block for block in blocks("hcl") if "session_prefix" in block)
    with _token(consul_server, rules) as credentials:
        yield lambda namespace: osdisco.connect(_consul_url(consul_server, namespace), credentials=lambda: credentials)


def _consul_url(server: ConsulServer, namespace: str) -> str:
    return f"consul+https://{server.address}/{namespace}?tls_ca={_ca(server)}"


@contextmanager
def _token(server: ConsulServer, rules: str) -> Iterator[Credentials]:
    policy = server.admin("PUT", "/v1/acl/policy", {"Name": "from-the-page", "Rules": rules})["ID"]
    token = server.admin("PUT", "/v1/acl/token", {"Policies": [{"ID": policy}]})
    yield Credentials(token=token["SecretID"])
    server.admin("DELETE", f"/v1/acl/token/{token['AccessorID']}")
    server.admin("DELETE", f"/v1/acl/policy/{policy}")


def _ca(server: EtcdServer | ConsulServer) -> Path:
    assert server.access.certificates is not None
    return server.access.certificates.ca


# both


@pytest.fixture(params=["etcds", "etcd+https", "consul"])
def connect(request: pytest.FixtureRequest) -> Connect:
    found: Connect = request.getfixturevalue("consul" if request.param == "consul" else "etcd")
    return found


def me(name: str = "geo") -> ExtensionInfo:
    return ExtensionInfo(
        id=f"{name}-1", name=name, version="1", host="10.0.0.7", port=9700, status=ExtensionStatus.HEALTHY
    )


def test_secured_servers_have_no_other(osdisco_servers: Servers) -> None:
    """What all suites on secured servers may do is what the page says, with their namespace in place of the page's."""
    (rules,) = (block for block in blocks("hcl") if "session_prefix" in block)
    ours = osdisco_servers.consul(secured=True).access.RULES.replace(TEST_NAMESPACE, NAMESPACE)
    assert re.sub(r"\s+", " ", rules).strip() == re.sub(r"\s+", " ", ours).strip()
    _, prefix, _ = _etcd_role()
    found = osdisco_servers.etcd(secured=True).admin("POST", "/v3/auth/role/get", {"role": USER})["perm"]
    key, end = (prefix.replace(NAMESPACE, TEST_NAMESPACE), prefix.replace(f"{NAMESPACE}/", f"{TEST_NAMESPACE}0"))
    assert found == [{"permType": "READWRITE"} | _range(key, end)]


async def test_they_are_enough_for_discovery_and_the_registry(connect: Connect) -> None:
    async with connect(NAMESPACE) as client, connect(NAMESPACE) as other:
        async with DiscoveryService(client, me()) as discovery, DiscoveryService(other) as seer:
            await discovery.wait_registered(10)
            assert await seer.discover_extensions() == [discovery.extension]
            await discovery.set_status(ExtensionStatus.DEGRADED)
            await until(lambda: [one.status for one in seer.extensions.values()] == [ExtensionStatus.DEGRADED])
            registry = ServiceRegistry(client)
            async with registry.register(ServiceDefinition(name="geo", version="1", address="10.0.0.7:9700")):
                await ServiceRegistry(other).get_endpoints("geo")
        await until(lambda: not seer.extensions or seer.extensions.stale)
        assert not (await client.scan("ext/")).items


async def test_they_are_enough_for_coordination(connect: Connect) -> None:
    async with connect(NAMESPACE) as client:
        here = CoordinationService(client)
        async with here.lock("a", timeout=10) as guard:
            await guard.commit([Put("jobs/1", b"done")])
        async with here.rwlock("b").write(), here.semaphore("c", limit=2), here.multilock(["d", "e"]):
            pass
        async with here.election("f", candidate_id="me").campaign(timeout=10) as term:
            await term.proclaim({"url": "http://h"})
        await here.barrier("g").hold()
        await here.barrier("g").release()
        await here.counter("h").add(1)
        await here.shared_value("i", default={}).set({"a": 1})
        await here.consensus("j").propose(b"me")
        async with here.group("k").join("me"):
            pass


async def test_the_doctor_misses_nothing(connect: Connect) -> None:
    async with connect(NAMESPACE) as client:
        assert client.url is not None
        findings = [finding async for finding in examine(client, client.url)]
    assert [finding for finding in findings if finding.level in (Level.FAIL, Level.DOWN)] == []


async def test_they_allow_nothing_outside_of_the_namespace(connect: Connect) -> None:
    for namespace in ELSEWHERE:
        async with connect(namespace) as client:
            await denied(client.get("a"), client.put("a", b"1"), client.scan(""), client.delete("a"), _view(client))
            async with DiscoveryService(client, me()) as discovery:
                with pytest.raises(osdisco.TimedOutError, match="not registered"):
                    await discovery.wait_registered(0.3)
                assert not discovery.registered


async def _view(client: Client) -> object:
    return await client.view("")


async def denied(*calls: Awaitable[object]) -> None:
    for call in calls:
        with pytest.raises(DeniedError):
            await call


# Consul's own catalog


@pytest.mark.parametrize("granted", [True, False])
async def test_the_catalog_needs_its_services_and_no_more(consul_server: ConsulServer, granted: bool) -> None:
    keys, services = blocks("hcl")
    with _token(consul_server, keys + services if granted else keys) as credentials:
        async with osdisco.connect(_consul_url(consul_server, NAMESPACE), credentials=lambda: credentials) as client:
            catalog = ConsulCatalog.of(client)
            if granted:
                await catalog.publish(me())
                await denied(catalog.publish(me("other")))
                await catalog.withdraw(me())
            else:
                await denied(catalog.publish(me()))
            await catalog.aclose()
