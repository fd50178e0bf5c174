"""Subscription keys, in a header, in the query or in a cookie, as Azure API Management takes them."""

import hmac
import inspect
import logging
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from apim_middleware._http import cookies, queries
from apim_middleware._http.challenges import is_quotable
from apim_middleware._http.headers import is_token
from apim_middleware._http.hops import carries
from apim_middleware._jose.places import bearer
from apim_middleware._telemetry.masking import withhold
from apim_middleware._unseen_reads import check_read
from apim_middleware.documentation import Answer, Documentation, Scheme, api_key, challenged
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Subscription
from apim_middleware.policy import Policy, stated
from apim_middleware.stores.following import Unanswered
from apim_middleware.stores.key_text import is_prefix, misfit
from apim_middleware.stores.keys import KeyRecord, KeyStore, key_digest
from apim_middleware.stores.outage import Outage

log = logging.getLogger("apim_middleware.api_key")

_LONGEST_KEY = 256
_REMEMBERED = 1024
"""Of how many good keys digest and record are remembered, for they come often and hashing and comparing are most of the
work; and how many unknown ones are."""

_STATES = ("suspended", "expired", "cancelled", "submitted", "rejected")
"""What a subscription may be instead of active."""

_BEARER = Scheme("APIKeyAuth-bearer", {"type": "http", "scheme": "bearer"})

_NOBODYS = KeyRecord(digest=secrets.token_bytes(32), subscription=Subscription(id=""), state="rejected")
"""Stands for a key nobody has, so that it takes the same way as one that is wrong."""


@dataclass(frozen=True, kw_only=True)
class APIKeyAuth(Policy):
    """Let in who has the key of an active subscription.

    The subscription becomes ``exchange.subscription``, and where no token has named a caller also the principal: its
    subject is the subscription's id, its issuer ``urn:apim-middleware:subscription``. The key is taken out of the
    request, the rest of which stays byte for byte. Where a subscription that was refused stands is told as the
    attribute ``apim.subscription.state``.

    Refusals: 401 ``subscription-key-missing`` and ``subscription-key-invalid`` with an ``AzureApiManagementKey``
    challenge, the same for a key nobody has and for the key of a subscription that is not active (for which
    ``tell_state`` has a 403 of its own); 503 ``key-store-unavailable`` when the store cannot answer.
    """

    provides = frozenset({"subscription", "principal"})
    guards = True

    keys: KeyStore = field(repr=False)
    """Where keys are looked up, by their digests: a ``MemoryKeys``, or anything with its ``find``, async or not."""

    header: str | None = "Ocp-Apim-Subscription-Key"
    """The header the key comes in; None to look for none."""

    query: str | None = "subscription-key"
    """The query parameter the key may come in instead; None to look for none.

    A key that comes in several places must be the same in all of them.
    """

    cookie: str | None = None
    """The cookie the key may come in instead; None, as by default, to look for none.

    Browsers send cookies along with requests that other sites make them send: set it with ``SameSite``.
    """

    bearer: bool = False
    """Whether the key may come as a bearer token instead, ``Authorization: Bearer KEY``, as many SDKs send theirs.

    Without a ``prefix`` every such token is taken for a key; with one, those that begin otherwise are left where they
    are.
    """

    prefix: str | tuple[str, ...] = ()
    """What the keys begin with, when all of them come from ``new_key``: then no other text is looked up.

    Without, every text is, but for those that begin with ``apim_`` and whose checksum is wrong.
    """

    forward_key: bool = False
    """Whether the key goes on to the app or the upstream, as in Azure; one that goes no further cannot leak there."""

    optional: bool = False
    """Whether a request without any key goes on, without a subscription; one with a bad key never does."""

    tell_state: bool = False
    """Whether who has a key is told why it does not work: 403 ``subscription-suspended``, ``-expired``,
    ``-cancelled``, ``-submitted`` or ``-rejected``. Else, as in Azure, it is 401 like any other key."""

    unknown_for: float = 2.0
    """Seconds for which a key is remembered that an async store does not know, 1024 at most; 0 for not at all."""

    realm: str = "api"
    """The ``realm`` of the challenge."""

    @stated
    def documentation(self) -> Documentation:
        """The key, in any of its places."""
        places = (("header", self.header), ("query", self.query), ("cookie", self.cookie))
        ways = tuple((api_key(f"APIKeyAuth-{place}", place, name),) for place, name in places if name is not None)
        if self.bearer:
            ways += ((_BEARER,),)
        missing = () if self.optional else ("subscription-key-missing",)
        states = tuple(f"subscription-{each}" for each in _STATES) if self.tell_state else ()
        told = (Answer(403, states),) if states else ()
        down = Answer(503, ("key-store-unavailable",))
        answers = (challenged(401, *missing, "subscription-key-invalid"), *told, down)
        found = Documentation(security=ways, answers=answers)
        return found.optional() if self.optional else found

    def __post_init__(self) -> None:
        """Names must be able to stand in a request, and in the challenge."""
        if isinstance(self.keys, str | bytes):  # which have a find of their own
            raise self.mistake("keys", "is no store of keys", "Write keys=MemoryKeys() and add subscriptions to it")
        if self.header is None and self.query is None and self.cookie is None and not self.bearer:
            raise self.mistake("header", "and query and cookie are all None", "Name at least one place for the key")
        if self.header is not None and self.header.lower() == "authorization":
            raise self.mistake("header", "holds a scheme before what it says", "Leave it out, and write bearer=True")
        if self.header is not None and not is_token(self.header.encode("latin-1", "replace")):
            raise self.mistake("header", "is no header name", 'Write header="x-api-key"')
        if self.header is not None and not carries(self.header.lower().encode()):
            raise self.mistake("header", "says something else of every request", 'Write header="x-api-key"')
        if self.query is not None and not is_quotable(self.query):
            raise self.mistake("query", "is no name for a parameter", 'Write query="api-key"')
        if self.cookie is not None and not is_token(self.cookie.encode("latin-1", "replace")):
            raise self.mistake("cookie", "is no name for a cookie", 'Write cookie="api-key"')
        if not all(map(is_prefix, self._prefixes())):
            raise self.mistake("prefix", "cannot begin a key", 'Write one such as "acme_live"')
        if self.header is not None:
            withhold("header", self.header)
        if self.query is not None:
            withhold("query", self.query)
        if not 0 <= self.unknown_for < math.inf:
            raise self.mistake("unknown_for", "is no time", "Give seconds, 0 or more")
        if not is_quotable(self.realm):
            raise self.mistake(
                "realm", "cannot stand in a challenge", "Use printable ASCII without quotes and backslashes"
            )

    def _prefixes(self) -> tuple[str, ...]:
        return (self.prefix,) if isinstance(self.prefix, str) else self.prefix

    def bind(self, env: Env) -> "_SyncGate | _AsyncGate":
        """The gate: plain where the store is, async where it may have to wait."""
        if self.header is not None:
            check_read(self, "header", self.header, env)
        gate = _AsyncGate if inspect.iscoroutinefunction(self.keys.find) else _SyncGate
        return gate(self, env, misfit(self._prefixes()))


class _Gate:
    """Takes the key out, and lets in the subscription it belongs to."""

    def __init__(self, policy: APIKeyAuth, env: Env, misfit: Callable[[bytes], bool]) -> None:
        self._lookup: Any = policy.keys.find
        self._misfit = misfit
        self._now = env.clock.now
        self._header = (policy.header or "").lower().encode()
        self._in_header: Callable[[Exchange, bytes], list[bytes]] = _nothing
        if policy.header is not None:
            self._in_header = Exchange.headers if policy.forward_key else Exchange.take_header
        self._query = policy.query
        self._cookie = None if policy.cookie is None else policy.cookie.encode()
        self._bearer = policy.bearer
        self._begins = tuple(f"{prefix}_".encode() for prefix in policy._prefixes()) or b""
        self._forward = policy.forward_key
        self._optional = policy.optional
        self._tells = policy.tell_state
        self._challenge = {"www-authenticate": _challenge(policy)}
        self._good: dict[bytes, tuple[bytes, KeyRecord | None]] = {}
        self._outage = Outage(log, "the key store cannot answer", "the key store answers again")

    def _key(self, exchange: Exchange) -> bytes | None:
        """The one key that came, if any did; it is taken out of the request."""
        found = self._in_header(exchange, self._header)
        if self._query is not None and exchange.scope.get("query_string"):
            found += self._in_query(exchange, self._query)
        if self._cookie is not None:
            found += self._in_cookie(exchange, self._cookie)
        if self._bearer:
            found += self._in_authorization(exchange)
        if not found:
            if self._optional:
                return None
            raise self._missing()
        if len(found) > 1 and found.count(found[0]) < len(found):
            raise self.invalid()
        return found[0]

    def _in_query(self, exchange: Exchange, name: str) -> list[bytes]:
        query = exchange.scope["query_string"]
        found = queries.values(query, name)
        if found and not self._forward:
            exchange.scope["query_string"] = queries.remove(query, name)
        return [key.encode() for key in found]

    def _in_cookie(self, exchange: Exchange, name: bytes) -> list[bytes]:
        found = cookies.values(exchange.scope["headers"], name)
        if found and not self._forward:
            exchange.scope["headers"] = cookies.remove(exchange.scope["headers"], name)
        return found

    def _in_authorization(self, exchange: Exchange) -> list[bytes]:
        """The bearer token, if it is meant for a key, be it misspelt; one that begins otherwise is somebody else's."""
        key = bearer(exchange)
        if not key or not key.startswith(self._begins):
            return []
        if not self._forward:
            exchange.take_header(b"authorization")
        return [key]

    def _digest(self, key: bytes) -> bytes:
        """The digest of a key that is not remembered; Refusal for what cannot be one."""
        if len(key) > _LONGEST_KEY or self._misfit(key):
            raise self.invalid()
        return key_digest(key)

    def _checked(self, exchange: Exchange, key: bytes, digest: bytes, record: object) -> KeyRecord:
        """The record of a key that works; a store that compares less than the whole digest is not believed."""
        record = _NOBODYS if record is None else record
        if not isinstance(record, KeyRecord):
            raise TypeError("a key store gave back what is no KeyRecord")
        right = hmac.compare_digest(record.digest, digest)
        if not (right & record.lasting):
            self._judge(exchange, record, right)
        if len(self._good) >= _REMEMBERED and key not in self._good:  # good keys only: nobody can fill this with others
            self._good.clear()
        self._good[key] = digest, record if record.lasting else None
        return record

    def _judge(self, exchange: Exchange, record: KeyRecord, right: bool) -> None:
        """What needs a second look: a wrong key, one that works for a time, one that does not work."""
        state = record.state_at(self._now())
        if right:
            if state == "active":
                return
            exchange.attributes["apim.subscription.state"] = state or "replaced"
            if self._tells and state is not None:
                raise Refusal(403, f"subscription-{state}", f"The subscription of this key is {state}.")
        raise self.invalid()

    def _missing(self) -> Refusal:
        return Refusal(401, "subscription-key-missing", "A subscription key is required.", headers=self._challenge)

    def invalid(self) -> Refusal:
        """What one gets whose key opens nothing."""
        detail = "The subscription key is not that of an active subscription."
        return Refusal(401, "subscription-key-invalid", detail, headers=self._challenge)

    def _unavailable(self, error: StoreError) -> Refusal:
        if not isinstance(error, Unanswered):  # which its store tells of, and others may find their keys meanwhile
            self._outage.begins(error)
        return Refusal(503, "key-store-unavailable", "Subscription keys cannot be checked at the moment.")


class _SyncGate(_Gate):
    def on_request(self, exchange: Exchange) -> None:
        key = self._key(exchange)
        if key is None:
            return
        digest, good = self._good.get(key) or (self._digest(key), None)
        try:
            record = self._lookup(digest)
        except StoreError as error:
            raise self._unavailable(error) from error
        if self._outage.lasting:
            self._outage.ends()
        if good is None or record is not good:  # records never change: this one is as good as when it was checked
            record = self._checked(exchange, key, digest, record)
        _admit(exchange, record)


class _AsyncGate(_Gate):
    def __init__(self, policy: APIKeyAuth, env: Env, misfit: Callable[[bytes], bool]) -> None:
        super().__init__(policy, env, misfit)
        self._unknown = _Unknown(policy.unknown_for, env)

    async def on_request(self, exchange: Exchange) -> None:
        key = self._key(exchange)
        if key is not None:
            digest, _ = self._good.get(key) or (self._digest(key), None)
            _admit(exchange, self._checked(exchange, key, digest, await self._found(digest)))

    async def _found(self, digest: bytes) -> object:
        if digest in self._unknown:
            return None
        try:
            record: object = await self._lookup(digest)
        except StoreError as error:
            raise self._unavailable(error) from error
        self._outage.ends()
        if record is None:
            self._unknown.add(digest)
        return record


class _Unknown:
    """Digests a store did not know, for a moment; the oldest makes room."""

    def __init__(self, life: float, env: Env) -> None:
        self._life, self._now = life, env.clock.monotonic
        self._until: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, digest: bytes) -> bool:
        until = self._until.get(digest)
        if until is None:
            return False
        if until > self._now():
            return True
        del self._until[digest]
        return False

    def add(self, digest: bytes) -> None:
        if not self._life:
            return
        if len(self._until) >= _REMEMBERED:
            del self._until[next(iter(self._until))]
        self._until[digest] = self._now() + self._life


def _admit(exchange: Exchange, record: KeyRecord) -> None:
    shared = exchange.shared
    shared.subscription = record.subscription
    if shared.principal is None:
        exchange.principal = record.principal


def _nothing(exchange: Exchange, name: bytes) -> list[bytes]:
    """What is found where nobody looks."""
    return []


def _challenge(policy: APIKeyAuth) -> str:
    """What to bring, and where: the first place that is looked at, and the token that does as well."""
    places = {"header": policy.header, "query": policy.query, "cookie": policy.cookie}
    named = [(kind, name) for kind, name in places.items() if name is not None]
    ways = [f'AzureApiManagementKey realm="{policy.realm}",name="{name}",type="{kind}"' for kind, name in named[:1]]
    return ", ".join([*ways, f'Bearer realm="{policy.realm}"'] if policy.bearer else ways)
