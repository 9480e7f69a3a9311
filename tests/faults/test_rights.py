"""Rights that are taken away for a while, and logins that end, under requests, watches and sessions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count, islice
from typing import Any

import pytest
from attrs import define, field
from cases import undisturbed
from network import STORES, Fault, impatient, ways

from osdisco.runtime import Credentials
from osdisco.testing import Servers
from osdisco.testing._stores import USER, in_namespace

FULL = """key_prefix "" { policy = "write" } session_prefix "" { policy = "write" } node_prefix "" { policy = "write" }
          agent_prefix "" { policy = "read" }"""
NOTHING = 'node "nowhere" { policy = "read" }'
NAME = "tested"


@define
class EtcdUser:
    """A user of its own, and the operator's hands on it. JWT tokens are stale whenever any role changes."""

    servers: Servers
    store: str
    server: Any = field(init=False)

    def start(self) -> AbstractContextManager[Any]:
        flags: list[str] = []
        self.server = self.servers.fresh_etcd(tls=True, auth=True, flags=flags)
        home = sys.modules[type(self.server).__module__]  # in a container the files are elsewhere than here
        folder = getattr(home, "TLS", self.server.access.folder / "tls")
        flags.append(f"--auth-token=jwt,pub-key={folder}/server.pem,priv-key={folder}/server-key.pem,sign-method=ES256")
        return self.server  # type: ignore[no-any-return]

    def make(self) -> None:
        self._auth("user/add", {"name": NAME, "password": self.server.access.password})
        self.give()

    def url(self, addresses: list[str]) -> str:
        return in_namespace(self.server.access.url(addresses, gateway=self.store == "etcd+http"), "ns")

    def credentials(self) -> Credentials:
        return Credentials(NAME, self.server.access.password)

    def give(self) -> None:
        self._auth("user/grant", {"user": NAME, "role": USER})

    def take(self) -> None:
        self._auth("user/revoke", {"name": NAME, "role": USER})

    def outdate(self, number: int) -> None:
        self._auth("role/add", {"name": f"role-{number}"})

    def _auth(self, path: str, body: object) -> None:
        self.server.admin("POST", f"/v3/auth/{path}", body)


@define
class ConsulToken:
    """A token of its own with its policy, and the operator's hands on them."""

    servers: Servers
    store: str
    server: Any = field(init=False)
    token: str = ""
    accessor: str = ""
    policy: str = ""

    def start(self) -> AbstractContextManager[Any]:
        self.server = self.servers.fresh_consul(acl=True)
        return self.server  # type: ignore[no-any-return]

    def make(self) -> None:
        self.policy = self.server.admin("PUT", "/v1/acl/policy", {"Name": NAME, "Rules": FULL})["ID"]
        self._new_token()

    def url(self, addresses: list[str]) -> str:
        return in_namespace(self.server.access.url(addresses), "ns")

    def credentials(self) -> Credentials:
        return Credentials(token=self.token)  # type: ignore[arg-type]

    def give(self) -> None:
        self._rules(FULL)

    def take(self) -> None:
        self._rules(NOTHING)

    def outdate(self, number: int) -> None:
        old = self.accessor
        self._new_token()
        self.server.admin("DELETE", f"/v1/acl/token/{old}")

    def _rules(self, rules: str) -> None:
        self.server.admin("PUT", f"/v1/acl/policy/{self.policy}", {"Name": NAME, "Rules": rules})

    def _new_token(self) -> None:
        made = self.server.admin("PUT", "/v1/acl/token", {"Policies": [{"ID": self.policy}]})
        self.token, self.accessor = made["SecretID"], made["AccessorID"]


def taken(who: Any) -> Fault:
    """All rights are taken away, and given again."""
    return Fault("taken", lambda proxy: asyncio.to_thread(who.take), heal=lambda proxy: asyncio.to_thread(who.give))


def outdated(who: Any) -> Fault:
    """Its login comes to be of no use any more, again and again."""
    numbers = count()

    async def strike() -> None:
        for number in islice(numbers, 5):
            await asyncio.to_thread(who.outdate, number)
            await asyncio.sleep(0.3)

    return Fault("outdated", lambda proxy: strike(), heal=lambda proxy: None, goes_on=True)


@pytest.mark.fault("F20")
@pytest.mark.parametrize("trouble", [taken, outdated])
@pytest.mark.parametrize("store", STORES)
async def test_rights(
    store: str, trouble: Callable[[Any], Fault], osdisco_servers: Servers, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has no rights is told so and nothing else: no key is seen to go, and no write is said to be done."""
    impatient(monkeypatch)
    who = (ConsulToken if store == "consul" else EtcdUser)(osdisco_servers, store)
    with who.start():
        who.make()
        there = who.server.address, who.url
        async with ways(store, there, seed=seed, alone=True, credentials=who.credentials) as them:
            case = await undisturbed(them, trouble(who), seed)
        outcomes = case.traffic.history.counts()
    assert not case.wrong, f"seed {seed}"
    assert outcomes["done"] > 20
    assert (outcomes["failed"] > 20) == (trouble is taken), outcomes
