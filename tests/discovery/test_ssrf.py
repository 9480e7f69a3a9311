"""Hostile hosts, URLs and answers of DNS: none of them makes a prober ask what it must not."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from extensions import info
from sockets import serving

from osdisco.discovery import CheckFailedError, EndpointInfo, Probing
from osdisco.discovery._addresses import Gate
from osdisco.discovery._http import Request, ask
from osdisco.discovery._lookups import resolved
from osdisco.discovery._target import RefusedError, Target
from osdisco.discovery.probing import target_of
from osdisco.errors import ConfigError, DiscoveryError
from osdisco.testing.certs import make_certificates

EVERYTHING = Gate(["0.0.0.0/0", "::/0"])
"""The widest allow-list there can be: what is refused here is refused always."""


async def asks(url: str, gate: Gate = EVERYTHING, *answers: Sequence[str]) -> list[str]:
    """Ask as a prober does, but for the connection: returns the addresses that one would be made to.

    Each of `answers` is what DNS says at one look-up; the system is asked without any.
    """
    target, left, admitted = Target.parse(url), list(answers), list[str]()

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0) if left else await resolved(host, port)

    def admit(addresses: Sequence[str]) -> None:
        gate.admit(addresses)
        admitted.extend(addresses)
        raise _EnoughError

    with pytest.raises(_EnoughError):
        await ask(Request(target), resolve=resolve, admit=admit)
    return admitted


class _EnoughError(Exception):
    pass


ALWAYS_REFUSED = [
    # metadata of clouds, and what else is link-local
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://169.254.0.1/",
    "http://169.254.255.255/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fd20:ce::254]/computeMetadata/v1/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/machine",
    "http://192.0.0.192/opc/v2/",
    "http://[fe80::1]/",
    "http://[fe80::a9fe:a9fe]/",
    "http://[febf::1]/",
    "http://[fec0::1]/",
    # unspecified, multicast, broadcast, reserved
    "http://0.0.0.0/",
    "http://0.1.2.3/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:0]/",
    "http://224.0.0.1/",
    "http://239.255.255.250:1900/",
    "http://[ff02::1]/",
    "http://[ff05::1:3]/",
    "http://255.255.255.255/",
    "http://240.0.0.1/",
    "http://[100::1]/",
    # IPv4 within IPv6
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[0:0:0:0:0:ffff:169.254.169.254]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:10.0.0.7]/",
    "http://[::ffff:0:169.254.169.254]/",
    "http://[::169.254.169.254]/",
    "http://[::7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b::a00:1]/",
    "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:a9fe:a9fe::1]/",
    "http://[2001:db8::5efe:169.254.169.254]/",
    "http://[2001:db8::200:5efe:a9fe:a9fe]/",
    # numbers that a resolver takes for an address
    "http://2852039166/",
    "http://2130706433/",
    "http://0xa9fea9fe/",
    "http://0xA9.0xFE.0xA9.0xFE/",
    "http://0251.0376.0251.0376/",
    "http://0000000251.0000000376.0000000251.0000000376/",
    "http://169.254.43518/",
    "http://169.16689662/",
    "http://127.1/",
    "http://0/",
    "http://0x0/",
    "http://0x/",
    "http://127.0.0.01/",
    "http://0177.0.0.1/",
    "http://1.2.3.4.5/",
    "http://256.0.0.1/",
    "http://169.254.169.254./",
    "http://localhost./",
    "http://a.example.0x7f/",
    # zones
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[::1%25lo]/",
    "http://127.0.0.1%25.example/",
    # users, passwords, and hosts that are not where one looks for them
    "http://a@169.254.169.254/",
    "http://example.com@169.254.169.254/",
    "http://169.254.169.254@example.com/",
    "http://user:geheim@example.com/",
    "http://@example.com/",
    "http://a%40169.254.169.254/",
    "http://example.com\\@169.254.169.254/",
    "http://example.com\\.evil.example/",
    "http://example.com#@169.254.169.254/",
    "http://169.254.169.254#.example.com/",
    "http:///169.254.169.254/",
    "http:/169.254.169.254/",
    "http:169.254.169.254",
    "//169.254.169.254/",
    "http://?169.254.169.254/",
    "http://",
    # letters that are not what they look like
    "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/",
    "http://１６９.２５４.１６９.２５４/",
    "http://169。254。169。254/",
    "http://169.254.169.254/",
    "http://٠.٠.٠.٠/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "http://exämple.com/",
    "http://example.com\u200b/",
    "http://\ufeffexample.com/",
    "http://ex\u0000ample.com/",
    "http://\ud800/",
    # lines, spaces, and requests within requests
    "http://example.com\r\nHost: metadata/",
    "http://example.com/\r\nX-Evil: 1",
    "http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "http://example.com/\n",
    "\thttp://example.com/",
    " http://example.com/",
    "http://exa mple.com/",
    "http://example.com/a b",
    "http://%31%36%39.254.169.254/",
    "http://example.com/<script>",
    "http://example.com/{}",
    # ports
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:-1/",
    "http://example.com:+80/",
    "http://example.com:080/",
    "http://example.com:/",
    "http://example.com:80:80/",
    "http://example.com:८०/",
    "http://example.com:80@169.254.169.254/",
    "http://[::1]80/",
    "http://[::1/",
    "http://::1/",
    "http://[127.0.0.1]/",
    "http://[v1.fe80::a]/",
    "http://[]/",
    # other schemes
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "dict://127.0.0.1:11211/stat",
    "unix:///var/run/docker.sock",
    "jar:http://example.com!/",
    "javascript://example.com/",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "HTTPS+http://example.com/",
    "ws://example.com/",
    "",
    # hosts that are none
    "http://-a.example/",
    "http://a..example/",
    "http://.example/",
    "http://" + "a" * 64 + ".example/",
    "http://" + "a.example." * 30 + "b/",
    "http://*.example/",
    "http://a,b/",
]


def test_the_corpus_is_large_enough_and_each_is_there_once() -> None:
    assert len(set(ALWAYS_REFUSED)) == len(ALWAYS_REFUSED) > 120


@pytest.mark.parametrize("url", ALWAYS_REFUSED, ids=ascii)
async def test_it_is_refused_whatever_is_allowed(url: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        await asks(url)
    assert "geheim" not in str(refusal.value)


@pytest.mark.parametrize("url", ["http://10.0.0.7:9700/", "http://[2001:db8::7]/x?y=1", "HTTPS://192.168.1.1"])
async def test_what_is_allowed_is_asked(url: str) -> None:
    assert await asks(url) == [Target.parse(url).host]


# What the allow-list decides


@pytest.mark.parametrize(
    ("host", "allow", "asked"),
    [
        ("10.0.0.7", ["10.0.0.0/8"], True),
        ("11.0.0.7", ["10.0.0.0/8"], False),
        ("10.0.0.7", ["10.0.0.7/32"], True),
        ("127.0.0.1", ["10.0.0.0/8"], False),
        ("127.0.0.1", ["127.0.0.0/8"], True),
        ("::1", ["127.0.0.0/8"], False),
        ("::1", ["::1/128"], True),
        ("fd00::7", ["fd00::/8"], True),
        ("8.8.8.8", ["::/0"], False),
        ("10.255.255.255", ["10.0.0.0/8"], False),
        ("192.168.1.255", ["192.168.1.0/24"], False),
        ("192.168.1.255", ["192.168.0.0/16"], True),
        ("169.254.169.254", ["169.254.169.254/32"], False),
        ("fd00::7%eth0", ["fd00::/8"], False),
        ("fd00:ec2::254", ["fd00:ec2::254/128"], False),
    ],
)
def test_only_what_is_allowed_is_asked(host: str, allow: list[str], asked: bool) -> None:
    if asked:
        Gate(allow).admit([host])
    else:
        with pytest.raises(RefusedError):
            Gate(allow).admit([host])


BAD_ALLOWS = [[], "10.0.0.0/8", ["10.0.0.1/8"], ["geo"], [None], None, ["10.0.0.0/33"], [""]]


@pytest.mark.parametrize("allow", BAD_ALLOWS, ids=str)
def test_an_allow_list_that_allows_nothing_or_is_none_is_refused(allow: object) -> None:
    with pytest.raises(ConfigError, match=r"Probing\.allow"):
        Probing(allow=allow)


# What DNS says


MIXED = [
    ["169.254.169.254"],
    ["10.0.0.7", "169.254.169.254"],
    ["169.254.169.254", "10.0.0.7"],
    ["10.0.0.7", "::ffff:169.254.169.254"],
    ["10.0.0.7", "11.0.0.7"],
    ["10.0.0.7", "::1"],
    ["10.0.0.7", "fe80::1%eth0"],
    [],
]


@pytest.mark.parametrize("answers", MIXED, ids=str)
async def test_a_name_is_refused_if_any_of_its_addresses_is(answers: list[str]) -> None:
    with pytest.raises(RefusedError):
        await asks("http://geo.example/", Gate(["10.0.0.0/8"]), answers)


async def test_a_name_of_this_machine_is_refused_unless_loopback_is_allowed() -> None:
    with pytest.raises(RefusedError):
        await asks("http://localhost/", Gate(["10.0.0.0/8"]))
    assert await asks("http://localhost/", Gate(["127.0.0.0/8", "::1/128"]))


async def test_a_name_that_means_another_address_when_the_connection_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: DNS says something harmless to who checks, and an internal address to who connects."""
    looked_up: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["127.0.0.2"]

    def elsewhere(host: object, *_: object, **__: object) -> list[object]:
        looked_up.append(f"the system: {host!r}")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", internal.port))]

    monkeypatch.setattr(socket, "getaddrinfo", elsewhere)
    async with serving(host="127.0.0.2") as internal:
        request = Request(Target("http", "rebind.example", internal.port))
        with pytest.raises(CheckFailedError, match="cannot connect: Connection refused"):
            await ask(request, resolve=rebinding, admit=Gate(["127.0.0.1/32"]).admit)
        assert internal.requests == []
    assert looked_up == ["rebind.example"]


async def test_the_name_stays_in_the_request_and_in_tls() -> None:
    """The connection goes to the address that was checked; who answers there is asked by name."""

    async def pinned(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with serving() as server:
        await ask(
            Request(Target("http", "geo.example", server.port)),
            resolve=pinned,
            admit=Gate(["127.0.0.0/8"]).admit,
        )
        assert f"Host: geo.example:{server.port}" in server.requests[0].split("\r\n")


async def test_tls_names_the_host_and_checks_its_certificate_against_it(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, names=["geo.example"])
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificates.server, certificates.server_key)
    named: list[str] = []
    server_side.sni_callback = lambda connection, name, context: named.append(name)
    trusting = ssl.create_default_context(cafile=certificates.ca)

    async def pinned(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async def asked(host: str, tls: ssl.SSLContext | None) -> None:
        await ask(Request(Target("https", host, server.port), tls=tls), resolve=pinned)

    async with serving(tls=server_side) as server:
        await asked("geo.example", trusting)
        for host, tls in (("evil.example", trusting), ("geo.example", None)):
            with pytest.raises(CheckFailedError, match="its certificate is not trusted"):
                await asked(host, tls)
    assert named == ["geo.example", "evil.example", "geo.example"]


async def test_a_redirect_to_an_internal_address_is_not_followed() -> None:
    async with (
        serving(host="127.0.0.2") as internal,
        serving(f"HTTP/1.1 307 Moved\r\nLocation: {internal.url}\r\nContent-Length: 0\r\n\r\n".encode()) as server,
    ):
        with pytest.raises(CheckFailedError, match="HTTP 307"):
            await ask(Request(Target.parse(server.url)), admit=Gate(["127.0.0.0/8"]).admit)
        assert internal.requests == []


# What a record of the store says


HOSTILE_HOSTS = [
    "169.254.169.254",
    "[169.254.169.254]",
    "::ffff:169.254.169.254",
    "a@169.254.169.254",
    "169.254.169.254/latest?x=",
    "169.254.169.254:80/#",
    "127.1",
    "2852039166",
    "fe80::1%eth0",
    "geo.example\r\nX: y",
    "geo.example/../..",
    "",
    " ",
    "x" * 5000,
]


@pytest.mark.parametrize("host", HOSTILE_HOSTS, ids=lambda host: ascii(host[:40]))
def test_a_hostile_host_in_a_record_is_refused(host: str) -> None:
    probing = Probing(allow=["0.0.0.0/0", "::/0"])
    with pytest.raises((RefusedError, DiscoveryError)):  # some hosts do not even make a record
        target_of(info(host=host), probing)


def test_what_is_asked_of_an_extension() -> None:
    me = info(host="10.0.0.7", port=9700, endpoints={"admin": EndpointInfo("http", 9701, "/../evil")})
    assert str(target_of(me, Probing(allow=["10.0.0.0/8"]))) == "http://10.0.0.7:9700/health"
    probing = Probing(allow=["10.0.0.0/8"], scheme="https", path="/ready?full=1", endpoint="admin")
    assert str(target_of(me, probing)) == "https://10.0.0.7:9701/ready?full=1", "the record has no say in the path"
    assert target_of(info(host="10.0.0.7"), probing) is None
    assert str(target_of(info(host="FD00::7"), Probing(allow=["fd00::/8"]))) == "http://[fd00::7]:9700/health"


@pytest.mark.parametrize("port", [1, 22, 25, 79, 1023])
def test_ports_of_other_services_are_refused_unless_named(port: int) -> None:
    with pytest.raises(RefusedError, match=f"port {port} is none of those"):
        target_of(info(host="10.0.0.7", port=port), Probing(allow=["10.0.0.0/8"]))
    assert target_of(info(host="10.0.0.7", port=port), Probing(allow=["10.0.0.0/8"], ports=[port]))
    assert target_of(info(host="10.0.0.7", port=443), Probing(allow=["10.0.0.0/8"]))


BAD_PROBINGS = [
    ({"path": "health"}, "Probing: 'health' is no path"),
    ({"path": "/a b"}, "Probing: '/a b' is no path"),
    ({"path": "/\r\nX: y"}, "is no path"),
    ({"scheme": "file"}, "Probing: the scheme is http or https"),
    ({"timeout": 2.1}, r"Probing.timeout must be at most 2 seconds, not 2\.1"),
    ({"interval": 0}, "Probing.interval"),
    ({"fall": 0}, "Probing.fall"),
    ({"rise": "2"}, "Probing.rise"),
    ({"jitter": 1}, "Probing.jitter"),
    ({"limit": 0}, "Probing.limit must be a whole number from 1, not 0"),
    ({"tls": True}, "Probing.tls must be an ssl.SSLContext or None, not True"),
    ({"endpoint": 5}, "Probing.endpoint"),
    ({"ports": [0]}, "Probing.ports"),
    ({"ports": [range(1, 65537)]}, "Probing.ports"),
    ({"ports": "80"}, "Probing.ports"),
    ({"expected": 42}, "must be statuses from 100 to 599"),
]


@pytest.mark.parametrize(("options", "message"), BAD_PROBINGS, ids=str)
def test_bad_input_is_refused_and_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Probing(allow=["10.0.0.0/8"], **options)
