"""What observers between policies see of one request, in the order it happened."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy


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

    gate: str = ""
    """What looks at the keys of a gateway, before the first policy."""

    secret: set[int] = field(default_factory=set)
    """The observers with a policy behind them that puts a secret on requests or responses."""

    inward: list[Sight] = field(default_factory=list)
    outward: list[Sight] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Observer(Policy):
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


def _request(exchange: Exchange) -> frozenset[tuple[str, str]]:
    scope = exchange.scope
    facts = {
        ("method", exchange.method),
        ("path", exchange.path),
        ("query", scope.get("query_string", b"").decode("latin-1")),
        ("client", exchange.client or ""),
        ("scheme", scope.get("scheme", "")),
        ("principal", "" if exchange.principal is None else exchange.principal.subject),
        ("subscription", "" if exchange.subscription is None else exchange.subscription.id),
    }
    return frozenset(facts | _lines(scope["headers"]))


def _response(exchange: Exchange) -> frozenset[tuple[str, str]]:
    head = exchange.response
    return frozenset() if head is None else frozenset({("status", str(head.status))} | _lines(head.headers))


def _lines(headers: Any) -> set[tuple[str, str]]:  # noqa: ANN401 - header lines
    return {(f"{name.decode('latin-1').lower()} header", value.decode("latin-1")) for name, value in headers}
