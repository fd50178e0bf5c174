"""What policies look like where people meet them: in a console, a message, a difference."""

from dataclasses import dataclass
from typing import Any

import pytest

import apim_middleware as apim
from apim_middleware import by, conditions


def of_mine(exchange: apim.Exchange) -> str:
    return "all"


@pytest.mark.parametrize(
    "written",
    [
        "RateLimit(calls=10, per=60)",
        "RateLimit(calls=10, per=60, by=by.header('x-a'), count_when=conditions.status('5xx'))",
        "RateLimit(calls=10, per=60, by=by.either(by.subscription, by.both(by.client, by.claim('tid'))))",
        "Cache(ttl=5, private_to=(by.subscription,), without_query=('utm_*',))",
        "When(conditions.header('x-beta'), Stack(Timeout(seconds=2), IPFilter(deny=('192.0.2.0/24',))))",
        "Choose((conditions.path('/a/*'), RemoveHeader(name='x-a', on='request')), otherwise=Timeout(seconds=2))",
        "AnyOf(JWTAuth(issuer='https://a.example', audience='a'), anonymous=True)",
        "Retry(statuses=(503, '5xx'), methods=('GET', 'POST'))",
        "Api('orders', '/orders', operations=(Operation('GET', '/{id}', name='get-id'),), subscription_required=False)",
        "RateLimit(calls=1, per=1, by=of_mine)",
    ],
)
def test_a_policy_is_shown_as_the_call_that_makes_it(written: str) -> None:
    """Defaults were shown, nineteen for a limit, and keys as functions at addresses."""
    names = {**{name: getattr(apim, name) for name in apim.__all__}, "by": by, "conditions": conditions}
    made = eval(written, {**names, "of_mine": of_mine})
    assert repr(made) == written


def test_a_policy_without_fields_is_shown_as_any_object() -> None:
    class Plain(apim.Policy):
        pass

    assert "Plain object at" in repr(Plain())


class Column:
    """Compares as columns of tables do."""

    def __eq__(self, other: object) -> "Column":  # type: ignore[override]
        return self

    def __bool__(self) -> bool:
        raise TypeError("has no truth value")

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "Column()"


@dataclass(frozen=True, kw_only=True)
class Odd(apim.Policy):
    """Takes whatever there is."""

    guards = False

    value: object = None


SELF: dict[str, object] = {}
SELF["self"] = SELF
NOWHERE: dict[str, Any] = {}
exec("def nowhere(exchange): ...", NOWHERE)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Column(), "Odd(value=Column())"),
        (SELF, "Odd(value={'self': {...}})"),
        (NOWHERE["nowhere"], "Odd(value=nowhere)"),
        ({"by": of_mine}, "Odd(value={'by': of_mine})"),
        (None, "Odd()"),
    ],
    ids=["column", "itself", "nowhere", "within", "default"],
)
def test_whatever_a_field_holds_can_be_shown(value: object, shown: str) -> None:
    assert repr(Odd(value=value)) == shown
