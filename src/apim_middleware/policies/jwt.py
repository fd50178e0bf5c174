"""Bearer tokens: JSON Web Tokens verified against keys written down or published by their issuer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from apim_middleware._config import several
from apim_middleware._jose.claims import Path, steps
from apim_middleware._jose.described import described
from apim_middleware._jose.fields import check_numbers, check_places, check_timeout, check_wishes, texts_in, words_in
from apim_middleware._jose.issuers import Issuer, StaticKey, cure_of_metadata
from apim_middleware._jose.places import finder, headers_in
from apim_middleware._jose.proofs import DPoP, ProofCheck
from apim_middleware._jose.refusals import Refusals
from apim_middleware._jose.revocations import Revoked
from apim_middleware._jose.rules import ClaimMatch, Rules, Wanted, demand
from apim_middleware._jose.tokens import media_type
from apim_middleware._jose.urls import Allowance, mistake_of
from apim_middleware._unseen_reads import check_read
from apim_middleware.documentation import Documentation
from apim_middleware.env import Env
from apim_middleware.policy import Policy, stated

if TYPE_CHECKING:
    from apim_middleware._jose.gates import Checks, RemoteGate, StaticGate
    from apim_middleware._jose.trust import Asking

_ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_SHARED = ("HS256", "HS384", "HS512")
_ALGORITHMS = (*_ASYMMETRIC, "ES256K", *_SHARED)

_LEAST = {"max_token_bytes": 100, "max_remembered": 0, "jwks_refresh": 60, "jwks_cooldown": 1, "jwks_stale_if_error": 0}


@dataclass(frozen=True, kw_only=True)
class JWTAuth(Policy):
    """Let in who bears a JSON Web Token of a trusted issuer, made for this audience (RFC 7519, RFC 6750, RFC 8725).

    It is Azure's ``validate-jwt``, closed where that is open: issuer, audience and expiry are always checked.
    The caller becomes ``exchange.principal``, which apps find as ``request.user`` and ``request.auth``.

    An issuer's URL is enough to find its keys (OpenID Connect Discovery 1.0, RFC 8414). Keys that are published are
    renewed in the background, so a request whose key is known waits for nobody.

    A token bound to a client certificate (RFC 8705) is good over a connection with that certificate only; one bound to
    a key (RFC 9449) is refused unless ``dpop`` says how proofs are checked.

    Refusals: 401 ``token-missing`` and ``token-invalid``, 400 ``token-ambiguous``, 403 ``insufficient-scope``, each
    with a ``WWW-Authenticate: Bearer`` challenge (RFC 6750 §3); 403 ``forbidden`` when a role is missing; 503
    ``keys-unavailable`` when no key is known and the issuer cannot be reached; with ``dpop`` 401
    ``dpop-proof-invalid`` and ``dpop-nonce-required``, and 503 ``proofs-unavailable``; with ``revoked`` 503
    ``revocations-unavailable``. What was wrong with a token is told to the log and as the attribute
    ``apim.jwt.failure``, never to the caller.
    """

    provides = frozenset({"principal"})
    guards = True

    issuer: str | Issuer | tuple[str | Issuer, ...]
    """Who may have issued the token: compared with ``iss``, character for character.

    A text that is a URL has its keys discovered unless ``keys`` or ``jwks_url`` are given; an ``Issuer`` has keys of
    its own, which verify no token of another.
    """

    audience: str | tuple[str, ...]
    """Whom the token must be made for: one of these must be in ``aud``, character for character."""

    keys: StaticKey | tuple[StaticKey, ...] | None = field(default=None, repr=False, hash=False)
    """The keys: PEM text of a public key, a JWK or JWK set as a dict, a shared secret as bytes, or several in a tuple.

    At most one of these and ``jwks_url``.
    """

    jwks_url: str | None = None
    """Where the issuer publishes its keys as a JWK set: an https URL, or http on this machine."""

    algorithms: str | tuple[str, ...] = _ASYMMETRIC
    """Which signatures count. The HS family does only when named here and only with a shared secret."""

    required_claims: Mapping[str | tuple[str, ...], Wanted] = field(default_factory=dict, hash=False)
    """Claims the token must make: each with a value, a tuple of values one of which it must have, or a ``ClaimMatch``.

    A claim that is an array needs one member with an accepted value. A tuple names a claim within others.
    """

    scopes: str | tuple[str, ...] = ()
    """Scopes that must all be granted, in ``scope`` or ``scp``; several in one string are separated by spaces."""

    roles: str | tuple[str, ...] = ()
    """Roles the token must all name, in the claim ``roles_claim``."""

    roles_claim: Path = "roles"
    """The claim roles stand in, by its path as in ``realm_access.roles``: an array of texts, or one text."""

    client_ids: str | tuple[str, ...] = ()
    """The applications the token may have been issued to: ``azp``, ``client_id`` and ``appid``, whichever it has."""

    token_type: str | tuple[str, ...] = ("JWT", "at+jwt")
    """Accepted ``typ`` of the token (RFC 8725 §3.11); a token without one counts as ``JWT``."""

    profile: Literal["rfc9068"] | None = None
    """``"rfc9068"`` for access tokens that say they are: ``typ`` is ``at+jwt``, and all its claims are there."""

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

    dpop: DPoP | None = None
    """How proofs of possession are checked (RFC 9449). Without it tokens bound to a key are refused."""

    revoked: Revoked | None = field(default=None, repr=False, hash=False)
    """A function of the principal, async or not, that says ``False`` for tokens that still count.

    It is asked on every request; ``RevokedTokens`` is one. When it raises StoreError nobody comes in.
    """

    decryption_keys: StaticKey | tuple[StaticKey, ...] | None = field(default=None, repr=False, hash=False)
    """Our keys for encrypted tokens (RFC 7516): PEM text of a private key, a JWK, a secret as bytes, or several.

    Without any, encrypted tokens are refused. Needs the extra ``jwe``. What is inside must be signed as any other.
    """

    realm: str = "api"
    """The ``realm`` of the challenge."""

    max_token_bytes: int = 8192
    """The longest token looked at, in bytes; a longer one is invalid."""

    max_remembered: int = 10_000
    """How many verified tokens are remembered, each until it expires or its key is withdrawn; 0 for none."""

    allow_http: bool = False
    """Whether keys may be asked for over http on another machine, where anybody on the way can give you theirs."""

    allow_private: bool = False
    """Whether issuers may be at private, loopback and link-local addresses that are not written as such."""

    jwks_refresh: float = 3600
    """Seconds after which keys are stale; a shorter ``max-age`` or ``Expires`` counts, down to a minute.

    They are fetched anew up to a minute earlier.
    """

    jwks_cooldown: float = 30
    """Seconds between two fetches at least, however many tokens name unknown keys, and however the last one went."""

    jwks_stale_if_error: float = 86_400
    """Seconds for which stale keys go on serving while the issuer cannot be reached; then 503 ``keys-unavailable``."""

    jwks_timeout: float = 5
    """Seconds a fetch may take as a whole."""

    @stated
    def documentation(self) -> Documentation:
        """A bearer token."""
        written = all(each.keys is not None for each in self._issuers())
        unavailable = () if written else ("keys-unavailable",)
        if self.revoked is not None:
            unavailable = (*unavailable, "revocations-unavailable")
        return described(self, *unavailable, optional=self.optional, form="JWT")

    def __post_init__(self) -> None:
        """Refuse what could never let anybody in, or would let in too many."""
        for name in ("issuer", "audience", "token_type"):
            if not several(getattr(self, name)) or "" in several(getattr(self, name)):
                raise self.mistake(name, "is empty", "Give the exact text")
        for each in several(self.issuer):
            if isinstance(each, str) and (cure := cure_of_metadata(each)):
                raise self.mistake("issuer", "is where metadata is, and no issuer", cure)
        self._check_keys()
        check_wishes(self)
        check_places(self)
        check_numbers(self, _LEAST)
        check_timeout(self, "jwks_timeout")

    def _check_keys(self) -> None:
        if self.keys is not None and self.jwks_url is not None:
            raise self.mistake("keys", "and jwks_url are both given", "Give one of the two")
        own = [each for each in several(self.issuer) if isinstance(each, Issuer)]
        if len(own) == len(several(self.issuer)) and (self.keys is not None or self.jwks_url is not None):
            name = "jwks_url" if self.keys is None else "keys"
            raise self.mistake(name, "is nobody's: every issuer has its own", "Leave it out")
        for name in several(self.algorithms) or ("",):
            if name not in _ALGORITHMS:
                raise self.mistake("algorithms", "names no way to sign", f"Choose from {', '.join(_ALGORITHMS)}")
            if name in _SHARED and self.keys is None and all(each.keys is None for each in own):
                problem = "counts on a shared secret, which nobody publishes"
                raise self.mistake("algorithms", problem, "Give the secret as keys=..., or use asymmetric algorithms")
        self._check_issuers()
        self._decryption()

    def _check_issuers(self) -> None:
        from apim_middleware._jose.keys import BadKey, keys_from_configuration  # PyJWT and cryptography load slowly
        from apim_middleware._jose.trust import fault_in

        issuers = self._issuers()
        if len({each.name for each in issuers}) < len(issuers):
            raise self.mistake("issuer", "names one issuer twice", "Give each issuer once")
        for issuer in issuers:
            found = fault_in(issuer, self._allowed)
            if found is not None:
                name, fault = found
                own = name == "jwks_url" and self.jwks_url is not None
                raise mistake_of(self, name if own else "issuer", fault)
            try:
                if issuer.keys is not None:
                    keys_from_configuration(issuer.keys, several(self.algorithms))
            except BadKey as bad:
                cure = (
                    "Give the PEM text of a public key, a JWK or JWK set as a dict, or a secret as bytes "
                    'with algorithms="HS256"'
                )
                raise self.mistake("keys" if issuer.keys is self.keys else "issuer", str(bad), cure) from None

    def bind(self, env: Env) -> "StaticGate | RemoteGate":
        """The gate: plain with keys written down, async where it may have to fetch them or to ask somebody."""
        from apim_middleware._jose.gates import Memories, RemoteGate, StaticGate, WatchfulGate
        from apim_middleware._jose.sources import StaticKeys, StaticKeysOfMany
        from apim_middleware._jose.trust import source_of

        for name in headers_in(texts_in(self.token_from)):
            check_read(self, "token_from", name, env)
        memories = Memories.of(self.max_remembered)
        checks = self._checks(env)
        source = source_of(self._issuers(), several(self.algorithms), self._asking(), env, memories.forget_keys)
        if self.dpop is not None or self.revoked is not None:
            return WatchfulGate(checks, memories, env.clock, source)
        if isinstance(source, StaticKeys | StaticKeysOfMany):
            return StaticGate(checks, memories, env.clock, source)
        return RemoteGate(checks, memories, env.clock, source)

    def _checks(self, env: Env) -> "Checks":
        from apim_middleware._jose.binding import Possession
        from apim_middleware._jose.gates import Checks

        dpop = self.dpop
        proofs = () if dpop is None else several(dpop.algorithms)
        bearer = dpop is None or not dpop.required
        refusals = Refusals(self.realm, words_in(self.scopes), proofs, bearer=bearer)
        roles = ClaimMatch(values=texts_in(self.roles))
        types = ("at+jwt",) if self.profile is not None else texts_in(self.token_type)
        return Checks(
            find=finder(texts_in(self.token_from), refusals.ambiguous, dpop=dpop is not None),
            refusals=refusals,
            rules=self._rules(),
            algorithms=frozenset(several(self.algorithms)),
            types=frozenset(map(media_type, types)),
            longest=self.max_token_bytes,
            scopes=frozenset(words_in(self.scopes)),
            roles=(steps(self.roles_claim), demand(roles)) if self.roles else None,
            optional=self.optional,
            decrypt=self._decryption(),
            possession=None if dpop is None else Possession(ProofCheck(dpop, env.clock), required=dpop.required),
            revoked=self.revoked,
        )

    def _rules(self) -> Rules:
        from apim_middleware._jose.trust import audiences_of

        required = self.required_claims.items()
        return Rules(
            audiences=audiences_of(self._issuers(), self.audience),
            required={(name,) if isinstance(name, str) else name: demand(wanted) for name, wanted in required},
            subject_claim=self.subject_claim,
            leeway=self.leeway,
            clients=frozenset(texts_in(self.client_ids)),
            access_tokens=self.profile is not None,
        )

    def _issuers(self) -> tuple[Issuer, ...]:
        from apim_middleware._jose.trust import issuers_of

        return issuers_of(self.issuer, self.keys, self.jwks_url)

    def _asking(self) -> "Asking":
        from apim_middleware._jose.trust import Asking

        return Asking(self.jwks_refresh, self.jwks_stale_if_error, self.jwks_cooldown, self.jwks_timeout, self._allowed)

    @property
    def _allowed(self) -> Allowance:
        return Allowance(http=self.allow_http, private=self.allow_private)

    def _decryption(self) -> Callable[[bytes], bytes] | None:
        if self.decryption_keys is None:
            return None
        try:
            from apim_middleware._jose.jwe import BadDecryptionKey, Decryption
        except ImportError:
            problem, cure = "needs the package joserfc", "Install apim-middleware[jwe]"
            raise self.mistake("decryption_keys", problem, cure) from None
        try:
            return Decryption(self.decryption_keys)
        except BadDecryptionKey as bad:
            cure = "Give the PEM text of a private key, a JWK as a dict, or a secret as bytes"
            raise self.mistake("decryption_keys", str(bad), cure) from None
