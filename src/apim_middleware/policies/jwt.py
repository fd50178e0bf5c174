"""Bearer tokens: JSON Web Tokens verified against keys written down or published by their issuer."""

import ipaddress
import logging
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias
from urllib.parse import urlsplit

from apim_middleware._http import cookies, queries
from apim_middleware._http.headers import is_token
from apim_middleware._jose.tokens import BadToken, Rules, Scalar, Signed, exactly, media_type, take_apart
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal
from apim_middleware.policy import Policy
from apim_middleware.protocols import Transport

if TYPE_CHECKING:
    from apim_middleware._jose.keys import KeySet
    from apim_middleware._jose.remote import RemoteKeys

log = logging.getLogger("apim_middleware.jwt")

StaticKey: TypeAlias = str | bytes | Mapping[str, Any]
"""PEM text of a public key, the bytes of a shared secret, a JWK, or a JWK set."""

_ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_SHARED = ("HS256", "HS384", "HS512")
_ALGORITHMS = (*_ASYMMETRIC, "ES256K", *_SHARED)

_PLACE = re.compile(r"(header|cookie|query):([!-~]+)")
_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3
_REALM = re.compile(r"[ !#-\[\]-~]+")
_BEARER = re.compile(rb"bearer(?![!#$%&'*+.^_`|~0-9A-Za-z-])", re.IGNORECASE)
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, kw_only=True)
class JWTAuth(Policy):
    """Let in who bears a JSON Web Token of a trusted issuer, made for this audience (RFC 7519, RFC 6750, RFC 8725).

    It is Azure's ``validate-jwt``, closed where that is open: issuer, audience and expiry are always checked.
    The caller becomes ``exchange.principal``, which apps find as ``request.user`` and ``request.auth``.

    Refusals: 401 ``token-missing`` and ``token-invalid``, 400 ``token-ambiguous``, 403 ``insufficient-scope``, each
    with a ``WWW-Authenticate: Bearer`` challenge (RFC 6750 §3); 503 ``keys-unavailable`` when no key is known and the
    issuer cannot be reached. What was wrong with a token is told to the log and as the attribute
    ``apim.jwt.failure``, never to the caller.
    """

    provides = frozenset({"principal"})
    guards = True

    issuer: str | tuple[str, ...]
    """Who may have issued the token: compared with ``iss``, character for character."""

    audience: str | tuple[str, ...]
    """Whom the token must be made for: one of these must be in ``aud``, character for character."""

    keys: StaticKey | tuple[StaticKey, ...] | None = field(default=None, repr=False, hash=False)
    """The keys: PEM text of a public key, a JWK or JWK set as a dict, a shared secret as bytes, or several in a tuple.

    Give either these or ``jwks_url``.
    """

    jwks_url: str | None = None
    """Where the issuer publishes its keys as a JWK set: an https URL, or http on this machine."""

    algorithms: tuple[str, ...] = _ASYMMETRIC
    """Which signatures count. The HS family does only when named here and only with a shared secret."""

    required_claims: Mapping[str, Scalar | tuple[Scalar, ...]] = field(default_factory=dict, hash=False)
    """Claims the token must make: each with the value, or a tuple of values one of which it must have.

    A claim that is an array needs one member with an accepted value.
    """

    scopes: str | tuple[str, ...] = ()
    """Scopes that must all be granted, in ``scope`` or ``scp``; several in one string are separated by spaces."""

    token_type: str | tuple[str, ...] = ("JWT", "at+jwt")
    """Accepted ``typ`` of the token (RFC 8725 §3.11); a token without one counts as ``JWT``."""

    subject_claim: str = "sub"
    """The claim that names the caller; a token without it is refused."""

    leeway: float = 0
    """Seconds by which clocks may differ when ``exp``, ``nbf`` and ``iat`` are checked; at most 300."""

    token_from: str | tuple[str, ...] = "header:authorization"  # noqa: S105 - a place, not a token
    """Where the token is: ``header:authorization`` (after ``Bearer``), ``header:x-name``, ``cookie:name`` or
    ``query:name`` (bare), or in one of several such places.

    A token in the query is taken out of it before anybody further in sees it; headers and cookies stay.
    """

    optional: bool = False
    """Whether a request without any token goes on, without a principal; one with a bad token never does."""

    realm: str = "api"
    """The ``realm`` of the challenge."""

    max_token_bytes: int = 8192
    """The longest token looked at, in bytes; a longer one is invalid."""

    remember: int = 10_000
    """How many verified tokens are remembered, each until it expires or the keys change; 0 for none."""

    allow_http: bool = False
    """Whether ``jwks_url`` may be http on another machine, where anybody on the way can give you keys of theirs."""

    jwks_refresh: float = 3600
    """Seconds after which the keys are fetched anew; a shorter ``max-age`` of the issuer counts, down to a minute."""

    jwks_cooldown: float = 30
    """Seconds between two fetches at least, however many tokens name unknown keys, and however the last one went."""

    jwks_keep: float = 86_400
    """Seconds for which stale keys go on serving while the issuer cannot be reached; then 503 ``keys-unavailable``."""

    jwks_timeout: float = 5
    """Seconds a fetch may take as a whole."""

    def __post_init__(self) -> None:
        """Refuse what could never let anybody in, or would let in too many."""
        for name in ("issuer", "audience", "token_type"):
            if not _texts(getattr(self, name)) or "" in _texts(getattr(self, name)):
                raise self.mistake(name, "is empty", "Give the exact text")
        self._check_keys()
        self._check_claims()
        self._check_numbers()
        for place in _texts(self.token_from) or ("",):
            match = _PLACE.fullmatch(place)
            if match is None or not (match[1] == "query" or is_token(match[2].encode())):
                cure = 'Write "header:x-token", "cookie:token" or "query:access_token"'
                raise self.mistake("token_from", "names no place in a request", cure)
        if not _REALM.fullmatch(self.realm):
            cure = "Use printable ASCII without quotes and backslashes"
            raise self.mistake("realm", "cannot stand in a challenge", cure)

    def _check_keys(self) -> None:
        if (self.keys is None) == (self.jwks_url is None):
            problem = "and jwks_url are both missing" if self.keys is None else "and jwks_url are both given"
            raise self.mistake("keys", problem, "Give one of the two")
        for name in self.algorithms or ("",):
            if name not in _ALGORITHMS:
                raise self.mistake("algorithms", "names no way to sign", f"Choose from {', '.join(_ALGORITHMS)}")
            if name in _SHARED and self.jwks_url is not None:
                problem = "counts on a shared secret, which nobody publishes"
                raise self.mistake("algorithms", problem, "Give the secret as keys=..., or use asymmetric algorithms")
        if self.jwks_url is None:
            self._static_keys()
        else:
            self._check_url(self.jwks_url)

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if "@" in url:  # not shown: what stands before it may be a password
            raise ConfigError(type(self).__name__, "jwks_url", "the URL names a user", "Leave out what ends in @")
        if host is None or not _PRINTABLE.fullmatch(url) or "#" in url:
            raise self.mistake("jwks_url", "is no URL of keys", 'Write "https://issuer.example/keys"')
        if parts.scheme != "https" and not (parts.scheme == "http" and (self.allow_http or _is_loopback(host))):
            raise self.mistake("jwks_url", "is not https, so anybody on the way could change the keys", "Use https")

    def _check_claims(self) -> None:
        for name, accepted in self.required_claims.items():
            if accepted == ():
                raise self.mistake("required_claims", f"accepts no value of {name}", "Give at least one value")
        if not all(map(_SCOPE.fullmatch, _scopes(self.scopes))):
            raise self.mistake("scopes", "holds what is no scope", 'Write scopes=("orders.read", "orders.write")')

    def _check_numbers(self) -> None:
        lowest = {"max_token_bytes": 1, "remember": 0, "jwks_refresh": 60, "jwks_cooldown": 1, "jwks_keep": 0}
        for name, least in lowest.items():
            if not least <= getattr(self, name) < math.inf:
                raise self.mistake(name, "is too small or no number", f"Give at least {least}")
        if not 0 <= self.leeway <= 300:
            raise self.mistake("leeway", "is no tolerance for clocks", "Give 0 to 300 seconds")
        if not 0 < self.jwks_timeout <= 60:
            raise self.mistake("jwks_timeout", "is no time to wait", "Give more than 0 and at most 60 seconds")

    def bind(self, env: Env) -> "_StaticGate | _RemoteGate":
        """The gate: plain with keys written down, async where it may have to fetch them."""
        if self.jwks_url is None:
            return _StaticGate(self, env, self._static_keys())
        return _RemoteGate(self, env, self._remote_keys(env, self.jwks_url))

    def _static_keys(self) -> "KeySet":
        from apim_middleware._jose.keys import BadKey, keys_from_configuration  # PyJWT and cryptography load slowly

        try:
            return keys_from_configuration(self.keys, self.algorithms)
        except BadKey as bad:
            cure = (
                "Give the PEM text of a public key, a JWK or JWK set as a dict, or a secret as bytes "
                'with algorithms=("HS256",)'
            )
            raise self.mistake("keys", str(bad), cure) from None

    def _remote_keys(self, env: Env, url: str) -> "RemoteKeys":
        from apim_middleware._jose.remote import RemoteKeys

        return RemoteKeys(
            url,
            self.algorithms,
            transport=env.transport(_http),
            clock=env.clock,
            life=self.jwks_refresh,
            keep=self.jwks_keep,
            cooldown=self.jwks_cooldown,
            timeout=self.jwks_timeout,
        )


def _http() -> Transport:
    from apim_middleware.transports.httpx import HttpxTransport

    return HttpxTransport()


def _texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _scopes(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value.split()) if isinstance(value, str) else value


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Known(NamedTuple):
    """A verified token: when it expires and whom it speaks of."""

    expires: float
    principal: Principal


class _Memory:
    """Verified tokens by their text. The oldest makes room; failed ones never come in."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self.get = self._known.get
        self.clear = self._known.clear

    def keep(self, token: bytes, known: _Known) -> None:
        self._known[token] = known
        if len(self._known) > self._room:
            self._known.popitem(last=False)

    def forget(self, token: bytes) -> None:
        self._known.pop(token, None)


class _Gate:
    """Finds the token, believes it or refuses, and remembers whom it spoke of."""

    def __init__(self, policy: JWTAuth, env: Env) -> None:
        self._now = env.clock.now
        self._optional = policy.optional
        self._longest = policy.max_token_bytes
        self._algorithms = frozenset(policy.algorithms)
        self._types = frozenset(map(media_type, _texts(policy.token_type)))
        self._scopes = frozenset(_scopes(policy.scopes))
        self._challenges = _Challenges(policy.realm, _scopes(policy.scopes))
        self._find = _finder(_texts(policy.token_from), self._challenges)
        self._memory = _Memory(policy.remember)
        self._rules = Rules(
            issuers=frozenset(_texts(policy.issuer)),
            audiences=frozenset(_texts(policy.audience)),
            required={name: exactly(_values(accepted)) for name, accepted in policy.required_claims.items()},
            subject_claim=policy.subject_claim,
            leeway=policy.leeway,
        )

    def _without_token(self) -> None:
        if not self._optional:
            raise self._challenges.missing()

    def _read(self, token: bytes) -> Signed:
        """The token taken apart, if it is of a kind that could be believed. Raises BadToken."""
        if len(token) > self._longest:
            raise BadToken("malformed", "too long")
        signed = take_apart(token)
        if signed.algorithm not in self._algorithms:
            raise BadToken("algorithm", signed.algorithm)
        if signed.type not in self._types:
            raise BadToken("type", signed.type)
        return signed

    def _believed(self, token: bytes, signed: Signed) -> _Known:
        """What a token whose signature is good says. Raises BadToken, or Refusal when it grants too little."""
        now = self._now()
        principal, expires = self._rules.believe(signed.payload, now)
        if not self._scopes <= principal.scopes:
            raise self._challenges.insufficient()
        known = _Known(expires, principal)
        if now < expires:
            self._memory.keep(token, known)
        return known

    def _refuse(self, exchange: Exchange, bad: BadToken) -> NoReturn:
        log.debug("a token was refused: %s %s", bad.reason, ascii(bad.detail[:80]))
        exchange.attributes["apim.jwt.failure"] = bad.reason
        raise self._challenges.invalid() from None


class _StaticGate(_Gate):
    """The keys are here, so nothing is awaited."""

    def __init__(self, policy: JWTAuth, env: Env, keys: "KeySet") -> None:
        super().__init__(policy, env)
        self._keys = keys

    def on_request(self, exchange: Exchange) -> None:
        token = self._find(exchange)
        if token is None:
            return self._without_token()
        known = self._memory.get(token)
        if known is None or known.expires <= self._now():
            known = self._judged(exchange, token)
        exchange.principal = known.principal
        return None

    def _judged(self, exchange: Exchange, token: bytes) -> _Known:
        self._memory.forget(token)
        try:
            signed = self._read(token)
            self._keys.verify(signed)
            return self._believed(token, signed)
        except BadToken as bad:
            self._refuse(exchange, bad)


class _RemoteGate(_Gate):
    """The keys are elsewhere; what was verified with them is forgotten when they change."""

    def __init__(self, policy: JWTAuth, env: Env, source: "RemoteKeys") -> None:
        super().__init__(policy, env)
        self._source = source
        self._keys = source.keys
        self._monotonic = env.clock.monotonic

    async def on_request(self, exchange: Exchange) -> None:
        token = self._find(exchange)
        if token is None:
            return self._without_token()
        if self._monotonic() >= self._source.stale_at or self._source.keys is not self._keys:
            await self._review(token)
        known = self._memory.get(token)
        if known is None or known.expires <= self._now():
            known = await self._judged(exchange, token)
        exchange.principal = known.principal
        return None

    async def _review(self, token: bytes) -> None:
        """The keys are stale or others: a token verified with the old ones must not be let in unseen."""
        if self._memory.get(token) is not None:
            with self._needing_keys():
                self._trust(await self._source.current())

    async def _judged(self, exchange: Exchange, token: bytes) -> _Known:
        self._memory.forget(token)
        try:
            signed = self._read(token)
            with self._needing_keys():
                await self._verify(signed)
            return self._believed(token, signed)
        except BadToken as bad:
            self._refuse(exchange, bad)

    async def _verify(self, signed: Signed) -> None:
        """Check the signature, with keys fetched anew if the token's is unknown. Raises BadToken, KeysUnavailable."""
        keys = await self._source.current()
        try:
            self._trust(keys).verify(signed)
        except BadToken:
            if keys.knows(signed.kid) or (others := await self._source.other_than(keys)) is None:
                raise
            self._trust(others).verify(signed)

    def _trust(self, keys: "KeySet") -> "KeySet":
        """From now on these keys count; what was verified with others is forgotten."""
        if keys is not self._keys:
            self._memory.clear()
            self._keys = keys
        return keys

    @contextmanager
    def _needing_keys(self) -> Iterator[None]:
        from apim_middleware._jose.remote import KeysUnavailable

        try:
            yield
        except KeysUnavailable as missing:
            raise self._challenges.unavailable(missing.retry_after) from None


def _values(accepted: Scalar | tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    return accepted if isinstance(accepted, tuple) else (accepted,)


class _Challenges:
    """The refusals, each with its challenge (RFC 6750 §3.1)."""

    def __init__(self, realm: str, scopes: tuple[str, ...]) -> None:
        self._bare = f'Bearer realm="{realm}"'
        self._scope = f', scope="{" ".join(scopes)}"'

    def missing(self) -> Refusal:
        return Refusal(401, "token-missing", "A bearer token is required.", headers=self._with(""))

    def invalid(self) -> Refusal:
        headers = self._with(', error="invalid_token"')
        return Refusal(401, "token-invalid", "The bearer token is not valid.", headers=headers)

    def ambiguous(self) -> Refusal:
        headers = self._with(', error="invalid_request"')
        return Refusal(400, "token-ambiguous", "Send exactly one bearer token.", headers=headers)

    def insufficient(self) -> Refusal:
        headers = self._with(f', error="insufficient_scope"{self._scope}')
        return Refusal(403, "insufficient-scope", "The bearer token does not grant what this needs.", headers=headers)

    def unavailable(self, retry_after: float) -> Refusal:
        headers = {"retry-after": str(max(1, math.ceil(retry_after)))}
        return Refusal(503, "keys-unavailable", "Tokens cannot be verified at the moment.", headers=headers)

    def _with(self, more: str) -> dict[str, str]:
        return {"www-authenticate": self._bare + more}


_Look: TypeAlias = Callable[[Exchange], list[bytes]]


def _finder(places: tuple[str, ...], challenges: _Challenges) -> Callable[[Exchange], bytes | None]:
    """Looks for the token in these places; several tokens are refused (RFC 6750 §2)."""
    if [place.lower() for place in places] == ["header:authorization"]:
        return _bearer
    looks = [_look(*place.split(":", 1)) for place in places]

    def find(exchange: Exchange) -> bytes | None:
        found = [token for look in looks for token in look(exchange)]
        if len(found) > 1:
            raise challenges.ambiguous()
        return found[0] if found else None

    return find


def _look(kind: str, name: str) -> _Look:
    raw = name.encode()
    if kind == "query":
        return lambda exchange: _taken_from_query(exchange, name)
    if kind == "cookie":
        return lambda exchange: cookies.values(exchange.scope["headers"], raw)
    if raw.lower() == b"authorization":
        return lambda exchange: [] if (token := _bearer(exchange)) is None else [token]
    return lambda exchange: exchange.headers(raw.lower())


def _bearer(exchange: Exchange) -> bytes | None:
    """What follows ``Bearer``; another scheme is no token at all, and somebody else's business."""
    value = exchange.header(b"authorization")
    if value is None:
        return None
    if value[:7] != b"Bearer " and _BEARER.match(value) is None:
        return None
    return value[7:].strip(b" ") if value[6:7] in (b" ", b"") else value  # misspelt, and so no token that counts


def _taken_from_query(exchange: Exchange, name: str) -> list[bytes]:
    query = exchange.scope.get("query_string", b"")
    found = queries.values(query, name)
    if found:
        exchange.scope["query_string"] = queries.remove(query, name)
    return [token.encode() for token in found]
