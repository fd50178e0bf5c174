"""Tokens from an authorization server: for ourselves (RFC 6749 §4.4), or in exchange for the caller's (RFC 8693)."""

import base64
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias
from urllib.parse import quote_plus, urlencode

from cachetools import LRUCache

from apim_middleware._config import Configured
from apim_middleware._jose.places import TOKEN
from apim_middleware._jose.urls import Allowance, fault_of, mistake_of
from apim_middleware.credentials.asking import Said, Service
from apim_middleware.credentials.credential import Showing, Shown, bearer
from apim_middleware.credentials.renewing import Fetch, Fetched, Renewing, Unavailable
from apim_middleware.credentials.secret import Reader, Secret, reader_of
from apim_middleware.env import Env
from apim_middleware.errors import StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.transports.default import DefaultTransport
from apim_middleware.types import RawHeaders

Form: TypeAlias = list[tuple[str, str]]

LIFE = 300.0
"""Seconds a token is taken to be good for when the answer does not say (RFC 6749 §5.1)."""

_LEEWAY = 5.0
_OURS = "urn:apim-middleware:"
"""What the issuers of those begin with who came by a subscription key or a password."""

_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_DENIALS = frozenset({"invalid_grant", "invalid_request", "invalid_target", "interaction_required", "access_denied"})
"""What an authorization server says when it does not like the caller's token, or what is asked for with it."""


@dataclass(frozen=True, kw_only=True)
class _Client(Configured):
    """A client of an authorization server: what ``ClientCredentials`` and ``TokenExchange`` have in common."""

    token_url: str
    """The token endpoint. It must be https, unless it is on this machine or ``allow_http`` says otherwise."""

    client_id: str
    """What this gateway is called there."""

    client_secret: str | Secret | None = field(default=None, repr=False)
    """The secret that was agreed on; give this or ``assertion``."""

    assertion: Secret | None = field(default=None, repr=False)
    """A signed assertion in the place of a secret (RFC 7523 §2.2), such as the file of a workload identity."""

    auth: Literal["basic", "post"] = "basic"
    """How the secret is sent: as Basic credentials, both parts form-encoded first (RFC 6749 §2.3.1), or in the form.

    Some servers forget to decode the parts: give those a secret in the form if it holds more than letters and digits.
    """

    scope: str | tuple[str, ...] = ()
    """The scopes to ask for; several in one string are separated by spaces."""

    audience: str | tuple[str, ...] = ()
    """Whom the token is for, by name, where the server wants to know it so (RFC 8693 §2.1)."""

    resource: str | tuple[str, ...] = ()
    """Whom the token is for, by URI (RFC 8707)."""

    parameters: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    """What else the server wants in the form."""

    ahead: float = 180.0
    """Seconds before its end from which on a token is renewed, in the background; half its life where that is less."""

    timeout: float = 10.0
    """Seconds for one question to the server, altogether."""

    allow_http: bool = False
    """Whether the server may be asked without TLS, so that everybody on the way learns the secret."""

    def __post_init__(self) -> None:
        """There must be one server to ask, and one way to say who asks."""
        fault = fault_of(self.token_url, Allowance(http=self.allow_http, private=True))
        if fault is not None:
            raise mistake_of(self, "token_url", fault)
        if (self.client_secret is None) == (self.assertion is None):
            raise self.mistake("client_secret", "is given or missing beside an assertion", "Give one of the two")
        if self.client_secret == "" or not self.client_id:
            name = "client_id" if not self.client_id else "client_secret"
            raise self.mistake(name, "is empty", "Give what the authorization server gave you")
        for name in ("ahead", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise self.mistake(name, "is no time", "Give seconds above 0")

    def _form(self) -> Form:
        """What every form says."""
        scope = self.scope if isinstance(self.scope, str) else " ".join(self.scope)
        form = [("scope", scope)] if scope else []
        for name, given in (("audience", self.audience), ("resource", self.resource)):
            form += [(name, each) for each in ((given,) if isinstance(given, str) else given) if each]
        return [*form, *self.parameters.items()]


@dataclass(frozen=True, kw_only=True)
class ClientCredentials(_Client):
    """A token of this gateway's own, by the client credentials grant (RFC 6749 §4.4).

    It is asked for when the first request needs it, once for all that wait, kept for as long as the server says, and
    renewed in the background ahead of its end. One that the upstream refuses with 401 is dropped. What Azure's
    ``get-authorization-context`` does for such connections.
    """

    def showing(self, env: Env) -> Showing:
        """What keeps the token."""
        endpoint = Endpoint(self, env)
        form = [("grant_type", "client_credentials"), *self._form()]
        held = tokens(f"a token from {endpoint.origin}", lambda: endpoint.token(form), env)

        async def show(exchange: Exchange) -> Shown:
            return await held.current()

        return show


def callers_token(exchange: Exchange) -> str | None:
    """The token an authenticator of ours let the caller in by; where one of yours did, that in ``Authorization``."""
    seen: bytes | None = exchange.scope.get(TOKEN)
    if seen is not None:
        return seen.decode("latin-1")
    value = exchange.header(b"authorization") or b""
    scheme, _, token = value.partition(b" ")
    return token.strip(b" ").decode("latin-1") or None if scheme.lower() in (b"bearer", b"dpop") else None


@dataclass(frozen=True, kw_only=True)
class TokenExchange(_Client):
    """A token for the upstream in exchange for the caller's, so that it acts on behalf of the caller (RFC 8693).

    An authenticator of tokens must stand in front; a caller known by a key or a password has none that anybody has
    looked at. What comes in exchange is kept for each caller, by a digest
    of their token, until the server's time for it is over; one that the upstream refuses with 401 is dropped. A caller
    whose token is not exchanged is refused with 403 ``token-not-exchanged``.
    """

    grant: Literal["token-exchange", "jwt-bearer"] = "token-exchange"
    """How it is asked for: by RFC 8693, or as Microsoft Entra's on-behalf-of (a ``jwt-bearer`` grant, RFC 7523)."""

    subject: Callable[[Exchange], str | None] = callers_token
    """Where the caller's token is found. Default: the one ``JWTAuth`` or ``OAuth2Introspection`` let the caller in by,
    wherever it was; behind an authenticator of your own, the one in ``Authorization``."""

    subject_token_type: str = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - names a kind of token
    """What kind of token the caller's is (RFC 8693 §3)."""

    max_remembered: int = 1024
    """Of how many callers tokens are kept; the one that was not needed for longest makes room."""

    needs: ClassVar[frozenset[str]] = frozenset({"principal"})
    """Nobody's token is exchanged before an authenticator has looked at it."""

    def __post_init__(self) -> None:
        """There must be room for somebody."""
        super().__post_init__()
        if self.max_remembered < 1:
            raise self.mistake("max_remembered", "keeps nobody's token", "Give at least 1")

    def showing(self, env: Env) -> Showing:
        """What keeps the tokens."""
        return _Exchanged(self, env).show

    def asked(self, token: str) -> Form:
        """The form that asks for a token in exchange for one."""
        if self.grant == "jwt-bearer":
            grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
            form = [("grant_type", grant), ("assertion", token), ("requested_token_use", "on_behalf_of")]
        else:
            grant = "urn:ietf:params:oauth:grant-type:token-exchange"
            form = [("grant_type", grant), ("subject_token", token), ("subject_token_type", self.subject_token_type)]
        return [*form, *self._form()]


class _Exchanged:
    """What came in exchange for the tokens of callers, by digests of theirs."""

    def __init__(self, policy: TokenExchange, env: Env) -> None:
        self._policy, self._env = policy, env
        self._endpoint = Endpoint(policy, env)
        self._held: LRUCache[bytes, Renewing[Shown]] = LRUCache(policy.max_remembered)

    async def show(self, exchange: Exchange) -> Shown:
        token, caller = self._policy.subject(exchange), exchange.principal
        if token is None or caller is None:
            raise Unavailable("the caller brought no token to exchange", denied=True)
        if caller.issuer.startswith(_OURS):  # who came by a key may show a token nobody has looked at
            raise Unavailable("the caller is not known by a token", denied=True)
        held = self._of(token)

        async def fetch() -> Fetched[Shown]:
            got = await self._endpoint.token(self._policy.asked(token))
            return _presented(held, got._replace(fresh=math.inf))  # to renew it, the caller's token must be here again

        return await held.current(fetch)

    def _of(self, token: str) -> Renewing[Shown]:
        """What is kept for the caller of a token: a digest of it, and not the token."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        held = self._held.get(digest)
        if held is None:
            held = Renewing(f"a token in exchange from {self._endpoint.origin}", self._env.clock)
            self._held[digest] = held
        return held


def tokens(what: str, fetch: Fetch[str], env: Env) -> Renewing[Shown]:
    """Bearer tokens that are fetched and renewed so, and dropped when an upstream does not like them."""

    async def shown() -> Fetched[Shown]:
        return _presented(held, await fetch())

    held: Renewing[Shown] = Renewing(what, env.clock, shown)
    return held


def _presented(held: Renewing[Shown], got: Fetched[str]) -> Fetched[Shown]:
    shown = Shown(bearer(got.value), lambda: held.drop(shown))
    return Fetched(shown, got.fresh, got.good)


def lasting(token: str, seconds: float | None, ahead: float) -> Fetched[str]:
    """A token that is good for so many seconds, as long as it is fresh and as long as it is used at all."""
    life = LIFE if seconds is None else seconds
    return Fetched(token, life - min(ahead, life / 2), life - min(_LEEWAY, life / 10))


class Endpoint:
    """A token endpoint, and who asks there."""

    def __init__(self, client: _Client, env: Env) -> None:
        transport = env.callouts(DefaultTransport, public=False)
        self._service = Service(client.token_url, transport, client.timeout)
        self._client = client
        self._secret: Reader = reader_of(client.client_secret or client.assertion or "", env)

    @property
    def origin(self) -> str:
        """Where it is."""
        return self._service.origin

    async def token(self, form: Form) -> Fetched[str]:
        """The token the server gives for a form. Raises Unavailable."""
        headers, proof = await self._proof()
        said = await self._service.ask(headers, urlencode([*form, *proof]).encode())
        if said.status != 200:
            raise _refused(said, self.origin)
        if said.text("token_type").lower() != "bearer":
            raise Unavailable(f"{self.origin} gave a token of another type than Bearer")
        return lasting(said.text("access_token"), said.number("expires_in"), self._client.ahead)

    async def _proof(self) -> tuple[RawHeaders, Form]:
        """What shows who asks: a header line, or more of the form."""
        client = self._client
        try:
            secret = await self._secret()
        except StoreError as error:
            raise Unavailable(str(error)) from None
        if client.assertion is not None:
            kind = ("client_assertion_type", _JWT_BEARER)
            return [], [("client_id", client.client_id), kind, ("client_assertion", secret)]
        if client.auth == "post":
            return [], [("client_id", client.client_id), ("client_secret", secret)]
        pair = f"{quote_plus(client.client_id)}:{quote_plus(secret)}".encode()
        return [(b"authorization", b"Basic " + base64.b64encode(pair))], []


def _refused(said: Said, origin: str) -> Unavailable:
    """Why there is no token, in the server's own code for it and none of its words (RFC 6749 §5.2)."""
    code = said.content.get("error")
    known = isinstance(code, str) and len(code) <= 40 and code.replace("_", "").isalpha() and code.isascii()
    reason = f"{origin} answered {said.status}" + (f" {code}" if known else "")
    return Unavailable(reason, denied=known and said.status == 400 and code in _DENIALS)
