"""The response cache: what it answers, what it keeps, and above all what it does not."""

import gc
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from apim_middleware import by
from apim_middleware._caching.in_memory import MemoryKeeper
from apim_middleware._caching.shared_pages import SharedPages
from apim_middleware._caching.shared_store import WaryEntries
from apim_middleware._http.targets import resource_of
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal, ResponseOver, Spoiled
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.client import IPFilter
from apim_middleware.policy import Policy, Stack, ring
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.keys import MemoryKeys
from apim_middleware.testing import Answer, FakeClock, call, connect, exchange, http_scope
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send, Tap

from .caching import Elsewhere, Guarded, status

pytestmark = pytest.mark.anyio

T = TypeVar("T")
FRESH = (b"cache-control", b"max-age=60")
PUBLIC = (b"cache-control", b"public, max-age=60")


class Origin:
    """An app that answers as it is told, numbers its answers, and remembers what it was asked."""

    def __init__(self, *headers: tuple[bytes, bytes], status: int = 200, body: bytes | Sequence[bytes] | None = None):
        self.headers: RawHeaders = list(headers)
        self.status = status
        self.body = body
        self.asked: list[Scope] = []

    @property
    def count(self) -> int:
        return len(self.asked)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        body = b"answer %d" % self.count if self.body is None else self.body
        chunks = [body] if isinstance(body, bytes) else body
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for number, chunk in enumerate(chunks, 1):
            await send({"type": "http.response.body", "body": chunk, "more_body": number < len(chunks)})


@dataclass(frozen=True, kw_only=True)
class Knows(Policy):
    """Establishes whoever the headers ``x-caller`` and ``x-subscription`` name, and takes them away."""

    provides: ClassVar[frozenset[str]] = frozenset({"principal", "subscription"})
    guards: ClassVar[bool] = True

    def on_request(self, exchange: Exchange) -> None:
        if (caller := exchange.header(b"x-caller")) is not None:
            exchange.principal = Principal(subject=caller.decode(), issuer="https://issuer.test")
        if (subscription := exchange.header(b"x-subscription")) is not None:
            exchange.subscription = Subscription(id=subscription.decode(), product=subscription.decode()[:1])
        exchange.remove_header("x-caller")
        exchange.remove_header("x-subscription")


def run(steps: Coroutine[Any, Any, T]) -> T:
    """Run what never waits, without an event loop."""
    try:
        steps.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("it waited")


# What is answered from memory


async def test_what_is_fresh_is_answered_without_asking_the_app(guarded: Guarded, clock: FakeClock) -> None:
    origin = Origin(FRESH, (b"content-type", b"text/plain"))
    app = guarded(origin)
    first = await call(app)
    clock.advance(20)
    second = await call(app)
    assert (first.body, second.body, origin.count) == (b"answer 1", b"answer 1", 1)
    assert (first.header(b"age"), second.header(b"age")) == (None, b"20")
    assert (status(first), status(second)) == ("apim;fwd=uri-miss;stored", "apim;hit;ttl=40")
    assert second.header(b"content-type") == b"text/plain"
    assert second.complete


async def test_what_is_stale_is_asked_for_again(guarded: Guarded, clock: FakeClock) -> None:
    app = guarded(Origin(FRESH))
    await call(app)
    clock.advance(60)
    answer = await call(app)
    assert answer.body == b"answer 2"
    assert answer.header(b"age") is None


async def test_a_response_that_has_just_become_stale_is_said_to_be_stale(clock: FakeClock) -> None:
    app = Stack(Cache(), env=Env(clock=clock))(Origin(FRESH))
    await call(app)
    clock.advance(60)
    assert status(await call(app)) == "apim;fwd=stale;stored"
    clock.advance(120)
    assert status(await call(app)) == "apim;fwd=uri-miss;stored"


async def test_nothing_stale_is_given_away_that_does_not_allow_it(guarded: Guarded, clock: FakeClock) -> None:
    origin = Origin((b"cache-control", b"max-age=60, stale-if-error=600, must-revalidate"))
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.status = 503
    assert (await call(app, headers=[(b"cache-control", b"max-stale=600")])).status == 503


async def test_an_age_told_by_the_app_is_counted_and_not_repeated(guarded: Guarded, clock: FakeClock) -> None:
    app = guarded(Origin(FRESH, (b"age", b"30")))
    await call(app)
    clock.advance(2)
    answer = await call(app)
    assert answer.all(b"age") == [b"32"]
    assert status(answer) == "apim;hit;ttl=28"


async def test_the_time_a_response_took_counts_as_age(guarded: Guarded, clock: FakeClock) -> None:
    class Slow(Origin):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            clock.advance(5)
            await super().__call__(scope, receive, send)

    app = guarded(Slow(FRESH))
    await call(app)
    assert (await call(app)).header(b"age") == b"5"


async def test_a_date_is_not_changed(guarded: Guarded, clock: FakeClock) -> None:
    date = datetime.fromtimestamp(clock.now() - 10, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").encode()
    app = guarded(Origin(FRESH, (b"date", date)))
    await call(app)
    answer = await call(app)
    assert (answer.all(b"date"), answer.header(b"age")) == ([date], b"10")


async def test_a_clock_set_back_does_not_make_the_memory_younger(clock: FakeClock) -> None:
    app = Stack(Cache(), env=Env(clock=clock))(Origin(FRESH))
    await call(app)
    clock.jump(-86_400)
    clock.advance(61)
    assert (await call(app)).body == b"answer 2"


@pytest.mark.parametrize("code", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501])
async def test_statuses_that_are_cacheable_by_definition_are_kept(guarded: Guarded, code: int) -> None:
    origin = Origin(FRESH, (b"location", b"/x"), status=code, body=b"" if code == 204 else None)
    app = guarded(origin)
    await call(app)
    answer = await call(app)
    assert (answer.status, origin.count) == (code, 1)


async def test_a_time_to_live_is_for_responses_that_do_not_say(guarded: Guarded, clock: FakeClock) -> None:
    app = guarded(Origin(), Cache(ttl=2.5))
    await call(app)
    clock.advance(2.4)
    assert status(await call(app)) == "apim;hit;ttl=0"
    clock.advance(0.2)
    assert (await call(app)).body == b"answer 2"


async def test_without_one_only_what_says_so_is_kept(guarded: Guarded) -> None:
    origin = Origin((b"etag", b'"x"'), (b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT"))
    app = guarded(origin)
    assert status(await call(app)) == "apim;fwd=uri-miss;detail=no-freshness"
    assert (await call(app)).body == b"answer 2"


# HEAD and other methods


async def test_head_is_answered_from_what_get_left(guarded: Guarded) -> None:
    origin = Origin(FRESH)
    app = guarded(origin)
    await call(app)
    answer = await call(app, "HEAD")
    assert (answer.status, answer.body, origin.count) == (200, b"", 1)
    assert answer.header(b"content-length") == b"8"
    assert answer.complete


async def test_the_response_to_head_is_not_kept(guarded: Guarded) -> None:
    origin = Origin(FRESH, body=b"")
    app = guarded(origin)
    assert status(await call(app, "HEAD")) == "apim;fwd=uri-miss"
    origin.body = b"whole"
    assert (await call(app)).body == b"whole"


async def test_the_response_to_head_is_not_kept_when_a_layer_further_in_makes_it_a_get(guarded: Guarded) -> None:
    origin = Origin(FRESH, body=b"")

    async def head_is_get(scope: Scope, receive: Receive, send: Send) -> None:
        scope["method"] = "GET"
        await origin(scope, receive, send)

    app = guarded(head_is_get)
    await call(app, "HEAD")
    origin.body = b"whole"
    assert (await call(app)).body == b"whole"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "M-SEARCH"])
async def test_other_methods_go_to_the_app_and_are_not_kept(guarded: Guarded, method: str) -> None:
    app = guarded(Origin(PUBLIC))
    assert status(await call(app, method)) == "apim;fwd=method"
    assert (await call(app, method)).body == b"answer 2"


# What a request asks of the cache


@pytest.mark.parametrize(
    ("headers", "hit"),
    [
        ([(b"cache-control", b"no-cache")], False),
        ([(b"cache-control", b"max-age=0")], False),
        ([(b"cache-control", b"max-age=10")], True),
        ([(b"cache-control", b"max-age=9")], False),
        ([(b"cache-control", b"min-fresh=50")], True),
        ([(b"cache-control", b"min-fresh=51")], False),
        ([(b"cache-control", b"no-store")], True),
        ([(b"cache-control", b"only-if-cached")], True),
        ([(b"cache-control", b'junk=\xff, ",')], True),
        ([(b"pragma", b"no-cache")], False),
        ([(b"pragma", b"no-cache"), (b"cache-control", b"max-age=60")], True),
        ([(b"content-length", b"0")], True),
    ],
)
async def test_what_a_request_says_is_honoured(
    guarded: Guarded, clock: FakeClock, headers: RawHeaders, hit: bool
) -> None:
    app = guarded(Origin(FRESH))
    await call(app)
    clock.advance(10)
    answer = await call(app, headers=headers)
    assert status(answer).startswith("apim;hit" if hit else "apim;fwd=request")


async def test_the_answer_to_no_cache_takes_the_place_of_what_was_kept(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH))
    await call(app)
    await call(app, headers=[(b"cache-control", b"no-cache")])
    assert (await call(app)).body == b"answer 2"


async def test_the_answer_to_no_store_is_not_kept(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH))
    answer = await call(app, headers=[(b"cache-control", b"no-store")])
    assert status(answer) == "apim;fwd=uri-miss;detail=request-no-store"
    assert (await call(app)).body == b"answer 2"


@pytest.mark.parametrize("more", [[], [(b"range", b"bytes=0-1")]])
async def test_only_if_cached_is_refused_when_nothing_is_there(guarded: Guarded, more: RawHeaders) -> None:
    origin = Origin(FRESH)
    answer = await call(guarded(origin), headers=[(b"cache-control", b"only-if-cached"), *more])
    assert (answer.status, origin.count) == (504, 0)
    assert b'"not-in-cache"' in answer.body
    assert answer.header(b"cache-status") is None


# Requests that the key does not cover


@pytest.mark.parametrize(
    "headers",
    [
        [(b"if-match", b'"x"')],
        [(b"if-unmodified-since", b"Sun, 06 Nov 1994 08:49:37 GMT")],
        [(b"content-length", b"5")],
        [(b"transfer-encoding", b"chunked")],
    ],
)
async def test_preconditions_and_bodies_go_past_the_cache(guarded: Guarded, headers: RawHeaders) -> None:
    app = guarded(Origin(FRESH))
    assert status(await call(app, headers=headers)) == "apim;fwd=bypass"
    assert (await call(app)).body == b"answer 2"
    assert (await call(app, headers=headers)).body == b"answer 3"


async def test_a_part_is_not_kept_though_nobody_asked_for_one(guarded: Guarded) -> None:
    app = guarded(Origin(PUBLIC, (b"content-range", b"bytes 0-7/100"), status=206))
    assert status(await call(app)) == "apim;fwd=uri-miss;detail=status"
    assert (await call(app)).body == b"answer 2"


async def test_a_request_without_a_host_goes_past_the_cache(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH))
    body = {"type": "http.request", "body": b"", "more_body": False}
    for number in (1, 2):
        scope = {**http_scope(http_version="1.0"), "headers": []}
        answer = await exchange(app, scope, [body], {"type": "http.disconnect"}, leave_after=None, answer=None)
        assert (answer.body, status(answer)) == (b"answer %d" % number, "apim;fwd=bypass")


# Conditional requests

VALIDATORS = (FRESH, (b"etag", b'"one"'), (b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT"))


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(b"if-none-match", b'"one"')], 304),
        ([(b"if-none-match", b'W/"one", "two"')], 304),
        ([(b"if-none-match", b"*")], 304),
        ([(b"if-none-match", b'"two"')], 200),
        ([(b"if-modified-since", b"Sun, 06 Nov 1994 08:49:37 GMT")], 304),
        ([(b"if-modified-since", b"Sun, 06 Nov 1994 08:49:36 GMT")], 200),
        ([(b"if-modified-since", b"nonsense")], 200),
        ([(b"if-none-match", b'"two"'), (b"if-modified-since", b"Sun, 06 Nov 1994 08:49:37 GMT")], 200),
    ],
)
async def test_a_condition_is_answered_from_what_is_fresh(guarded: Guarded, headers: RawHeaders, code: int) -> None:
    origin = Origin(*VALIDATORS, (b"content-type", b"text/plain"))
    app = guarded(origin)
    await call(app)
    answer = await call(app, headers=headers)
    assert (answer.status, origin.count) == (code, 1)
    assert answer.body == (b"" if code == 304 else b"answer 1")
    assert answer.header(b"etag") == b'"one"'
    assert answer.header(b"age") == b"0"
    assert status(answer) == "apim;hit;ttl=60"
    assert (answer.header(b"content-length") is None) is (code == 304)


async def test_a_condition_on_what_is_not_kept_is_the_apps_to_answer(guarded: Guarded) -> None:
    origin = Origin(*VALIDATORS, status=304, body=b"")
    app = guarded(origin)
    answer = await call(app, headers=[(b"if-none-match", b'"one"')])
    assert (answer.status, status(answer)) == (304, "apim;fwd=uri-miss;detail=status")
    assert (b"if-none-match", b'"one"') in origin.asked[0]["headers"]
    origin.status, origin.body = 200, b"whole"
    assert (await call(app)).body == b"whole"


async def test_only_a_200_is_answered_by_304(guarded: Guarded) -> None:
    app = guarded(Origin(*VALIDATORS, status=404))
    await call(app)
    assert (await call(app, headers=[(b"if-none-match", b'"one"')])).status == 404


# Keys


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"path": "/a"}, {"path": "/b"}),
        ({"path": "/a"}, {"path": "/A"}),
        ({"path": "/a"}, {"path": "/a/"}),
        ({"path": "/a", "raw_path": b"/a"}, {"path": "/a", "raw_path": b"/%61"}),
        ({"path": "/a;x.css"}, {"path": "/a"}),
        ({"query": b"a=1&b=2"}, {"query": b"b=2&a=1"}),
        ({"query": b"a=1"}, {"query": b"a=1&"}),
        ({"query": b"a"}, {"query": b"a="}),
        ({"query": b"a=%31"}, {"query": b"a=1"}),
        ({"query": b"a=1&amp;b=2"}, {"query": b"a=1&b=2"}),
        ({"path": "/a", "query": b""}, {"path": "/a", "query": b"x"}),
        ({"scheme": "http"}, {"scheme": "https"}),
        ({"headers": [(b"host", b"a.test")]}, {"headers": [(b"host", b"b.test")]}),
        ({"headers": [(b"host", b"a.test")]}, {"headers": [(b"host", b"A.test")]}),
        ({"headers": [(b"host", b"a.test")]}, {"headers": [(b"host", b"a.test:80")]}),
        ({"root_path": ""}, {"root_path": "/v2"}),
    ],
)
async def test_different_targets_have_different_responses(
    guarded: Guarded, one: dict[str, Any], other: dict[str, Any]
) -> None:
    app = guarded(Origin(FRESH))
    assert [(await call(app, **each)).body for each in (one, other, one, other)] == [
        b"answer 1", b"answer 2", b"answer 1", b"answer 2",
    ]  # fmt: skip


TARGETS = st.fixed_dictionaries(
    {
        "scheme": st.sampled_from(["http", "https"]),
        "root_path": st.text("/a", max_size=2),
        "path": st.text("/a1é", max_size=3),
        "raw_path": st.binary(max_size=3),
        "query_string": st.binary(max_size=3),
        "host": st.binary(max_size=3),
    }
)


@given(TARGETS, TARGETS)
def test_keys_are_equal_only_for_equal_targets(one: dict[str, Any], other: dict[str, Any]) -> None:
    pages = SharedPages(WaryEntries(Elsewhere(), FakeClock()), "x", owned=False)
    resources = [resource_of(each, each["host"]) for each in (one, other)]
    assert (resources[0] == resources[1]) is (one == other)
    assert (pages.key("page", resources[0]) == pages.key("page", resources[1])) is (one == other)


def test_what_a_server_leaves_unsaid_is_what_it_means() -> None:
    said = {"scheme": "http", "root_path": "", "path": "/x", "raw_path": b"", "query_string": b""}
    assert resource_of({"path": "/x"}, b"host") == resource_of(said, b"host")


OWNERS = st.tuples(st.none() | st.text(max_size=2), st.none() | st.text(max_size=2))


@given(OWNERS, OWNERS, st.text(max_size=2), st.text(max_size=2))
def test_owners_and_resources_never_run_into_each_other(
    one: tuple[str | None, ...], other: tuple[str | None, ...], first: str, second: str
) -> None:
    pages = SharedPages(WaryEntries(Elsewhere(), FakeClock()), "x", owned=False)
    resources = [resource_of({**http_scope(), "path": path, "raw_path": b""}, b"host") for path in (first, second)]
    keys = pages.key("page", resources[0], one), pages.key("page", resources[1], other)
    assert (keys[0] == keys[1]) is ((one, first) == (other, second))


async def test_fields_that_speak_for_others_never_reach_the_app_and_so_no_stored_response(guarded: Guarded) -> None:
    """What hygiene takes away cannot be echoed into what others get."""

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        body = b"; ".join(name + b"=" + value for name, value in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH]})
        await send({"type": "http.response.body", "body": body})

    hostile = [
        (b"x-forwarded-host", b"evil"), (b"x-forwarded-proto", b"evil"), (b"forwarded", b"host=evil"),
        (b"x-original-url", b"/evil"), (b"x-http-method-override", b"evil"), (b"x_host", b"evil"),
    ]  # fmt: skip
    app = guarded(echo)
    await call(app, headers=hostile)
    assert b"evil" not in (await call(app)).body


@pytest.mark.parametrize("path", ["/account/x.css", "/account;x.css", "/account.js", "/static/../x.png"])
async def test_a_path_that_looks_static_makes_nothing_cacheable(guarded: Guarded, path: str) -> None:
    origin = Origin()
    app = guarded(origin)
    await call(app, path=path)
    assert not status(await call(app, path=path)).startswith("apim;hit")


# Vary


async def test_a_response_is_for_requests_that_say_the_same_in_the_fields_it_names(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH, (b"vary", b"Accept-Language")))
    german, french = [(b"accept-language", b"de")], [(b"accept-language", b"fr")]
    assert (await call(app, headers=german)).body == b"answer 1"
    miss = await call(app, headers=french)
    assert (miss.body, status(miss).startswith("apim;fwd=vary-miss")) == (b"answer 2", True)
    assert (await call(app)).body == b"answer 3"
    bodies = [(await call(app, headers=headers)).body for headers in (german, french, [])]
    assert bodies == [b"answer 1", b"answer 2", b"answer 3"]


async def test_what_policies_further_in_say_instead_does_not_count(guarded: Guarded) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Says(Policy):
        guards: ClassVar[bool] = False

        def on_request(self, exchange: Exchange) -> None:
            exchange.set_header("accept-language", "xx")

    app = guarded(Origin(FRESH, (b"vary", b"accept-language")), Cache(), Says())
    await call(app, headers=[(b"accept-language", b"de")])
    assert (await call(app, headers=[(b"accept-language", b"de")])).body == b"answer 1"
    assert (await call(app, headers=[(b"accept-language", b"xx")])).body == b"answer 2"


async def test_an_app_that_edits_the_headers_of_its_request_changes_no_key(guarded: Guarded) -> None:
    origin = Origin(FRESH, (b"vary", b"accept-language"))

    async def edits(scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"][:] = [(b"host", b"testserver"), (b"accept-language", b"xx")]
        await origin(scope, receive, send)

    app = guarded(edits)
    await call(app, headers=[(b"accept-language", b"de")])
    assert (await call(app, headers=[(b"accept-language", b"xx")])).body == b"answer 2"


@pytest.mark.parametrize("vary", [b"*", b"accept, *", b"a b"])
async def test_what_no_request_can_be_told_to_match_is_not_kept(guarded: Guarded, vary: bytes) -> None:
    app = guarded(Origin(FRESH, (b"vary", vary)))
    assert status(await call(app)) == "apim;fwd=uri-miss;detail=vary"
    assert (await call(app)).body == b"answer 2"


async def test_variants_of_one_url_are_bounded(guarded: Guarded) -> None:
    origin = Origin(FRESH, (b"vary", b"accept-language"))
    app = guarded(origin, Cache(max_variants=3))
    for number in range(50):
        await call(app, headers=[(b"accept-language", b"x-%d" % number)])
    origin.headers.append((b"x-second", b"round"))
    kept = [
        number
        for number in range(50)
        if (
            await call(app, headers=[(b"accept-language", b"x-%d" % number), (b"cache-control", b"only-if-cached")])
        ).status
        == 200
    ]
    assert kept == [47, 48, 49]


@pytest.mark.parametrize("vary", [b"", b"accept-language"])
async def test_a_response_that_varies_otherwise_takes_the_place_of_the_others(guarded: Guarded, vary: bytes) -> None:
    origin = Origin(FRESH, (b"vary", b"accept"))
    app = guarded(origin)
    await call(app, headers=[(b"accept", b"a")])
    origin.headers = [FRESH, (b"vary", vary)]
    await call(app, headers=[(b"accept", b"b"), (b"accept-language", b"de")])
    assert (await call(app, headers=[(b"accept", b"a"), (b"accept-language", b"de")])).body == b"answer 2"


# What belongs to one caller


@pytest.mark.parametrize(
    "credential",
    [
        (b"authorization", b"Bearer alice"),
        (b"proxy-authorization", b"Basic alice"),
        (b"cookie", b"session=alice"),
        (b"x-api-key", b"alice"),
        (b"x-caller", b"alice"),
        (b"x-subscription", b"alice"),
    ],
)
@pytest.mark.parametrize(
    ("cache_control", "policy"),
    [(b"max-age=60", Cache()), (b"max-age=60", Cache(ttl=60)), (b"", Cache(ttl=60)), (b"no-transform", Cache(ttl=60))],
)
async def test_a_response_to_a_credential_is_not_kept(
    guarded: Guarded, credential: tuple[bytes, bytes], cache_control: bytes, policy: Cache
) -> None:
    app = guarded(Origin((b"cache-control", cache_control)), Knows(), policy)
    first = await call(app, headers=[credential])
    assert "stored" not in status(first)
    assert (await call(app)).body == b"answer 2"


@pytest.mark.parametrize("cache_control", [b"public, max-age=60", b"s-maxage=60"])
@pytest.mark.parametrize("name", [b"authorization", b"cookie", b"x-api-key", b"x-caller", b"x-subscription"])
async def test_unless_it_says_that_it_is_for_all(guarded: Guarded, cache_control: bytes, name: bytes) -> None:
    app = guarded(Origin((b"cache-control", cache_control)), Knows(), Cache())
    await call(app, headers=[(name, b"alice")])
    assert (await call(app, headers=[(name, b"bob")])).body == b"answer 1"


@pytest.mark.parametrize(
    "line",
    [
        (b"date", b"Thu, 01 Jan 1970 00:00:01 GMT"), (b"expires", b"Thu, 01 Jan 2099 00:00:00 GMT"), (b"age", b"0"),
        (b"etag", b'"1"'), (b"last-modified", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"vary", b"accept"),
        (b"pragma", b"public"), (b"cache-tag", b"public"), (b"cdn-cache-control", b"max-age=60"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", [b"authorization", b"cookie", b"x-api-key", b"x-caller", b"x-subscription"])
async def test_nothing_else_says_so(guarded: Guarded, line: tuple[bytes, bytes], name: bytes) -> None:
    app = guarded(Origin(line), Knows(), Cache(ttl=60))
    assert b"stored" not in ((await call(app, headers=[(name, b"alice")])).header(b"cache-status") or b"")
    assert (await call(app, headers=[(name, b"bob")])).body == b"answer 2"


async def test_must_revalidate_opens_a_response_to_authorization_and_to_nothing_else(guarded: Guarded) -> None:
    """RFC 9111 §3.5 names it; of callers that we established it says nothing."""
    app = guarded(Origin((b"cache-control", b"max-age=60, must-revalidate")), Knows(), Cache())
    await call(app, headers=[(b"authorization", b"alice"), (b"x-caller", b"alice")])
    assert (await call(app)).body == b"answer 2"
    await call(app, path="/other", headers=[(b"authorization", b"alice")])
    assert (await call(app, path="/other")).body == b"answer 3"


async def test_vary_on_the_cookie_keeps_cookies_apart(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH, (b"vary", b"cookie")))
    alice, bob = [(b"cookie", b"session=alice")], [(b"cookie", b"session=bob")]
    assert [(await call(app, headers=headers)).body for headers in (alice, bob, alice, bob)] == [
        b"answer 1", b"answer 2", b"answer 1", b"answer 2",
    ]  # fmt: skip


async def test_what_says_how_long_it_is_fresh_answers_requests_with_credentials_too(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH))
    await call(app)
    assert (await call(app, headers=[(b"cookie", b"session=alice")])).body == b"answer 1"


async def test_what_does_not_say_is_for_requests_without_credentials(guarded: Guarded) -> None:
    app = guarded(Origin(), Cache(ttl=60))
    await call(app)
    answer = await call(app, headers=[(b"cookie", b"session=alice")])
    assert (answer.body, status(answer)) == (b"answer 2", "apim;fwd=request;detail=cookie")
    assert (await call(app)).body == b"answer 1"


@pytest.mark.parametrize("cache_control", [b"max-age=60", b"public, s-maxage=60"])
async def test_a_response_that_sets_a_cookie_is_not_kept(guarded: Guarded, cache_control: bytes) -> None:
    app = guarded(Origin((b"cache-control", cache_control), (b"set-cookie", b"session=alice")), Cache(ttl=60))
    assert status(await call(app)) == "apim;fwd=uri-miss;detail=set-cookie"
    assert (await call(app)).body == b"answer 2"


@pytest.mark.parametrize("cache_control", [b"private, max-age=60", b"no-store, max-age=60", b"no-cache, max-age=60"])
async def test_a_response_that_says_so_is_not_kept_whatever_was_configured(
    guarded: Guarded, cache_control: bytes
) -> None:
    cache = Cache(ttl=60, private_to=by.principal, regardless_of=("cookie", "principal"))
    app = guarded(Origin((b"cache-control", cache_control)), Knows(), cache)
    await call(app, headers=[(b"x-caller", b"alice")])
    assert (await call(app, headers=[(b"x-caller", b"alice")])).body == b"answer 2"


async def test_fields_for_one_caller_are_left_out_of_what_is_kept(guarded: Guarded) -> None:
    app = guarded(Origin((b"cache-control", b'max-age=60, private="x-user"'), (b"x-user", b"alice"), (b"x-all", b"1")))
    assert (await call(app)).header(b"x-user") == b"alice"
    second = await call(app)
    assert (second.header(b"x-user"), second.header(b"x-all")) == (None, b"1")


async def test_responses_private_to_a_caller_are_given_to_that_caller(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH), Knows(), Cache(private_to=by.principal))
    alice = [(b"x-caller", b"alice"), (b"authorization", b"Bearer 1"), (b"cookie", b"a=b")]
    bob = [(b"x-caller", b"bob"), (b"authorization", b"Bearer 2")]
    bodies = [(await call(app, headers=headers)).body for headers in (alice, bob, [], alice, bob, [])]
    assert bodies == [b"answer 1", b"answer 2", b"answer 3"] * 2


async def test_private_to_a_subscription_is_not_private_to_a_caller(guarded: Guarded) -> None:
    """Two people may hold the same subscription."""
    app = guarded(Origin(FRESH), Knows(), Cache(private_to=by.subscription))
    answer = await call(app, headers=[(b"x-caller", b"alice"), (b"x-subscription", b"s")])
    assert status(answer) == "apim;fwd=uri-miss;detail=principal"
    assert (await call(app, headers=[(b"x-caller", b"bob"), (b"x-subscription", b"s")])).body == b"answer 2"


async def test_private_to_both_is_private_to_both(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH), Knows(), Cache(private_to=(by.principal, by.subscription)))
    callers = [
        [(b"x-caller", caller), (b"x-subscription", subscription)]
        for caller in (b"alice", b"bob")
        for subscription in (b"s", b"t")
    ]
    bodies = [(await call(app, headers=headers)).body for headers in callers * 2]
    assert bodies == [b"answer 1", b"answer 2", b"answer 3", b"answer 4"] * 2


async def test_a_key_that_does_not_say_what_it_rests_on_settles_nothing(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH), Knows(), Cache(private_to=by.header("x-tenant")))
    await call(app, headers=[(b"x-caller", b"alice"), (b"x-tenant", b"t")])
    assert (await call(app, headers=[(b"x-caller", b"bob"), (b"x-tenant", b"t")])).body == b"answer 2"


async def test_callers_who_lack_what_responses_are_private_to_do_not_share(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH), Knows(), Cache(private_to=by.claim("tenant")))
    answer = await call(app, headers=[(b"x-caller", b"alice")])
    assert status(answer) == "apim;fwd=uri-miss;detail=principal"
    assert (await call(app, headers=[(b"x-caller", b"bob")])).body == b"answer 2"


async def test_responses_can_be_private_to_a_product(guarded: Guarded) -> None:
    """What policies further in make of a response may differ by product."""

    def product(exchange: Exchange) -> str | None:
        return exchange.subscription and exchange.subscription.product

    product.needs = frozenset({"subscription"})  # type: ignore[attr-defined]

    @dataclass(frozen=True, kw_only=True)
    class Marks(Policy):
        def on_response(self, exchange: Exchange) -> None:
            if exchange.response is not None and exchange.subscription is not None:
                exchange.response.append(b"x-product", exchange.subscription.product.encode())

    app = guarded(Origin(FRESH), Knows(), Cache(private_to=product), Marks())
    gold, gold_too, silver = ([(b"x-subscription", each)] for each in (b"g1", b"g2", b"s1"))
    answers = [await call(app, headers=headers) for headers in (gold, silver, gold_too, silver)]
    assert [each.header(b"x-product") for each in answers] == [b"g", b"s", b"g", b"s"]
    assert [each.body for each in answers] == [b"answer 1", b"answer 2", b"answer 1", b"answer 2"]


@pytest.mark.parametrize("key", [by.subscription, by.principal])
async def test_the_holder_of_a_key_is_one_caller_whichever_way_it_is_looked_at(guarded: Guarded, key: by.Key) -> None:
    keys = MemoryKeys()
    for name in ("alice", "bob"):
        keys.add(Subscription(id=name))
    alice, bob = ([(b"ocp-apim-subscription-key", keys.issue(name).encode())] for name in ("alice", "bob"))
    app = guarded(Origin(FRESH), APIKeyAuth(keys=keys), Cache(private_to=key))
    bodies = [(await call(app, headers=headers)).body for headers in (alice, bob, alice, bob)]
    assert bodies == [b"answer 1", b"answer 2"] * 2


async def test_a_key_in_the_query_that_was_taken_away_does_not_make_two_callers_one(guarded: Guarded) -> None:
    keys = MemoryKeys()
    for name in ("alice", "bob"):
        keys.add(Subscription(id=name))
    alice, bob = (b"subscription-key=" + keys.issue(name).encode() for name in ("alice", "bob"))
    app = guarded(Origin(FRESH), APIKeyAuth(keys=keys), Cache(ttl=60))
    assert [(await call(app, query=query)).body for query in (alice, bob)] == [b"answer 1", b"answer 2"]


@pytest.mark.parametrize(
    ("credential", "name"),
    [
        ("authorization", b"authorization"),
        ("cookie", b"cookie"),
        ("key", b"x-api-key"),
        ("key", b"x-authtoken"),
        ("principal", b"x-caller"),
        ("principal", b"x-user-id"),
        ("subscription", b"x-subscription"),
    ],
)
async def test_credentials_the_app_does_not_look_at_can_be_named(
    guarded: Guarded, credential: Any, name: bytes
) -> None:
    app = guarded(Origin(), Knows(), Cache(ttl=60, regardless_of=(credential,)))
    await call(app, headers=[(name, b"alice")])
    assert (await call(app, headers=[(name, b"bob")])).body == b"answer 1"


async def test_a_caller_established_further_in_is_not_the_caches_to_answer(guarded: Guarded) -> None:
    class Plain:
        """A layer of somebody else's, which keeps the order from being checked."""

        def __call__(self, app: ASGIApp) -> ASGIApp:
            async def pass_on(scope: Scope, receive: Receive, send: Send) -> None:
                await app(scope, receive, send)

            return pass_on

    inner = Stack(Knows())(Origin(PUBLIC))
    app = guarded(Plain()(inner))
    answer = await call(app, headers=[(b"x-caller", b"alice")])
    assert status(answer) == "apim;fwd=uri-miss;detail=identified-behind"
    assert (await call(app, headers=[(b"x-caller", b"bob")])).body == b"answer 2"


class TokenBackend(AuthenticationBackend):
    """Somebody else's authentication, by a header no cache has heard of."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        token = conn.headers.get("x-who")
        return None if token is None else (AuthCredentials(), SimpleUser(token))


@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("policy", [Cache(ttl=60), Cache(ttl=60, private_to=by.principal)])
async def test_a_caller_somebody_elses_middleware_has_named_is_a_caller(
    guarded: Guarded, behind: bool, policy: Cache
) -> None:
    def authentication(app: ASGIApp) -> ASGIApp:
        return AuthenticationMiddleware(app, TokenBackend())

    app = guarded(Origin(), Knows(), *((policy, authentication) if behind else (authentication, policy)))
    alice, bob = ([(b"x-who", name), (b"x-caller", b"same")] for name in (b"alice", b"bob"))
    assert status(await call(app, headers=alice)) == "apim;fwd=uri-miss;detail=principal"
    assert (await call(app, headers=bob)).body == b"answer 2"


async def test_a_caller_who_is_nobody_is_none(guarded: Guarded) -> None:
    app = guarded(AuthenticationMiddleware(Origin(), TokenBackend()), Cache(ttl=60))
    assert [(await call(app)).body for _ in range(2)] == [b"answer 1"] * 2


async def test_a_user_who_does_not_say_whether_they_are_somebody_is_somebody(guarded: Guarded) -> None:
    origin = Origin()

    async def names(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = BaseUser()
        await origin(scope, receive, send)

    app = guarded(names, Cache(ttl=60))
    assert [(await call(app)).body for _ in range(2)] == [b"answer 1", b"answer 2"]


def test_a_guard_behind_the_cache_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="Write Knows before Cache"):
        Stack(Cache(), Knows())


def test_owners_must_be_established_before_the_cache() -> None:
    assert Cache(private_to=(by.principal, by.subscription)).needs == {"principal", "subscription"}

    @dataclass(frozen=True, kw_only=True)
    class Late(Policy):
        provides: ClassVar[frozenset[str]] = frozenset({"principal"})

    with pytest.raises(ConfigError, match="relies on the principal"):
        Stack(Cache(private_to=by.principal), Late())


@dataclass
class Caller:
    """Somebody, and what they carry to be known by."""

    name: str
    carries: set[str]

    def headers(self) -> RawHeaders:
        names = {"authorization": b"authorization", "cookie": b"cookie", "key": b"x-api-key"}
        names |= {"principal": b"x-caller", "subscription": b"x-subscription"}
        return [(names[each], self.name.encode()) for each in sorted(self.carries)]


CARRIED = st.sets(st.sampled_from(["authorization", "cookie", "key", "principal", "subscription"]))
CALLERS = st.builds(Caller, st.sampled_from(["alice", "bob"]), CARRIED)
CACHE_CONTROL = st.lists(
    st.sampled_from(
        b'max-age=60|s-maxage=60|public|must-revalidate|private|no-store|no-cache|private="x"|no-cache="x"|'
        b'max-age=junk|must-understand|immutable|x="|proxy-revalidate'.split(b"|")
    ),
    max_size=3,
).map(b", ".join)
RESPONSES = st.fixed_dictionaries(
    {},
    optional={
        "cache-control": CACHE_CONTROL,
        "vary": st.sampled_from([b"cookie", b"authorization", b"accept", b"*", b"cookie, x-api-key"]),
        "set-cookie": st.just(b"a=b"),
        "expires": st.sampled_from([b"Fri, 31 Dec 2060 23:59:59 GMT", b"0"]),
        "pragma": st.just(b"no-cache"),
    },
)
ASKED = st.lists(
    st.tuples(CALLERS, RESPONSES, st.sampled_from([None, b"no-cache", b"max-age=10", b"no-store"])), max_size=12
)


def may_get(caller: Caller, maker: Caller, said: dict[str, bytes]) -> bool:
    """Whether a response made for one request may be given to another, from the letter of the rules."""
    directives, vary = said.get("cache-control", b""), said.get("vary", b"")
    if b"public" in directives or b"s-maxage" in directives:
        return True
    matters = set(maker.carries)
    if b"must-revalidate" in directives:
        matters.discard("authorization")
    if b"cookie" in vary and maker.name == caller.name and "cookie" in caller.carries:
        matters.discard("cookie")
    return not matters


@given(ASKED, st.sampled_from([Cache(), Cache(ttl=60)]), st.booleans())
@settings(max_examples=300)
def test_no_response_reaches_another_caller_unless_it_said_so(
    asked: list[tuple[Caller, dict[str, bytes], bytes | None]], policy: Cache, elsewhere: bool
) -> None:
    """Whatever two callers carry and responses say."""
    origin, made = Origin(), list[tuple[Caller, dict[str, bytes]]]()
    env = Env(clock=FakeClock(), entries=Elsewhere() if elsewhere else None)
    app = Stack(Knows(), policy, env=env, place="here")(origin)
    for caller, response, wished in asked:
        origin.headers = [(name.encode(), value) for name, value in response.items()]
        headers = caller.headers() + ([] if wished is None else [(b"cache-control", wished)])
        answer = run(call(app, headers=headers))
        if origin.count > len(made):
            made.append((caller, response))
        else:
            maker, said = made[int(answer.body.split()[1]) - 1]
            assert "set-cookie" not in said
            assert may_get(caller, maker, said)


@given(st.lists(st.tuples(st.sampled_from(["alice", "bob"]), CARRIED, RESPONSES), max_size=12), st.booleans())
def test_with_owners_no_response_reaches_another_whatever_it_says(
    asked: list[tuple[str, set[str], dict[str, bytes]]], elsewhere: bool
) -> None:
    """Not even one that is public."""
    origin = Origin()
    env = Env(clock=FakeClock(), entries=Elsewhere() if elsewhere else None)
    app = Stack(Knows(), Cache(ttl=60, private_to=by.principal), env=env, place="here")(origin)
    for name, carries, response in asked:
        origin.headers = [(each.encode(), value) for each, value in response.items()]
        origin.body = name.encode()
        caller = Caller(name, {*carries, "principal"})
        assert run(call(app, headers=caller.headers())).body == name.encode()


# What changes take away


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "M-SEARCH"])
@pytest.mark.parametrize("code", [200, 204, 303])
async def test_an_unsafe_method_that_succeeds_takes_away_what_was_kept(
    guarded: Guarded, method: str, code: int
) -> None:
    origin = Origin(FRESH)
    app = guarded(origin)
    await call(app)
    origin.status = code
    await call(app, method)
    origin.status = 200
    answer = await call(app)
    assert (answer.body, status(answer)) == (b"answer 3", "apim;fwd=uri-miss;stored")


@pytest.mark.parametrize(("method", "code"), [("POST", 400), ("DELETE", 404), ("PUT", 500), ("OPTIONS", 200)])
async def test_one_that_fails_or_is_safe_does_not(guarded: Guarded, method: str, code: int) -> None:
    origin = Origin(FRESH)
    app = guarded(origin)
    await call(app)
    origin.status = code
    await call(app, method)
    assert (await call(app)).body == b"answer 1"


@pytest.mark.parametrize("name", [b"location", b"content-location"])
@pytest.mark.parametrize(
    ("reference", "gone"),
    [
        (b"/things/1?a=b", True),
        (b"http://testserver/things/1?a=b", True),
        (b"HTTP://TestServer/things/1?a=b", True),
        (b"1?a=b", True),
        (b"//testserver/things/1?a=b", True),
        (b"/things/1?a=b#part", True),
        (b"http://other/things/1?a=b", False),
        (b"https://testserver/things/1?a=b", False),
        (b"http://testserver:8080/things/1?a=b", False),
        (b"http://testserver@evil/things/1?a=b", False),
        (b"/things/2", False),
        (b"http://[", False),
        (b"/things/%zz", False),
        (b"/things/%ff", False),
        (b"/../..", False),
        (b"\xff\xfe", False),
        (b"", False),
    ],
)
async def test_what_the_response_names_goes_too_if_it_is_of_the_same_origin(
    guarded: Guarded, name: bytes, reference: bytes, gone: bool
) -> None:
    origin = Origin(FRESH)
    app = guarded(origin)
    await call(app, path="/things/1", query=b"a=b")
    origin.headers = [(name, reference)]
    await call(app, "POST", "/things/")
    answer = await call(app, path="/things/1", query=b"a=b")
    assert (answer.body == b"answer 1") is not gone


async def test_a_change_takes_away_what_any_owner_has(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH), Knows(), Cache(private_to=by.principal))
    alice, bob = [(b"x-caller", b"alice")], [(b"x-caller", b"bob")]
    await call(app, headers=alice)
    await call(app, headers=bob)
    await call(app, "POST", headers=alice)
    assert (await call(app, headers=bob)).body == b"answer 4"


async def test_other_resources_keep_what_they_have(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH))
    for number in range(50):
        await call(app, path=f"/{number}")
    for number in range(5_000):
        await call(app, "POST", query=b"%d" % number)
    assert [(await call(app, path=f"/{number}")).body for number in range(50)] == [
        b"answer %d" % number for number in range(1, 51)
    ]


async def test_nothing_is_remembered_of_resources_nobody_keeps_anything_of() -> None:
    keeper, put_before = keeper_of(Cache(private_to=by.principal))
    app = put_before(Origin())
    for number in range(100):
        await call(app, "GET" if number % 2 else "POST", query=b"%d" % number)
    gc.collect()
    assert len(keeper._versions._current) == 0


async def test_a_response_on_its_way_while_the_resource_changes_is_not_kept(guarded: Guarded) -> None:
    class Racing(Origin):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] == "GET" and not self.asked:
                self.asked.append(scope)
                await call(app, "POST")
            await super().__call__(scope, receive, send)

    app = guarded(Racing(FRESH))
    assert (await call(app)).body == b"answer 3"
    assert (await call(app)).body == b"answer 4"


# Bodies of all kinds


async def test_a_stream_passes_chunk_by_chunk_and_is_kept_whole(guarded: Guarded) -> None:
    origin = Origin(FRESH, body=[b"one ", b"", b"two ", b"three"])
    app = guarded(origin)
    first, second = await call(app), await call(app)
    assert [message.get("body") for message in first.messages[1:]] == [b"one ", b"", b"two ", b"three"]
    assert (second.body, second.header(b"content-length"), origin.count) == (b"one two three", b"13", 1)


async def test_a_chunk_is_on_its_way_before_the_next_is_made(guarded: Guarded) -> None:
    answer = Answer()
    seen: list[int] = []

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH]})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 2})
            seen.append(len(answer.messages))

    await call(guarded(stream), answer=answer)
    assert seen == [2, 3, 4]


async def test_an_event_stream_is_never_kept(guarded: Guarded) -> None:
    app = guarded(Origin((b"content-type", b"text/event-stream")), Cache(ttl=60))
    assert status(await call(app)) == "apim;fwd=uri-miss;detail=event-stream"
    assert (await call(app)).body == b"answer 2"


@pytest.mark.parametrize("declared", [True, False])
async def test_what_is_too_large_passes_and_is_not_kept(guarded: Guarded, declared: bool) -> None:
    headers = [(b"content-length", b"3000")] if declared else []
    origin = Origin(FRESH, *headers, body=[b"x" * 1000] * 3)
    app = guarded(origin, Cache(max_entry_bytes=2999))
    assert len((await call(app)).body) == 3000
    await call(app)
    assert origin.count == 2


async def test_a_head_that_is_too_large_counts(guarded: Guarded) -> None:
    origin = Origin(FRESH, *[(b"x-%d" % number, b"x" * 100) for number in range(20)])
    app = guarded(origin, Cache(max_entry_bytes=1500))
    assert status(await call(app)) == "apim;fwd=uri-miss;detail=too-large"
    await call(app)
    assert origin.count == 2


@pytest.mark.parametrize("declared", [b"7", b"9", b"nonsense", b"-8", b"8, 8"])
async def test_a_body_of_another_length_than_announced_is_not_kept(guarded: Guarded, declared: bytes) -> None:
    app = guarded(Origin(FRESH, (b"content-length", declared)))
    await call(app)
    assert (await call(app)).body == b"answer 2"


async def test_two_lengths_are_none(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH, (b"content-length", b"8"), (b"content-length", b"8")))
    await call(app)
    assert (await call(app)).body == b"answer 2"


async def test_a_body_where_there_can_be_none_is_not_kept(guarded: Guarded) -> None:
    origin = Origin(FRESH, status=204, body=b"what?")
    app = guarded(origin)
    await call(app)
    await call(app)
    assert origin.count == 2


async def test_a_response_that_breaks_off_is_not_kept(guarded: Guarded) -> None:
    origin = Origin(FRESH)

    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        if origin.count:
            await origin(scope, receive, send)
            return
        origin.asked.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("boom")

    app = guarded(breaks)
    with pytest.raises(RuntimeError, match="boom"):
        await call(app)
    assert (await call(app)).body == b"answer 2"


async def test_a_response_that_just_ends_is_not_kept(guarded: Guarded) -> None:
    origin = Origin(FRESH)

    async def forgets(scope: Scope, receive: Receive, send: Send) -> None:
        if origin.count:
            await origin(scope, receive, send)
            return
        origin.asked.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    app = guarded(forgets)
    assert not (await call(app)).complete
    assert (await call(app)).body == b"answer 2"


async def test_a_file_sent_past_the_cache_is_not_kept_without_its_content(guarded: Guarded) -> None:
    """The way is hidden from the app, which may not care."""
    origin = Origin(FRESH)

    async def sends_a_file(scope: Scope, receive: Receive, send: Send) -> None:
        if origin.count:
            await origin(scope, receive, send)
            return
        origin.asked.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH]})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        await send({"type": "http.response.pathsend", "path": "/tmp/rest"})

    app = guarded(sends_a_file)
    with pytest.raises(RuntimeError, match="not offered"):
        await call(app)
    assert (await call(app)).body == b"answer 2"


async def test_an_app_that_raises_before_it_answers_leaves_nothing(guarded: Guarded) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("boom")

    app = guarded(fails)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="boom"):
            await call(app)


async def test_a_client_that_leaves_midway_leaves_nothing_half(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH, body=[b"one ", b"two"]))
    with pytest.raises(OSError, match="gone"):
        await call(app, leave_after=2)
    assert status(await call(app)) == "apim;fwd=uri-miss;stored"


async def test_a_client_that_leaves_while_it_is_answered_from_memory_harms_nothing(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH))
    await call(app)
    with pytest.raises(OSError, match="gone"):
        await call(app, leave_after=1)
    assert (await call(app)).body == b"answer 1"


async def test_a_response_refused_on_its_way_out_further_in_is_not_kept(guarded: Guarded) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Refuses(Policy):
        def on_response(self, exchange: Exchange) -> None:
            raise Refusal(502, "bad-answer")

    app = guarded(Origin(PUBLIC), Cache(), Refuses())
    answer = await call(app)
    assert (answer.status, status(answer)) == (502, "apim;fwd=uri-miss;detail=status")


async def test_a_response_broken_off_by_a_tap_further_in_is_not_kept(guarded: Guarded) -> None:
    class Breaks(Policy):
        taps_body = True

        def on_response(self, exchange: Exchange) -> Callable[[bytes, bool], bytes]:
            def tap(chunk: bytes, last: bool) -> bytes:
                raise ResponseOver("no more")

            return tap

    origin = Origin(PUBLIC)
    app = guarded(origin, Cache(), Breaks())
    for _ in range(2):
        with pytest.raises((ResponseOver, OSError)):
            await call(app)
    assert origin.count == 2


def keeper_of(policy: Cache, clock: FakeClock | None = None) -> tuple[MemoryKeeper, Callable[[ASGIApp], ASGIApp]]:
    """A cache in memory whose insides can be looked at."""
    env = Env(clock=clock or FakeClock())
    keeper = policy.bind(env)
    assert isinstance(keeper, MemoryKeeper)
    return keeper, lambda app: ring(policy, keeper, app, env)


async def test_bodies_on_their_way_share_a_budget_and_give_it_back() -> None:
    """A thousand slow bodies hold no more than one memory's worth."""
    keeper, put_before = keeper_of(Cache(max_bytes=10_000, max_entry_bytes=5_000))
    answers: list[Answer] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH]})
        await send({"type": "http.response.body", "body": b"x" * 3_000, "more_body": True})
        if scope["path"] != "/1000":
            answers.append(
                await call(app, path=f"/{int(scope['path'][1:]) + 1}" if scope["path"] != "/20" else "/1000")
            )
        assert keeper._room.taken <= 10_000
        await send({"type": "http.response.body", "body": b"y"})

    app = put_before(slow)
    await call(app, path="/1")
    assert all(answer.body == b"x" * 3_000 + b"y" for answer in answers)
    assert len(answers) == 20
    assert keeper._room.taken == 0


async def test_nothing_is_held_of_responses_that_fail() -> None:
    keeper, put_before = keeper_of(Cache())

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH]})
        await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
        assert keeper._room.taken == 100
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await call(put_before(fails))
    assert keeper._room.taken == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4_000), st.sampled_from([b"a", b"b", b"c"])), max_size=60))
@settings(max_examples=50)
def test_the_memory_keeps_within_its_budget(asked: list[tuple[int, int, bytes]]) -> None:
    keeper, put_before = keeper_of(Cache(max_bytes=12_000, max_entry_bytes=3_000))
    origin = Origin(FRESH, (b"vary", b"accept"))
    app = put_before(origin)
    for path, size, accept in asked:
        origin.body = b"x" * size
        run(call(app, path=f"/{path}", headers=[(b"accept", accept)]))
        assert keeper._pages.held <= 12_000


async def test_a_flood_of_urls_keeps_within_the_budget_and_the_latest() -> None:
    keeper, put_before = keeper_of(Cache(max_bytes=100_000, max_entry_bytes=10_000))
    origin = Origin(FRESH)
    app = put_before(origin)
    for number in range(2_000):
        await call(app, query=b"x=%d" % number)
    assert keeper._pages.held <= 100_000
    assert status(await call(app, query=b"x=1999")) == "apim;hit;ttl=60"


# Neighbours


@dataclass(frozen=True, kw_only=True)
class Counts(Policy):
    """Numbers the responses that pass, in a header."""

    seen: list[int] = field(default_factory=list, compare=False)

    def on_response(self, exchange: Exchange) -> None:
        self.seen.append(1)
        if exchange.response is not None:
            exchange.response.append(b"x-count", b"%d" % len(self.seen))


async def test_what_policies_further_out_add_is_not_kept_but_added_again(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH), Counts(), Cache())
    assert [(await call(app)).all(b"x-count") for _ in range(3)] == [[b"1"], [b"2"], [b"3"]]


async def test_what_policies_further_in_add_is_kept(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH), Cache(), Counts())
    assert [(await call(app)).all(b"x-count") for _ in range(3)] == [[b"1"], [b"1"], [b"1"]]


async def test_a_header_list_changed_by_whoever_gets_it_changes_nothing_kept(guarded: Guarded) -> None:
    inner = guarded(Origin(FRESH))

    async def meddling(scope: Scope, receive: Receive, send: Send) -> None:
        async def meddle(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-meddled", b"1"))
            await send(message)

        await inner(scope, receive, meddle)

    assert [(await call(meddling)).all(b"x-meddled") for _ in range(3)] == [[b"1"]] * 3


async def test_the_list_of_the_app_is_not_touched(guarded: Guarded) -> None:
    origin = Origin(FRESH)
    app = guarded(origin)
    await call(app)
    assert origin.headers == [FRESH]


async def test_fields_of_the_connection_are_not_kept(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH, (b"connection", b"x-hop"), (b"x-hop", b"1"), (b"keep-alive", b"5"), (b"x-end", b"1")))
    await call(app)
    answer = await call(app)
    assert [answer.header(name) for name in (b"connection", b"x-hop", b"keep-alive", b"x-end")] == [
        None,
        None,
        None,
        b"1",
    ]


async def test_members_of_other_caches_stay(guarded: Guarded) -> None:
    app = guarded(Origin(FRESH, (b"cache-status", b"origin; hit")))
    assert status(await call(app)) == "origin; hit, apim;fwd=uri-miss;stored"
    assert status(await call(app)) == "origin; hit, apim;hit;ttl=60"


@pytest.mark.parametrize(
    ("name", "written"),
    [("edge.example", "edge.example"), ('100% "us"', '"100% \\"us\\""'), ("a b", '"a b"'), ("%d", '"%d"')],
)
async def test_the_cache_says_its_name(guarded: Guarded, name: str, written: str) -> None:
    app = guarded(Origin(FRESH), Cache(name=name))
    assert status(await call(app)) == f"{written};fwd=uri-miss;stored"
    assert status(await call(app)) == f"{written};hit;ttl=60"


async def test_what_happened_is_among_the_attributes_of_the_exchange(guarded: Guarded) -> None:
    seen: list[object] = []

    @dataclass(frozen=True, kw_only=True)
    class Watches(Policy):
        def on_end(self, exchange: Exchange) -> None:
            seen.append(exchange.attributes["apim.cache.status"])

    app = guarded(Origin(FRESH), Watches(), Cache())
    for method, headers in (("GET", []), ("GET", []), ("POST", []), ("GET", [(b"range", b"bytes=0-1")])):
        await call(app, method, headers=headers)
    assert seen == ["uri-miss", "hit", "method", "bypass"]


@pytest.mark.parametrize(
    ("line", "asked", "reason"),
    [
        ((b"cache-control", b"private"), [], "private"),
        ((b"set-cookie", b"a=b"), [], "set-cookie"),
        ((b"x-a", b"b"), [(b"authorization", b"Bearer t")], "authorization"),
        ((b"cache-control", b"max-age=60"), [(b"cookie", b"a=b")], "cookie"),
        ((b"cache-control", b"max-age=60"), [], None),
    ],
)
async def test_why_a_response_was_not_kept_is_among_them(guarded: Guarded, line: Any, asked: Any, reason: str) -> None:
    seen: list[object] = []

    @dataclass(frozen=True, kw_only=True)
    class Watches(Policy):
        def on_end(self, exchange: Exchange) -> None:
            seen.append(exchange.attributes.get("apim.cache.detail"))

    answer = await call(guarded(Origin(line), Watches(), Cache()), headers=asked)
    assert seen == [reason]
    assert (f"detail={reason}" in status(answer)) == (reason is not None)


async def test_a_websocket_passes_untouched(guarded: Guarded) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "headers": [(b"cache-control", b"public, max-age=60")]})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await send({"type": "websocket.close"})

    app = guarded(echo, Cache(ttl=60))
    for text in ("one", "two"):
        answer = await connect(app, texts=[text], headers=[(b"cache-control", b"no-cache"), (b"pragma", b"no-cache")])
        assert answer.messages[1]["text"] == text
        assert answer.header(b"cache-status") is None


async def test_a_refused_handshake_passes_untouched(guarded: Guarded) -> None:
    async def denies(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 404, "headers": [PUBLIC]})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    app = guarded(denies)
    for _ in range(2):
        answer = await connect(app)
        assert (answer.status, answer.body, answer.header(b"cache-status")) == (404, b"no", None)


def test_one_cache_in_front_of_two_apps_is_two_memories(clock: FakeClock) -> None:
    cache = Cache()
    one, other = cache(Origin(FRESH, body=b"one")), cache(Origin(FRESH, body=b"other"))
    assert [run(call(app)).body for app in (one, other, one, other)] == [b"one", b"other", b"one", b"other"]


def test_equal_caches_at_one_place_are_two_memories(clock: FakeClock) -> None:
    """Two branches behind one name are still two apps."""
    env = Env(clock=clock)
    apps = [Stack(Cache(), env=env, place="here")(Origin(FRESH, body=body)) for body in (b"one", b"other")]
    assert [run(call(app)).body for app in apps * 2] == [b"one", b"other"] * 2


def test_it_is_a_middleware_as_it_is() -> None:
    served: list[str] = []

    async def hello(request: Any) -> PlainTextResponse:
        served.append(request.url.path)
        return PlainTextResponse("hello", headers={"cache-control": "max-age=60"})

    app = Starlette(routes=[Route("/hello", hello)], middleware=[Middleware(Cache())])  # type: ignore[arg-type]
    client = TestClient(app)
    assert [client.get("/hello").text for _ in range(3)] == ["hello"] * 3
    assert client.head("/hello").headers["content-length"] == "5"
    assert served == ["/hello"]
    assert client.get("/nowhere").status_code == 404


# A store elsewhere


def processes(entries: Elsewhere, clock: FakeClock, *layers: Any, count: int = 2) -> tuple[Origin, list[ASGIApp]]:
    """The same stack in several processes that share a store and an upstream."""
    origin = Origin(FRESH)
    stacks = [Stack(*layers, env=Env(clock=clock, entries=entries), place="here") for _ in range(count)]
    return origin, [stack(origin) for stack in stacks]


async def test_processes_share_what_is_kept_elsewhere(clock: FakeClock) -> None:
    origin, (one, other) = processes(Elsewhere(), clock, Cache())
    await call(one)
    clock.advance(10)
    answer = await call(other)
    assert (answer.body, answer.header(b"age"), origin.count) == (b"answer 1", b"10", 1)


@pytest.mark.parametrize("private_to", [None, by.principal])
async def test_a_change_in_one_process_is_a_change_in_all(clock: FakeClock, private_to: by.Key | None) -> None:
    _, (one, other) = processes(Elsewhere(), clock, Knows(), Cache(private_to=private_to))
    await call(one)
    await call(other, "POST")
    assert (await call(one)).body == b"answer 3"


async def test_a_response_from_the_future_has_no_negative_age(clock: FakeClock) -> None:
    _, (one, other) = processes(Elsewhere(), clock, Cache())
    await call(one)
    clock.jump(-30)
    answer = await call(other)
    assert (answer.body, answer.header(b"age")) == (b"answer 1", b"0")


async def test_places_and_names_are_told_apart(clock: FakeClock) -> None:
    entries = Elsewhere()
    env = Env(clock=clock, entries=entries)
    places = [("a", Cache()), ("b", Cache()), ("a", Cache(name="other"))]
    apps = [
        Stack(cache, env=env, place=place)(Origin(FRESH, body=b"%d" % n)) for n, (place, cache) in enumerate(places)
    ]
    assert [(await call(app)).body for app in apps * 2] == [b"0", b"1", b"2"] * 2
    assert {key.split(b":")[0] for key in entries.kept} == {b"a/Cache/apim", b"b/Cache/apim", b"a/Cache/other"}


@pytest.mark.parametrize("inner", [Cache(), Cache(ttl=60)])
async def test_two_caches_at_one_named_place_are_told_apart(clock: FakeClock, inner: Cache) -> None:
    """What stands between them may change the response for some and not for others."""
    entries = Elsewhere()
    env = Env(clock=clock, entries=entries)
    app = Stack(Cache(), Counts(), inner, env=env, place="a")(Origin(FRESH))
    await call(app)
    assert {key.split(b":")[0] for key in entries.kept} == {b"a/Cache/apim", b"a/Cache#2/apim"}


def test_a_store_elsewhere_needs_a_named_place() -> None:
    with pytest.raises(ConfigError, match=r'Write Stack\(\.\.\., place="orders"\)'):
        Stack(Cache(), env=Env(entries=Elsewhere()))(Origin())


def test_entries_in_memory_are_no_store_elsewhere() -> None:
    app = Stack(Cache(), env=Env(entries=MemoryEntries()))(Origin(FRESH))
    assert [run(call(app)).body for _ in range(2)] == [b"answer 1"] * 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"garbage",
        lambda data: data[:-1],
        lambda data: data[:-1] + b"X",
        lambda data: b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.",
    ],
)
async def test_what_cannot_be_read_back_is_a_miss(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes]
) -> None:
    entries = Elsewhere()
    _, (app, _) = processes(entries, clock, Cache())
    await call(app)
    entries.kept = {key: spoil(value) for key, value in entries.kept.items()}
    answer = await call(app)
    assert (answer.status, answer.body) == (200, b"answer 2")
    assert [record.message for record in caplog.records] == [
        "the store of the response cache gave back what was never stored"
    ]
    assert (await call(app)).body == b"answer 2"


async def test_a_response_of_another_key_is_a_miss(clock: FakeClock) -> None:
    entries = Elsewhere()
    _, (app, _) = processes(entries, clock, Cache())
    await call(app, path="/secret")
    await call(app, path="/open")
    first, second = entries.pages
    entries.kept[first], entries.kept[second] = entries.kept[second], entries.kept[first]
    assert (await call(app, path="/open")).body == b"answer 3"


async def test_what_a_store_cannot_do_is_told_in_its_own_words(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold no secrets; the name of a class said nothing."""
    entries = Elsewhere()
    _, (app, _) = processes(entries, clock, Cache())

    async def full(*given: Any, **named: Any) -> bool:
        raise Spoiled("the store could not do this (OOM)")

    monkeypatch.setattr(entries, "set", full)
    await call(app)
    [told] = caplog.messages
    assert told == "the store of the response cache cannot keep a response: the store could not do this (OOM)"


async def test_a_store_that_is_down_lets_requests_pass_and_is_told_of_once(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    entries = Elsewhere()
    _, (app, _) = processes(entries, clock, Cache())
    await call(app)
    entries.down = {"get", "set", "delete"}
    answers = [await call(app) for _ in range(3)]
    assert [(each.status, each.body, status(each)) for each in answers] == [
        (200, b"answer %d" % number, "apim;fwd=bypass") for number in (2, 3, 4)
    ]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.messages == ["the store of the response cache cannot answer: ConnectionError"]
    entries.down = set()
    clock.advance(1)
    assert (await call(app)).body == b"answer 1"


async def test_it_can_be_told_to_refuse_instead(clock: FakeClock) -> None:
    entries = Elsewhere()
    origin, (app, _) = processes(entries, clock, Cache(when_store_fails="refuse"))
    entries.down = {"get"}
    answer = await call(app)
    assert (answer.status, origin.count) == (503, 0)
    assert b'"cache-unavailable"' in answer.body
    assert b"redis" not in answer.body
    assert (await call(app, "POST")).status == 200


async def test_only_if_cached_is_refused_while_the_store_is_down(clock: FakeClock) -> None:
    entries = Elsewhere()
    _, (app, _) = processes(entries, clock, Cache())
    entries.down = {"get"}
    assert (await call(app, headers=[(b"cache-control", b"only-if-cached")])).status == 504


@pytest.mark.parametrize(("act", "method"), [("set", "GET"), ("purge", "POST")])
async def test_a_store_that_fails_afterwards_spoils_no_response(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, act: str, method: str
) -> None:
    entries = Elsewhere()
    _, (app, _) = processes(entries, clock, Cache())
    entries.down = {act}
    answer = await call(app, method)
    assert (answer.status, answer.body) == (200, b"answer 1")
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


async def test_variants_kept_elsewhere_share_the_bound_of_one_response(clock: FakeClock) -> None:
    entries = Elsewhere()
    origin, (app, _) = processes(entries, clock, Cache(max_entry_bytes=4_000))
    origin.headers.append((b"vary", b"accept"))
    origin.body = b"x" * 1_000
    for number in range(10):
        await call(app, headers=[(b"accept", b"%d" % number)])
    assert max(map(len, entries.kept.values())) < 4_000


# Configuration


@pytest.mark.parametrize(
    ("given", "field_name"),
    [
        ({"ttl": 0}, "ttl"),
        ({"private_to": ()}, "private_to"),
        ({"ttl": -1.0}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"ttl": float("inf")}, "ttl"),
        ({"ttl": "60"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"max_entry_bytes": 0}, "max_entry_bytes"),
        ({"max_bytes": 1000, "max_entry_bytes": 1001}, "max_bytes"),
        ({"max_variants": 0}, "max_variants"),
        ({"name": ""}, "name"),
        ({"name": "caché"}, "name"),
        ({"name": "a\r\nb"}, "name"),
        ({"private_to": "principal"}, "private_to"),
        ({"private_to": [by.principal]}, "private_to"),
        ({"regardless_of": "cookie"}, "regardless_of"),
        ({"regardless_of": ("cookies",)}, "regardless_of"),
        ({"when_store_fails": "allow"}, "when_store_fails"),
        ({"tll": 60}, "tll"),
    ],
)
def test_a_mistake_names_the_field(given: dict[str, Any], field_name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Cache(**given)
    assert (caught.value.policy, caught.value.field) == ("Cache", field_name)


def test_equal_caches_are_equal_and_say_what_they_are() -> None:
    assert Cache(ttl=60) == Cache(ttl=60) != Cache(ttl=61)
    assert hash(Cache(ttl=60)) == hash(Cache(ttl=60))
    assert repr(Cache(ttl=60)) == "Cache(ttl=60)"


@pytest.mark.anyio
async def test_what_a_guard_behind_the_cache_let_through_is_not_stored() -> None:
    """A router may stand between, so that no stack sees both while it is built."""
    guarded = Stack(IPFilter(allow=("10.0.0.0/8",)))(
        PlainTextResponse("internal", headers={"cache-control": "public, max-age=9"})
    )

    async def router(scope, receive, send):
        await guarded(scope, receive, send)

    app = Stack(Cache())(router)
    inside = await call(app, client=("10.0.0.1", 1))
    outside = await call(app, client=("203.0.113.7", 1))
    assert (inside.status, outside.status) == (200, 403)
    assert inside.header(b"cache-status") == b"apim;fwd=uri-miss;detail=guarded-behind"


@pytest.mark.anyio
async def test_a_body_that_http_2_does_not_announce_keeps_the_response_from_being_stored() -> None:
    app = Stack(Cache(ttl=60))(PlainTextResponse("x"))
    answers = [await call(app, http_version="2", body=body) for body in (b"EVIL", b"")]
    assert [each.header(b"cache-status") for each in answers] == [b"apim;fwd=uri-miss;detail=body-unknown"] * 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name",
    [
        b"x-functions-key", b"x-auth", b"apikey", b"x-session-token", b"dpop", b"cf-access-jwt-assertion",
        b"x-authtoken", b"x-sid", b"x-amzn-oidc-data", b"x-goog-authenticated-user-email", b"x-webauth-user",
        b"x-consumer-id", b"x-userinfo", b"tailscale-user-login", b"x-user-id", b"ssl-client-verify",
    ],
)  # fmt: skip
async def test_callers_told_apart_by_any_credential_share_nothing(name: bytes) -> None:
    app = Stack(Cache(ttl=60))(PlainTextResponse("x"))
    for value in (b"alice", b"bob"):
        answer = await call(app, headers=[(name, value)])
        assert b"stored" not in (answer.header(b"cache-status") or b"")


@dataclass(frozen=True, kw_only=True)
class _Finicky(Policy):
    """Refuses the response, or breaks it off at its end, when the request asks for it."""

    taps_body = True

    def on_response(self, exchange: Exchange) -> Tap:
        if exchange.header(b"x-refuse") is not None:
            raise Refusal(502, "refused")

        def tap(chunk: bytes, last: bool) -> bytes:
            if last and exchange.header(b"x-break") is not None:
                raise ValueError("not this one")
            return chunk

        return tap


@pytest.mark.parametrize("name", [b"x-refuse", b"x-break"])
async def test_what_was_replaced_or_broken_off_is_not_kept_though_the_app_makes_an_end_of_it(name: bytes) -> None:
    """An app that swallows what ``send`` raises and ends its body: half a response was kept, and given to others."""

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        with suppress(Exception):
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            await send({"type": "http.response.body", "body": b" and half"})
        with suppress(Exception):
            await send({"type": "http.response.body", "body": b""})
        with suppress(Exception):
            await send({"type": "http.response.trailers", "headers": []})

    app = Stack(_Finicky(), Cache())(stubborn)
    with suppress(ValueError):
        await call(app, headers=[(b"host", b"testserver"), (name, b"1")])
    answer = await call(app)
    assert answer.body == b"half and half"
    assert answer.header(b"cache-status") == b"apim;fwd=uri-miss;stored"
