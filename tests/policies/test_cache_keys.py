"""What a response is kept under, and that nothing a client sends beside it reaches what others get."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware import by
from apim_middleware._http.cache_queries import QueryRule
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .caching import Elsewhere

pytestmark = pytest.mark.anyio


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Says all it was asked."""
    lines = b"; ".join(name + b"=" + value for name, value in scope["headers"])
    body = b" ".join([scope["method"].encode(), scope["path"].encode(), scope["query_string"], lines])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(params=["memory", "elsewhere"])
def guarded(request: pytest.FixtureRequest) -> Callable[..., ASGIApp]:
    entries = Elsewhere() if request.param == "elsewhere" else None
    return lambda app, *layers: Stack(*layers, env=Env(clock=FakeClock(), entries=entries), place="here")(app)


def is_hit(answer: Answer) -> bool:
    return (answer.header(b"cache-status") or b"").startswith(b"apim;hit")


@pytest.mark.parametrize(
    ("policy", "first", "second", "same"),
    [
        (Cache(ttl=60, without_query=("utm_*", "fbclid")), b"a=1&utm_source=x", b"fbclid=y&a=1", True),
        (Cache(ttl=60, without_query=("utm_*",)), b"a=1&utm_source=x", b"a=2&utm_source=x", False),
        (Cache(ttl=60, without_query=("utm_*",)), b"%75tm_source=x&a=1", b"a=1", True),
        (Cache(ttl=60, only_query=("page",)), b"page=1&evil=1", b"x=2&page=1", True),
        (Cache(ttl=60, only_query=("page",)), b"page=1", b"page=2", False),
        (Cache(ttl=60, only_query=()), b"page=1", b"", True),
        (Cache(ttl=60, sort_query=True), b"b=2&a=1", b"a=1&b=2", True),
        (Cache(ttl=60, sort_query=True), b"a=1&a=2", b"a=2&a=1", False),
        (Cache(ttl=60), b"b=2&a=1", b"a=1&b=2", False),
    ],
)
async def test_which_parameters_count(
    guarded: Callable[..., ASGIApp], policy: Cache, first: bytes, second: bytes, same: bool
) -> None:
    app = guarded(echo, policy)
    await call(app, query=first)
    assert is_hit(await call(app, query=second)) is same


@given(st.lists(st.tuples(st.sampled_from(["page", "utm_a", "x", "%70age", "p"]), st.sampled_from("123")), max_size=6))
def test_what_does_not_count_never_reaches_the_app(pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{name}={value}" for name, value in pairs).encode()
    for rule in (QueryRule(("page",), (), False), QueryRule(None, ("utm_*", "x"), True)):
        kept = rule.of(query)
        assert rule.of(kept) == kept
        assert b"utm_a" not in kept
        assert b"x=" not in kept


async def test_the_app_is_asked_for_exactly_what_the_key_has(guarded: Callable[..., ASGIApp]) -> None:
    """No parameter that is not part of the key can be echoed into what others get."""
    app = guarded(echo, Cache(ttl=60, without_query=("evil",), sort_query=True))
    poisoned = await call(app, query=b"b=2&evil=<script>&a=1")
    assert b"evil" not in poisoned.body
    assert (await call(app, query=b"a=1&b=2")).body == poisoned.body


async def test_a_change_takes_away_what_is_kept_under_the_query_that_counts(guarded: Callable[..., ASGIApp]) -> None:
    app = guarded(echo, Cache(ttl=60, without_query=("utm_*",)))
    await call(app, query=b"a=1")
    assert b"utm_x" in (await call(app, "POST", query=b"a=1&utm_x=2")).body
    assert not is_hit(await call(app, query=b"a=1"))


async def test_headers_and_claims_can_tell_requests_apart(guarded: Callable[..., ASGIApp]) -> None:
    app = guarded(echo, Cache(ttl=60, vary_by=(by.header("x-tenant"), by.header("x-plan"))))
    asks = [[(b"x-tenant", tenant), (b"x-plan", plan)] for tenant in (b"a", b"b") for plan in (b"1", b"2")]
    bodies = [(await call(app, headers=headers)).body for headers in asks * 2]
    assert bodies[:4] == bodies[4:]
    assert len(set(bodies)) == 4


async def test_a_cookie_can_tell_requests_apart_where_the_others_do_not_matter(guarded: Callable[..., ASGIApp]) -> None:
    asked: list[bytes] = []

    async def themed(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(dict(scope["headers"]).get(b"cookie", b""))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    app = guarded(themed, Cache(ttl=60, vary_by=by.cookie("theme"), regardless_of=("cookie",)))
    for cookie in (b"theme=dark; id=1", b"id=2; theme=dark", b"theme=light", b"id=3"):
        await call(app, headers=[(b"cookie", cookie)])
    assert asked == [b"theme=dark; id=1", b"theme=light", b"id=3"]


async def test_what_tells_requests_apart_settles_no_credential(guarded: Callable[..., ASGIApp]) -> None:
    app = guarded(echo, Cache(ttl=60, vary_by=by.header("x-tenant")))
    for name in (b"alice", b"bob"):
        answer = await call(app, headers=[(b"x-tenant", b"a"), (b"cookie", name)])
        assert name in answer.body


HOSTILE = [
    (b"x-forwarded-host", b"evil"), (b"x-forwarded-proto", b"evil"), (b"x-forwarded-port", b"666"),
    (b"x-original-url", b"/evil"), (b"x-rewrite-url", b"/evil"), (b"x-http-method-override", b"evil"),
    (b"x-forwarded-prefix", b"/evil"), (b"x-forwarded-for", b"6.6.6.6"), (b"forwarded", b"host=evil"),
    (b"x_host", b"evil"),
]  # fmt: skip


@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: line[0].decode())
async def test_no_field_that_speaks_for_others_reaches_what_is_kept(
    guarded: Callable[..., ASGIApp], line: tuple[bytes, bytes]
) -> None:
    app = guarded(echo, Cache(ttl=60))
    await call(app, headers=[line])
    answer = await call(app)
    assert line[1] not in answer.body


async def test_a_body_on_get_goes_past(guarded: Callable[..., ASGIApp]) -> None:
    app = guarded(echo, Cache(ttl=60))
    await call(app, headers=[(b"content-length", b"4")], body=b"evil")
    assert not is_hit(await call(app))


@pytest.mark.parametrize("suffix", ["/x.css", ";x.css", ".css", "/x.js", "/static/x.png", "/robots.txt"])
@pytest.mark.parametrize("credential", [(b"cookie", b"session=alice"), (b"authorization", b"Bearer alice")])
async def test_a_path_that_looks_static_makes_no_page_of_somebody_one_for_all(
    guarded: Callable[..., ASGIApp], suffix: str, credential: tuple[bytes, bytes]
) -> None:
    """An attacker lets somebody visit this, and then looks at it."""
    app = guarded(echo, Cache(ttl=60))
    victim = await call(app, path=f"/account{suffix}", headers=[credential])
    attacker = await call(app, path=f"/account{suffix}")
    assert b"alice" in victim.body
    assert b"alice" not in attacker.body


@pytest.mark.parametrize(
    ("given", "field_name"),
    [
        ({"only_query": ("",)}, "only_query"), ({"without_query": ("a*b",)}, "without_query"),
        ({"statuses": ()}, "statuses"), ({"statuses": (206,)}, "statuses"), ({"statuses": (304,)}, "statuses"),
        ({"statuses": (99,)}, "statuses"), ({"statuses": (200, 429)}, "statuses"), ({"statuses": (431,)}, "statuses"),
        ({"fixed_ttl": 0}, "fixed_ttl"), ({"heuristic": 0}, "heuristic"), ({"heuristic": 1.5}, "heuristic"),
        ({"collapse_wait": -1}, "collapse_wait"), ({"keep_stale": -1}, "keep_stale"),
        ({"stale_if_error": float("inf")}, "stale_if_error"),
        ({"stale_while_revalidate": -1}, "stale_while_revalidate"),
        ({"without_query": "utm_*"}, "without_query"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_field(given: dict[str, Any], field_name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Cache(**given)
    assert (caught.value.policy, caught.value.field) == ("Cache", field_name)
