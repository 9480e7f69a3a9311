"""What Consul's refusals and aiohttp's exceptions mean: one table of each. Only `_wire` comes here."""

from __future__ import annotations

import json
import re

import aiohttp
from attrs import frozen

from osdisco.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    IndeterminateError,
    LeaseExpiredError,
    LimitError,
    OsdiscoError,
    UnavailableError,
)


class CutOffError(Exception):
    """The connection ended under a request. No kind of aiohttp's own errors, because it sends again on those."""


class UnknownServiceError(OsdiscoError):
    """The agent has no such service, or no such check of one."""


@frozen
class _Rule:
    """An answer with this status and text proves that nothing was applied."""

    status: int
    text: str
    error: type[OsdiscoError]
    advice: str = ""


_ANSWERS = (
    _Rule(400, "HTTPS server", UnavailableError, "use consul+https://"),
    _Rule(400, "Enterprise", ConfigError, "ns= and partition= are for Consul Enterprise; leave them out"),
    _Rule(400, 'unknown field "Partition"', ConfigError, "partition= is for Consul Enterprise; leave it out"),
    _Rule(400, "", UnavailableError),
    _Rule(401, "", DeniedError),
    _Rule(403, "", DeniedError, "check the token and its policies"),
    _Rule(404, "Session id", LeaseExpiredError),
    _Rule(404, "unknown service ID", UnknownServiceError),
    _Rule(404, "Unknown service", UnknownServiceError),
    _Rule(404, "Unknown check", UnknownServiceError),
    _Rule(413, "", LimitError, "write less in one commit"),
    _Rule(429, "", UnavailableError),
    _Rule(500, "Invalid Session TTL", LimitError),
    _Rule(500, "Missing node registration", UnavailableError, "the agent is not in the catalog yet"),
    _Rule(500, "No cluster leader", UnavailableError),
    _Rule(500, "No path to datacenter", UnavailableError, "check dc="),
    _Rule(500, "Permission denied", DeniedError, "check the token and its policies"),
    _Rule(500, "ACL not found", DeniedError, "check the token"),
    _Rule(500, "does not have associated TTL", UnknownServiceError),
    _Rule(503, "", UnavailableError),
)

_TRANSACTION = (
    ("Permission denied", DeniedError),
    ("ACL not found", DeniedError),
    ("invalid session", LeaseExpiredError),
    ("failed session lookup", LeaseExpiredError),  # no id that a session can have
    ("", ConflictError),
)
"""What the errors of a refused transaction mean, the first that one of them contains."""

_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, "its certificate is not trusted; give its CA as tls_ca=, its name as "
     "tls_server_name="),
    (aiohttp.ClientConnectorSSLError, "no TLS with it; is it a plain port, or does it ask for tls_cert= and tls_key=?"),
    (aiohttp.ClientConnectorError, "cannot connect"),
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (aiohttp.InvalidURL, "no address to connect to"),
)  # fmt: skip
"""Failures before anything was sent."""

_TTL_RANGE = re.compile(r"between \[(\w+)=(\w+)\]")
_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_GO_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def refusal(what: str, status: int, body: bytes, *, write: bool) -> OsdiscoError:
    """Return the error for an answer that is no success; `what` names the request and the endpoint."""
    text = body[:2000].decode(errors="replace").strip()
    if status == 409 and (errors := _transaction_errors(body)):
        return _refused_transaction(what, errors)
    for rule in _ANSWERS:
        if rule.status == status and rule.text in text:
            return rule.error(f"{what}: {status} {text[:200]!a}" + (f"; {rule.advice}" if rule.advice else ""))
    if 300 <= status < 400:
        return nonsense(what, f"a redirect ({status}), which is never followed", write=write)
    if status >= 500:
        return _unknown(f"{what}: {status} {text[:200]!a}", write=write)
    return nonsense(what, f"{status} {text[:80]!a}", write=write)


def nonsense(what: str, answer: str, *, write: bool) -> OsdiscoError:
    """Return the error for an answer that no Consul agent gives."""
    return _unknown(f"{what}: answered {answer}; is it a Consul agent's HTTP port?", write=write)


def failure(what: str, exc: BaseException, *, write: bool) -> OsdiscoError:
    """Return the error for an exception of the transport."""
    for kind, text in _FAILURES:
        if isinstance(exc, kind):
            return UnavailableError(f"{what}: {text} ({exc})")
    if isinstance(exc, aiohttp.ClientResponseError):  # it did not even speak HTTP
        return nonsense(what, ascii(exc.message[:80]), write=write)
    if isinstance(exc, TimeoutError):
        return _unknown(f"{what}: no answer in time", write=write)
    return _unknown(f"{what}: the connection ended without an answer ({exc})", write=write)


def _unknown(text: str, *, write: bool) -> OsdiscoError:
    return IndeterminateError(f"{text}; it may have been applied") if write else UnavailableError(text)


def _transaction_errors(body: bytes) -> list[str]:
    try:
        return [str(error["What"]) for error in json.loads(body)["Errors"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []


def _refused_transaction(what: str, errors: list[str]) -> OsdiscoError:
    for text, kind in _TRANSACTION:
        for error in errors:
            if text in error:
                return kind(f"{what}: {error[:300]}")
    raise AssertionError("the last row matches everything")


def ttl_range(error: LimitError) -> tuple[float, float] | None:
    """Return the shortest and longest ttl that an agent named when it refused another one."""
    found = _TTL_RANGE.search(str(error))
    return (go_seconds(found[1]), go_seconds(found[2])) if found else None


def go_seconds(text: str) -> float:
    """Read a duration as Go writes it (`24h0m0s`)."""
    return sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_DURATION.findall(text))
