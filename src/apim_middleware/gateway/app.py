"""The gateway: APIs, products and policies as one value, which is an ASGI app."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from apim_middleware._config import Configured
from apim_middleware._lifespan import ending_with
from apim_middleware._server import look_at_server
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.gateway import _lifespan
from apim_middleware.gateway._compiled import Compiled, Row
from apim_middleware.gateway._places import DEFAULT_NAME
from apim_middleware.gateway.subscribing import subscribe
from apim_middleware.model import Api, Product, User, check_name, check_unique
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.stores.keys import KeyStore, NewSubscription, SubscriptionStore
from apim_middleware.types import Layer, Receive, Scope, Send


@dataclass(frozen=True, kw_only=True)
class Gateway(Configured):
    """APIs behind one door: each request is matched once, identified once, and takes one flat stack of policies.

    Policies nest as in Azure: those of the gateway stand outside those of the product, these outside those of the API,
    of its version and of the operation, unless a narrower scope says ``inherit=False``. A policy counts once in its
    scope, whichever way requests come to it; equal policies of two scopes count apart.

    A subscription key, in the header or else in the query, says in which product's context a call is made; policies of
    a product stand in front of such calls only, and in front of those without a key where it is an open product.
    Requests that match nothing, or may not call, pass the policies of the gateway and get their refusal from behind
    them. It is compiled when it is made, so that mistakes are a ConfigError there and then.

    Refusals: 404 ``operation-not-found`` (also for a method nobody has, as Azure does), ``api-version-missing`` and
    ``api-version-unknown``; 400 ``api-version-ambiguous``, and ``operation-ambiguous`` for a query that has a parameter
    twice by whose value operations are told apart; 405 ``method-not-allowed`` where that is asked for; 410
    ``version-retired``; those of ``APIKeyAuth`` and of ``Hygiene``.
    """

    apis: tuple[Api, ...]
    """What callers can call."""

    products: tuple[Product, ...] = ()
    """What they can subscribe to."""

    policies: tuple[Layer, ...] = ()
    """In front of everything, also of what matches nothing."""

    keys: KeyStore | APIKeyAuth | None = field(default=None, repr=False)
    """Where subscription keys are looked up; an ``APIKeyAuth`` says besides how they come."""

    unknown_method: Literal[404, 405] = 404
    """The answer for a path that has other methods only: 404 as in Azure, or 405 with ``Allow`` (RFC 9110 §15.5.6)."""

    errors: Literal["problem", "azure"] = "problem"
    """How refusals are written: as problem+json (RFC 9457), or as ``{"statusCode": ..., "message": ...}``."""

    name: str = DEFAULT_NAME
    """Its place within that of ``env``, where policies count and store: gateways that share stores need different ones.

    Compulsory where a store of ``env`` is one that others see and ``env`` has no place.
    """

    env: Env | None = field(default=None, repr=False)
    """Clock, stores and transport; one of its own by default."""

    def __post_init__(self) -> None:
        """Names are unique, and all of it can be compiled."""
        check_name(self)
        if isinstance(self.keys, str | bytes):  # which have a find of their own
            raise self.mistake("keys", "is no store of keys", "Write keys=MemoryKeys() and add subscriptions to it")
        check_unique(self, "apis", [api.name for api in self.apis])
        check_unique(self, "products", [product.name for product in self.products])
        if not self.apis:
            raise ConfigError("Gateway", "apis", "holds none", 'Write apis=(Api("orders", "/orders", backend=...),)')
        self.__dict__["compiled"] = Compiled(self, self.env or Env())

    @property
    def authenticator(self) -> APIKeyAuth | None:
        """How keys come and where they are looked up, if there are any."""
        if self.keys is None or isinstance(self.keys, APIKeyAuth):
            return self.keys
        return APIKeyAuth(keys=self.keys)

    @property
    def compiled(self) -> Compiled:
        """What serves."""
        compiled: Compiled = self.__dict__["compiled"]
        return compiled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope; the lifespan is that of all backends together."""
        kind = scope["type"]
        if kind == "http" or kind == "websocket":
            await self.compiled.serve(scope, receive, send)
        elif kind == "lifespan":
            look_at_server(scope, receive)
            await _lifespan.serve(self.compiled.backends.every(), receive, ending_with(send, [self.compiled.ending]))
        else:
            raise RuntimeError(f"a gateway knows no {kind} scope")

    def rows(self, product: str | None = None) -> Iterator[Row]:
        """What stands in front of each operation, in the context of each product and of none; see ``Row``.

        It is read from the very plan that requests take. ``product`` picks one context, ``""`` that of none.
        """
        return self.compiled.rows(product)

    async def subscribe(
        self, product: str, *, owner: str | User, subscription_id: str = "", expires: float | None = None
    ) -> NewSubscription:
        """Begin a subscription to a product for somebody who asks for it, and give back its two keys, this once.

        It begins ``submitted`` where the product has ``approval_required``: its keys work once ``keys.approve`` was
        called. ``subscription_id`` is one at random by default; ``expires`` is in seconds since 1970-01-01 UTC.

        SubscriptionRefused for a product that is unknown or not published, for an owner who is blocked, in none of its
        groups, or has ``subscriptions_limit`` subscriptions for it. Nothing of this holds for ``keys.add``, which is
        for administrators. ConfigError unless ``keys`` are ``MemoryKeys``, ``RecordKeys`` or others that can ``begin``.
        """
        authenticator = self.authenticator
        keys = None if authenticator is None else authenticator.keys
        if not isinstance(keys, SubscriptionStore):
            raise self.mistake("keys", "cannot begin subscriptions", "Give MemoryKeys or RecordKeys")
        return await subscribe(
            self.products, keys, product, owner=owner, subscription_id=subscription_id, expires=expires
        )
