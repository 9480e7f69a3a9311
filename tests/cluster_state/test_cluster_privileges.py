"""What the page on cluster state grants to readers is enough for them, and lets nobody write. On secured servers.

What a mirror needs is what all of osdisco needs (`tests/discovery/test_privileges.py`): here it is held for it, too.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from worlds import until

import osdisco
from osdisco.client import Client
from osdisco.cluster import ClusterStateService, StateComponent
from osdisco.errors import DeniedError
from osdisco.runtime import Credentials
from osdisco.testing import FakeCluster
from osdisco.testing.servers import ConsulServer, EtcdServer, Servers

DOCS = Path(__file__).parents[2] / "docs"
NAMESPACE = "search"
Connect = Callable[[bool], Client]
"""Connects to the namespace of the pages: as a reader, or as one who may write there."""


def block(page: str, kind: str, word: str) -> str:
    """Return the one block of a kind on a page that has a word in it."""
    (found,) = (
        text for text in re.findall(rf"```{kind}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL) if word in text
    )
    return str(found)


def ca(server: EtcdServer | ConsulServer) -> Path:
    assert server.access.certificates is not None
    return server.access.certificates.ca


@pytest.fixture
def etcd(osdisco_servers: Servers, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Do as both pages say."""
    server = osdisco_servers.etcd(secured=True)
    made = [
        _etcd_user(server, block("cluster.md", "sh", "etcdctl role")),
        _etcd_user(server, block("discovery/operating.md", "sh", "etcdctl role")),
    ]
    scheme = request.node.callspec.params["connect"]

    def connect(writes: bool) -> Client:
        return osdisco.connect(
            f"{scheme}://{server.address}/{NAMESPACE}?tls_ca={ca(server)}",
            credentials=lambda: Credentials(made[writes][0], server.access.password),  # type: ignore[arg-type]
        )

    yield connect
    for user, role in made:
        server.admin("POST", "/v3/auth/user/delete", {"name": user})
        server.admin("POST", "/v3/auth/role/delete", {"role": role})


def _etcd_user(server: EtcdServer, page: str) -> tuple[str, str]:
    """Run the lines of a page; returns the user and its role."""
    ((user, role),) = re.findall(r"^etcdctl user grant-role (\S+) (\S+)$", page, re.MULTILINE)
    server.admin("POST", "/v3/auth/role/add", {"name": role})
    grants = re.findall(rf"^etcdctl role grant-permission {role} (\w+) --prefix=true (\S+)$", page, re.MULTILINE)
    for kind, prefix in grants:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        span = {name: b64encode(text.encode()).decode() for name, text in (("key", prefix), ("range_end", end))}
        permission = {"permType": kind.upper()} | span
        server.admin("POST", "/v3/auth/role/grant", {"name": role, "perm": permission})
    server.admin("POST", "/v3/auth/user/add", {"name": user, "password": server.access.password})
    server.admin("POST", "/v3/auth/user/grant", {"user": user, "role": role})
    return user, role


@pytest.fixture
def consul(osdisco_servers: Servers) -> Iterator[Connect]:
    """Make tokens with the policies of both pages."""
    server = osdisco_servers.consul(secured=True)
    rules = [block("cluster.md", "hcl", "key_prefix"), block("discovery/operating.md", "hcl", "session_prefix")]
    policies = [
        server.admin("PUT", "/v1/acl/policy", {"Name": f"cluster-page-{n}", "Rules": text})["ID"]
        for n, text in enumerate(rules)
    ]
    tokens = [server.admin("PUT", "/v1/acl/token", {"Policies": [{"ID": policy}]}) for policy in policies]

    def connect(writes: bool) -> Client:
        credentials = Credentials(token=tokens[writes]["SecretID"])
        url = f"consul+https://{server.address}/{NAMESPACE}?tls_ca={ca(server)}"
        return osdisco.connect(url, credentials=lambda: credentials)

    yield connect
    for token in tokens:
        server.admin("DELETE", f"/v1/acl/token/{token['AccessorID']}")
    for policy in policies:
        server.admin("DELETE", f"/v1/acl/policy/{policy}")


@pytest.fixture(params=["etcds", "etcd+https", "consul"])
def connect(request: pytest.FixtureRequest) -> Connect:
    found: Connect = request.getfixturevalue("consul" if request.param == "consul" else "etcd")
    return found


async def test_a_reader_sees_all_of_the_cluster_and_can_write_nothing(connect: Connect) -> None:
    cluster = FakeCluster()
    cluster.create_index("logs")
    async with connect(True) as client, connect(False) as reading:
        async with (
            ClusterStateService(client, cluster.source(), poll=0.1) as mirror,
            ClusterStateService(reading, poll=0.1) as reader,
        ):
            await reader.subscribe(StateComponent, timeout=15)
            cluster.join("n4")
            await until(lambda: "n4" in reader.state.nodes, 10)
            await until(lambda: reader.mirror.name == client.runtime.name)
            assert mirror.mirroring
            assert not reader.stale
            for key in ("cluster/default/head", "election/cluster-mirror:default/leader", "config/a"):
                with pytest.raises(DeniedError):
                    await reading.put(key, b"{}")
        with pytest.raises(DeniedError):
            await reading.scan("config/")
        for key in (await client.scan("cluster/")).items:
            await client.delete(key)


async def test_a_reader_cannot_become_the_mirror(connect: Connect) -> None:
    cluster = FakeCluster()
    async with connect(False) as reading, ClusterStateService(reading, cluster.source(), poll=0.1) as service:
        await until(lambda: service.mirror.error is not None, 10)
        assert not service.mirroring
        assert service.mirror.name is None
