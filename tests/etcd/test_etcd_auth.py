"""Users and passwords on real servers: tokens that expire or become stale, and what may not be shown."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from etcd_rooms import Open, next_change, started

from osdisco.backend import ABSENT, Batch, Delete, Put
from osdisco.errors import ConfigError, DeniedError, UnavailableError
from osdisco.runtime import Credentials, Runtime
from osdisco.testing._stores import USER, EtcdServer
from osdisco.testing.servers import Servers


@pytest.fixture(scope="module")
def forgetful(osdisco_servers: Servers) -> Iterator[EtcdServer]:
    """Yield an etcd that forgets a token after a second without use."""
    with started(osdisco_servers.fresh_etcd(auth=True, flags=("--auth-token-ttl=1",))) as server:
        yield server


@pytest.fixture(scope="module")
def strict(osdisco_servers: Servers) -> Iterator[EtcdServer]:
    """Yield an etcd with JWT tokens, which are stale as soon as any user or role changes."""
    flags: list[Any] = []
    server = osdisco_servers.fresh_etcd(tls=True, auth=True, flags=flags)
    home = sys.modules[type(server).__module__]  # in a container the files are elsewhere than here
    folder = getattr(home, "TLS", server.access.folder / "tls")
    keys = f"pub-key={folder}/server.pem,priv-key={folder}/server-key.pem"
    flags.append(f"--auth-token=jwt,{keys},sign-method=ES256,ttl=10m")
    with started(server):
        yield server


def count_logins(backend: Any) -> list[object]:
    """Let the backend note its logins."""
    login, seen = backend._wire.auth._login, []

    async def counted(*given: object) -> object:
        seen.append(given[0])
        return await login(*given)

    backend._wire.auth._login = counted
    return seen


@pytest.mark.fault("F20")
async def test_a_token_that_expired_is_renewed_once_for_all_who_wait(forgetful: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(forgetful)
    logins = count_logins(backend)
    lease = await backend.grant(30, timeout=5)
    await asyncio.sleep(2.6)
    puts = [backend.commit([Put(f"osdisco/auth/{n}", b"x")], {}, timeout=5) for n in range(20)]
    await asyncio.gather(*puts, backend.renew(lease, timeout=5), backend.scan("osdisco/auth/", timeout=5))
    assert len((await backend.scan("osdisco/auth/", timeout=5)).items) == 20
    assert len(logins) == 2
    await backend.revoke(lease, timeout=5)


@pytest.mark.fault("F20")
async def test_a_watch_opens_with_an_expired_token(forgetful: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(forgetful)
    revision = (await backend.commit([Put("osdisco/aw/k", b"1")], {}, timeout=5))["osdisco/aw/k"]
    await asyncio.sleep(2.6)
    watch = backend.watch("osdisco/aw/", after=revision - 1)
    assert (await next_change(watch)).puts
    await watch.aclose()


@pytest.mark.fault("F20")
async def test_a_changed_auth_revision_is_answered_by_one_login(strict: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(strict)
    logins = count_logins(backend)
    lease = await backend.grant(30, timeout=5)
    watch = backend.watch("osdisco/ar/")
    await anext(watch)
    strict.admin("POST", "/v3/auth/role/add", {"name": f"role-{backend._runtime.unique()}"})
    await asyncio.gather(
        backend.commit([Put("osdisco/ar/k", b"1", lease.id)], {"osdisco/ar/k": ABSENT}, timeout=5),
        backend.get("osdisco/ar/k", timeout=5),
        backend.renew(lease, timeout=5),
    )
    assert len(logins) == 2
    strict.admin("POST", "/v3/auth/role/add", {"name": f"role-{backend._runtime.unique()}"})
    again = backend.watch("osdisco/ar/", after=1)
    assert isinstance(await anext(again), Batch)
    await backend.revoke(lease, timeout=5)
    while "osdisco/ar/k" not in (await next_change(watch)).deletes:
        pass
    await watch.aclose()
    await again.aclose()


async def test_a_wrong_password_is_final_and_not_shown(
    forgetful: EtcdServer, open_backend: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    runtime = Runtime(credentials=lambda: Credentials(USER, "hunter2-canary"))
    backend = open_backend(forgetful, runtime=runtime)
    logins = count_logins(backend)
    with pytest.raises(DeniedError) as caught:
        await backend.commit([Put("a", b"")], {}, timeout=5)
    assert len(logins) == 1
    with pytest.raises(DeniedError):
        await anext(backend.watch("a/"))
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = "".join(trace.format()) + caplog.text
    assert "hunter2-canary" not in shown.replace('Credentials(USER, "hunter2-canary")', "")


async def test_a_function_for_credentials_may_be_async_and_may_fail(forgetful: EtcdServer, open_backend: Open) -> None:
    answers: list[object] = [
        OSError("the vault is down"),
        Credentials(USER),
        Credentials(USER, forgetful.access.password),
    ]

    async def ask() -> Credentials:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        assert isinstance(answer, Credentials)
        return answer

    backend = open_backend(forgetful, runtime=Runtime(credentials=ask))
    with pytest.raises(UnavailableError, match="credentials") as caught:
        await backend.get("osdisco/a", timeout=5)
    assert "the vault is down" not in "".join(traceback.format_exception(caught.value))  # it could hold a secret
    with pytest.raises(ConfigError, match="password"):
        await backend.get("osdisco/a", timeout=5)
    assert await backend.get("osdisco/a", timeout=5) is None


async def test_a_token_is_not_shown(
    forgetful: EtcdServer, open_backend: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    backend: Any = open_backend(forgetful)
    await backend.get("osdisco/a", timeout=5)
    carried = backend._wire.auth.carried
    token = next(str(value) for name, value in _pairs(carried) if name.lower() in ("token", "authorization"))
    assert len(token) > 10
    assert token not in repr(backend) + repr(vars(backend)) + repr(backend._wire.auth) + caplog.text


def _pairs(carried: Any) -> list[tuple[str, str]]:
    return list(carried.items()) if isinstance(carried, dict) else list(carried)


async def test_no_password_where_one_is_asked_for(forgetful: EtcdServer, open_backend: Open) -> None:
    with pytest.raises(DeniedError, match="password"):
        await open_backend(forgetful.address).commit([Put("a", b"")], {}, timeout=5)


async def test_a_key_outside_of_the_role(forgetful: EtcdServer, open_backend: Open) -> None:
    name = "narrow"
    _make_user(forgetful, name, b"mine/", b"mine0")
    runtime = Runtime(credentials=lambda: Credentials(name, forgetful.access.password))
    backend = open_backend(forgetful, runtime=runtime)
    await backend.commit([Put("mine/k", b"")], {}, timeout=5)
    with pytest.raises(DeniedError):
        await backend.commit([Put("other/k", b"")], {}, timeout=5)
    with pytest.raises(DeniedError):
        await backend.commit([Put("mine/k", b""), Delete("other/k")], {}, timeout=5)
    with pytest.raises(DeniedError):
        await backend.scan("other/", timeout=5)
    with pytest.raises(DeniedError):
        await anext(backend.watch("other/"))
    with pytest.raises(DeniedError):
        await anext(backend.watch("other/", after=1))
    watch = backend.watch("mine/", after=1)
    assert isinstance(await anext(watch), Batch)
    await watch.aclose()


def _make_user(server: EtcdServer, name: str, key: bytes, end: bytes) -> None:
    from base64 import b64encode

    grant = {"permType": "READWRITE", "key": b64encode(key).decode(), "range_end": b64encode(end).decode()}
    if name in server.admin("POST", "/v3/auth/user/list", {}).get("users", ()):
        return
    server.admin("POST", "/v3/auth/user/add", {"name": name, "password": server.access.password})
    server.admin("POST", "/v3/auth/role/add", {"name": name})
    server.admin("POST", "/v3/auth/role/grant", {"name": name, "perm": grant})
    server.admin("POST", "/v3/auth/user/grant", {"user": name, "role": name})


async def test_a_password_for_a_server_without_users_does_no_harm(etcd: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(etcd, runtime=Runtime(credentials=lambda: Credentials("me", "pw")))
    assert await backend.commit([Put("nousers/k", b"1")], {}, timeout=5)


async def test_a_login_that_is_cancelled_takes_nobody_with_it(forgetful: EtcdServer, open_backend: Open) -> None:
    backend = open_backend(forgetful)
    first = asyncio.create_task(backend.get("osdisco/a", timeout=5))
    second = asyncio.create_task(backend.get("osdisco/a", timeout=5))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is None
    with pytest.raises(asyncio.CancelledError):
        await first
