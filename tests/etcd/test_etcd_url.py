"""etcd's URLs: options, credentials, and the drivers that only a URL loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from osdisco.errors import ConfigError
from osdisco.runtime import Credentials, Runtime
from osdisco.url import StoreURL
from osdisco_etcd import EtcdBackend, EtcdGatewayBackend
from osdisco_etcd._options import Settings, read_settings


def settings(url: str, runtime: Runtime | None = None, **environ: str) -> Settings:
    return read_settings(StoreURL.parse(url), runtime or Runtime(), environ)


async def given(found: Settings) -> Credentials:
    assert found.credentials is not None
    credentials = found.credentials()
    assert isinstance(credentials, Credentials)
    return credentials


def test_endpoints_get_the_port_of_etcd() -> None:
    assert settings("etcd://a,b:1,[::1]").endpoints == ("a:2379", "b:1", "[::1]:2379")


def test_a_url_without_host_is_refused() -> None:
    with pytest.raises(ConfigError, match="host"):
        settings("etcd://")


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="password_file"):
        settings("etcd://h?password_fil=x")


async def test_the_password_comes_from_the_url_first(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("from-file\n")
    url = f"etcd://me:from-url@127.0.0.1?password_file={tmp_path / 'p'}"
    assert await given(settings(url, OSDISCO_PASSWORD="from-env")) == Credentials("me", "from-url")


async def test_then_from_the_file_which_is_read_at_each_login(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_text("first\n")
    found = settings(f"etcd://me@127.0.0.1?password_file={path}", OSDISCO_PASSWORD="from-env")
    assert await given(found) == Credentials("me", "first")
    path.write_text("second")
    assert await given(found) == Credentials("me", "second")


async def test_then_from_the_environment() -> None:
    found = settings("etcd://127.0.0.1", OSDISCO_USERNAME="me", OSDISCO_PASSWORD="from-env")
    assert await given(found) == Credentials("me", "from-env")


async def test_a_function_of_the_caller_wins() -> None:
    runtime = Runtime(credentials=lambda: Credentials("its", "own"))
    assert await given(settings("etcd://me:hunter2@127.0.0.1", runtime)) == Credentials("its", "own")


@pytest.mark.parametrize("url", ["etcd://me@127.0.0.1", "etcd://127.0.0.1?password_file=/nowhere/p"])
def test_half_a_credential_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        settings(url)


def test_a_password_without_user_is_refused() -> None:
    with pytest.raises(ConfigError, match="user"):
        settings("etcd://127.0.0.1", OSDISCO_PASSWORD="hunter2")


@pytest.mark.parametrize("content", [None, "", b"\xff\xfe"])
def test_a_password_file_that_cannot_be_used_is_refused_at_once(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "p"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match="password_file"):
        settings(f"etcd://me@127.0.0.1?password_file={path}")


def test_credentials_in_plain_text_to_another_host_are_refused_unless_told_otherwise() -> None:
    with pytest.raises(ConfigError, match="plain text"):
        settings("etcd://me:hunter2@10.0.0.1")
    assert settings("etcd://me:hunter2@10.0.0.1?plaintext_credentials=true").credentials


def test_the_password_is_not_shown() -> None:
    backend = EtcdBackend.from_url(StoreURL.parse("etcd://me:hunter2@127.0.0.1"), Runtime())
    shown = repr(backend) + repr(backend.__dict__) + repr(settings("etcd://me:hunter2@127.0.0.1"))
    assert "hunter2" not in shown


@pytest.mark.parametrize("cls", [EtcdBackend, EtcdGatewayBackend])
def test_files_that_hold_no_certificates_are_refused(cls: type[EtcdBackend], tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    scheme = "etcds" if cls is EtcdBackend else "etcd+https"
    for query in (f"tls_ca={junk}", f"tls_cert={junk}&tls_key={junk}"):
        with pytest.raises(ConfigError, match="PEM"):
            cls.from_url(StoreURL.parse(f"{scheme}://h?{query}"), Runtime())


def test_importing_the_package_loads_no_driver() -> None:
    drivers = ("grpc", "aetcd", "aiohttp", "etcd3")
    script = f"import osdisco_etcd, sys; print([name for name in {drivers} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("cls", "module", "driver", "extra"),
    [
        (EtcdBackend, "osdisco_etcd._grpc", "grpc", r"osdisco\[etcd\]"),
        (EtcdGatewayBackend, "osdisco_etcd._gateway", "etcd3", r"osdisco\[etcd-gateway\]"),
    ],
)
def test_a_missing_driver_says_what_to_install(
    cls: type[EtcdBackend], module: str, driver: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ConfigError, match=extra):
        cls.from_url(StoreURL.parse("etcd://127.0.0.1"), Runtime())
