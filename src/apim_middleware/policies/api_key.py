"""Subscription keys, in a header or in the query, as Azure API Management takes them."""

import hmac
import inspect
import logging
import re
from dataclasses import dataclass, field
from typing import Any

from apim_middleware._http import queries
from apim_middleware._http.headers import is_token
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy
from apim_middleware.stores.keys import KeyRecord, KeyStore, key_digest

log = logging.getLogger("apim_middleware.api_key")

_QUOTABLE = re.compile(r"[ !#-\[\]-~]+")
_LONGEST_KEY = 256
_REMEMBERED = 1024
"""Of how many keys the digest is remembered: a good one comes often, and hashing it is half of the work."""


@dataclass(frozen=True, kw_only=True)
class APIKeyAuth(Policy):
    """Let in who has the key of an active subscription.

    The subscription becomes ``exchange.subscription``, and where no token has named a caller also the principal: its
    subject is the subscription's id, its issuer ``urn:apim-middleware:subscription``. The key is taken out of the
    request, the rest of which stays byte for byte.

    Refusals: 401 ``subscription-key-missing`` and ``subscription-key-invalid`` with an ``AzureApiManagementKey``
    challenge, the same for a key nobody has and for the key of a subscription at rest; 503 ``key-store-unavailable``
    when the store cannot answer.
    """

    provides = frozenset({"subscription", "principal"})
    guards = True

    keys: KeyStore = field(repr=False)
    """Where keys are looked up, by their digests: a ``MemoryKeys``, or anything with its ``find``, async or not."""

    header: str | None = "Ocp-Apim-Subscription-Key"
    """The header the key comes in; None to look for none."""

    query: str | None = "subscription-key"
    """The query parameter the key may come in instead; None to look for none.

    A key that comes in both must be the same in both.
    """

    forward_key: bool = False
    """Whether the key goes on to the app or the upstream, as in Azure; one that goes no further cannot leak there."""

    optional: bool = False
    """Whether a request without any key goes on, without a subscription; one with a bad key never does."""

    realm: str = "api"
    """The ``realm`` of the challenge."""

    def __post_init__(self) -> None:
        """Names must be able to stand in a request, and in the challenge."""
        if isinstance(self.keys, str | bytes):  # which have a find of their own
            raise self.mistake("keys", "is no store of keys", "Write keys=MemoryKeys() and add subscriptions to it")
        if self.header is None and self.query is None:
            raise self.mistake("header", "and query are both None", "Name at least one place for the key")
        if self.header is not None and not is_token(self.header.encode("latin-1", "replace")):
            raise self.mistake("header", "is no header name", 'Write header="x-api-key"')
        if self.query is not None and not _QUOTABLE.fullmatch(self.query):
            raise self.mistake("query", "is no name for a parameter", 'Write query="api-key"')
        if not _QUOTABLE.fullmatch(self.realm):
            raise self.mistake(
                "realm", "cannot stand in a challenge", "Use printable ASCII without quotes and backslashes"
            )

    def bind(self, env: Env) -> "_SyncGate | _AsyncGate":
        """The gate: plain where the store is, async where it may have to wait."""
        return _AsyncGate(self) if inspect.iscoroutinefunction(self.keys.find) else _SyncGate(self)


class _Gate:
    """Takes the key out, and lets in the subscription it belongs to."""

    def __init__(self, policy: APIKeyAuth) -> None:
        self._lookup: Any = policy.keys.find
        self._header = None if policy.header is None else policy.header.lower().encode()
        self._query = policy.query
        self._forward = policy.forward_key
        self._optional = policy.optional
        kind, name = ("query", policy.query) if policy.header is None else ("header", policy.header)
        challenge = f'AzureApiManagementKey realm="{policy.realm}",name="{name}",type="{kind}"'
        self._challenge = {"www-authenticate": challenge}
        self._digests: dict[bytes, bytes] = {}

    def _key(self, exchange: Exchange) -> bytes | None:
        """The one key that came, if any did; it is taken out of the request."""
        if self._header is None:
            found = []
        else:
            found = exchange.headers(self._header) if self._forward else exchange.take_header(self._header)
        if self._query is not None and exchange.scope.get("query_string"):
            found += self._in_query(exchange, self._query)
        if not found:
            if self._optional:
                return None
            detail = "A subscription key is required."
            raise Refusal(401, "subscription-key-missing", detail, headers=self._challenge)
        if len(found[0]) > _LONGEST_KEY or (len(found) > 1 and found.count(found[0]) < len(found)):
            raise self._invalid()
        return found[0]

    def _in_query(self, exchange: Exchange, name: str) -> list[bytes]:
        query = exchange.scope["query_string"]
        found = queries.values(query, name)
        if found and not self._forward:
            exchange.scope["query_string"] = queries.remove(query, name)
        return [key.encode() for key in found]

    def _admit(self, exchange: Exchange, key: bytes, digest: bytes, record: object) -> None:
        """Let the subscription in; a store that compares less than the whole digest is not believed."""
        if record is None:
            raise self._invalid()
        if not isinstance(record, KeyRecord):
            raise TypeError("a key store gave back what is no KeyRecord")
        if not hmac.compare_digest(record.digest, digest) or not record.active:
            raise self._invalid()
        shared = exchange.shared
        shared.subscription = record.subscription
        if shared.principal is None:
            exchange.principal = record.principal
        if key not in self._digests:  # of good keys only: nobody can fill this with others
            if len(self._digests) >= _REMEMBERED:
                self._digests.clear()
            self._digests[key] = digest

    def _invalid(self) -> Refusal:
        detail = "The subscription key is not that of an active subscription."
        return Refusal(401, "subscription-key-invalid", detail, headers=self._challenge)


class _SyncGate(_Gate):
    def on_request(self, exchange: Exchange) -> None:
        key = self._key(exchange)
        if key is not None:
            digest = self._digests.get(key) or key_digest(key)
            try:
                record = self._lookup(digest)
            except StoreError as error:
                raise _unavailable(error) from error
            self._admit(exchange, key, digest, record)


class _AsyncGate(_Gate):
    async def on_request(self, exchange: Exchange) -> None:
        key = self._key(exchange)
        if key is not None:
            digest = self._digests.get(key) or key_digest(key)
            try:
                record = await self._lookup(digest)
            except StoreError as error:
                raise _unavailable(error) from error
            self._admit(exchange, key, digest, record)


def _unavailable(error: StoreError) -> Refusal:
    log.error("the key store cannot answer: %s", ascii(str(error))[:200])
    return Refusal(503, "key-store-unavailable", "Subscription keys cannot be checked at the moment.")
