"""Users with passwords: the salted hashes they are known by, and who they are. No store keeps a password."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from apim_middleware._http.basic import is_sendable, normal
from apim_middleware.identity import Principal

ISSUER = "urn:apim-middleware:user"
"""Stands as the issuer of a principal that came with a password, so that none is taken for a token's subject."""

_HASH = re.compile(r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9]{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")
_MOST_MEMORY = 1 << 27  # 128 MiB
_MOST_WORK = 1 << 28


class Cost(NamedTuple):
    """What it costs to hash a password with scrypt (RFC 7914 §2): memory is ``128 * r * 2**ln`` bytes."""

    ln: int = 14
    """The power of two of rounds."""

    r: int = 8
    """The size of a block."""

    p: int = 5
    """How many times it is done, one after the other."""

    @property
    def memory(self) -> int:
        """Bytes that are needed for a moment."""
        return 128 * self.r << self.ln


class Scrypt(NamedTuple):
    """A salted hash of a password."""

    cost: Cost
    salt: bytes
    digest: bytes

    def matches(self, password: str) -> bool:
        """Whether it is the hash of this password. Works for a while: call it in a thread."""
        return hmac.compare_digest(_derived(password, self.cost, self.salt, len(self.digest)), self.digest)

    @classmethod
    def read(cls, text: str) -> "Scrypt":
        """The hash in its text. ValueError when it is none, or one that would take more than a server should give."""
        match = _HASH.fullmatch(text)
        if match is None:
            raise ValueError("not a scrypt hash: write what hash_password gives")
        cost = Cost(int(match[1]), int(match[2]), int(match[3]))
        salt, digest = _unbase64(match[4]), _unbase64(match[5])
        _check(cost)
        if len(salt) < 8 or not 16 <= len(digest) <= 64:
            raise ValueError("a scrypt hash whose salt or digest has an odd size")
        return cls(cost, salt, digest)

    @classmethod
    def nobodys(cls, cost: Cost) -> "Scrypt":
        """A hash no password is known for, to work as hard for somebody who is not there."""
        return cls(cost, secrets.token_bytes(16), secrets.token_bytes(32))


def hash_password(password: str, cost: Cost | None = None) -> str:
    """A salted scrypt hash of a password, as text to keep: ``$scrypt$ln=14,r=8,p=5$salt$digest``.

    It takes some tenths of a second and 16 MiB on purpose, so in an endpoint call it in a thread. ValueError for a
    password that nobody could send: an empty one, or one with control characters.
    """
    if not is_sendable(password):
        raise ValueError("a password is empty or holds a control character")
    cost = cost or Cost()
    _check(cost)
    salt = secrets.token_bytes(16)
    digest = _derived(normal(password), cost, salt, 32)
    return f"$scrypt$ln={cost.ln},r={cost.r},p={cost.p}${_base64(salt)}${_base64(digest)}"


def _derived(password: str, cost: Cost, salt: bytes, size: int) -> bytes:
    room = cost.memory + 128 * cost.r * (cost.p + 2) + (1 << 20)
    return hashlib.scrypt(password.encode(), salt=salt, n=1 << cost.ln, r=cost.r, p=cost.p, maxmem=room, dklen=size)


def _check(cost: Cost) -> None:
    if not (1 <= cost.ln <= 20 and cost.r >= 1 and cost.p >= 1):
        raise ValueError("no cost of scrypt")
    if cost.memory > _MOST_MEMORY or cost.memory * cost.p > _MOST_WORK:
        raise ValueError("a cost of scrypt that a server should not pay")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


@dataclass(frozen=True, kw_only=True)
class UserRecord:
    """What a store knows of a user: the hash of the password, what is granted, and whether the user may come in."""

    name: str
    password: str = field(repr=False)
    """What ``hash_password`` gave."""

    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    active: bool = True
    scrypt: Scrypt = field(init=False, repr=False, compare=False)
    principal: Principal = field(init=False, repr=False, compare=False)
    """The caller this user is."""

    def __post_init__(self) -> None:
        """Read the hash, which is a ValueError when it is none, and make the principal, once."""
        claims = MappingProxyType(dict(self.claims))
        principal = Principal(subject=self.name, issuer=ISSUER, scopes=self.scopes, claims=claims)
        object.__setattr__(self, "scrypt", Scrypt.read(self.password))
        object.__setattr__(self, "principal", principal)


class UserStore(Protocol):
    """Where users are looked up.

    ``find`` may be a plain or an ``async`` function; a plain one must not wait for anything.
    """

    @property
    def cost(self) -> Cost:
        """What the hashes here cost, so that somebody who is not there costs as much."""
        ...

    def find(self, name: str) -> UserRecord | Awaitable[UserRecord | None] | None:
        """The user of this name, active or not; None when there is no such user. Raises StoreError."""
        ...


class MemoryUsers:
    """Users in the memory of this process: what is changed holds from the next request on."""

    def __init__(self, *, cost: Cost | None = None) -> None:
        """Begin with no user; ``cost`` is what the hashes of ``add`` cost."""
        self.cost = cost or Cost()
        self._records: dict[str, UserRecord] = {}

    def __repr__(self) -> str:
        """How many there are, not who."""
        return f"<MemoryUsers: {len(self._records)} users>"

    def __len__(self) -> int:
        """How many users there are."""
        return len(self._records)

    def find(self, name: str) -> UserRecord | None:
        """The user of this name, active or not; None when there is no such user."""
        return self._records.get(name)

    def add(
        self,
        name: str,
        password: str | None = None,
        *,
        hashed: str | None = None,
        scopes: str | tuple[str, ...] = (),
        claims: Mapping[str, Any] | None = None,
        active: bool = True,
    ) -> None:
        """Add a user, or replace the one of the same name, with a password or with what ``hash_password`` made of it.

        ``scopes`` in one string are separated by spaces. ValueError for a name or password nobody could send, for what
        is no hash, and unless exactly one of the two is given.
        """
        if (password is None) == (hashed is None):
            raise ValueError("give either a password or its hash")
        if not is_sendable(name) or ":" in name:
            raise ValueError("a user's name is empty or holds a colon or a control character (RFC 7617 §2)")
        kept = hash_password(password, self.cost) if password is not None else hashed or ""
        granted = frozenset(scopes.split() if isinstance(scopes, str) else scopes)
        self._write(UserRecord(name=normal(name), password=kept, scopes=granted, claims=claims or {}, active=active))

    def change_password(self, name: str, password: str) -> None:
        """Give a user another password; the old one works no more. LookupError when there is no such user."""
        self._write(replace(self._known(name), password=hash_password(password, self.cost)))

    def suspend(self, name: str) -> None:
        """Let a user in no more. LookupError when there is no such user."""
        self._write(replace(self._known(name), active=False))

    def resume(self, name: str) -> None:
        """Let a user in again. LookupError when there is no such user."""
        self._write(replace(self._known(name), active=True))

    def remove(self, name: str) -> None:
        """Forget a user. LookupError when there is no such user."""
        del self._records[self._known(name).name]

    def _known(self, name: str) -> UserRecord:
        record = self._records.get(normal(name))
        if record is None:
            raise LookupError(f"there is no user {name!r}")
        return record

    def _write(self, record: UserRecord) -> None:
        self._records[record.name] = record
