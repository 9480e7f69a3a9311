"""What a Consul URL may say, and what building a backend loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from osdisco.errors import ConfigError
from osdisco.runtime import Credentials, Runtime
from osdisco.url import StoreURL
from osdisco_consul import ConsulBackend
from osdisco_consul._options import addresses


def build(url: str, **runtime: object) -> ConsulBackend:
    return ConsulBackend.from_url(StoreURL.parse(url), Runtime(**runtime))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("consul://hunter2@h", "token_file="),
        ("consul://me:hunter2@h", "token_file="),
        ("consul://:hunter2@h", "token_file="),
        ("consul://h?datacentre=x", "known are"),
        ("consul://h?partion=x", "did you mean 'partition'"),
        ("consul://a..b", "not a host name"),
        (f"consul://{'a' * 64}", "not a host name"),
        ("consul://h?dc=", "dc is empty"),
        ("consul://h?ns=", "ns is empty"),
        ("consul://h?session_node=", "session_node is empty"),
        ("consul://h?token_file=/nowhere/at/all", "token_file"),
        ("consul://h?tls_ca=/nowhere", "plain scheme"),
        ("consul+https://h?tls_ca=/nowhere", "tls_ca"),
        ("consul+https://h?tls_cert=/nowhere", "go together"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(url)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(ConfigError, match="tls_ca"):
        build(f"consul+https://h?tls_ca={tmp_path}/ca.pem")


def test_ports_are_those_that_consul_has_by_custom() -> None:
    assert addresses(StoreURL.parse("consul://")) == ("127.0.0.1:8500",)
    assert addresses(StoreURL.parse("consul://a,b:1,[::1]")) == ("a:8500", "b:1", "[::1]:8500")
    assert addresses(StoreURL.parse("consul+https://a,b:1")) == ("a:8501", "b:1")


@pytest.mark.parametrize("source", ["environment", "credentials", "file"])
def test_a_token_does_not_cross_the_network_in_plain_text(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if source == "environment":
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", "hunter2")
    (tmp_path / "token").write_text("hunter2")
    query = f"?token_file={tmp_path}/token" if source == "file" else "?"
    credentials = (lambda: Credentials(token="hunter2")) if source == "credentials" else None  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="plaintext_credentials=true"):
        build(f"consul://10.1.2.3{query}", credentials=credentials)
    build(f"consul://127.0.0.1{query}", credentials=credentials)
    build(f"consul://10.1.2.3{query}&plaintext_credentials=true".replace("?&", "?"), credentials=credentials)
    build(f"consul+https://10.1.2.3{query}".removesuffix("?"), credentials=credentials)


def test_a_token_that_would_break_a_header_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "hunter2\r\nX-Evil: 1")
    with pytest.raises(ConfigError) as caught:
        build("consul://127.0.0.1")
    assert "hunter2" not in str(caught.value)


def test_the_environment_of_the_driver_does_not_win_over_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "a:b:c:d")  # python-consul2's own constructor fails on this one
    monkeypatch.setenv("CONSUL_HTTP_SSL", "true")
    assert build("consul://127.0.0.1:1")._wire._bases == ["http://127.0.0.1:1"]


def test_importing_the_package_loads_no_driver() -> None:
    code = "import sys, osdisco_consul; print(sorted({'aiohttp', 'consul', 'requests'} & set(sys.modules)))"
    path = [entry for entry in sys.path if entry]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"], capture_output=True, text=True
    )
    assert run.stdout == "[]\n", run.stderr


@pytest.mark.parametrize("driver", ["consul", "aiohttp"])
def test_a_missing_driver_says_how_to_install_it(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("osdisco_consul._")]:
        if name.endswith(("_calls", "_wire", "_errors")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ConfigError, match=r"pip install 'osdisco\[consul\]'"):
        build("consul://127.0.0.1")


def test_a_backend_shows_where_it_leads_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2")
    backend = build(f"consul://127.0.0.1:8500/search?token_file={tmp_path}/token")
    assert repr(backend) == "<ConsulBackend consul://127.0.0.1:8500/search>"
