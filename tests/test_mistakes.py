"""Mistakes in what users write: each message says what was wrong, and a cure that works."""

from collections.abc import Callable

import pytest

import apim_middleware as apim
from apim_middleware import Api, Gateway, JWTAuth, Operation, Proxy, Quota, RateLimit, SetHeader
from apim_middleware._synonyms import SYNONYMS
from apim_middleware.configuration import loads
from apim_middleware.configuration._catalogue import named, names
from apim_middleware.configuration._reading import parameters_of
from apim_middleware.errors import ConfigError

LIMIT = RateLimit(calls=1, per=60)


def told(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    return str(caught.value)


# Types


def test_a_list_in_the_place_of_a_tuple_is_told_to_be_one() -> None:
    assert told(lambda: Gateway(apis=(), policies=[])) == (  # type: ignore[arg-type]
        "Gateway.policies: [] is a list. Write policies=(..., ...), a tuple."
    )


def test_one_layer_in_the_place_of_several_needs_a_comma() -> None:
    message = told(lambda: Gateway(apis=(), policies=LIMIT))  # type: ignore[arg-type]
    assert message.endswith("is not a tuple of layers. Write policies=(...,), with the comma.")


def test_what_is_no_layer_is_told_so() -> None:
    message = told(lambda: Gateway(apis=(), policies=(1,)))  # type: ignore[arg-type]
    assert message == "Gateway.policies: (1,) is not a tuple of layers. Give a tuple of layers."


def test_none_is_no_advice_where_something_else_is_wanted() -> None:
    assert told(lambda: RateLimit(calls="100", per=60)) == (  # type: ignore[arg-type]
        "RateLimit.calls: '100' is not int. Give int."
    )


class Later:
    """An object that must be awaited when it is called."""

    async def __call__(self, *asked: object) -> str:
        return ""


@pytest.mark.parametrize(
    "make",
    [
        lambda later: apim.AccessLog(write=later),
        lambda later: apim.Authorize(when=later),
        lambda later: apim.Faults(fail=0.1, when=later),
        lambda later: apim.LimitConcurrency(at_once=1, by=later),
        lambda later: apim.LimitGuesses(failed=later),
        lambda later: apim.Mirror(Proxy("http://a"), when=later),
        lambda later: apim.Pool("http://a", balance="consistent-hash", key=later),
        lambda later: apim.RateLimit(calls=1, per=1, by=later),
        lambda later: apim.ReturnResponse(body=later),
        lambda later: apim.SetHeader(name="x-a", value=later, on="request"),
        lambda later: apim.SetQuery(name="a", value=later),
        lambda later: apim.Split(Proxy("http://a"), share=0.1, by=later),
        lambda later: apim.conditions.not_(later),
    ],
)
def test_an_object_that_must_be_awaited_is_told_where_nobody_awaits_it(make: Callable[[object], object]) -> None:
    """Functions were; of objects nobody took the answer, so they did nothing, or were true for all."""
    with pytest.raises(ConfigError, match=r"is async|must be awaited|are no plain conditions"):
        make(Later())


# Names


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (lambda: RateLimit(calls=1, renewal_period=60), "per"),
        (lambda: RateLimit(calls=1, per=1, counter_key=None), "by"),
        (lambda: RateLimit(calls=1, per=1, increment_condition=None), "count_when"),
        (lambda: RateLimit(limit=1, per=1), "calls"),
        (lambda: Quota(calls=1, per=1, first_period_start=None), "starts"),
        (lambda: apim.LimitConcurrency(max_count=1), "at_once"),
        (lambda: apim.Cache(duration=1), "ttl"),
        (lambda: apim.Cache(ttl=1, vary_by_header="accept"), "vary_by"),
        (lambda: apim.Cache(ttl=1, vary_by_query_parameter="page"), "only_query"),
        (lambda: apim.Retry(count=1), "attempts"),
        (lambda: apim.Retry(interval=1), "backoff"),
        (lambda: Proxy("http://a", timeout=3), "read_timeout"),
        (lambda: apim.MockResponse(status_code=404), "status"),
        (lambda: apim.RewritePath(match="/a", template="/b"), "to"),
        (lambda: SetHeader(name="x-a", value="b", on="request", exists_action="skip"), "exists"),
    ],
)
def test_a_name_from_elsewhere_finds_the_field_that_is_meant(make: Callable[[], object], meant: str) -> None:
    assert told(make).endswith(f"Did you mean {meant}?")


def test_a_name_from_elsewhere_may_have_hyphens_in_a_file() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean per\?"):
        loads("[[policies]]\nuse = 'RateLimit'\ncalls = 1\nrenewal-period = 60")


def test_every_name_from_elsewhere_means_a_field_of_something() -> None:
    known = {field for name in names() for field in parameters_of(named(name))[0]}
    assert {field for fields in SYNONYMS.values() for field in fields} <= known


# URLs


def test_keys_that_may_come_by_plain_http_are_said_how() -> None:
    message = told(lambda: JWTAuth(issuer="a", audience="a", jwks_url="http://keys.example/jwks"))
    assert "Use https, or say allow_http=True" in message


# Templates


@pytest.mark.parametrize("template", ["/items/:id", "/items/<id>", "/items/<int:id>/parts", "/:id"])
def test_a_parameter_in_the_spelling_of_others_is_refused(template: str) -> None:
    assert 'Write "{id}"' in told(lambda: Operation("GET", template))


@pytest.mark.parametrize("template", ["/items:batch", "/{id}:cancel", "/10:30", "/a<b", "/:"])
def test_colons_and_brackets_that_begin_no_parameter_are_text(template: str) -> None:
    assert Operation("GET", template).template == template


def test_the_refusal_of_a_template_stands_in_its_api() -> None:
    message = told(lambda: Api("a", backend="http://a", operations=(Operation("GET", "/:id"),)))
    assert message.startswith("Operation.template")
