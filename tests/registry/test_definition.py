"""What a service's instance may say of itself; every refusal names the field."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import asdict

from osdisco import DiscoveryError, ExtensionStatus, ServiceDefinition, ServiceEndpoint


def definition(**changes: Any) -> ServiceDefinition:
    return ServiceDefinition(**{"name": "geo", "version": "2.1.0", "address": "10.0.0.7:9700", **changes})


def test_what_others_find_is_what_was_defined() -> None:
    given = definition(weight=50, zone="a", metadata={"é": "ü"}, health_check_url="https://geo:1/health?x=1")
    assert given.endpoint(ExtensionStatus.HEALTHY) == ServiceEndpoint(
        extension_id="10.0.0.7:9700",
        address="10.0.0.7:9700",
        metadata={"é": "ü"},
        health_check_url="https://geo:1/health?x=1",
        weight=50,
        zone="a",
        version="2.1.0",
        status=ExtensionStatus.HEALTHY,
    )
    assert definition(extension_id="geo-1").endpoint(ExtensionStatus.HEALTHY).extension_id == "geo-1"


ADDRESSES = ["10.0.0.7:9700", "[fd00::7]:1", "geo:65535", "geo-1.svc.cluster.local:80", "_geo:80", "127.0.0.1:80"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    assert definition(address=address).endpoint(ExtensionStatus.HEALTHY).address == address


BAD = [
    ("name", "", "empty"),
    ("name", 1, "text"),
    ("name", "a" * 256, "256 bytes"),
    ("name", "\ud800", "surrogate"),
    ("version", "", "empty"),
    ("version", 2, "text"),
    ("version", "1" * 129, "129 characters"),
    ("address", 9700, "text"),
    ("address", "", "empty"),
    ("address", "geo", "port"),
    ("address", "geo:", "port"),
    ("address", "geo:0", "port"),
    ("address", "geo:65536", "port"),
    ("address", "geo:+80", "port"),
    ("address", "geo:080", "port"),
    ("address", "geo:８０", "port"),
    ("address", "geo:80\n", "port"),
    ("address", ":9700", "host"),
    ("address", "fd00::7:9700", "brackets"),
    ("address", "[fd00::7]", "port"),
    ("address", "[fd00::7]9700", "port"),
    ("address", "[fd00::7:9700", "brackets"),
    ("address", "[geo]:80", "brackets"),
    ("address", "[fe80::1%eth0]:80", "zone"),
    ("address", "10.0.0.777:80", "no address"),
    ("address", "2130706433:80", "no address"),
    ("address", "0.0.0.0:9700", "listens"),
    ("address", "[::]:9700", "listens"),
    ("address", "224.0.0.1:9700", "multicast"),
    ("address", "user:password@geo:80", "'@'"),
    ("address", "http://geo:80", "scheme"),
    ("address", "geo:80/path", "path"),
    ("address", "geo -x:80", "host"),
    ("address", f"{'a' * 254}:80", "characters"),
    ("address", "\ud800:80", "surrogate"),
    ("weight", -1, "is -1"),
    ("weight", 65_536, "65535"),
    ("weight", True, "whole number"),
    ("weight", 1.0, "whole number"),
    ("weight", "1", "whole number"),
    ("zone", "", "empty"),
    ("zone", 1, "text"),
    ("zone", "\ud800", "surrogate"),
    ("zone", "a" * 256, "256 characters"),
    ("metadata", None, "Mapping"),
    ("metadata", [("a", "b")], "Mapping"),
    ("metadata", {"a": 1}, "text"),
    ("metadata", {1: "a"}, "text"),
    ("metadata", {"": "a"}, "empty"),
    ("metadata", {"a" * 256: "a"}, "256 characters"),
    ("metadata", {"a": "x" * 4097}, "4097 characters"),
    ("metadata", {"a": "\ud800"}, "surrogate"),
    ("metadata", {str(n): "" for n in range(129)}, "129 entries"),
    ("health_check_url", "", "empty"),
    ("health_check_url", 1, "text"),
    ("health_check_url", "geo/health", "no URL"),
    ("health_check_url", "file:///etc/passwd", "http or https"),
    ("health_check_url", "ftp://geo/", "http or https"),
    ("health_check_url", "http:///health", "no host"),
    ("health_check_url", "http://geo:99999/", "no port"),
    ("health_check_url", "http://geo:0/", "no port"),
    ("health_check_url", "http://[::1/", "brackets"),
    ("health_check_url", "http://me:secret@geo/", "password"),
    ("health_check_url", "http://geo/a b", "printable"),
    ("health_check_url", "http://geo/\n", "printable"),
    ("health_check_url", "http://geo/é", "printable"),
    ("health_check_url", "http://geo/" + "x" * 2048, "2059 characters"),
    ("extension_id", "", "empty"),
    ("extension_id", 7, "text"),
    ("extension_id", "a" * 256, "256 bytes"),
]


@pytest.mark.parametrize(("name", "value", "why"), BAD, ids=lambda value: ascii(value)[:40])
def test_a_refusal_names_the_field_and_shows_no_secret(name: str, value: object, why: str) -> None:
    with pytest.raises(DiscoveryError) as caught:
        definition(**{name: value})
    assert f"field {name}" in str(caught.value) or ("metadata" in name and "metadata" in str(caught.value))
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "password@" not in str(caught.value)


@pytest.mark.parametrize(("name", "value", "why"), [case for case in BAD if case[0] != "name"], ids=ascii)
def test_a_change_is_held_against_the_same_rules(name: str, value: object, why: str) -> None:
    with pytest.raises(DiscoveryError, match=name):
        definition().changed(**{name: value})


def test_an_address_may_come_later_but_not_after_the_registration() -> None:
    """Who serves at port 0 learns the address when it listens."""
    with pytest.raises(DiscoveryError, match="field address of a service is missing"):
        definition(address=None).endpoint(ExtensionStatus.HEALTHY)


def test_changes_merge_metadata_and_keep_the_id() -> None:
    changed = definition(metadata={"a": "1", "b": "2"}).changed(metadata={"b": "3"}, address="geo:80", weight=0)
    assert changed == definition(
        metadata={"a": "1", "b": "3"}, address="geo:80", weight=0, extension_id="10.0.0.7:9700"
    )


@pytest.mark.parametrize("changes", [{"name": "knn"}, {"extension_id": "other"}, {"wieght": 1}], ids=str)
def test_what_cannot_change_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DiscoveryError, match=next(iter(changes))):
        definition().changed(**changes)


def test_of_a_field_that_is_none_only_what_was_given_is_named() -> None:
    with pytest.raises(DiscoveryError) as caught:
        definition().changed(foo=1, weight=2)
    assert str(caught.value) == (
        "a service has no field 'foo'; known are version, address, weight, zone, metadata, health_check_url"
    )


def test_what_the_caller_changes_later_changes_nothing_here() -> None:
    metadata = {"a": "1"}
    given = definition(metadata=metadata)
    metadata["a"] = "2"
    assert given.metadata == {"a": "1"}


def test_a_field_of_the_endpoint_is_one_of_the_definition() -> None:
    mine, theirs = asdict(definition()), asdict(definition().endpoint(ExtensionStatus.HEALTHY))
    assert mine.keys() - {"name"} == theirs.keys() - {"status"}
