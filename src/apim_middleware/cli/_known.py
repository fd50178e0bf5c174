"""What is known of callers behind authenticators, and what keys go by there."""

import itertools
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import fields, is_dataclass

from apim_middleware import by
from apim_middleware._functions import needs, parts_of
from apim_middleware._http.credentials import CARRIED
from apim_middleware.guarding.coverage import lets_anybody_in
from apim_middleware.policies.client import IPFilter
from apim_middleware.policies.either import AllOf, AnyOf
from apim_middleware.policy import Policy, Stack

_NOTHING = frozenset[str]()


def ways(layers: Iterable[object]) -> list[frozenset[str]]:
    """What each way past these layers establishes of a caller, and which credentials it leaves in the request.

    A subscription stands for its principal too, who is nobody but that.
    """
    found = {_NOTHING}
    for layer in layers:
        found = {known | more for known, more in itertools.product(found, _ways_past(layer))}
    return sorted(found, key=sorted)


def established(layers: Iterable[object]) -> frozenset[str]:
    """What is known of every caller who comes past these layers."""
    return frozenset.intersection(*map(_with_holder, ways(layers))) & {"principal", "subscription"}


def always(key: object, known: Set[str]) -> bool:
    """Whether a key is known of every request of which so much is established."""
    made, parts = parts_of(key)
    if made in ("both", "either"):
        return (any if made == "either" else all)(always(each, known) for each in parts)
    if key is by.everyone:
        return True
    return (key is by.principal and "principal" in known) or (key is by.subscription and "subscription" in known)


def is_known(key: object, known: Set[str]) -> bool:
    """Whether a key may be known of a request of which so much is established."""
    made, parts = parts_of(key)
    if made in ("both", "either"):
        return (any if made == "either" else all)(is_known(each, known) for each in parts)
    return callable(key) and needs(key) <= _with_holder(known) | {"client"}


def _with_holder(known: Set[str]) -> frozenset[str]:
    return frozenset(known).union({"principal"} if "subscription" in known else ())


def asks_for_client(layer: object, known: frozenset[str]) -> bool:
    """Whether a layer comes to ask for the client's address, where so much is established before it."""
    found = list(_asking(layer, known))
    return any(found) if found else "client" in getattr(layer, "needs", ())


def _asking(value: object, known: frozenset[str]) -> Iterator[bool]:
    """For everything within that could ask for the client's address, whether it does."""
    if isinstance(value, IPFilter):
        yield True
    elif isinstance(value, AllOf | Stack):
        for at, each in enumerate(value.layers):
            yield from _asking(each, known | established(value.layers[:at]))
    elif isinstance(value, tuple):
        for each in value:
            yield from _asking(each, known)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _asking(getattr(value, field.name, None), known)
    elif callable(value) and not isinstance(value, type) and "client" in needs(value):
        yield "client" in _gone_by(value, known)


def _gone_by(key: object, known: frozenset[str]) -> frozenset[str]:
    """What a key goes by; what stands behind one that is always known is never asked for."""
    made, parts = parts_of(key)
    found = _NOTHING
    for each in parts:
        found |= _gone_by(each, known)
        if made == "either" and always(each, known):
            break
    return found if parts or not callable(key) else needs(key)


def _ways_past(layer: object) -> Sequence[frozenset[str]]:
    if isinstance(layer, Policy) and lets_anybody_in(layer):
        return [_NOTHING]
    if isinstance(layer, AnyOf):
        return [way for each in layer.layers for way in ways([each])]
    if isinstance(layer, AllOf | Stack):
        return ways(layer.layers)
    provided = layer.provides & {"principal", "subscription"} if isinstance(layer, Policy) else _NOTHING
    if not provided:
        return [_NOTHING]
    named = frozenset({"subscription"} if "subscription" in provided else provided)
    return [named | left for left in _left_by(layer)]


def _left_by(layer: object) -> list[frozenset[str]]:
    """The credentials of a token that goes on to the app, in each place it may come in."""
    places = getattr(layer, "token_from", ())
    texts = (places,) if isinstance(places, str) else places
    return [_carried(*each.partition(":")[::2]) for each in texts] or [_NOTHING]


def _carried(place: str, name: str) -> frozenset[str]:
    if place == "query":  # of which it is taken out
        return _NOTHING
    credential = CARRIED[b"cookie" if place == "cookie" else name.lower().encode()]
    return _NOTHING if credential is None else frozenset({credential})
