"""Bearer tokens that only their authorization server can read: it is asked about each (RFC 7662)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from apim_middleware._config import is_text, several
from apim_middleware._jose.asking import AskingGate, Habits, Wishes
from apim_middleware._jose.binding import Possession
from apim_middleware._jose.claims import Path, steps
from apim_middleware._jose.described import described
from apim_middleware._jose.fields import (
    check_numbers,
    check_places,
    check_timeout,
    check_url,
    check_wishes,
    texts_in,
    words_in,
)
from apim_middleware._jose.introspection import Authenticate, Endpoint, assertion, basic, post
from apim_middleware._jose.places import finder, headers_in
from apim_middleware._jose.proofs import DPoP, ProofCheck
from apim_middleware._jose.refusals import Refusals
from apim_middleware._jose.rules import ClaimMatch, Wanted, demand
from apim_middleware._jose.urls import Allowance, is_here
from apim_middleware._unseen_reads import check_read
from apim_middleware.documentation import Documentation
from apim_middleware.env import Env
from apim_middleware.policy import Policy, stated

_LEAST = {"max_token_bytes": 1, "max_remembered": 0, "remember_for": 0, "remember_refused_for": 0, "at_once": 1}


@dataclass(frozen=True, kw_only=True)
class OAuth2Introspection(Policy):
    """Let in who bears a token that its authorization server says is active (RFC 7662), whatever the token looks like.

    The server is asked once about a token, however many requests bring it at once, and its answer is remembered for
    ``remember_for`` seconds, never beyond the token's ``exp``: so long a revoked token may still be let in. The caller
    becomes ``exchange.principal``; what the server says of the token are its claims.

    A token bound to a client certificate (RFC 8705) is good over a connection with that certificate only; one bound to
    a key (RFC 9449) is refused unless ``dpop`` says how proofs are checked.

    Refusals: 401 ``token-missing`` and ``token-invalid``, 400 ``token-ambiguous``, 403 ``insufficient-scope`` with a
    ``WWW-Authenticate: Bearer`` challenge (RFC 6750 §3); 403 ``forbidden`` when a role is missing; 503
    ``introspection-unavailable`` with ``Retry-After`` when the server cannot be asked; with ``dpop`` what ``JWTAuth``
    has. What was wrong with a token is told to the log and as the attribute ``apim.jwt.failure``.
    """

    provides = frozenset({"principal"})
    guards = True

    url: str
    """The introspection endpoint: an https URL, or http on this machine."""

    client_id: str
    """Who asks, as the server knows us."""

    client_secret: str | None = field(default=None, repr=False)
    """Our secret, for ``basic`` and ``post``."""

    client_key: str | Mapping[str, Any] | None = field(default=None, repr=False, hash=False)
    """Our private key, as PEM text or a JWK, for ``private_key_jwt``."""

    client_auth: Literal["basic", "post", "private_key_jwt"] = "basic"
    """How we say who asks (RFC 6749 §2.3.1, RFC 7523 §2.2)."""

    client_algorithm: str = "RS256"
    """What ``private_key_jwt`` is signed with."""

    client_audience: str | None = None
    """Whom ``private_key_jwt`` is made for, usually the server's issuer. Default: ``url``."""

    audience: str | tuple[str, ...] | None
    """Whom the token must be made for: one of these must be in ``aud``. None lets in the tokens of every API."""

    issuer: str | tuple[str, ...] | None = None
    """Who must have issued the token, where the server says so in ``iss``. None: whoever this server answers for."""

    required_claims: Mapping[str | tuple[str, ...], Wanted] = field(default_factory=dict, hash=False)
    """What the server must say of the token: each claim with a value, a tuple of accepted ones, or a ``ClaimMatch``."""

    scopes: str | tuple[str, ...] = ()
    """Scopes that must all be granted; several in one string are separated by spaces."""

    roles: str | tuple[str, ...] = ()
    """Roles that must all be in the claim ``roles_claim``."""

    roles_claim: Path = "roles"
    """The claim roles stand in, by its path as in ``realm_access.roles``."""

    client_ids: str | tuple[str, ...] = ()
    """The applications the token may have been issued to, by ``client_id``."""

    subject_claim: str = "sub"
    """The claim that names the caller; a token without it is refused. Tokens of no user often have ``client_id``."""

    leeway: float = 0
    """Seconds by which clocks may differ when ``exp``, ``nbf`` and ``iat`` are checked; at most 300."""

    token_from: str | tuple[str, ...] = "header:authorization"  # noqa: S105 - a place, not a token
    """Where the token is, as in ``JWTAuth``."""

    optional: bool = False
    """Whether a request without any token goes on, without a principal; one with a bad token never does."""

    dpop: DPoP | None = None
    """How proofs of possession are checked (RFC 9449). Without it tokens bound to a key are refused."""

    realm: str = "api"
    """The ``realm`` of the challenge."""

    max_token_bytes: int = 8192
    """The longest token asked about, in bytes; a longer one is invalid."""

    max_remembered: int = 10_000
    """How many active tokens are remembered, and how many others; 0 for none."""

    remember_for: float = 60
    """Seconds for which a token counts as active without asking again, never beyond its ``exp``."""

    remember_refused_for: float = 10
    """Seconds for which a token counts as refused without asking again."""

    at_once: int = 100
    """How many questions are asked at once; one more is answered 503 at once."""

    timeout: float = 5
    """Seconds an answer may take as a whole. When the server cannot be asked: 503; remembered tokens go on."""

    allow_http: bool = False
    """Whether ``url`` may be http on another machine, where anybody on the way can read tokens and let anybody in."""

    allow_private: bool = False
    """Whether ``url`` may lead to private, loopback and link-local addresses that are not written as such."""

    @stated
    def documentation(self) -> Documentation:
        """A bearer token."""
        return described(self, "introspection-unavailable", optional=self.optional)

    def __post_init__(self) -> None:
        """Refuse what could never let anybody in, or would let in too many."""
        check_url(self, "url", self.url, self._allowed)
        for name in ("client_id", "audience", "issuer"):
            value = getattr(self, name)
            if value is not None and (not value or "" in texts_in(value)):
                raise self.mistake(name, "is empty", "Give the exact text")
        for name in ("client_id", "client_secret"):
            if not is_text(getattr(self, name) or ""):
                raise self.mistake(name, "holds half a surrogate pair", "Give text that UTF-8 can carry")
        self._check_client()
        check_wishes(self)
        check_places(self)
        check_numbers(self, _LEAST)
        check_timeout(self, "timeout")

    def _check_client(self) -> None:
        wanted, other = "client_secret", "client_key"
        if self.client_auth == "private_key_jwt":
            wanted, other = other, wanted
        if not getattr(self, wanted):
            raise self.mistake(wanted, f"is missing for {self.client_auth}", "Give it, or choose another client_auth")
        if getattr(self, other) is not None:
            raise self.mistake(other, f"is not used by {self.client_auth}", "Leave it out")
        if self.client_key is not None:
            self._sign()

    def _sign(self) -> Callable[[Mapping[str, Any]], str]:
        from apim_middleware._jose.keys import BadKey  # PyJWT and cryptography load slowly
        from apim_middleware._jose.signing import SIGNING, Signer

        if self.client_algorithm not in SIGNING:
            raise self.mistake("client_algorithm", "names no way to sign", f"Choose from {', '.join(SIGNING)}")
        try:
            return Signer(self.client_key or "", self.client_algorithm).sign
        except BadKey as bad:
            raise self.mistake("client_key", str(bad), "Give the PEM text of a private key, or a JWK") from None

    @property
    def _allowed(self) -> Allowance:
        return Allowance(http=self.allow_http, private=self.allow_private)

    def bind(self, env: Env) -> AskingGate:
        """The gate, with a memory of its own."""
        for name in headers_in(texts_in(self.token_from)):
            check_read(self, "token_from", name, env)

        def failed() -> None:
            env.count("apim.introspection.failed", {})

        return AskingGate(self._wishes(), self._habits(env), self._endpoint(env), env.clock, failed)

    def _wishes(self) -> Wishes:
        required = self.required_claims.items()
        roles = ClaimMatch(values=texts_in(self.roles))
        return Wishes(
            audiences=None if self.audience is None else frozenset(texts_in(self.audience)),
            issuers=None if self.issuer is None else frozenset(texts_in(self.issuer)),
            required={(name,) if isinstance(name, str) else name: demand(wanted) for name, wanted in required},
            clients=frozenset(texts_in(self.client_ids)),
            subject_claim=self.subject_claim,
            leeway=self.leeway,
            scopes=frozenset(words_in(self.scopes)),
            roles=(steps(self.roles_claim), demand(roles)) if self.roles else None,
        )

    def _habits(self, env: Env) -> Habits:
        dpop = self.dpop
        proofs, bearer = ((), True) if dpop is None else (several(dpop.algorithms), not dpop.required)
        refusals = Refusals(self.realm, words_in(self.scopes), proofs, bearer=bearer)
        return Habits(
            find=finder(texts_in(self.token_from), refusals.ambiguous, dpop=dpop is not None),
            refusals=refusals,
            optional=self.optional,
            longest=self.max_token_bytes,
            room=self.max_remembered,
            remember_for=self.remember_for,
            remember_refused_for=self.remember_refused_for,
            possession=None if dpop is None else Possession(ProofCheck(dpop, env.clock), required=dpop.required),
        )

    def _endpoint(self, env: Env) -> Endpoint:
        from apim_middleware._jose.trust import callouts

        transport = callouts(env, anywhere=self.allow_private or is_here(self.url))
        return Endpoint(self.url, transport, self._authenticate(env), seconds=self.timeout, at_once=self.at_once)

    def _authenticate(self, env: Env) -> Authenticate:
        if self.client_key is not None:
            return assertion(self.client_id, self.client_audience or self.url, env.clock, self._sign())
        made = basic if self.client_auth == "basic" else post
        return made(self.client_id, self.client_secret or "")
