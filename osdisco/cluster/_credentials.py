"""Who the source says it is: a user and password, or a token; from arguments, files or the environment.

They travel as one header, and nothing shows it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from attrs import frozen

from osdisco.cluster._files import Reread, read_secret
from osdisco.errors import ConfigError
from osdisco.runtime import Secret, secret

HEADER: Final = "Authorization"
USERNAME: Final = "OSDISCO_OPENSEARCH_USERNAME"
PASSWORD: Final = "OSDISCO_OPENSEARCH_PASSWORD"  # noqa: S105 # nosec B105 - the name of a variable
TOKEN: Final = "OSDISCO_OPENSEARCH_TOKEN"  # noqa: S105 # nosec B105
"""Not the variables of the store's URL: its password is none of the search cluster's business."""

_TOKEN: Final = re.compile(r"[!-~]+\Z")
_CONTROL: Final = re.compile(r"[\0-\x1f\x7f]")

Headers = Mapping[str, str]


class Hidden(str):
    """A header's value that goes onto the wire, but not into a repr: those of aiohttp's errors show the headers."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@frozen(repr=False)
class Given:
    """What the caller gave, each of it possibly nothing."""

    auth: tuple[str, str | Secret] | None = None
    username: str | None = None
    password_file: Path | None = None
    token: Secret | None = None
    token_file: Path | None = None

    def __attrs_post_init__(self) -> None:
        kinds = (self.auth, self.password_file, self.token, self.token_file)
        if sum(kind is not None for kind in kinds) > 1:
            raise ConfigError("give one of auth=, password_file=, token= and token_file=, not several")
        if (self.password_file is None) != (self.username is None):
            raise ConfigError("username= and password_file= go together; one of them is missing")

    def headers(self, environ: Mapping[str, str]) -> Reread[Headers]:
        """Return the header, read anew whenever its file changes. The environment counts where nothing is given.

        Raises:
            ConfigError: a file that cannot be read, half of a user and password, or text that no header can hold.
        """
        if self.auth is not None:
            return _fixed(_basic(*_pair(self.auth)))
        if self.token is not None:
            return _fixed(_bearer(self.token))
        if self.password_file is not None:
            return _from_file(self.password_file, "password_file", partial(_basic, str(self.username)))
        if self.token_file is not None:
            return _from_file(self.token_file, "token_file", _bearer)
        return _fixed(_from_environment(environ))


def _from_file(path: Path, option: str, header: Callable[[Secret], Headers]) -> Reread[Headers]:
    return Reread([path], lambda: header(Secret(read_secret(path, option))))


def _fixed(headers: Headers) -> Reread[Headers]:
    return Reread([], lambda: headers)


def _from_environment(environ: Mapping[str, str]) -> Headers:
    user, password, token = (environ.get(name) for name in (USERNAME, PASSWORD, TOKEN))
    if token and (user or password):
        raise ConfigError(f"{TOKEN} is set beside {USERNAME} or {PASSWORD}; set one kind only")
    if bool(user) != bool(password):
        raise ConfigError(f"{USERNAME} and {PASSWORD} go together; one of them is not set")
    if token:
        return _bearer(Secret(token))
    return _basic(user, Secret(password)) if user and password else {}


def _pair(auth: tuple[str, str | Secret]) -> tuple[str, Secret]:
    if not isinstance(auth, tuple) or len(auth) != 2 or not isinstance(auth[1], str | Secret):
        raise ConfigError("auth= is a pair of user and password")
    password = secret(auth[1])
    assert password is not None
    return auth[0], password


def _basic(user: str, password: Secret) -> Headers:
    if not isinstance(user, str) or not user or ":" in user or _CONTROL.search(user):
        raise ConfigError("the user of the search cluster is text without ':' and control characters, and not empty")
    if not password:
        raise ConfigError("the password of the search cluster is empty")
    try:
        return {HEADER: Hidden("Basic " + b64encode(f"{user}:{password.reveal()}".encode()).decode())}
    except UnicodeEncodeError:  # its message would show the password
        raise ConfigError("the user or the password of the search cluster holds a lone surrogate") from None


def _bearer(token: Secret) -> Headers:
    if not _TOKEN.match(token.reveal()):
        raise ConfigError("the token of the search cluster is empty, or holds what no token has")
    return {HEADER: Hidden(f"Bearer {token.reveal()}")}
