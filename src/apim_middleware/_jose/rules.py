"""What the claims of a token must say, and whom they speak of: pure rules, no key and no clock (RFC 7519, 9068)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from apim_middleware._config import Configured
from apim_middleware._jose.claims import claim
from apim_middleware._jose.tokens import BadToken, Scalar, can_come, exactly
from apim_middleware.identity import Principal

Claims: TypeAlias = Mapping[str, Any]

_FOREVER = float(1 << 53)
_CLIENTS = ("azp", "client_id", "appid")


@dataclass(frozen=True, kw_only=True)
class ClaimMatch(Configured):
    """What a claim must say where one value is not enough, as the ``claim`` element of Azure's ``validate-jwt``.

    ``ClaimMatch(values=("a", "b"))`` wants an array with both. Values are compared whole: ``True`` is not 1, and no
    pattern means anything.
    """

    values: tuple[Scalar, ...] = ()
    """The values; without any it is enough that the claim is made, whatever it says."""

    match: Literal["all", "any"] = "all"
    """Whether the claim must have all of the values, or one of them."""

    separator: str | None = None
    """What stands between the values when the claim is one text, as a blank does in ``scope``."""

    def __post_init__(self) -> None:
        """A separator separates, and the values are such as come."""
        if not can_come(self.values):
            raise self.mistake("values", "holds a number that no token can", "Give finite numbers")
        if self.separator == "":
            raise self.mistake("separator", "separates nothing", 'Write separator=" "')


Wanted: TypeAlias = Scalar | tuple[Scalar, ...] | ClaimMatch
"""What is wanted of a claim: a value, one of several, or a ``ClaimMatch``."""

Demand: TypeAlias = Callable[[Any], bool]


def demand(wanted: Wanted) -> Demand:
    """A function that says whether the value of a claim, None when it is not made, is what is wanted."""
    if not isinstance(wanted, ClaimMatch):
        values = wanted if isinstance(wanted, tuple) else (wanted,)
        wanted = ClaimMatch(values=values, match="any")
    accepted, separator = exactly(wanted.values), wanted.separator
    if not accepted:
        return lambda value: value is not None
    if wanted.match == "all":
        return lambda value: accepted <= _members(value, separator)
    return lambda value: not accepted.isdisjoint(_members(value, separator))


def _members(value: object, separator: str | None) -> frozenset[tuple[bool, Scalar]]:
    """A claim's one value, the members of one that is an array, or the parts of a text."""
    if isinstance(value, str) and separator is not None:
        return exactly(value.split(separator))
    values = value if isinstance(value, tuple) else (value,)
    return exactly(each for each in values if isinstance(each, str | int | float))


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the claims of a token must say."""

    audiences: Mapping[str, frozenset[str]]
    """Whom tokens of an issuer may be made for; other issuers are none."""

    required: Mapping[tuple[str, ...], Demand]
    subject_claim: str
    leeway: float
    clients: frozenset[str] = frozenset()
    access_tokens: bool = False
    """Whether the claims RFC 9068 §2.2 asks for must be there."""

    def believe(self, claims: Claims, now: float) -> tuple[Principal, float]:
        """Whom the claims of a verified token speak of, and until when. Raises BadToken."""
        expires = self._check_times(claims, now)
        issuer = claims.get("iss")
        audiences = self.audiences.get(issuer) if isinstance(issuer, str) else None
        if audiences is None:
            raise BadToken("issuer")
        if audiences.isdisjoint(texts(claims.get("aud"))):
            raise BadToken("audience")
        if self.access_tokens:
            _check_profile(claims)
        return principal(claims, self.subject_claim, self.required, self.clients, self.leeway), expires

    def _check_times(self, claims: Claims, now: float) -> float:
        expires = seconds(claims, "exp")
        if expires is None:
            raise BadToken("claims", "exp")
        check_times(claims, now, self.leeway)
        return expires


def check_times(claims: Claims, now: float, leeway: float) -> None:
    """Refuse what has ended or not begun, as far as it says so (RFC 7519 §4.1.4 to §4.1.6). Raises BadToken."""
    expires = seconds(claims, "exp")
    if expires is not None and now >= expires + leeway:
        raise BadToken("expired")
    for name in ("nbf", "iat"):
        begins = seconds(claims, name)
        if begins is not None and begins > now + leeway:
            raise BadToken("early", name)


def principal(
    claims: Claims,
    subject_claim: str,
    required: Mapping[tuple[str, ...], Demand],
    clients: frozenset[str],
    leeway: float,
) -> Principal:
    """The caller these claims speak of, if they make all that is required. Raises BadToken."""
    issuer, subject = claims.get("iss", ""), claims.get(subject_claim)
    if not isinstance(subject, str) or not subject:
        raise BadToken("subject")
    for way, wanted in required.items():
        if not wanted(claim(claims, way)):
            raise BadToken("claim-value", ".".join(way))
    if clients:
        _check_client(claims, clients)
    ends = seconds(claims, "exp")
    expires = None if ends is None else ends + leeway
    return Principal(subject=subject, issuer=issuer, scopes=scopes(claims), claims=claims, expires=expires)


def _check_client(claims: Claims, clients: frozenset[str]) -> None:
    """Every claim that names the application the token was issued to must name one of these, and one must."""
    named = [claims[name] for name in _CLIENTS if name in claims]
    if not named or not all(isinstance(each, str) and each in clients for each in named):
        raise BadToken("client")


def _check_profile(claims: Claims) -> None:
    if seconds(claims, "iat") is None:
        raise BadToken("claims", "iat")
    for name in ("client_id", "jti", "sub"):
        if not isinstance(claims.get(name), str):
            raise BadToken("claims", name)


def seconds(claims: Claims, name: str) -> float | None:
    """A time, in seconds since 1970, or None when the claim is not made. Raises BadToken."""
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadToken("claims", name)
    return float(max(-_FOREVER, min(value, _FOREVER)))


def texts(value: object) -> tuple[str, ...]:
    """A claim that is one string or an array of strings. Raises BadToken."""
    values = value if isinstance(value, tuple) else (value,)
    found = tuple(each for each in values if isinstance(each, str))
    if len(found) < len(values):
        raise BadToken("claims")
    return found


def scopes(claims: Claims) -> frozenset[str]:
    """The scopes granted: ``scope`` as RFC 8693 §4.2 writes it, ``scp`` as a string or an array."""
    found: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            found.update(value.split(" "))
        elif value is not None:
            found.update(texts(value))
    return frozenset(found - {""})
