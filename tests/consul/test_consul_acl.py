"""ACLs on a real server: what is denied looks empty, and must not be taken for it. Tokens that are renewed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from itertools import count
from pathlib import Path

import pytest
from attrs import define
from consul_fakes import Open

import osdisco
from osdisco.backend import ABSENT, Put
from osdisco.errors import DeniedError
from osdisco.runtime import Credentials
from osdisco.testing.servers import ConsulServer

OWN = 'key_prefix "own/" { policy = "write" }'
READ_ONLY = 'key_prefix "own/" { policy = "read" }'
SESSIONS = 'session_prefix "" { policy = "write" }'
NOTHING = 'node "nowhere" { policy = "read" }'


@define
class Policy:
    """A policy with a token of its own, and the operator's hands on it."""

    server: ConsulServer
    id: str
    token: str
    accessor: str

    @property
    def url(self) -> str:
        return f"consul://{self.server.address}"

    def credentials(self) -> Credentials:
        return Credentials(token=self.token)  # type: ignore[arg-type]

    def change(self, rules: str) -> None:
        """Give the token other rights; they hold at once."""
        self.server.admin("PUT", f"/v1/acl/policy/{self.id}", {"Name": f"p{self.id}", "Rules": rules})

    def new_token(self) -> str:
        """Replace the token: the old one is gone."""
        old, made = self.accessor, self.server.admin("PUT", "/v1/acl/token", {"Policies": [{"ID": self.id}]})
        self.token, self.accessor = made["SecretID"], made["AccessorID"]
        self.server.admin("DELETE", f"/v1/acl/token/{old}")
        return self.token


Grant = Callable[[str], Policy]


@pytest.fixture
def grant(acl_consul: ConsulServer) -> Iterator[Grant]:
    """Return a function that makes a policy with these rules."""
    made: list[Policy] = []

    def make(rules: str) -> Policy:
        policy = acl_consul.admin("PUT", "/v1/acl/policy", {"Name": f"test-{len(made)}", "Rules": rules})["ID"]
        token = acl_consul.admin("PUT", "/v1/acl/token", {"Policies": [{"ID": policy}]})
        made.append(Policy(acl_consul, policy, token["SecretID"], token["AccessorID"]))
        return made[-1]

    yield make
    for policy in made:
        acl_consul.admin("DELETE", f"/v1/acl/policy/{policy.id}")
        acl_consul.admin("DELETE", f"/v1/acl/token/{policy.accessor}")


async def denied(*calls: Awaitable[object]) -> None:
    for call in calls:
        with pytest.raises(DeniedError):
            await call


@pytest.mark.parametrize("who", ["nobody", "anonymous", "unknown"])
async def test_without_rights_everything_is_denied_and_nothing_is_empty(
    who: str, grant: Grant, open_backend: Open
) -> None:
    policy = grant(NOTHING)
    tokens = {"nobody": policy.token, "unknown": "00000000-0000-0000-0000-00000000dead", "anonymous": None}
    backend = open_backend(policy.url, credentials=lambda: Credentials(token=tokens[who]))  # type: ignore[arg-type]
    await denied(
        backend.get("own/a", timeout=5),
        backend.scan("own/", timeout=5),
        backend.commit([Put("own/a", b"")], {}, timeout=5),
        backend.commit([Put("own/a", b"")], {"own/b": ABSENT}, timeout=5),
        backend.grant(15, timeout=5),
        anext(backend.watch("own/")),
        anext(backend.watch("own/a")),
    )


async def test_a_write_that_is_denied_is_no_conflict_and_applies_nothing(grant: Grant, open_backend: Open) -> None:
    """Case 20: Consul answers 409 for both."""
    policy = grant(OWN)
    backend = open_backend(policy.url, credentials=policy.credentials)
    await backend.commit([Put("own/there", b"")], {}, timeout=5)
    await denied(
        backend.commit([Put("own/a", b""), Put("other/a", b"")], {}, timeout=5),
        backend.commit([Put("other/a", b"")], {"own/there": ABSENT}, timeout=5),
    )
    assert await backend.get("own/a", timeout=5) is None
    policy.change(READ_ONLY)
    await denied(backend.commit([Put("own/there", b"2")], {}, timeout=5))


@pytest.mark.parametrize("target", ["own/live/", "own/live/a"])
async def test_permission_lost_in_mid_watch_is_no_delete(target: str, grant: Grant, open_backend: Open) -> None:
    """Case 19."""
    policy = grant(OWN)
    backend = open_backend(policy.url, credentials=policy.credentials)
    await backend.commit([Put("own/live/a", b"1")], {}, timeout=5)
    async with aclosing(backend.watch(target)) as watch:
        assert set((await anext(watch)).items) == {"own/live/a"}  # type: ignore[union-attr]
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.2)
        policy.change(NOTHING)
        policy.server.admin("PUT", "/v1/kv/own/live/a", "2")
        last = (await waiting).items  # type: ignore[union-attr]
        assert last["own/live/a"].value == b'"2"', "a poll keeps the rights that it began with"
        asyncio.get_running_loop().call_later(0.3, policy.server.admin, "PUT", "/v1/kv/own/live/a", "3")
        with pytest.raises(DeniedError):
            await anext(watch)
    policy.change(OWN)
    async with aclosing(backend.watch(target)) as again:
        assert set((await anext(again)).items) == {"own/live/a"}  # type: ignore[union-attr]


@pytest.mark.fault("F20")
async def test_a_view_keeps_what_it_knows_when_permission_is_lost(grant: Grant) -> None:
    policy = grant(OWN + SESSIONS)
    async with osdisco.connect(f"{policy.url}/own", credentials=policy.credentials) as client:
        await client.put("view/a", b"1")
        async with client.view("view/") as view:
            policy.change(NOTHING)
            async with asyncio.timeout(5):
                for n in count(2):  # a poll keeps the rights that it began with, and the next one waits for news
                    if view.stale:
                        break
                    policy.server.admin("PUT", "/v1/kv/own/view/a", n)
                    await asyncio.sleep(0.2)
            assert set(view) == {"view/a"}
            policy.change(OWN)
            await view.until(lambda items: not view.stale and len(items) == 1, timeout=10)


async def test_an_empty_prefix_that_may_be_read_is_empty(grant: Grant, open_backend: Open) -> None:
    policy = grant('key_prefix "own/deep/" { policy = "read" }')
    backend = open_backend(policy.url, credentials=policy.credentials)
    assert not (await backend.scan("own/deep/", timeout=5)).items
    async with aclosing(backend.watch("own/deep/")) as watch:
        assert not (await anext(watch)).items  # type: ignore[union-attr]
    await denied(backend.scan("own/", timeout=5))


@pytest.mark.fault("F20")
@pytest.mark.parametrize("source", ["file", "callable"])
async def test_a_token_that_was_replaced_is_asked_for_again(
    source: str, grant: Grant, open_backend: Open, tmp_path: Path
) -> None:
    policy = grant(OWN + SESSIONS)
    file = tmp_path / "token"
    file.write_text(policy.token)
    if source == "file":
        backend = open_backend(f"{policy.url}?token_file={file}")
    else:
        backend = open_backend(policy.url, credentials=policy.credentials)
    await backend.commit([Put("own/token", b"1")], {}, timeout=5)
    lease = await backend.grant(15, timeout=5)
    async with aclosing(backend.watch("own/token")) as watch:
        await anext(watch)
        file.write_text(policy.new_token())
        await backend.commit([Put("own/token", b"2")], {}, timeout=5)
        async with asyncio.timeout(5):
            frame = await anext(watch)
    assert frame.items["own/token"].value == b"2"  # type: ignore[union-attr]
    assert await backend.renew(lease, timeout=5) == 15
    file.write_text(policy.new_token())
    assert set((await backend.scan("own/token", timeout=5)).items) == {"own/token"}
    file.write_text(policy.new_token())
    assert await backend.renew(lease, timeout=5) == 15
    await backend.revoke(lease, timeout=5)


async def test_a_wrong_token_is_denied_and_not_shown(grant: Grant, open_backend: Open, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2-hunter2")
    backend = open_backend(f"{grant(OWN).url}?token_file={tmp_path}/token")
    with pytest.raises(DeniedError, match="check the token") as caught:
        await backend.get("own/a", timeout=5)
    assert "hunter2" not in str(caught.value)


async def test_inspect_says_what_the_token_may_not_see(grant: Grant, open_backend: Open) -> None:
    policy = grant(OWN)
    (status,) = await open_backend(policy.url, credentials=policy.credentials).inspect(timeout=5)
    assert (status.error, status.version, status.leader) == (None, None, None)
    assert status.server_time is not None
    assert "agent:read" in status.details["agent"]
