"""A JSON Web Token as text and as JSON: pure rules, no key and no clock (RFC 7515, 7519, 8725).

The token is read once, strictly, and what was read is what is verified: no second parser may see other bytes.
"""

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

Scalar: TypeAlias = str | int | float | bool

Reason: TypeAlias = Literal[
    "malformed", "algorithm", "critical", "type", "key-unknown", "signature",
    "claims", "expired", "early", "issuer", "audience", "subject", "claim-value", "client", "encrypted", "revoked",
    "binding", "inactive",
]  # fmt: skip
"""Why a token is not believed: for logs and traces, never for the caller."""

_COMPACT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_DEEPEST = 32
_DOTS_OF_JWE = 4
_COMMON_NAMES = (
    "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "azp", "amr", "acr", "sid", "scope", "scp", "client_id",
    "auth_time", "roles", "groups", "permissions", "name", "email", "email_verified", "preferred_username",
    "tid", "oid", "appid", "ver",
)  # fmt: skip
_SHARED_NAMES = {name: name for name in _COMMON_NAMES}
"""Names most tokens use, so that thousands of remembered tokens hold one copy of each."""


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
    encoded, payload, signature, signed = parts(token)
    header = parsed(decoded(encoded))
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if "crit" in header or "b64" in header:
        raise BadToken("critical")
    if not isinstance(algorithm, str):
        raise BadToken("algorithm")
    if not isinstance(kind, str) or ("kid" in header and not isinstance(kid, str)):
        raise BadToken("malformed")
    return Signed(algorithm, kid, media_type(kind), signed, decoded(payload), decoded(signature))


def parts(token: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Header, payload and signature as they are written, and what was signed. Raises BadToken."""
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise BadToken("encrypted" if token.count(b".") == _DOTS_OF_JWE else "malformed")
    return match[1], match[2], match[3], token[: match.end(2)]


def media_type(kind: str) -> str:
    """A ``typ`` as it is compared: without case and without ``application/`` (RFC 7515 §4.1.9)."""
    return kind.lower().removeprefix("application/")


def decoded(segment: bytes) -> bytes:
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

    Members named twice, ``NaN``, ``Infinity``, numbers beyond a double, other encodings than UTF-8: none of it. Nor
    nesting deeper than anybody needs, for how deep json itself reads depends on the Python.
    """
    try:
        found = json.loads(
            data.decode(), object_pairs_hook=_members, parse_constant=_no_constant, parse_float=_finite_float
        )
    except (ValueError, RecursionError):
        raise BadToken("malformed") from None
    opened = data.count(b"[") + data.count(b"{")
    if not isinstance(found, dict) or (opened > _DEEPEST and _is_deeper(found, _DEEPEST)):
        raise BadToken("malformed")
    return found


def _is_deeper(value: Any, room: int) -> bool:  # noqa: ANN401 - any JSON
    if not isinstance(value, dict | list):
        return False
    within = value.values() if isinstance(value, dict) else value
    return not room or any(_is_deeper(each, room - 1) for each in within)


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


def claims_in(payload: bytes) -> Mapping[str, Any]:
    """The claims of a token, which nobody can change. Raises BadToken."""
    claims: Mapping[str, Any] = frozen(parsed(payload))
    return claims


def frozen(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """JSON nobody can change: objects as read-only mappings, arrays as tuples. Raises BadToken.

    Refused: strings with half a surrogate pair, which nothing can write down.
    """
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value)
        return value
    if isinstance(value, dict):
        names = _SHARED_NAMES
        return MappingProxyType({names.get(key) or frozen(key): frozen(each) for key, each in value.items()})
    if isinstance(value, list):
        return tuple(frozen(each) for each in value)
    return value


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadToken("malformed") from None


def can_come(wanted: object) -> bool:
    """Whether JSON can say what is wanted of a claim, a value or several: it has neither NaN nor infinity."""
    values = wanted if isinstance(wanted, tuple) else (wanted,)
    return all(math.isfinite(value) for value in values if isinstance(value, float))


def exactly(accepted: Iterable[Scalar]) -> frozenset[tuple[bool, Scalar]]:
    """Accepted values for comparison as JSON compares: ``true`` is not 1, though Python says so."""
    return frozenset((isinstance(value, bool), value) for value in accepted)
