"""Proofs that a caller holds the key its token is bound to (DPoP, RFC 9449): what one is, and checking it."""

import base64
import hashlib
import hmac
import logging
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from apim_middleware._config import Configured, several
from apim_middleware._http.paths import BadTarget, canonical_path
from apim_middleware._jose.rules import Claims, seconds
from apim_middleware._jose.tokens import BadToken, claims_in, decoded, media_type, parsed, parts
from apim_middleware.errors import StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Clock
from apim_middleware.stores.outage import Outage
from apim_middleware.stores.replays import MemoryReplays, ShareTaken

log = logging.getLogger("apim_middleware.jwt")

_ALGORITHMS = ("ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
_LONGEST_PROOF = 8192
_LONGER = 1.0  # seconds a proof is remembered beyond its end, for clocks and stores differ in what the last moment is
_PORTS = {"http": "80", "https": "443"}
_PLAIN_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Replays(Protocol):
    """What must come once only."""

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        """Keep the bytes for ``ttl`` seconds unless the key is there already; whether it was not. Raises StoreError."""
        ...


_BOUNDS = {"max_age": (1, 600), "leeway": (0, 60), "nonce_life": (10, 86_400), "max_remembered": (1, 100_000_000)}


@dataclass(frozen=True, kw_only=True)
class DPoP(Configured):
    """Accept tokens that are bound to a key of the caller's, with a fresh proof for each request (RFC 9449).

    A proof is checked in full: its type and algorithm, the signature by the key in it, that this is the key the token
    is bound to (``cnf.jkt``), method and URL, the token's hash, its age, and that it comes for the first time.
    """

    required: bool = False
    """Whether tokens that are not bound are refused."""

    algorithms: str | tuple[str, ...] = _ALGORITHMS
    """Which signatures count; the challenge names them."""

    max_age: float = 60
    """Seconds a proof is good for, at most 600, and remembered so that it counts once."""

    leeway: float = 5
    """Seconds a proof may have been made in the future, by our clock; at most 60."""

    origin: str | None = None
    """Scheme, host and port callers use, as in ``https://api.example.com``. Default: those of the request."""

    nonce_key: bytes | None = field(default=None, repr=False)
    """A secret of at least 32 bytes, the same in every process: proofs must hold a nonce of ours (RFC 9449 §9)."""

    nonce_life: float = 300
    """Seconds a nonce can be used."""

    replays: Replays | None = field(default=None, repr=False, hash=False)
    """Where proofs are remembered when several processes serve: the ``Entries`` of a store they share.

    Give it room for every proof of ``max_age`` seconds: what a store drops before its time could come again. Default:
    in this process.
    """

    max_remembered: int = 100_000
    """How many proofs this process remembers at most; when so many are fresh, more are refused with 503.

    With one key nobody gets more than half of that, and less while others have some: as much as is left at most.
    """

    def __post_init__(self) -> None:
        """Refuse what could never pass, or would pass too easily."""
        for name in several(self.algorithms) or ("",):
            if name not in _ALGORITHMS:
                raise self.mistake(
                    "algorithms", "names no way to sign a proof", f"Choose from {', '.join(_ALGORITHMS)}"
                )
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise self.mistake(name, "is out of bounds", f"Give {least} to {most}")
        if (self.origin is not None and _target(self.origin + "/") is None) or (self.origin or "").endswith("/"):
            raise self.mistake("origin", "is no origin", 'Write "https://api.example.com"')
        if self.nonce_key is not None and len(self.nonce_key) < 32:
            raise self.mistake("nonce_key", "is too short for a secret", "Give at least 32 random bytes")


class BadProof(Exception):
    """The proof proves nothing, and why."""


class NonceNeeded(Exception):
    """The proof holds no nonce of ours, or an old one."""

    def __init__(self, nonce: str) -> None:
        """Keep the one to use."""
        super().__init__()
        self.nonce = nonce


class Proof(NamedTuple):
    """A proof whose signature is good: the thumbprint of its key, and what it claims."""

    jkt: str
    claims: Claims


class ProofCheck:
    """Checks the proof that comes with a request."""

    def __init__(self, rules: DPoP, clock: Clock) -> None:
        """Compile what can be."""
        self._rules = rules
        self._now = clock.now
        self._origin = None if rules.origin is None else _target(rules.origin + "/")
        given = rules.replays
        self._replays: Replays = MemoryReplays(rules.max_remembered, clock) if given is None else given
        self._outage = Outage(log, "proofs cannot be remembered", "proofs are remembered again")

    async def check(self, exchange: Exchange, token: bytes, jkt: str) -> None:
        """The request proves that the caller holds the key. Raises BadProof, NonceNeeded, StoreError."""
        sent = exchange.headers(b"dpop")
        if len(sent) != 1:
            raise BadProof("not exactly one proof")
        proof = read(sent[0], several(self._rules.algorithms))
        if not hmac.compare_digest(proof.jkt, jkt):
            raise BadProof("another key than the token's")
        try:
            self._judge(exchange, proof.claims, token)
        except BadToken:
            raise BadProof("claims") from None
        key = b"dpop/" + hashlib.sha256(f"{jkt} {proof.claims['jti']}".encode()).digest()
        good_for = self._rules.max_age + self._rules.leeway
        if not await self._added(key, jkt.encode(), good_for + _LONGER):
            raise BadProof("not the first time")

    async def _added(self, key: bytes, whose: bytes, ttl: float) -> bool:
        try:
            added = await self._replays.add(key, whose, ttl)
        except ShareTaken:
            raise  # which is no outage, and could be told to the log over and over
        except StoreError as error:
            self._outage.begins(error)
            raise
        self._outage.ends()
        return added

    def _judge(self, exchange: Exchange, claims: Claims, token: bytes) -> None:
        made, jti = seconds(claims, "iat"), claims.get("jti")
        now = self._now()
        if not isinstance(jti, str) or not jti or claims.get("htm") != exchange.method:
            raise BadProof("jti or htm")
        if claims.get("ath") != _digest(token):
            raise BadProof("ath")
        asked = self._asked(exchange)
        if asked is None or _target(claims.get("htu")) != asked:
            raise BadProof("htu")
        if self._rules.nonce_key is not None and not self._is_nonce(claims.get("nonce"), now):
            raise NonceNeeded(self._nonce(int(now)))
        if made is None or not now - self._rules.max_age <= made <= now + self._rules.leeway:
            raise BadProof("iat")

    def _asked(self, exchange: Exchange) -> "Target | None":
        """What was asked for; the path is canonical already."""
        path = exchange.path
        if self._origin is not None:
            return self._origin._replace(path=path)
        scheme = _PLAIN_SCHEMES.get(exchange.scope.get("scheme", "http"), "")
        host = (exchange.header(b"host") or b"").decode("latin-1")
        found = _target(f"{scheme}://{host}/")
        return None if found is None else found._replace(path=path)

    def _nonce(self, issued: int) -> str:
        """A nonce nobody else can make, which says when it was issued."""
        key, at = self._rules.nonce_key or b"", issued.to_bytes(8)
        return base64.urlsafe_b64encode(at + hmac.digest(key, b"dpop-nonce" + at, "sha256")[:16]).decode()

    def _is_nonce(self, nonce: object, now: float) -> bool:
        if not isinstance(nonce, str) or len(nonce) != 32:
            return False
        try:
            issued = int.from_bytes(base64.urlsafe_b64decode(nonce)[:8])
        except ValueError:
            return False
        if not now - self._rules.nonce_life <= issued <= now + 1:
            return False
        return hmac.compare_digest(nonce.encode(), self._nonce(issued).encode())


def read(text: bytes, algorithms: tuple[str, ...]) -> Proof:
    """A proof taken apart, its signature made by the key in it (RFC 9449 §4.3). Raises BadProof."""
    from apim_middleware._jose.keys import BadKey, key_brought_along, thumbprint  # PyJWT and cryptography load slowly

    if len(text) > _LONGEST_PROOF:
        raise BadProof("too long")
    try:
        encoded, payload, signature, signed = parts(text)
        head = parsed(decoded(encoded))
        algorithm, jwk = head.get("alg"), head.get("jwk")
        if (
            media_type(str(head.get("typ"))) != "dpop+jwt"
            or algorithm not in algorithms
            or {"crit", "b64"} & head.keys()
        ):
            raise BadProof("typ, alg or crit")
        key = key_brought_along(jwk, (algorithm,))
        if not key.algorithms[algorithm].verify(signed, key.material, decoded(signature)):
            raise BadProof("signature")
        return Proof(thumbprint(jwk or {}), claims_in(decoded(payload)))
    except (BadToken, BadKey) as bad:
        raise BadProof("malformed") from bad


class Target(NamedTuple):
    """A URL without query and fragment, in one spelling (RFC 3986 §6.2)."""

    scheme: str
    host: str
    port: str
    path: str


def _target(url: object) -> Target | None:
    if not isinstance(url, str) or len(url) > _LONGEST_PROOF:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        path, _ = canonical_path(unquote(parts.path or "/"), (parts.path or "/").encode(), keep_encoded_slashes=True)
    except (ValueError, BadTarget):
        return None
    if parts.scheme not in _PORTS or not host or parts.username is not None:
        return None
    return Target(parts.scheme, host, _PORTS[parts.scheme] if port is None else str(port), path)


def _digest(token: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token).digest()).rstrip(b"=").decode()
