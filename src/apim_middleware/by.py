"""Keys: whom a limit counts, whom a cached response belongs to.

A key is a function of the exchange that gives text, or None when the exchange has no such thing.
``needs`` names what must be established further out, so that an order that cannot work fails while building.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from apim_middleware._http.addresses import address_text, parse_address
from apim_middleware.exchange import Exchange

Key: TypeAlias = Callable[[Exchange], str | None]


def needs(key: Key) -> frozenset[str]:
    """What a key relies on: ``client``, ``principal``, ``subscription``, or nothing known."""
    found: frozenset[str] = getattr(key, "needs", frozenset())
    return found


def everyone(exchange: Exchange) -> str:
    """One key for all callers together."""
    return "everyone"


def client(exchange: Exchange) -> str | None:
    """The client's address; for IPv6 the /64 it is in, for who has one address of it has them all."""
    address = exchange.client
    return None if address is None else _client_key(address)


@lru_cache(maxsize=4096)
def _client_key(text: str) -> str:
    address = parse_address(text)
    if address is None:
        return text
    return address_text(address) if len(address) == 4 else f"{address_text(address[:8] + bytes(8))}/64"


def principal(exchange: Exchange) -> str | None:
    """The authenticated caller, told apart by issuer and subject."""
    caller = exchange.principal
    return None if caller is None else caller.identity


def subscription(exchange: Exchange) -> str | None:
    """The subscription whose key came with the request."""
    found = exchange.subscription
    return None if found is None else found.id


client.needs = frozenset({"client"})  # type: ignore[attr-defined]
principal.needs = frozenset({"principal"})  # type: ignore[attr-defined]
subscription.needs = frozenset({"subscription"})  # type: ignore[attr-defined]


def header(name: str) -> Key:
    """The first value of a request header."""
    raw = name.lower().encode("latin-1")

    def key(exchange: Exchange) -> str | None:
        value = exchange.header(raw)
        return None if value is None else value.decode("latin-1")

    key.__name__ = f"header({name!r})"
    return key


def claim(name: str) -> Key:
    """A claim of the authenticated caller's token, as text."""

    def key(exchange: Exchange) -> str | None:
        caller = exchange.principal
        value = None if caller is None else caller.claims.get(name)
        return None if value is None else str(value)

    key.__name__ = f"claim({name!r})"
    key.needs = frozenset({"principal"})  # type: ignore[attr-defined]
    return key
