"""A JSON Web Token as text, as claims, and as a principal: pure rules, no key and no clock (RFC 7515, 7519, 8725).

The token is read once, strictly, and what was read is what is verified: no second parser may see other bytes.
"""

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

from apim_middleware.identity import Principal

Scalar: TypeAlias = str | int | float | bool

Reason: TypeAlias = Literal[
    "malformed", "algorithm", "critical", "type", "key-unknown", "signature",
    "claims", "expired", "early", "issuer", "audience", "subject", "claim-value",
]  # fmt: skip
"""Why a token is not believed: for logs and traces, never for the caller."""

_COMPACT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_DEEPEST = 32
_COMMON_NAMES = (
    "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "azp", "amr", "acr", "sid", "scope", "scp", "client_id",
    "auth_time", "roles", "groups", "permissions", "name", "email", "email_verified", "preferred_username",
    "tid", "oid", "appid", "ver",
)  # fmt: skip
_SHARED_NAMES = {name: name for name in _COMMON_NAMES}
"""Names most tokens use, so that thousands of remembered tokens hold one copy of each."""

_FOREVER = float(1 << 53)


class BadToken(Exception):
    """This token is not believed. ``detail`` may come from the token: escape it before it is shown."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        """Keep why."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Signed(NamedTuple):
    """A token taken apart; nothing of it is verified yet."""

    algorithm: str
    kid: str | None
    type: str
    signed: bytes
    payload: bytes
    signature: bytes


def take_apart(token: bytes) -> Signed:
    """The parts of a token in compact form (RFC 7515 §7.1). Raises BadToken.

    Of the header only ``alg``, ``kid`` and ``typ`` are read: ``jku``, ``x5u``, ``jwk`` and ``x5c`` mean nothing here
    (RFC 8725 §3.10). Nothing is understood that would be critical (RFC 7515 §4.1.11), ``b64`` included (RFC 7797 §7).
    """
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise BadToken("malformed")
    header = parsed(_bytes(match[1]))
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if "crit" in header or "b64" in header:
        raise BadToken("critical")
    if not isinstance(algorithm, str):
        raise BadToken("algorithm")
    if not isinstance(kind, str) or ("kid" in header and not isinstance(kid, str)):
        raise BadToken("malformed")
    return Signed(algorithm, kid, media_type(kind), token[: match.end(2)], _bytes(match[2]), _bytes(match[3]))


def media_type(kind: str) -> str:
    """A ``typ`` as it is compared: without case and without ``application/`` (RFC 7515 §4.1.9)."""
    return kind.lower().removeprefix("application/")


def _bytes(segment: bytes) -> bytes:
    """The bytes of a base64url segment, which has exactly one spelling (RFC 7515 §2, RFC 4648 §3.5)."""
    try:
        data = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError:
        raise BadToken("malformed") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment:
        raise BadToken("malformed")
    return data


def parsed(data: bytes) -> dict[str, Any]:
    """A JSON object that everybody would read the same way. Raises BadToken.

    Members named twice, ``NaN``, ``Infinity``, numbers beyond a double, other encodings than UTF-8: none of it.
    """
    try:
        found = json.loads(
            data.decode(), object_pairs_hook=_members, parse_constant=_no_constant, parse_float=_finite_float
        )
    except (ValueError, RecursionError):
        raise BadToken("malformed") from None
    if not isinstance(found, dict):
        raise BadToken("malformed")
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is named twice")
    return members


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def frozen(value: Any, room: int = _DEEPEST) -> Any:  # noqa: ANN401 - any JSON
    """JSON nobody can change: objects as read-only mappings, arrays as tuples. Raises BadToken.

    Refused: nesting deeper than anybody needs, and strings with half a surrogate pair, which nothing can write down.
    """
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value)
        return value
    if isinstance(value, dict | list) and not room:
        raise BadToken("malformed")
    if isinstance(value, dict):
        names = _SHARED_NAMES
        return MappingProxyType({names.get(key) or frozen(key): frozen(each, room - 1) for key, each in value.items()})
    if isinstance(value, list):
        return tuple(frozen(each, room - 1) for each in value)
    return value


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadToken("malformed") from None


def exactly(accepted: Iterable[Scalar]) -> frozenset[tuple[bool, Scalar]]:
    """Accepted values for comparison as JSON compares: ``true`` is not 1, though Python says so."""
    return frozenset((isinstance(value, bool), value) for value in accepted)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the claims of a token must say."""

    issuers: frozenset[str]
    audiences: frozenset[str]
    required: Mapping[str, frozenset[tuple[bool, Scalar]]]
    subject_claim: str
    leeway: float

    def believe(self, payload: bytes, now: float) -> tuple[Principal, float]:
        """Whom the verified payload of a token speaks of, and until when. Raises BadToken."""
        claims = frozen(parsed(payload))
        expires = self._check_times(claims, now)
        issuer, subject = claims.get("iss"), claims.get(self.subject_claim)
        if not isinstance(issuer, str) or issuer not in self.issuers:
            raise BadToken("issuer")
        if self.audiences.isdisjoint(_texts(claims.get("aud"))):
            raise BadToken("audience")
        if not isinstance(subject, str) or not subject:
            raise BadToken("subject")
        for name, accepted in self.required.items():
            if not _holds(claims.get(name), accepted):
                raise BadToken("claim-value", name)
        return Principal(subject=subject, issuer=issuer, scopes=_scopes(claims), claims=claims), expires

    def _check_times(self, claims: Mapping[str, Any], now: float) -> float:
        """When the token expires, having begun and not ended (RFC 7519 §4.1.4 to §4.1.6)."""
        expires = _seconds(claims, "exp")
        if expires is None:
            raise BadToken("claims", "exp")
        if now >= expires + self.leeway:
            raise BadToken("expired")
        for name in ("nbf", "iat"):
            begins = _seconds(claims, name)
            if begins is not None and begins > now + self.leeway:
                raise BadToken("early", name)
        return expires


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadToken("claims", name)
    return float(max(-_FOREVER, min(value, _FOREVER)))


def _texts(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - any JSON
    """A claim that is one string or an array of strings."""
    values = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(each, str) for each in values):
        raise BadToken("claims")
    return values


def _holds(value: Any, accepted: frozenset[tuple[bool, Scalar]]) -> bool:  # noqa: ANN401 - any JSON
    """Whether a claim, or one member of a claim that is an array, is among the accepted values."""
    values = value if isinstance(value, tuple) else (value,)
    return any((isinstance(each, bool), each) in accepted for each in values if isinstance(each, str | int | float))


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """The scopes granted: ``scope`` as RFC 8693 §4.2 writes it, ``scp`` as a string or an array."""
    found: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            found.update(value.split(" "))
        elif value is not None:
            found.update(_texts(value))
    return frozenset(found - {""})
