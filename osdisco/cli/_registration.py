"""What `osdisco register` registers: from a file, from options, or from both."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from attrs import frozen

from osdisco.cli._files import Described
from osdisco.discovery import EndpointInfo, ExtensionInfo, ExtensionStatus
from osdisco.discovery.checks import HttpCheck, PolledCheck, TcpCheck
from osdisco.errors import ConfigError, DiscoveryError, OsdiscoError, nearest
from osdisco.url import parse_duration

FIELDS: Final = tuple(field.name for field in attrs.fields(ExtensionInfo))
_SAMPLE: Final = ExtensionInfo(id="id", name="name", version="1", host="host", port=1)
_CHECKS: Final[dict[str, Any]] = {"http": HttpCheck, "tcp": TcpCheck}
_CHECK_FIELDS: Final = ("http", "tcp", "interval", "timeout", "rise", "fall", "startup_grace", "critical", "name")
_DURATIONS: Final = ("interval", "timeout", "startup_grace")


@frozen
class Registration:
    """An extension and how it is checked."""

    extension: ExtensionInfo
    checks: Sequence[PolledCheck]


def assemble(file: Described | None, given: Mapping[str, Any], checks: Sequence[PolledCheck]) -> Registration:
    """Return what a file describes, with what is `given` by options instead or, where there are several, added.

    Raises:
        ConfigError: a file that is wrong, with the line and what was expected; what is missing.
        DiscoveryError, InvalidNameError: an option that is wrong.
    """
    fields, checks = (_fields(file), [*_checks(file), *checks]) if file else ({}, checks)
    for name, value in given.items():
        fields[name] = _added(fields.get(name), value)
    _check_complete(file, fields)
    defaults = {"name": fields["id"], "version": "0.0.0", "host": socket.gethostname()}
    if not checks:
        defaults["status"] = ExtensionStatus.HEALTHY  # as far as anybody looks
    return Registration(ExtensionInfo(**{**defaults, **fields}), checks)


def _added(old: Any, new: Any) -> Any:
    """Return what an option makes of what the file says: there may be several capabilities, but one port."""
    if old is None or not isinstance(new, list | dict):
        return new
    return {**old, **new} if isinstance(new, dict) else [*old, *new]


def _check_complete(file: Described | None, fields: Mapping[str, Any]) -> None:
    missing = [name for name in ("id", "port") if name not in fields]
    if not missing:
        return
    if file is None:
        raise ConfigError(f"give {' and '.join(f'--{name}' for name in missing)}, or a FILE")
    file.wrong((), f"{' and '.join(missing)} missing: expected here, or as an option")


def _fields(file: Described) -> dict[str, Any]:
    known = (*FIELDS, "checks")
    fields: dict[str, Any] = {}
    for name, value in file.content.items():
        if name not in known:
            file.wrong((name,), f"no such field{nearest(name, known)}; expected {', '.join(known)}")
        if name != "checks":
            fields[name] = _field(file, name, value)
    return fields


def _field(file: Described, name: str, value: Any) -> Any:
    if name == "endpoints":
        value = _endpoints(file, value)
    elif name == "status":
        value = _status(file, value)
    elif name == "metadata" and not isinstance(value, dict):
        file.wrong((name,), "expected text by name")
    try:
        return getattr(attrs.evolve(_SAMPLE, **{name: value}), name)
    except OsdiscoError as exc:
        scalar = isinstance(value, int | float) and name not in ("port",)
        file.wrong((name,), f"{exc}{': write it in quotes' if scalar else ''}")


def _status(file: Described, value: Any) -> ExtensionStatus:
    try:
        return ExtensionStatus(value)
    except ValueError:
        file.wrong(("status",), f"expected one of {', '.join(one.value for one in ExtensionStatus)}")


def _endpoints(file: Described, value: Any) -> dict[str, EndpointInfo]:
    if not isinstance(value, dict):
        file.wrong(("endpoints",), "expected objects with protocol, port and path by name")
    return {name: _endpoint(file, name, one) for name, one in value.items()}


def _endpoint(file: Described, name: str, value: Any) -> EndpointInfo:
    known = ("protocol", "port", "path")
    if not isinstance(value, dict):
        file.wrong(("endpoints", name), "expected an object with protocol, port and path")
    for field in value:
        if field not in known:
            file.wrong(("endpoints", name, field), f"no such field{nearest(field, known)}; expected {', '.join(known)}")
    for field in ("protocol", "port"):
        if field not in value:
            file.wrong(("endpoints", name), f"{field} is missing")
    for field, one in value.items():
        try:
            attrs.evolve(EndpointInfo("http", 1), **{field: one})
        except DiscoveryError as exc:
            file.wrong(("endpoints", name, field), str(exc))
    return EndpointInfo(**value)


def _checks(file: Described) -> list[PolledCheck]:
    checks = file.content.get("checks", [])
    if not isinstance(checks, list):
        file.wrong(
            ("checks",), "expected a list of objects such as {http: 'http://127.0.0.1:9700/health', interval: 10s}"
        )
    return [_check(file, number, check) for number, check in enumerate(checks)]


def _check(file: Described, number: int, check: Any) -> PolledCheck:
    if not isinstance(check, dict) or len(check.keys() & _CHECKS.keys()) != 1:
        file.wrong(("checks", number), "expected an object with either http, a URL, or tcp, an address host:port")
    (kind,) = check.keys() & _CHECKS.keys()
    options: dict[str, Any] = {}
    for name, value in sorted(check.items(), key=lambda item: item[0] != kind):
        if name not in _CHECK_FIELDS:
            known = ", ".join(_CHECK_FIELDS)
            file.wrong(("checks", number, name), f"no such field{nearest(name, _CHECK_FIELDS)}; expected {known}")
        try:
            if name in _DURATIONS:
                options[name] = parse_duration(value)
            elif name != kind:
                options[name] = value
            _CHECKS[kind](check[kind], **({name: options[name]} if name in options else {}))
        except ConfigError as exc:
            file.wrong(("checks", number, name), str(exc))
    made: PolledCheck = _CHECKS[kind](check[kind], **options)
    return made
