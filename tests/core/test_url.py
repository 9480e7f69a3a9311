"""URLs of stores: what each part may be, what an error says of it, and that nothing else is ever raised."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import frozen
from hypothesis import example, given, strategies as st

import osdisco
from osdisco.errors import ConfigError
from osdisco.runtime import Secret
from osdisco.url import ClientOptions, Host, StoreURL, TlsOptions, check_transport, parse_duration

parse = StoreURL.parse


def test_a_url_of_several_hosts_is_taken_apart() -> None:
    url = parse("etcd://h1:2379,h2,[::1]:2381,10.0.0.7/search/eu%20west?ttl=15s&timeout=2")
    assert url.scheme == "etcd"
    assert url.hosts == (Host("h1", 2379), Host("h2"), Host("::1", 2381), Host("10.0.0.7"))
    assert url.namespace == "search/eu=20west"
    assert url.options == {"ttl": "15s", "timeout": "2"}
    assert (url.username, url.password) == (None, None)


def test_user_and_password_are_decoded() -> None:
    url = parse("etcds://us%40er:p%2Fa%3As%3Fs%40%25%C3%A9:x@h/ns")
    assert url.username == "us@er"
    assert url.password == Secret("p/a:s?s@%é:x")


@pytest.mark.parametrize(
    ("text", "password"), [("etcd://u@h", None), ("etcd://u:@h", None), ("etcd://u:hunter2@h", Secret("hunter2"))]
)
def test_an_empty_password_is_none(text: str, password: Secret | None) -> None:
    assert parse(text).password == password


@pytest.mark.parametrize(
    ("text", "namespace"),
    [
        ("memory://", "osdisco"),
        ("memory:///", "osdisco"),
        ("memory://x/", "osdisco"),
        ("memory://x/a", "a"),
        ("memory://x/a/", "a"),
        ("memory://x/a/b", "a/b"),
        ("memory://x/..%2F..", "..=2F.."),
        ("memory://x/../a", "=2E=2E/a"),
        ("memory://x/a+b", "a=2Bb"),
        ("memory://x/a%3Fb", "a=3Fb"),
    ],
)
def test_the_namespace_is_escaped_segment_by_segment_and_has_a_default(text: str, namespace: str) -> None:
    assert parse(text).namespace == namespace


@pytest.mark.parametrize("text", ["ETCD://h", "Etcd+HTTP://h", "etcd+https://h", "my.store-2://h"])
def test_a_scheme_is_lower_cased(text: str) -> None:
    assert parse(text).scheme == text.partition("://")[0].lower()


@pytest.mark.parametrize(
    ("host", "address"),
    [(Host("h"), "h:1"), (Host("h", 9), "h:9"), (Host("::1"), "[::1]:1"), (Host("::1", 9), "[::1]:9")],
)
def test_an_address_has_a_port_and_brackets_where_needed(host: Host, address: str) -> None:
    assert host.address(1) == address


@pytest.mark.parametrize(
    ("name", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("127.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
    ],
)
def test_only_what_surely_stays_on_this_machine_is_loopback(name: str, loopback: bool) -> None:
    assert Host(name).loopback is loopback


def test_str_and_repr_show_where_it_leads_and_nothing_else() -> None:
    url = parse("etcds://user:hunter2@h1:1,[::1],h2/ns?tls_server_name=x")
    assert str(url) == repr(url) == f"{url}" == "etcds://h1:1,[::1],h2/ns"
    assert str(parse("memory://")) == "memory:///osdisco"


WRONG = [
    ("", "a store URL looks like etcd://host:2379/namespace"),
    ("h:2379", "a store URL looks like"),
    ("etcd:/h", "a store URL looks like"),
    ("://h", "scheme"),
    ("1etcd://h", "scheme"),
    ("et cd://h", "scheme"),
    ("ét://h", "scheme"),
    ("etcd://h/a#b", "'#' part; write %23"),
    ("etcd://h /a", "no spaces or control characters"),
    ("etcd://h/a\nb", "no spaces or control characters"),
    ("etcd://h/\x7f", "no spaces or control characters"),
    ("etcd://h/\ud800", "lone surrogate"),
    ("etcd://u:hunter2\ud800@h/", "lone surrogate"),
    ("etcd://h/?dc=\ud800", "lone surrogate"),
    ("etcd://u:hunter2@h/a@b", "'@' stands behind the host"),
    ("etcd://u:hunter2/q@h", "write '/' as %2F"),
    ("etcd://u:hunter2?q@h", "'[?]' as %3F"),
    ("etcd://h1,,h2", "host 2 .* is not a host name"),
    ("etcd://h1,", "host 2 .* is not a host name"),
    ("etcd://,", "host 1 .* is not a host name"),
    ("etcd://:2379", "host 1 .* is not a host name"),
    ("etcd://-h", "host 1 .* is not a host name"),
    ("etcd://h_,h!", "host 2 .* is not a host name"),
    ("etcd://h%41", "host 1 .* is not a host name"),
    ("etcd://ü", "host 1 .* is not a host name"),
    ("etcd://h1;h2", "host 1 .*hosts are separated by ','"),
    ("etcd://h:", "port of host 1 .* from 1 to 65535"),
    ("etcd://h,h:0", "port of host 2 .* from 1 to 65535"),
    ("etcd://h:65536", "port of host 1 .* from 1 to 65535"),
    ("etcd://h:000001234567", "port of host 1 .* from 1 to 65535"),
    ("etcd://h:" + "9" * 5000, "port of host 1 .* from 1 to 65535"),
    ("etcd://h:-1", "port of host 1"),
    ("etcd://h:+1", "port of host 1"),
    ("etcd://h:1_0", "port of host 1"),
    ("etcd://h:２", "port of host 1"),
    ("etcd://h:x", "port of host 1"),
    ("etcd://::1", "host 1 .* write an IPv6 address in brackets"),
    ("etcd://h:1:2", "host 1 .* several colons"),
    ("etcd://[::1", "host 1 .* bracket"),
    ("etcd://[::1]2379", "host 1 .* bracket"),
    ("etcd://[::1]:x", "port of host 1"),
    ("etcd://[::1]:", "port of host 1"),
    ("etcd://[h]", "host 1 .* not an IPv6 address"),
    ("etcd://[]", "host 1 .* not an IPv6 address"),
    ("etcd://h/a//b", "namespace .* empty"),
    ("etcd://h//a", "namespace .* empty"),
    ("etcd://h/a%", "namespace .* two hex digits; write %25"),
    ("etcd://h/%zz", "namespace .* two hex digits"),
    ("etcd://h/%FF", "namespace .* not UTF-8"),
    ("etcd://h/%ED%A0%80", "namespace .* not UTF-8"),
    ("etcd://h/" + "a" * 256, "namespace .* 255 are allowed"),
    ("etcd://u%@h", "user name .* two hex digits"),
    ("etcd://%FF@h", "user name .* not UTF-8"),
    ("etcd://u:hunter2%@h", "password .* two hex digits"),
    ("etcd://u:hunter2%FF@h", "password .* not UTF-8"),
    ("etcd://h?ttl", "name=value pairs"),
    ("etcd://h?=1", "name=value pairs"),
    ("etcd://h?ttl=1&&timeout=2", "name=value pairs"),
    ("etcd://h?ttl=1&", "name=value pairs"),
    ("etcd://h?ttl=1&ttl=2", "'ttl' is given twice"),
    ("etcd://h?dc=%zz", "option 'dc' .* two hex digits"),
    ("etcd://h?dc=%FF", "option 'dc' .* not UTF-8"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_every_wrong_part_is_named_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


@pytest.mark.parametrize("text", [None, b"etcd://h", 7])
def test_what_is_not_text_is_no_url(text: object) -> None:
    with pytest.raises(ConfigError, match="looks like"):
        parse(text)  # type: ignore[arg-type]


PARTS = st.sampled_from(
    [*"etcd://u:p@h,1?=&%/[]#. \n+é", "etcd://", "%FF", "%41", "[::1]", ":2379", "ttl=", "a=b", "\ud800"]
)
TEXTS = st.one_of(st.text(max_size=40), st.lists(PARTS, max_size=25).map("".join))


@given(st.one_of(TEXTS, TEXTS.map("etcd://".__add__)))
@example("etcd://[" + "1" * 5000 + "]")
@example("etcd://h?" + "&".join(f"o{n}=1" for n in range(5000)))
def test_parse_raises_nothing_but_config_error(text: str) -> None:
    try:
        url = parse(text)
        url.structure(TlsOptions)
        check_transport(url, TlsOptions(), tls=False, credentials=True)
    except ConfigError as exc:
        str(exc).encode()  # printable anywhere: no lone surrogate of the input comes back


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(user=TEXT, password=TEXT, value=TEXT)
def test_quoted_parts_come_back_as_they_were(user: str, password: str, value: str) -> None:
    from urllib.parse import quote

    url = parse(f"etcd://{quote(user, safe='')}:{quote(password, safe='')}@h?x={quote(value, safe='')}")
    assert url.username == user
    assert url.password == Secret(password)
    assert url.options == {"x": value}


def test_a_plus_in_an_option_is_a_plus() -> None:
    assert parse("etcd://h?tls_ca=/etc/c++/ca.pem").options == {"tls_ca": "/etc/c++/ca.pem"}


# options


def test_options_have_their_defaults() -> None:
    options = parse("etcd://h").structure(TlsOptions)
    assert (options.ttl, options.timeout, options.connect_timeout) == (15.0, 5.0, 2.0)
    assert (options.strict_ttl, options.tls_verify, options.plaintext_credentials) == (False, True, False)
    files = (options.tls_ca, options.tls_cert, options.tls_key, options.tls_server_name)
    assert files == (None, None, None, None)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ttl=20s", 20.0),
        ("timeout=1500ms", 1.5),
        ("connect_timeout=1m", 60.0),
        ("ttl=1h", 3600.0),
        ("ttl=2.5", 2.5),
        ("strict_ttl=true", True),
        ("strict_ttl=0", False),
        ("tls_verify=no", False),
        ("tls_verify=on", True),
        ("plaintext_credentials=yes", True),
        ("tls_ca=/a%20b", Path("/a b")),
        ("tls_cert=c", Path("c")),
        ("tls_key=k", Path("k")),
        ("tls_server_name=etcd.example", "etcd.example"),
    ],
)
def test_every_option_is_read(option: str, value: object) -> None:
    options = parse(f"etcds://h?{option}").structure(TlsOptions)
    found = getattr(options, option.partition("=")[0])
    assert found == value
    assert type(found) is type(value) or isinstance(found, Path)


WRONG_OPTIONS = [
    ("tll=5s", "unknown option 'tll' for etcd://; did you mean 'ttl'[?]; known are .*connect_timeout.*ttl"),
    ("timeouts=5s", "did you mean 'timeout'[?]"),
    ("TTL=5s", "unknown option 'TTL'"),
    ("zzz=1", "unknown option 'zzz' for etcd://; known are connect_timeout"),
    ("ttl=", "the option ttl: '' is not a duration; write 1500ms, 15s, 2m or a number of seconds"),
    ("ttl=5x", "the option ttl: '5x' is not a duration"),
    ("ttl=0", "the option ttl: .* above zero"),
    ("ttl=-1", "the option ttl"),
    ("timeout=nan", "the option timeout"),
    ("timeout=inf", "the option timeout"),
    ("timeout=1e3", "the option timeout"),
    ("connect_timeout=5%20s", "the option connect_timeout"),
    ("strict_ttl=maybe", "the option strict_ttl: 'maybe' is neither true nor false"),
    ("strict_ttl=", "the option strict_ttl"),
    ("tls_verify=False", "the option tls_verify"),
    ("tls_ca=", "the option tls_ca: an empty path"),
    ("tls_ca=a%00b", "the option tls_ca"),
]


@pytest.mark.parametrize(("option", "said"), WRONG_OPTIONS)
def test_a_wrong_option_is_named_with_what_is_allowed(option: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(f"etcd://h?{option}").structure(TlsOptions)


def test_a_value_that_does_not_fit_is_not_shown_unless_an_error_of_ours_shows_it() -> None:
    @frozen
    class Options(ClientOptions):
        size: int = 1

    assert parse("etcd://h?size=5").structure(Options).size == 5
    with pytest.raises(ConfigError, match=r"^the option size has a value that does not fit$") as caught:
        parse("etcd://h?size=hunter2").structure(Options)
    assert caught.value.__suppress_context__


def test_options_of_others_are_left_alone_where_they_are_not_known() -> None:
    assert parse("etcd://h?dc=eu&ttl=3").structure(ClientOptions, known=False).ttl == 3.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1500ms", 1.5), ("15s", 15.0), ("2m", 120.0), ("1h", 3600.0), ("7", 7.0), ("0.5", 0.5), (3, 3.0), (0.25, 0.25)],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


NO_TEXT = "|s|-1s|+1s|1 s| 1s|1s |1d|1.s|.5s|1e3|inf|nan|0|0ms|0.0h|１s|1s\n".split("|")  # noqa: SIM905
NO_NUMBER = [0, -1, float("nan"), float("inf"), True, None, b"1s", [1], 10**400, "9" * 13]


@pytest.mark.parametrize("text", [*NO_TEXT, *NO_NUMBER])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ConfigError, match="duration"):
        parse_duration(text)  # type: ignore[arg-type]


# transport


def transport(text: str, *, tls: bool = False, credentials: bool = False) -> None:
    url = parse(text)
    check_transport(url, url.structure(TlsOptions), tls=tls, credentials=credentials)


@pytest.mark.parametrize("text", ["etcd://127.0.0.1,h2", "etcd://10.0.0.1", "etcd://h1,localhost", "etcd://[fe80::1]"])
def test_credentials_over_plaintext_to_another_host_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="in plain text; use TLS, or say plaintext_credentials=true"):
        transport(text, credentials=True)
    transport(text, tls=True, credentials=True)
    transport(text, credentials=False)
    transport(text + "?plaintext_credentials=true", credentials=True)


def test_credentials_over_plaintext_stay_on_this_machine() -> None:
    transport("etcd://127.0.0.1:1,localhost,[::1]", credentials=True)


def test_tls_options_without_tls_are_refused() -> None:
    with pytest.raises(ConfigError, match="tls_verify has no effect on the plain scheme etcd://"):
        transport("etcd://h?tls_verify=false")


@pytest.mark.parametrize("half", ["tls_cert", "tls_key"])
def test_half_a_client_certificate_is_refused(half: str, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ConfigError, match="tls_cert and tls_key go together"):
        transport(f"etcds://h?{half}={tmp_path / 'f'}", tls=True)


@pytest.mark.parametrize("name", ["missing", "", "f/below", "a" * 300, "%00"])
def test_a_file_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ConfigError, match="tls_ca"):
        transport(f"etcds://h?tls_ca={tmp_path}/{name}", tls=True)
    transport(f"etcds://h?tls_ca={tmp_path}/f", tls=True)


# which store


def test_no_url_at_all_is_an_error_and_never_a_store_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OSDISCO_URL", raising=False)
    for nothing in (None, ""):
        with pytest.raises(ConfigError, match="no store: pass a URL or set OSDISCO_URL"):
            osdisco.connect(nothing)
    monkeypatch.setenv("OSDISCO_URL", "")
    with pytest.raises(ConfigError, match="no store"):
        osdisco.connect()


async def test_the_url_comes_from_the_environment_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSDISCO_URL", "memory://from-environment/ns?ttl=3s")
    async with osdisco.connect() as client, osdisco.connect("memory://given") as other:
        assert str(client.url) == "memory://from-environment/ns"
        assert client.options.ttl == 3.0
        assert str(other.url) == "memory://given/osdisco"


def test_an_unknown_scheme_names_what_is_known_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'memry'.*did you mean 'memory'\?; known are .*consul.*etcd.*memory"):
        osdisco.connect("memry://")
    with pytest.raises(ConfigError, match="no backend is installed for 'zookeeper' URLs; known are"):
        osdisco.connect("zookeeper://h")


def test_an_option_of_another_store_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown option 'dc' for memory://"):
        osdisco.connect("memory://?dc=eu")
