"""What to do about findings, where that differs from store to store."""

from __future__ import annotations

import re
from typing import Final

from osdisco.url import StoreURL

_GRANTS: Final = {
    "etcd": "etcdctl role grant-permission ROLE --prefix=true readwrite {namespace}/",
    "consul": 'an ACL policy that says key_prefix "{namespace}/" {{ policy = "write" }} '
    'and session_prefix "" {{ policy = "write" }}',
}
_TLS_SCHEMES: Final = {"etcd": "etcds", "etcd+http": "etcd+https", "consul": "consul+https"}
_OLDEST: Final = {
    "etcd": ((3, 5, 23), "renewals of dead leases can look good in older ones (etcd issue 20616)"),
}


def kind(url: StoreURL) -> str:
    """Return which store a URL's scheme speaks to."""
    return url.scheme.partition("+")[0].removesuffix("s")


def grant(url: StoreURL) -> str:
    """Return how to give what osdisco needs in its namespace."""
    how = _GRANTS.get(kind(url), "read and write under {namespace}/")
    return f"grant: {how.format(namespace=url.namespace)}"


def tls_scheme(url: StoreURL) -> str | None:
    """Return the scheme that would encrypt what this URL sends in plain; None when it does not."""
    return _TLS_SCHEMES.get(url.scheme)


def outdated(url: StoreURL, version: str | None) -> str | None:
    """Return why a version should be updated, if it should."""
    oldest, why = _OLDEST.get(kind(url), ((), ""))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version or "")[:3])
    if not oldest or not numbers or numbers >= oldest:
        return None
    return f"update to {'.'.join(map(str, oldest))} or later: {why}"
