"""What each policy does to one request: the same gateway with an observer between any two policies.

``Stack(a, b)`` behaves as ``Stack(seen, a, seen, b, seen)``, so what is seen is what happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, NamedTuple

from apim_middleware.exchange import Exchange
from apim_middleware.gateway import Gateway
from apim_middleware.model import Api, Fragment
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policy import Policy, Stack
from apim_middleware.types import Layer


class Sight(NamedTuple):
    """What an observer saw."""

    place: int
    moment: float
    request: frozenset[tuple[str, str]]
    """The request as facts: its method, path, query, client, principal and header lines."""

    response: frozenset[tuple[str, str]]
    refusal: str = ""
    """The code by which the gateway itself refuses the request, once its own policies have seen it."""


@dataclass(eq=False)
class Journal:
    """What all observers saw, in the order it happened."""

    names: list[str] = field(default_factory=list)
    """The policy behind each observer, and last the app."""

    inward: list[Sight] = field(default_factory=list)
    outward: list[Sight] = field(default_factory=list)


class Step(NamedTuple):
    """What one policy did."""

    policy: str
    took: float
    """Seconds on the way in, what it waited for included."""

    request: list[str]
    """What it changed of the request."""

    response: list[str]
    """What it changed of the response."""

    answered: bool
    """Whether nobody behind it was asked."""


@dataclass(frozen=True, eq=False)
class _Observer(Policy):
    """Stands between two policies, and changes nothing."""

    guards = False

    journal: Journal
    place: int

    def on_request(self, exchange: Exchange) -> None:
        match = exchange.match
        refusal = "" if match is None or match.refusal is None else match.refusal.code
        self.journal.inward.append(Sight(self.place, perf_counter(), _request(exchange), frozenset(), refusal))

    def on_response(self, exchange: Exchange) -> None:
        self.journal.outward.append(Sight(self.place, perf_counter(), frozenset(), _response(exchange)))


def observed(gateway: Gateway) -> tuple[Gateway, Journal]:
    """The same gateway with observers in it, and what they write to."""
    journal = Journal()
    watch = _Watch(journal)
    apis = tuple(watch.api(each) for each in gateway.apis)
    products = tuple(replace(each, policies=watch.layers(each.policies)) for each in gateway.products)
    return replace(gateway, policies=watch.layers(gateway.policies), apis=apis, products=products), journal


class _Watch:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def layers(self, layers: Sequence[Layer]) -> tuple[Layer, ...]:
        """The layers with an observer before each of them, and one behind the last."""
        found: list[Layer] = []
        for layer in layers:
            if isinstance(layer, Fragment):
                found += self.layers(layer.policies)
            elif isinstance(layer, Stack) and layer.env is None and not layer.place:
                found += self.layers(layer.layers)
            else:
                found += [self._observer(_name(layer)), layer]
        return (*found, self._observer("")) if found else ()

    def api(self, api: Api) -> Api:
        """The API with observers among its policies and those of what it consists of."""
        operations = tuple(replace(each, policies=self.layers(each.policies)) for each in api.operations)
        versions = api.versions
        if versions is not None:
            within = tuple(replace(each, policies=self.layers(each.policies)) for each in versions.versions)
            versions = replace(versions, versions=within)
        return replace(api, policies=self.layers(api.policies), operations=operations, versions=versions)

    def _observer(self, name: str) -> Layer:
        self._journal.names.append(name)
        return _Observer(self._journal, len(self._journal.names) - 1)


def steps(journal: Journal) -> list[Step]:
    """What each policy did that the request came to, outermost first."""
    seen = journal.inward
    out = {sight.place: sight for sight in journal.outward}
    found = []
    for at, sight in enumerate(seen):
        name = journal.names[sight.place]
        if not name:
            continue
        behind = seen[at + 1] if at + 1 < len(seen) else None
        inner = out.get(behind.place) if behind is not None else None
        outer = out.get(sight.place)
        found.append(
            Step(
                policy=name,
                took=(behind.moment - sight.moment) if behind is not None else _until_answer(sight, outer),
                request=[] if behind is None else _differences(sight.request, behind.request),
                response=_differences(inner.response, outer.response) if inner and outer else [],
                answered=behind is None,
            )
        )
    if seen and seen[-1].refusal and not (found and found[-1].answered):
        found.append(Step("the gateway itself", 0.0, [], [f"code: {seen[-1].refusal}"], answered=True))
    return found


def _until_answer(sight: Sight, outer: Sight | None) -> float:
    return 0.0 if outer is None else outer.moment - sight.moment


def _differences(before: frozenset[tuple[str, str]], after: frozenset[tuple[str, str]]) -> list[str]:
    gone, new = sorted(before - after), sorted(after - before)
    changed = {name for name, _ in gone} & {name for name, _ in new}
    lines = [f"{name}: {value}" for name, value in new]
    return lines + [f"{name}: (removed)" for name, _ in gone if name not in changed]


def _request(exchange: Exchange) -> frozenset[tuple[str, str]]:
    scope = exchange.scope
    facts = {
        ("method", exchange.method),
        ("path", exchange.path),
        ("query", scope.get("query_string", b"").decode("latin-1")),
        ("client", exchange.client or ""),
        ("scheme", scope.get("scheme", "")),
        ("principal", "" if exchange.principal is None else exchange.principal.subject),
    }
    return frozenset(facts | _lines(scope["headers"]))


def _response(exchange: Exchange) -> frozenset[tuple[str, str]]:
    head = exchange.response
    return frozenset() if head is None else frozenset({("status", str(head.status))} | _lines(head.headers))


def _lines(headers: Any) -> set[tuple[str, str]]:  # noqa: ANN401 - header lines
    return {(f"{name.decode('latin-1')} header", value.decode("latin-1")) for name, value in headers}


def _name(layer: Layer) -> str:
    if isinstance(layer, When | Choose):
        return repr(layer).partition("(")[0]
    return type(layer).__name__
