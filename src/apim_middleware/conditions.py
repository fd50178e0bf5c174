"""Conditions for ``When`` and ``Choose``, and for what limits count: small questions about an exchange.

A condition is any function of the exchange that gives true or false; these are the ones most often needed.
``status``, ``succeeded`` and ``failed`` ask about the response, so they are for ``count_when`` of limits.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from inspect import isawaitable
from itertools import chain
from typing import TypeAlias, TypeVar

from apim_middleware._config import awaits, shown
from apim_middleware._functions import annotated, made_once, needs, paths_of, reads
from apim_middleware._http.headers import header_name, header_value, is_token
from apim_middleware._http.json_reading import steps_of
from apim_middleware._http.paths import BadTarget, routed_path, written_path
from apim_middleware._http.statuses import statuses_named
from apim_middleware._http.unseen import unseen
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange

Condition: TypeAlias = Callable[[Exchange], bool | Awaitable[bool]]
"""What layers ask, which can await the answer."""

PlainCondition: TypeAlias = Callable[[Exchange], bool]
"""What limits ask, and what conditions are joined of; every condition here is one."""

F = TypeVar("F", bound=PlainCondition)

__all__ = [
    "Condition",
    "PlainCondition",
    "all_of",
    "any_of",
    "authentication_failed",
    "body",
    "failed",
    "header",
    "is_websocket",
    "method",
    "not_",
    "path",
    "status",
    "succeeded",
]


@made_once
def path(*patterns: str) -> PlainCondition:
    """Whether the path is one of these: ``"/admin"`` is that path, ``"/admin/*"`` is that path and all below it.

    It is the canonical path as the app behind will route it (below the ``root_path`` of a mounted app), compared letter
    by letter; a slash at its end makes no difference. Patterns are written without percent-escapes.
    """
    _check_texts("path", patterns)
    try:
        whole = [written_path(pattern.removesuffix("/*") or "/").rstrip("/") for pattern in patterns]
    except BadTarget as error:
        raise _mistake("path", patterns, f"cannot be matched: {error}", 'Write path("/admin", "/admin/*")') from None
    if any("*" in each for each in whole):
        raise _mistake("path", patterns, "has a star elsewhere than behind the last slash", 'Write path("/admin/*")')
    exact = frozenset(whole)
    below = tuple(f"{each}/" for each, pattern in zip(whole, patterns, strict=True) if pattern.endswith("/*"))

    def matches(exchange: Exchange) -> bool:
        routed = routed_path(exchange.scope)[1]
        return routed.startswith(below) or routed.rstrip("/") in exact

    return _named(annotated(matches, paths=patterns), "path", map(repr, patterns))


@made_once
def method(*methods: str) -> PlainCondition:
    """Whether the method is one of these; ``"GET"`` includes HEAD (RFC 9110 §9.3.2) and WebSocket handshakes."""
    _check_texts("method", methods)
    if not all(is_token(each.encode("latin-1", "replace")) for each in methods):
        raise _mistake("method", methods, "names no method", 'Write method("POST", "PUT")')
    wanted = {each.upper() for each in methods}
    wanted |= {"HEAD"} if "GET" in wanted else set()

    def matches(exchange: Exchange) -> bool:
        return exchange.method in wanted

    return _named(matches, "method", map(repr, methods))


@made_once
def header(name: str, value: str | None = None) -> PlainCondition:
    """Whether a request header was sent at all, or, with a value, whether one of its lines is exactly that."""
    given = (name,) if value is None else (name, value)
    _check_texts("header", given)
    try:
        key, wanted = header_name(name), None if value is None else header_value(value)
    except ValueError as error:
        raise _mistake("header", given, f"cannot be met: {error}", 'Write header("x-beta", "on")') from None
    if found := unseen(key):
        problem, cure = found
        raise _mistake("header", given, f"asks for a field that hygiene {problem}", cure)

    def matches(exchange: Exchange) -> bool:
        return exchange.header(key) is not None if wanted is None else wanted in exchange.headers(key)

    return _named(annotated(matches, reads={name}), "header", map(repr, given))


@made_once
def body(pointer: str, value: str | float | bool | None = None) -> PlainCondition:
    """Whether the JSON of the request body has anything at a JSON Pointer (RFC 6901), or, with a value, just that.

    ``body("/stream", True)``. Needs ``ReadBody`` further out; false of a request without a body. A body that is no
    JSON, or that the app could read otherwise, is refused with 400 ``json-invalid``.
    """
    given = (pointer,) if value is None else (pointer, value)
    try:
        steps = steps_of(pointer)
    except (TypeError, ValueError):
        raise _mistake("body", given, "is no JSON Pointer (RFC 6901)", 'Write body("/stream", True)') from None
    if not isinstance(value, str | int | float | None):
        raise _mistake("body", given, "is no text, number or truth value", 'Write body("/stream", True)')
    is_bool = isinstance(value, bool)

    def matches(exchange: Exchange) -> bool:
        found = exchange.json_at(steps)
        return found is not None if value is None else found == value and isinstance(found, bool) == is_bool

    return _named(annotated(matches, needs={"body"}), "body", map(repr, given))


def is_websocket(exchange: Exchange) -> bool:
    """Whether this is a WebSocket handshake."""
    return exchange.is_websocket


@made_once
def status(*wanted: int | str) -> PlainCondition:
    """Whether the response has one of these statuses: ``status(404, "5xx", "500-504")``; false before it is there."""
    meant = [statuses_named(str(each)) for each in wanted]
    if not meant or not all(meant):
        raise _mistake("status", wanted, "names no statuses", 'Write status(404, "5xx", "500-504")')
    statuses = frozenset(chain(*meant))

    def matches(exchange: Exchange) -> bool:
        head = exchange.response
        return head is not None and head.status in statuses

    return _named(matches, "status", map(repr, wanted))


def succeeded(exchange: Exchange) -> bool:
    """Whether the response has a status below 400, whatever became of its body; true of an accepted WebSocket."""
    head = exchange.response
    return head is not None and head.status < 400


def failed(exchange: Exchange) -> bool:
    """Whether the status is 400 or more, no response came, or it broke off: the app raised, or the client left.

    A WebSocket that was accepted breaks off only by an error: either side may close it. What a policy further out has
    replaced did not break off either.
    """
    head = exchange.response
    if head is None or head.status >= 400 or exchange.error is not None:
        return True
    return not exchange.completed and head.status != 101 and exchange.refusal is None


def authentication_failed(exchange: Exchange) -> bool:
    """Whether credentials came and were no good: a 401 of the app, or of a policy unless it missed them altogether.

    What a policy missed is told by the end of its code, ``-missing`` or ``-required``. It stays so where another of
    ``AnyOf`` answers instead, or lets in by other credentials.
    """
    if exchange.shared.rejected:
        return True
    refusal, head = exchange.refusal, exchange.response
    if refusal is not None:
        return refusal.status == 401 and not refusal.code.endswith(("-missing", "-required"))
    return head is not None and head.status == 401


@made_once
def not_(condition: PlainCondition) -> PlainCondition:
    """Whether the condition does not hold."""
    return _joined("not_", [condition], lambda exchange: not holds(condition, exchange))


@made_once
def all_of(*conditions: PlainCondition) -> PlainCondition:
    """Whether every condition holds; those after the first that does not are not asked."""
    return _joined("all_of", conditions, lambda exchange: all(holds(each, exchange) for each in conditions))


@made_once
def any_of(*conditions: PlainCondition) -> PlainCondition:
    """Whether at least one condition holds; those after the first that does are not asked."""
    return _joined("any_of", conditions, lambda exchange: any(holds(each, exchange) for each in conditions))


def holds(condition: Condition, exchange: Exchange) -> bool:
    """What the condition says; TypeError when its answer would have to be awaited, for a promise counts as true."""
    verdict = condition(exchange)
    if verdict is True or verdict is False:
        return verdict
    if isawaitable(verdict):
        raise TypeError("a condition that gives something to await must be written as async def")
    return bool(verdict)


def _check_texts(name: str, given: Sequence[object]) -> None:
    if not given or not all(isinstance(each, str) for each in given):
        raise _mistake(name, given, "is not text", f'Write {name}("...")')


def _mistake(name: str, given: object, problem: str, cure: str) -> ConfigError:
    return ConfigError(name, "", f"{shown(given)} {problem}", cure)


def _joined(name: str, conditions: Sequence[PlainCondition], matches: PlainCondition) -> PlainCondition:
    if not conditions or not all(callable(each) and not awaits(each) for each in conditions):
        raise _mistake(name, conditions, "are no plain conditions", "Give functions that need no await")
    annotated(
        matches,
        needs=chain(*map(needs, conditions)),
        reads=chain(*map(reads, conditions)),
        paths=chain(*map(paths_of, conditions)),
    )
    return _named(matches, name, [getattr(each, "__name__", repr(each)) for each in conditions])


def _named(condition: F, name: str, given: Iterable[str]) -> F:
    condition.__name__ = condition.__qualname__ = f"{name}({', '.join(given)})"
    return condition


def __dir__() -> list[str]:
    return [*__all__]
