"""Keys: whom a limit counts, whom a cached response belongs to.

A key is a function of the exchange that gives text, or None when the exchange has no such thing.
Each tells what must be established further out, so that an order that cannot work fails while building.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from functools import lru_cache
from inspect import isawaitable
from itertools import chain
from typing import TypeAlias

from apim_middleware._config import awaits, is_factory, shown, uncalled
from apim_middleware._functions import annotated, made_once, name_of, needs, reads
from apim_middleware._http import cookies
from apim_middleware._http.addresses import address_text, parse_address
from apim_middleware._http.basic import BadCredentials, read
from apim_middleware._http.headers import header_name
from apim_middleware._http.json_reading import steps_of
from apim_middleware._http.unseen import unseen
from apim_middleware._spelling import KEYS
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange

Key: TypeAlias = Callable[[Exchange], str | None]

_COOKIE_NAME = re.compile(r"(?![ \t])[ \t!-:<>-~\x80-\xff]+(?<![ \t])").fullmatch
"""The names that can come: people write more than the tokens of RFC 6265 §4.1.1."""

_NAT64 = bytes.fromhex("0064ff9b") + bytes(8)
"""``64:ff9b::/96``: clients of IPv4 alone, seen through a translator (RFC 6052 §2.1).

In ``64:ff9b:1::/48`` (RFC 8215) an IPv4 address stands wherever the operator of the translator put it.
"""

__all__ = [
    "Key",
    "api",
    "attribute",
    "body",
    "both",
    "claim",
    "client",
    "cookie",
    "either",
    "everyone",
    "header",
    "operation",
    "owner",
    "principal",
    "product",
    "route",
    "subscription",
    "username",
]


def everyone(exchange: Exchange) -> str:
    """One key for all callers together."""
    return "everyone"


def client(exchange: Exchange) -> str | None:
    """The client's address; for IPv6 the /64 it is in, for who has one address of it has them all.

    An IPv6 address that stands for one of IPv4 is that (``::ffff:0:0/96``, and ``64:ff9b::/96`` of NAT64).
    """
    found = exchange.scope.get("client")  # exchange.client, written out: most requests are asked for this
    if not found or not found[0]:
        return None
    text: str = found[0]
    return text if ":" not in text else _without_host(text)


@lru_cache(maxsize=4096)
def _without_host(text: str) -> str:
    """An IPv6 address as its /64, or as the IPv4 address it stands for; what is none, as it is."""
    address = parse_address(text)
    if address is None:
        return text
    if address.startswith(_NAT64):
        return address_text(address[len(_NAT64) :])
    return address_text(address) if len(address) == 4 else f"{address_text(address[:8] + bytes(8))}/64"


def principal(exchange: Exchange) -> str | None:
    """The authenticated caller, told apart by issuer and subject."""
    caller = exchange.principal
    return None if caller is None else caller.identity


def subscription(exchange: Exchange) -> str | None:
    """The subscription whose key came with the request."""
    found = exchange.subscription
    return None if found is None else found.id


def owner(exchange: Exchange) -> str | None:
    """The owner of the subscription whose key came with the request, of all subscriptions together."""
    found = exchange.subscription
    return None if found is None else found.owner or None


def product(exchange: Exchange) -> str | None:
    """The product in whose context the call is made: of the subscription, or an open one of the gateway."""
    return exchange.product


def api(exchange: Exchange) -> str | None:
    """The API a gateway has matched, all its versions and revisions together."""
    match = exchange.match
    return None if match is None else match.route.api or None


def operation(exchange: Exchange) -> str | None:
    """The operation a gateway has matched, with its API and version."""
    match = exchange.match
    if match is None or not match.route.operation:
        return None
    return f"{match.route.api}/{match.route.version}/{match.route.operation}"


def username(exchange: Exchange) -> str | None:
    """The name in the Basic credentials of the request, whether or not it is anybody's (RFC 7617)."""
    value = exchange.header(b"authorization")
    try:
        credentials = None if value is None else read(value)
    except BadCredentials:
        return None
    return None if credentials is None else credentials[0]


annotated(client, needs={"client"})
annotated(principal, needs={"principal"})
annotated(subscription, needs={"subscription"})
annotated(owner, needs={"subscription"})
annotated(product, needs={"subscription"})


@made_once
def header(name: str) -> Key:
    """The first value of a request header."""
    _check_name("header", name)
    try:
        raw = header_name(name)
    except ValueError:
        raise _no_name("header", name) from None
    if found := unseen(raw):
        problem, cure = found
        raise ConfigError("by.header", "", f"{name!r} is a field that hygiene {problem}", cure)

    def key(exchange: Exchange) -> str | None:
        value = exchange.header(raw)
        return None if value is None else value.decode("latin-1")

    key.__name__ = f"header({name!r})"
    return annotated(key, reads={name})


@made_once
def cookie(name: str) -> Key:
    """The value of a cookie; the first, where several have the name."""
    _check_name("cookie", name)
    if not _COOKIE_NAME(name):
        raise _no_name("cookie", name)
    raw = name.encode("latin-1")

    def key(exchange: Exchange) -> str | None:
        found = cookies.values(exchange.scope["headers"], raw)
        return found[0].decode("latin-1") if found else None

    key.__name__ = f"cookie({name!r})"
    return key


@made_once
def claim(name: str) -> Key:
    """A claim of the authenticated caller's token: its text, or as JSON what is none (``7``, ``["a","b"]``)."""
    _check_name("claim", name)

    def key(exchange: Exchange) -> str | None:
        caller = exchange.principal
        return None if caller is None else _as_text(caller.claims.get(name))

    key.__name__ = f"claim({name!r})"
    return annotated(key, needs={"principal"})


@made_once
def attribute(name: str) -> Key:
    """What a policy further out noted under this name in ``exchange.attributes``: its text, or as JSON what is none."""
    _check_name("attribute", name)

    def key(exchange: Exchange) -> str | None:
        return _as_text(exchange.attributes.get(name))

    key.__name__ = f"attribute({name!r})"
    return key


@made_once
def body(pointer: str) -> Key:
    """What stands in the JSON of the request body at a JSON Pointer (RFC 6901), as ``by.body("/model")``.

    Its text, or as JSON what is none. Needs ``ReadBody`` further out. A body that is no JSON, or that the app could
    read otherwise, is refused with 400 ``json-invalid``.
    """
    try:
        steps = steps_of(pointer)
    except (TypeError, ValueError):
        problem = f"{shown(pointer)} is no JSON Pointer (RFC 6901)"
        raise ConfigError("by.body", "", problem, f"Write {KEYS['body']}") from None

    def key(exchange: Exchange) -> str | None:
        return _as_text(exchange.json_at(steps))

    key.__name__ = f"body({pointer!r})"
    return annotated(key, needs={"body"})


def _as_text(value: object) -> str | None:
    if value is None or type(value) is str:  # as nearly always
        return value
    if isinstance(value, bool | int | float | list | tuple | Mapping | Set):
        with suppress(TypeError, ValueError):  # an app can note what JSON cannot say
            return json.dumps(value, separators=(",", ":"), sort_keys=True, default=_plain)
    return str(value)


def _plain(value: object) -> object:
    """What JSON has no word for: claims are kept so that nobody changes them."""
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value, key=str) if isinstance(value, Set) else str(value)


@made_once
def route(**conditions: Callable[[Exchange], object]) -> Key:
    """The name of the first condition that holds, as ``route(login=conditions.path("/login"))``; the others are one.

    The route an app will take is not known before it has taken it, and a path is what its caller likes: as a key, each
    that was invented would be a new one.
    """
    _check("route", conditions.values(), least=1)
    asked = tuple(conditions.items())

    def key(exchange: Exchange) -> str:
        for name, condition in asked:
            if held := condition(exchange):
                if held is not True and isawaitable(held):  # a promise counts as true
                    raise TypeError(f"{name} of by.route gave something to await")
                return name
        return ""

    return _combined(key, "route", (f"{name}={name_of(each)}" for name, each in asked), conditions.values())


@made_once
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


@made_once
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


def _check_name(factory: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise _no_name(factory, name)


def _no_name(factory: str, name: object) -> ConfigError:
    problem = f"{shown(name)} is the name of no {factory}"
    return ConfigError(f"by.{factory}", "", problem, f"Write {KEYS[factory]}")


def _check(name: str, given: Iterable[object], *, least: int) -> None:
    found = list(given)
    for each in filter(is_factory, found):
        raise ConfigError(f"by.{name}", "", *uncalled(each))
    if len(found) < least or not all(callable(each) and not awaits(each) for each in found):
        cure = "Give functions of the exchange that need no await"
        raise ConfigError(f"by.{name}", "", f"{shown(found)} is no choice of keys", cure)


def _combined(key: Key, name: str, parts: Iterable[str], asked: Iterable[Callable[..., object]]) -> Key:
    key.__name__ = key.__qualname__ = f"{name}({', '.join(parts)})"
    asked = tuple(asked)
    vars(key)["parts"] = (name, asked)
    return annotated(key, needs=chain(*map(needs, asked)), reads=chain(*map(reads, asked)))


def __dir__() -> list[str]:
    return [*__all__]
