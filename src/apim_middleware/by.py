"""Keys: whom a limit counts, whom a cached response belongs to.

A key is a function of the exchange that gives text, or None when the exchange has no such thing.
``needs`` names what must be established further out, so that an order that cannot work fails while building.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import TypeAlias

from apim_middleware._config import shown
from apim_middleware._http.addresses import address_text, parse_address
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange

Key: TypeAlias = Callable[[Exchange], str | None]


def needs(key: Key) -> frozenset[str]:
    """What a key relies on: ``client``, ``principal``, ``subscription``, or nothing known."""
    found: frozenset[str] = getattr(key, "needs", frozenset())
    return found


def name_of(function: Callable[..., object]) -> str:
    """A name for a function that is the same in every process; a lambda's says where it is written."""
    name = getattr(function, "__name__", type(function).__qualname__)
    if name == "<lambda>":  # all have one name; the line tells them apart
        name = f"{function.__qualname__}:{function.__code__.co_firstlineno}"
    return f"{getattr(function, '__module__', '')}.{name}"


def everyone(exchange: Exchange) -> str:
    """One key for all callers together."""
    return "everyone"


def client(exchange: Exchange) -> str | None:
    """The client's address; for IPv6 the /64 it is in, for who has one address of it has them all."""
    found = exchange.scope.get("client")  # exchange.client, written out: most requests are asked for this
    return _client_key(found[0]) if found and found[0] is not None else None


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


def product(exchange: Exchange) -> str | None:
    """The product of the subscription whose key came with the request."""
    found = exchange.subscription
    return found.product or None if found is not None else None


client.needs = frozenset({"client"})  # type: ignore[attr-defined]
principal.needs = frozenset({"principal"})  # type: ignore[attr-defined]
subscription.needs = frozenset({"subscription"})  # type: ignore[attr-defined]
product.needs = frozenset({"subscription"})  # type: ignore[attr-defined]


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


def attribute(name: str) -> Key:
    """What a policy further out noted under this name in ``exchange.attributes``, as text."""

    def key(exchange: Exchange) -> str | None:
        value = exchange.attributes.get(name)
        return None if value is None else str(value)

    key.__name__ = f"attribute({name!r})"
    return key


def route(**conditions: Callable[[Exchange], object]) -> Key:
    """The name of the first condition that holds, as ``route(login=conditions.path("/login"))``; the others are one.

    The route an app will take is not known before it has taken it, and a path is what its caller likes: as a key, each
    that was invented would be a new one.
    """
    _check("route", conditions.values(), least=1)
    asked = tuple(conditions.items())

    def key(exchange: Exchange) -> str:
        for name, holds in asked:
            if holds(exchange):
                return name
        return ""

    return _combined(key, "route", (f"{name}={name_of(each)}" for name, each in asked), conditions.values())


def both(first: Key, second: Key, *more: Key) -> Key:
    """Several keys as one, such as each subscription of each client; unknown when one of them is."""
    keys = (first, second, *more)
    _check("both", keys, least=2)

    def key(exchange: Exchange) -> str | None:
        parts = []
        for each in keys:
            part = each(exchange)
            if part is None:
                return None
            parts.append(f"{len(part)}:{part}")  # so that no two ways to cut a text are one
        return "".join(parts)

    return _combined(key, "both", map(name_of, keys), keys)


def either(first: Key, second: Key, *more: Key) -> Key:
    """The first of several keys that is known, such as the subscription, else the client; each counts apart."""
    keys = (first, second, *more)
    _check("either", keys, least=2)

    def key(exchange: Exchange) -> str | None:
        for number, each in enumerate(keys):
            part = each(exchange)
            if part is not None:
                return f"{number}:{part}"
        return None

    return _combined(key, "either", map(name_of, keys), keys)


def _check(name: str, given: Iterable[object], *, least: int) -> None:
    found = list(given)
    if len(found) < least or not all(callable(each) and not iscoroutinefunction(each) for each in found):
        cure = "Give functions of the exchange that need no await"
        raise ConfigError(f"by.{name}", "", f"{shown(found)} is no choice of keys", cure)


def _combined(key: Key, name: str, parts: Iterable[str], asked: Iterable[Callable[..., object]]) -> Key:
    key.__name__ = key.__qualname__ = f"{name}({', '.join(parts)})"
    key.needs = frozenset[str]().union(*map(needs, asked))  # type: ignore[attr-defined, arg-type]
    return key
