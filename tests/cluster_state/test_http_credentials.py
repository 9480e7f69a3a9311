"""Who a source says it is, to whom it says so, and that nobody else hears it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from sources import PASSWORD, TOKEN, source_of

from osdisco.cluster._questions import VERSION
from osdisco.errors import ClusterDeniedError, ClusterUnavailableError, ConfigError
from osdisco.runtime import Secret
from osdisco.testing import Certificates, FakeCluster, Fault, make_certificates

REMOTE = "http://os1.example:9200"


@pytest.fixture
async def guarded() -> AsyncGenerator[FakeCluster, None]:
    async with FakeCluster(auth=("admin", PASSWORD), token=TOKEN) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


async def test_whoever_says_nothing_is_refused(guarded: FakeCluster) -> None:
    async with source_of(guarded.urls) as source:
        with pytest.raises(ClusterDeniedError, match="401; check user and password"):
            await source.version()


async def test_every_way_to_say_who_one_is(guarded: FakeCluster, tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"auth": ("admin", PASSWORD)},
        {"auth": ("admin", Secret(PASSWORD))},
        {"username": "admin", "password_file": written(tmp_path / "password", f"{PASSWORD}\n")},
        {"token": TOKEN},
        {"token": Secret(TOKEN)},
        {"token_file": str(written(tmp_path / "token", f"{TOKEN}\r\n"))},
        {"environ": {"OSDISCO_OPENSEARCH_USERNAME": "admin", "OSDISCO_OPENSEARCH_PASSWORD": PASSWORD}},
        {"environ": {"OSDISCO_OPENSEARCH_TOKEN": TOKEN}},
    ]
    for way in ways:
        async with source_of(guarded.urls, **way) as source:
            assert (await source.version()).version == guarded.version


async def test_what_is_given_goes_before_the_environment(guarded: FakeCluster) -> None:
    environ = {"OSDISCO_OPENSEARCH_TOKEN": "wrong"}
    async with source_of(guarded.urls, auth=("admin", PASSWORD), environ=environ) as source:
        await source.version()


async def test_the_stores_own_credentials_are_not_sent(guarded: FakeCluster) -> None:
    environ = {"OSDISCO_USERNAME": "admin", "OSDISCO_PASSWORD": PASSWORD}
    async with source_of(guarded.urls, environ=environ) as source:
        with pytest.raises(ClusterDeniedError):
            await source.version()


async def test_a_rotated_password_needs_no_restart(guarded: FakeCluster, tmp_path: Path) -> None:
    file = written(tmp_path / "password", PASSWORD)
    async with source_of(guarded.urls, username="admin", password_file=file) as source:
        await source.version()
        guarded.auth = ("admin", "hunter2-new")
        written(file, "hunter2-new")
        assert (await source.version()).version == guarded.version


async def test_a_rotation_that_no_stamp_shows_is_seen_when_it_is_refused(
    guarded: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osdisco.cluster._files._mark", lambda path: None)
    file = written(tmp_path / "password", PASSWORD)
    async with source_of(guarded.urls, username="admin", password_file=file) as source:
        await source.version()
        guarded.auth = ("admin", "hunter2-new")
        written(file, "hunter2-new")
        assert (await source.version()).version == guarded.version


async def test_a_file_that_is_gone_for_a_moment_loses_nothing(
    guarded: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path / "token", TOKEN)
    async with source_of(guarded.urls, token_file=file) as source:
        file.unlink()
        with caplog.at_level(logging.WARNING, "osdisco"):
            await source.version()
            await source.version()
        assert [record.getMessage() for record in caplog.records] == [
            f"token_file={file} cannot be read: FileNotFoundError; what was read before is used on"
        ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"auth": ("admin", "geheim"), "token": "geheim"}, "not several"),
        ({"password_file": "x"}, "go together"),
        ({"username": "admin"}, "go together"),
        ({"auth": ("ad:min", "geheim")}, "without ':'"),
        ({"auth": ("", "geheim")}, "not empty"),
        ({"auth": ("admin", "")}, "password of the search cluster is empty"),
        ({"auth": ("admin", "geheim\udcff")}, "lone surrogate"),
        ({"auth": "admin:geheim"}, "a pair"),
        ({"auth": ("admin", b"geheim")}, "a pair"),
        ({"token": "geheim\r\nX-Evil: 1"}, "no token has"),
        ({"token": ""}, "empty"),
        ({"token_file": "/nonexistent/token"}, "token_file=/nonexistent/token cannot be read"),
        ({"token_file": ""}, "empty path"),
        ({"token_file": 7}, "not by int"),
        ({"environ": {"OSDISCO_OPENSEARCH_USERNAME": "admin"}}, "go together"),
        (
            {"environ": {"OSDISCO_OPENSEARCH_TOKEN": "geheim", "OSDISCO_OPENSEARCH_USERNAME": "admin"}},
            "one kind only",
        ),
        ({"tls_cert": "x"}, "go together"),
        ({"tls_verify": "no"}, "True or False"),
        ({"tls_ca": "/x"}, "tls_ca has no effect"),
        ({"tls_verify": False}, "tls_verify has no effect"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        source_of("http://127.0.0.1:9200", **options)
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


def test_credentials_do_not_cross_a_network_in_plain_text(tmp_path: Path) -> None:
    file = written(tmp_path / "token", TOKEN)
    ways: list[dict[str, Any]] = [
        {"auth": ("admin", PASSWORD)},
        {"token_file": file},
        {"environ": {"OSDISCO_OPENSEARCH_TOKEN": TOKEN}},
    ]
    for way in ways:
        with pytest.raises(ConfigError, match=r"os1\.example:9200 in plain text"):
            source_of(["https://os2.example", REMOTE], **way)
        source_of(REMOTE, plaintext_credentials=True, **way)
    source_of(REMOTE)
    source_of(["http://127.0.0.2:9200", "http://[::1]:9200", "http://localhost:9200"], auth=("admin", PASSWORD))


@pytest.mark.parametrize("fault", list(Fault))
async def test_no_error_shows_them(guarded: FakeCluster, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """All that this run says is searched for them, too (canaries.py)."""
    guarded.faults.add(fault, seconds=0.0)
    with caplog.at_level(logging.DEBUG):
        async with source_of(guarded.urls, auth=("admin", PASSWORD), timeout=0.2) as source:
            try:
                await source.version()
            except Exception as exc:
                said = "".join(traceback.format_exception(exc))
                assert "hunter2" not in said
                assert "Basic" not in said
        assert "hunter2" not in repr(source) + caplog.text


async def test_nobody_hears_them_after_a_redirect(guarded: FakeCluster) -> None:
    guarded.faults.add(Fault.REDIRECT)
    async with source_of(guarded.urls, auth=("admin", PASSWORD)) as source:
        with pytest.raises(Exception, match="a redirect, which is never followed"):
            await source.version()
    assert guarded.requests.total() == 1


async def test_tls_is_verified(files: Certificates, tmp_path: Path) -> None:
    other = make_certificates(tmp_path / "other")
    async with FakeCluster(certificates=files) as cluster:
        async with source_of(cluster.urls, tls_ca=files.ca) as source:
            assert (await source.version()).version == cluster.version
        for authority in (None, other.ca):
            async with source_of(cluster.urls, tls_ca=authority) as source:
                with pytest.raises(ClusterUnavailableError, match="its certificate is not trusted"):
                    await source.version()
        assert cluster.requests.total() == 1


async def test_files_come_from_the_environment_too(files: Certificates) -> None:
    prefix = "OSDISCO_OPENSEARCH_TLS"
    environ = {
        f"{prefix}_CA": str(files.ca),
        f"{prefix}_CERT": str(files.client),
        f"{prefix}_KEY": str(files.client_key),
    }
    async with FakeCluster(certificates=files, client_certificates=True) as cluster:
        async with source_of(cluster.urls, environ=environ) as source:
            assert (await source.version()).version == cluster.version
        with pytest.raises(ConfigError, match="go together"):
            source_of(cluster.urls, environ={f"{prefix}_KEY": str(files.client_key)})
    source_of("http://127.0.0.1:9200", environ=environ)


async def test_who_does_not_verify_is_told_so(files: Certificates, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeCluster(certificates=files) as cluster:
        with caplog.at_level(logging.WARNING, "osdisco"):
            async with source_of(cluster.urls, tls_verify=False) as source:
                await source.version()
    assert "tls_verify=False" in caplog.text


async def test_a_client_certificate_is_shown_and_rotated(tmp_path: Path) -> None:
    files, stranger = make_certificates(tmp_path / "tls"), make_certificates(tmp_path / "stranger")
    certificate, key = tmp_path / "client.pem", tmp_path / "client-key.pem"
    certificate.write_bytes(stranger.client.read_bytes())
    key.write_bytes(stranger.client_key.read_bytes())
    async with FakeCluster(certificates=files, client_certificates=True) as cluster:
        async with source_of(cluster.urls, tls_ca=files.ca) as source:
            with pytest.raises(ClusterUnavailableError):
                await source.version()
        async with source_of(cluster.urls, tls_ca=files.ca, tls_cert=certificate, tls_key=key) as source:
            with pytest.raises(ClusterUnavailableError):
                await source.version()
            certificate.write_bytes(files.client.read_bytes())
            key.write_bytes(files.client_key.read_bytes())
            assert (await source.version()).version == cluster.version


async def test_half_of_a_rotation_is_bridged(
    files: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(files.ca.read_bytes())
    async with FakeCluster(certificates=files) as cluster, source_of(cluster.urls, tls_ca=authority) as source:
        authority.write_text("half")
        with caplog.at_level(logging.WARNING, "osdisco"):
            await source.version()
    assert f"tls_ca={authority} holds no certificates" in caplog.text


async def test_a_plain_port_is_told_from_one_with_tls(files: Certificates) -> None:
    async with FakeCluster() as plain, FakeCluster(certificates=files) as secured:
        async with source_of(plain.urls[0].replace("http:", "https:"), tls_ca=files.ca) as source:
            with pytest.raises(ClusterUnavailableError, match="is it a plain port"):
                await source.version()
        async with source_of(secured.urls[0].replace("https:", "http:")) as source:
            with pytest.raises(ClusterUnavailableError):
                await source.version()


@pytest.mark.parametrize("option", ["tls_ca", "tls_cert"])
def test_a_file_without_a_certificate_is_refused(files: Certificates, tmp_path: Path, option: str) -> None:
    empty = written(tmp_path / "empty.pem", "nothing")
    options: dict[str, Any] = {option: empty}
    if option == "tls_cert":
        options["tls_key"] = files.client_key
    with pytest.raises(ConfigError, match=f"{option}={empty}"):
        source_of("https://os1:9200", **options)


@pytest.mark.parametrize("way", [{"auth": ("admin", PASSWORD)}, {"token": TOKEN}])
def test_nothing_shows_the_header(way: dict[str, Any]) -> None:
    source = source_of("https://os1:9200", **way)
    header = source._headers.current()
    shown = repr(source._sending(VERSION, source._ring.nodes[0], header)) + repr(header) + repr(source)
    assert "Authorization" in shown
    assert header["Authorization"] not in shown
