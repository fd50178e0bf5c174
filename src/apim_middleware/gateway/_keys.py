"""Subscription keys at the door of a gateway, before the first policy: they say in which context a call is made."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies.api_key import APIKeyAuth


class Opening(Protocol):
    """What an API says of who may call it."""

    admits_strangers: bool
    strangers: str

    def opened_by(self, subscription: Subscription) -> str | None:
        """The context in which a subscription opens it."""
        ...


class Gate:
    """Takes the key out of a request, and says in the context of which product it may call."""

    __slots__ = ("_ask", "_invalid", "awaits")

    def __init__(self, auth: APIKeyAuth, env: Env, *, strangers: bool) -> None:
        """``strangers`` says whether calls without a key are let in, too."""
        bound = env.bind(replace(auth, optional=strangers))
        self._ask: Callable[[Exchange], Any] = bound.on_request
        self.awaits = inspect.iscoroutinefunction(bound.on_request)
        self._invalid: Callable[[], Refusal] = bound.invalid

    def context(self, exchange: Exchange, api: Opening) -> str:
        """The product in whose context this call is made, or ``""``. Raises Refusal.

        Where strangers are let in, a key that does not open the API is as good as none.
        """
        principal = exchange.shared.principal
        try:
            self._ask(exchange)
        except Refusal as refusal:
            return self._without(refusal, api)
        return self._with(exchange, api, principal)

    async def context_later(self, exchange: Exchange, api: Opening) -> str:
        """As ``context`` says, where the store of keys has to be waited for. Raises Refusal."""
        principal = exchange.shared.principal
        try:
            await self._ask(exchange)
        except Refusal as refusal:
            return self._without(refusal, api)
        return self._with(exchange, api, principal)

    def _without(self, refusal: Refusal, api: Opening) -> str:
        """Whether a bad key can be left out: not where the store is away, for it might bring stricter policies."""
        if refusal.status >= 500 or not api.admits_strangers:
            raise refusal
        return api.strangers

    def _with(self, exchange: Exchange, api: Opening, principal: Principal | None) -> str:
        """The context of what came with the request; a subscription that does not open the API is forgotten."""
        shared = exchange.shared
        if shared.subscription is None:
            return api.strangers
        if (context := api.opened_by(shared.subscription)) is not None:
            shared.guards += 1
            return context
        if not api.admits_strangers:
            raise self._invalid()
        shared.subscription = None
        if principal is None and shared.principal is not None:
            shared.principal = None
            exchange.scope.pop("user", None)
            exchange.scope.pop("auth", None)
        return api.strangers
