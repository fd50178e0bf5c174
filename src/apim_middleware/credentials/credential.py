"""Credentials for an upstream: the header line that each request gets, and those that only change when told to."""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from apim_middleware._config import Configured
from apim_middleware._http.headers import header_name, header_value
from apim_middleware._telemetry.masking import withhold
from apim_middleware.credentials.renewing import Unavailable
from apim_middleware.credentials.secret import Secret, reader_of
from apim_middleware.env import Env
from apim_middleware.errors import StoreError
from apim_middleware.exchange import Exchange

RESERVED = frozenset(
    b"connection content-length content-type expect host keep-alive proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)


class Shown(NamedTuple):
    """What an upstream is shown: a header line, and what to call when the upstream says that it is no good."""

    line: tuple[bytes, bytes]
    drop: Callable[[], None] | None = None

    def __repr__(self) -> str:
        """The name of the header; its value is a secret."""
        return f"<Shown: {self.line[0].decode()}>"


Showing: TypeAlias = Callable[[Exchange], Awaitable[Shown]]
"""Gives what to show for an exchange. Raises Unavailable."""


class Credential(Protocol):
    """What this gateway shows to an upstream: one of those here, or one of your own."""

    def showing(self, env: Env) -> Showing:
        """What gives the header line for each exchange."""
        ...


@dataclass(frozen=True, kw_only=True)
class HeaderCredential(Configured):
    """A secret in a header, such as a key for the upstream."""

    name: str
    """The header's name."""

    value: str | Secret = field(repr=False)
    """The secret."""

    prefix: str = ""
    """What stands before it, such as ``"ApiKey "``."""

    def __post_init__(self) -> None:
        """The header must be one that is free to be set, and what is known must fit into it."""
        try:
            name = header_name(self.name)
        except ValueError:
            raise self.mistake("name", "is not a header name", "Use letters, digits and hyphens") from None
        if name in RESERVED:
            raise self.mistake("name", "belongs to the connection", 'Choose a name such as "X-API-Key"')
        withhold("header", self.name)
        _check_text(self, "value", self.value)
        _check_text(self, "prefix", self.prefix or "-")

    def showing(self, env: Env) -> Showing:
        """What reads the secret and puts it into the header."""
        name, prefix, read = header_name(self.name), self.prefix, reader_of(self.value, env)

        async def show(exchange: Exchange) -> Shown:
            return Shown(_line(name, prefix + await _read(read)))

        return show


@dataclass(frozen=True, kw_only=True)
class BearerCredential(Configured):
    """A token that does not change by itself, as ``Authorization: Bearer`` (RFC 6750 §2.1)."""

    token: str | Secret = field(repr=False)
    """The token."""

    def __post_init__(self) -> None:
        """A text must fit into a header."""
        _check_text(self, "token", self.token)

    def showing(self, env: Env) -> Showing:
        """What reads the token."""
        return HeaderCredential(name="Authorization", value=self.token, prefix="Bearer ").showing(env)


@dataclass(frozen=True, kw_only=True)
class BasicCredential(Configured):
    """A name and a password, as ``Authorization: Basic`` in UTF-8 (RFC 7617). Azure's ``authentication-basic``."""

    username: str
    """The name, without a colon."""

    password: str | Secret = field(repr=False)
    """The password."""

    def __post_init__(self) -> None:
        """The name must be one that can be told from the password."""
        if not self.username or ":" in self.username or not self.username.isprintable():
            raise self.mistake("username", "is empty or holds a colon or a control character", "Give another name")
        if self.password == "":
            raise self.mistake("password", "is empty", "Give the password")

    def showing(self, env: Env) -> Showing:
        """What reads the password."""
        read, name = reader_of(self.password, env), self.username

        async def show(exchange: Exchange) -> Shown:
            pair = f"{name}:{await _read(read)}".encode()
            return Shown((b"authorization", b"Basic " + base64.b64encode(pair)))

        return show


def bearer(token: str) -> tuple[bytes, bytes]:
    """The line for a token. Raises Unavailable for what cannot stand there (RFC 6750 §2.1)."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Unavailable("the token that was given cannot stand in a header")
    return b"authorization", f"Bearer {token}".encode()


async def _read(read: Callable[[], Awaitable[str]]) -> str:
    try:
        return await read()
    except StoreError as error:
        raise Unavailable(str(error)) from None


def _line(name: bytes, text: str) -> tuple[bytes, bytes]:
    try:
        return name, header_value(text)
    except ValueError:
        raise Unavailable("a secret cannot stand in a header") from None


def _check_text(policy: Configured, name: str, text: object) -> None:
    try:
        good = not isinstance(text, str) or bool(header_value(text))
    except ValueError:
        good = False
    if not good:
        raise policy.mistake(name, "is empty, or cannot stand in a header", "Give printable Latin-1 text")
