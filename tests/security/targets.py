"""What is done with hostile input, by the corpus and by fuzzing: it ends in a value that is what it says, or in an
error of osdisco; everything else is a bug. What servers answer is in `answers`.

Each target takes bytes and returns the type of the error, or None when they were taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from attrs import evolve

from osdisco._feed import Change
from osdisco._folded import Folded
from osdisco._keys import Keyspace
from osdisco._records import decode, encode
from osdisco.backend import Item, Limits
from osdisco.cli.mesh import row
from osdisco.cluster._build import StateBuilder
from osdisco.cluster._cut import cut_state
from osdisco.cluster._join import join_nodes
from osdisco.cluster._pack import pack
from osdisco.cluster.components import StateComponent
from osdisco.cluster.state import StateHeader
from osdisco.discovery import ExtensionInfo
from osdisco.discovery.registration import Registration, kind, read as read_extension
from osdisco.errors import (
    ClusterError,
    ConfigError,
    DiscoveryError,
    InvalidNameError,
    OsdiscoError,
    RecordError,
    RulesError,
)
from osdisco.mesh import Router
from osdisco.mesh._rules_record import decode as decode_rules, encode as encode_rules
from osdisco.mesh.top import document_of, figures_of, read as read_report
from osdisco.names import escape, escape_key, escape_prefix, unescape, unescape_key
from osdisco.registry.record import SERVICES, Record, read as read_service
from osdisco.runtime import Runtime
from osdisco.serve._envoy import DiscoveryRequest
from osdisco.url import ClientOptions, StoreURL, TlsOptions, check_transport, parse_duration

Outcome = type[Exception] | None

_HARMLESS = re.compile(r"(?:[A-Za-z0-9_.-]|=[0-9A-F]{2})+")


def text_of(data: bytes) -> str:
    """Return any bytes as text: bytes that are no UTF-8 become lone surrogates, as file names do."""
    return data.decode("utf-8", "surrogateescape")


def name(data: bytes) -> Outcome:
    """Escape a name of one segment, and a key."""
    text = text_of(data)
    with suppress(InvalidNameError):
        prefix = escape_prefix(text)
        assert prefix == "" or prefix == escape_key(text[:-1]) + "/"
    try:
        key = escape_key(text)
    except InvalidNameError as exc:
        return type(exc)
    assert unescape_key(key) == text
    for segment in key.split("/"):
        assert _HARMLESS.fullmatch(segment), segment
        assert segment not in (".", "..")
    with suppress(InvalidNameError):  # all of it may be too long
        assert unescape(escape(text)) == text
    return None


def stored_name(data: bytes) -> Outcome:
    """Turn a store's key back."""
    text = text_of(data)
    try:
        found = unescape(text)
    except InvalidNameError as exc:
        return type(exc)
    assert escape(found) == text
    return None


def codec(data: bytes) -> Outcome:
    """Do both."""
    stored_name(data)
    return name(data)


def url(data: bytes) -> Outcome:
    """Parse a URL, read its options, and look whether it would be safe."""
    text = text_of(data)
    if ":" not in text:  # the value of an option is shown where it is wrong, and is no secret
        with suppress(OsdiscoError):
            assert parse_duration(text) > 0
    try:
        found = StoreURL.parse(text)
        options = found.structure(TlsOptions)
        check_transport(found, options, tls=text.partition("://")[0].endswith("s"), credentials=bool(found.password))
    except OsdiscoError as exc:
        _shows_no_password(text, str(exc))
        return type(exc)
    _shows_no_password(text, f"{found!r} {found}")
    assert found.namespace
    assert unescape_key(found.namespace)
    assert all(1 <= (host.port or 1) <= 65535 for host in found.hosts)
    assert isinstance(found.structure(ClientOptions, known=False).ttl, float)
    return None


def _shows_no_password(text: str, shown: str) -> None:
    shown.encode()  # printable anywhere
    userinfo = text.partition("://")[2].rpartition("@")[0]
    password = userinfo.partition(":")[2]
    if len(password) >= 8 and password not in text.replace(userinfo, "", 1):
        assert password not in shown


def record(data: bytes) -> Outcome:
    """Read it as each kind of record; what is taken encodes to what reads the same."""
    outcomes = {extension(data), service(data)}
    with suppress(DiscoveryError):
        me = ExtensionInfo.from_extension_json(data)
        assert read_extension(encode(Registration(me)))[0] == me
    return None if None in outcomes else outcomes.pop()


def extension(data: bytes) -> Outcome:
    """Read an extension's record."""
    return _read(data, read_extension, lambda info, number: Registration(info, number))


def service(data: bytes) -> Outcome:
    """Read a service's record."""
    return _read(data, read_service, lambda endpoint, number: Record(endpoint, number))


def _read(data: bytes, read: Callable[[bytes], tuple[Any, int]], whole: Callable[[Any, int], Any]) -> Outcome:
    kind = type(whole(None, 0))
    try:
        strict = decode(data, kind)
    except RecordError as exc:
        strict = None
        str(exc).encode()
    try:
        found, number = read(data)
    except RecordError as exc:
        assert strict is None, "the quick reader refuses what the strict one takes"
        return type(exc)
    assert whole(found, number) == strict, "the quick reader takes what the strict one does not"
    assert type(number) is int
    assert decode(encode(strict), kind) == strict
    return None


def rules(data: bytes) -> Outcome:
    """Read it as rules for traffic; what is taken is written as what reads the same, and leads somewhere."""
    try:
        found = decode_rules(data)
    except RulesError as exc:
        f"{exc.field[0]} {exc}".encode()
        return type(exc)
    assert decode_rules(encode_rules(found)) == found
    router = Router(Runtime(), {"a": found.rules})
    for key in (None, "k"):
        str(router.route("a", "m", {"x": "y"}, key).targets[0]).encode()
    return None


def mesh_report(data: bytes) -> Outcome:
    """Read it as what a caller reports: what is taken has figures that can be shown, whatever came before it."""
    try:
        report = read_report(data)
    except RecordError as exc:
        return type(exc)
    later = evolve(report, at=report.at + 1)
    for pair in ((None, report), (report, later)):
        for figures in figures_of([pair]):
            json.dumps(document_of(figures), allow_nan=False)
            "".join(row(figures)).encode()
    return None


def envoy_request(data: bytes) -> Outcome:
    """Read it as Envoy's request for endpoints: it names services, or is refused."""
    try:
        found = DiscoveryRequest.parse(data)
    except ConfigError as exc:
        f"{exc}".encode()
        return type(exc)
    assert all(isinstance(name, str) for name in found.names)
    assert isinstance(found.version, str)
    return None


KEYS = Keyspace("ns/", Limits(ttl_min=1, ttl_max=10, expiry_factor=1))


def event(data: bytes) -> Outcome:
    """Fold changes of hostile keys and values; the events are the difference, whatever the order.

    Lines of the data are changes: a key, a tab and a value is a put, a key alone a delete.
    """
    taken = False
    for table in (Folded(kind(), KEYS, "ext"), Folded(SERVICES, KEYS, "svc", "geo")):
        shown: dict[str, Any] = {}
        for number, line in enumerate(data.split(b"\n")[:64], 1):
            rest, tab, value = line.partition(b"\t")
            key = table.target + text_of(rest)
            item = Item(key, value, number, number)
            change = Change({key: item} if tab else {}, {} if tab else {key: item}, number)
            for old, new in table.apply(change):
                id_ = table._kind.id_of(new if new is not None else old)
                assert shown.get(id_) == old
                assert old != new
                if new is None:
                    del shown[id_]
                else:
                    shown[id_] = new
            assert dict(table) == shown
            taken = taken or bool(table)
            str(dict(table.skipped)).encode("utf-8", "surrogateescape")
    return None if taken else RecordError


def cluster_state(data: bytes) -> Outcome:
    """Take an answer of a search cluster apart as the mirror does, and build a state of it as its readers do."""
    builder = StateBuilder(raw=True)
    try:
        cut = cut_state(data)
        parts = {**cut.parts, StateComponent.NODES: join_nodes(cut, None, {})}
        packs = {component: pack(some).packs for component, some in parts.items()}
        state = builder.build(cut.header, {name: [(one.sha, one.text) for one in some] for name, some in packs.items()})
    except ClusterError as exc:
        return _printable(exc)
    again = builder.build(cut.header, {name: [(one.sha, None) for one in some] for name, some in packs.items()})
    for component in StateComponent:
        assert again.component(component) is state.component(component)
    return None


def _printable(exc: ClusterError) -> Outcome:
    shown = str(exc)
    assert shown.isprintable()
    return type(exc)


def cluster_pack(data: bytes) -> Outcome:
    """Build each component of a pack that anybody may have written."""
    outcomes: set[Outcome] = set()
    for component in StateComponent:
        try:
            StateBuilder().build(StateHeader("c", "uuid", 1, "state"), {component: [("sha", data)]})
            outcomes.add(None)
        except ClusterError as exc:
            outcomes.add(_printable(exc))
    return None if None in outcomes else outcomes.pop()
