"""Rate limits and quotas: who passes, who does not, and what both are told."""

import hashlib
import json
import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from apim_middleware import by, conditions
from apim_middleware._http.fields import GREATEST_INTEGER
from apim_middleware._limits.asking import uses_of
from apim_middleware._limits.meters import Meter
from apim_middleware._limits.overrides import Overrides
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies.limits import Quota, RateLimit
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import FakeClock, call, connect, http_scope
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .counting import AWAY, Counting, SlowCounters, from_address, statuses, told

pytestmark = pytest.mark.anyio


# Let through and refused


@pytest.mark.parametrize("window", ["sliding", "fixed", "log", "bucket"])
async def test_as_many_calls_as_allowed_pass_and_the_next_is_refused(env: Env, app: Counting, window: Any) -> None:
    guarded = Stack(RateLimit(calls=3, per=60, window=window), env=env)(app)
    assert await statuses(guarded, 5) == [200, 200, 200, 429, 429]
    assert app.asked == 3


async def test_a_refused_caller_is_told_what_and_when(env: Env, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=60, window="fixed"), env=env)(app)
    clock.advance(17.5)
    await call(guarded)
    answer = await call(guarded)
    assert (answer.status, json.loads(answer.body)["code"]) == (429, "rate-limit-exceeded")
    assert answer.header(b"content-type") == b"application/problem+json"
    assert answer.header(b"retry-after") == b"43"
    assert told(answer, b"ratelimit-policy") == [("default", {"q": 1, "w": 60})]
    assert told(answer, b"ratelimit") == [("default", {"r": 0, "t": 43})]


USED_UP, BEYOND = "The quota is used up.", "The request asks for more than is ever allowed."


@pytest.mark.parametrize(
    ("policy", "detail"),
    [
        (Quota(calls=3, per=60, by=by.everyone), "The quota of calls is used up."),
        (Quota(calls=3, per=60, by=by.everyone, cost=3), USED_UP),
        (Quota(calls=3, per=60, by=by.everyone, used=lambda exchange: 3), USED_UP),
        (Quota(calls=3, per=60, by=by.everyone, cost=lambda exchange: 4), BEYOND),
        (RateLimit(calls=3, per=60, cost=lambda exchange: 4), BEYOND),
        (RateLimit(calls=9, per=60, cost=lambda exchange: 4, window="bucket", burst=3), BEYOND),
        (RateLimit(calls=3, per=60, cost=3), "Too many requests. Try again later."),
    ],
)
async def test_a_refused_caller_is_told_of_what_there_is_no_more(
    env: Env, app: Counting, policy: Quota | RateLimit, detail: str
) -> None:
    """A request that could never pass was told to try again later, and a quota of tokens that calls were used up."""
    guarded = Stack(policy, env=env)(app)
    for _ in range(4):
        answer = await call(guarded)
    assert json.loads(answer.body)["detail"] == detail


@pytest.mark.parametrize("window", ["sliding", "fixed", "log", "bucket"])
async def test_retry_after_is_never_too_early(env: Env, clock: FakeClock, app: Counting, window: Any) -> None:
    guarded = Stack(RateLimit(calls=3, per=60, window=window), env=env)(app)
    for step in (0.1, 31.7, 59.9, 12.0, 0.0):
        clock.advance(step)
        while (answer := await call(guarded)).status == 200:
            pass
        wait = int(answer.header(b"retry-after") or b"")
        assert wait == told(answer, b"ratelimit")[0][1]["t"]
        clock.advance(wait)
        assert (await call(guarded)).status == 200


async def test_a_bucket_gives_a_burst_at_once_and_then_evenly(env: Env, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=40, per=60, window="bucket", burst=3), env=env)(app)
    answers = [await call(guarded) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[3].header(b"retry-after") == b"2"
    assert told(answers[0], b"ratelimit-policy") == [("default", {"q": 40, "w": 60})]
    assert [told(answer)[0][1]["r"] for answer in answers] == [2, 1, 0, 0]
    for _ in range(5):
        clock.advance(1.500002)
        assert await statuses(guarded, 2) == [200, 429]


async def test_a_log_is_exact_whatever_the_rhythm(env: Env, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=3, per=60, window="log"), env=env)(app)
    passed = []
    for second in range(0, 300, 7):
        if (await call(guarded)).status == 200:
            passed.append(second)
        clock.advance(7)
    assert all(later - sooner >= 60 for sooner, later in zip(passed, passed[3:], strict=False))
    assert len(passed) == 15


async def test_a_window_of_less_than_a_second_asks_for_a_whole_one_and_says_no_window(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=0.25), env=env)(app)
    await call(guarded)
    answer = await call(guarded)
    assert answer.header(b"retry-after") == b"1"
    assert told(answer, b"ratelimit-policy") == [("default", {"q": 1})]


async def test_one_who_is_let_in_is_told_where_they_stand_and_not_to_wait(
    env: Env, clock: FakeClock, app: Counting
) -> None:
    guarded = Stack(RateLimit(calls=10, per=60, window="fixed", name="burst"), env=env)(app)
    clock.advance(12.5)
    answers = [await call(guarded) for _ in range(2)]
    assert [told(answer, b"ratelimit") for answer in answers] == [
        [("burst", {"r": 9, "t": 48})],
        [("burst", {"r": 8, "t": 48})],
    ]
    assert answers[0].header(b"ratelimit-policy") == b'"burst";q=10;w=60'
    assert answers[0].header(b"retry-after") is None


async def test_of_a_sliding_window_the_whole_is_told_and_when_the_next_can_pass_once_it_is_used_up(
    env: Env, clock: FakeClock, app: Counting
) -> None:
    guarded = Stack(RateLimit(calls=2, per=60), env=env)(app)
    standing = [told(await call(guarded), b"ratelimit")[0][1] for _ in range(2)]
    clock.advance(12.25)
    standing.append(told(await call(guarded), b"ratelimit")[0][1])
    assert standing == [{"r": 1, "t": 60}, {"r": 0, "t": 60}, {"r": 0, "t": 48}]
    clock.advance(47.5)
    assert (await call(guarded)).status == 429
    clock.advance(0.25)
    assert (await call(guarded)).status == 200


async def test_who_used_up_the_last_is_told_when_the_next_can_pass(env: Env, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=2, per=60), env=env)(app)
    await call(guarded)
    clock.advance(19.5)
    assert told(await call(guarded)) == [("default", {"r": 0, "t": 41})]


async def test_what_a_large_request_left_can_be_used_by_small_ones(env: Env, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=12, per=60, cost=lambda exchange: int(exchange.path[1:])), env=env)(app)
    assert told(await call(guarded, path="/10"), b"ratelimit") == [("default", {"r": 2, "t": 60})]
    clock.advance(19.5)
    refused = await call(guarded, path="/3")
    assert told(refused, b"ratelimit") == [("default", {"r": 2, "t": 41})]
    assert refused.header(b"retry-after") == b"41"


async def test_headers_can_be_left_out_but_not_the_time_to_wait(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=60, headers=False), env=env)(app)
    passed, refused = await call(guarded), await call(guarded)
    assert not {b"ratelimit", b"ratelimit-policy"} & {name for name, _ in (*passed.headers, *refused.headers)}
    assert refused.header(b"retry-after") is not None


async def test_counters_that_nobody_gave_go_by_the_clock_that_was_given(clock: FakeClock, app: Counting) -> None:
    guarded = Stack(Quota(calls=1, per=60, by=by.client), env=Env(clock=clock))(app)
    assert await statuses(guarded, 2) == [200, 403]
    clock.advance(60)
    assert await statuses(guarded, 2) == [200, 403]


async def test_without_headers_nobody_looks_at_the_response() -> None:
    assert not hasattr(Env().bind(RateLimit(calls=1, per=60, headers=False)), "on_response")


async def test_counters_in_memory_need_no_awaiting(clock: FakeClock, slow: SlowCounters) -> None:
    exchange = Exchange(http_scope())
    assert Env(clock=clock).bind(RateLimit(calls=1, per=60)).on_request(exchange) is None
    await Env(place="here", clock=clock, counters=slow).bind(RateLimit(calls=1, per=60)).on_request(exchange)


# Several limits


async def test_several_limits_count_together_or_not_at_all(env: Env, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(RateLimit(rate="5/minute; 2/second", window="fixed"), env=env)(app)
    answers = [await call(guarded) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].header(b"retry-after") == b"1"
    assert told(answers[0], b"ratelimit-policy") == [
        ("default-60s", {"q": 5, "w": 60}),
        ("default-1s", {"q": 2, "w": 1}),
    ]
    assert [bare for bare, _ in told(answers[2], b"ratelimit")] == ["default-60s", "default-1s"]
    assert [told["r"] for _, told in told(answers[2], b"ratelimit")] == [3, 0]
    clock.advance(1)
    assert await statuses(guarded, 2) == [200, 200]
    clock.advance(1)
    assert await statuses(guarded, 2) == [200, 429]


async def test_of_several_refusing_limits_the_longest_wait_is_told(env: Env, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(RateLimit(rate="1/second; 1/minute; 5/hour", window="fixed"), env=env)(app)
    await call(guarded)
    clock.advance(0.5)
    assert (await call(guarded)).header(b"retry-after") == b"60"


@pytest.mark.parametrize("rate", ["2/minute", "2 per minute", "2/1minute", "2 per 60 seconds", " 2 / minute "])
async def test_a_rate_is_read_as_limits_reads_it(env: Env, app: Counting, rate: str) -> None:
    guarded = Stack(RateLimit(rate=rate), env=env)(app)
    answer = await call(guarded)
    assert told(answer, b"ratelimit-policy") == [("default", {"q": 2, "w": 60})]


async def test_several_policies_say_so_in_one_list_outermost_first(env: Env, app: Counting) -> None:
    everyone = Quota(calls=1000, per=86_400, by=by.everyone)
    guarded = Stack(everyone, RateLimit(calls=1, per=60, window="fixed"), env=env)(app)
    for status, left in ((200, 999), (429, 998)):
        answer = await call(guarded)
        assert answer.status == status
        assert told(answer, b"ratelimit-policy") == [
            ("quota", {"q": 1000, "w": 86_400}),
            ("default", {"q": 1, "w": 60}),
        ]
        assert [(bare, said["r"]) for bare, said in told(answer, b"ratelimit")] == [("quota", left), ("default", 0)]


async def test_an_inner_refusal_has_counted_in_the_limits_before_it_and_not_behind(env: Env, app: Counting) -> None:
    outer = RateLimit(calls=5, per=60, name="outer")
    inner = RateLimit(calls=100, per=60, name="inner")
    guarded = Stack(outer, RateLimit(calls=2, per=60, name="middle"), inner, env=env)(app)
    answers = [await call(guarded) for _ in range(6)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429, 429, 429]
    assert [len(told(answer, b"ratelimit")) for answer in answers] == [3, 3, 2, 2, 2, 1]
    assert app.asked == 2


async def test_what_the_app_says_of_its_own_limits_stays(env: Env) -> None:
    app = Counting(
        headers=[(b"RateLimit", b'"app";r=1'), (b"ratelimit-policy", b'"app";q=2'), (b"ratelimit", b'"b";r=3')]
    )
    answer = await call(Stack(RateLimit(calls=5, per=60, window="fixed"), env=env)(app))
    assert answer.header(b"ratelimit-policy") == b'"default";q=5;w=60, "app";q=2'
    assert answer.header(b"ratelimit") == b'"default";r=4;t=60, "app";r=1, "b";r=3'


@pytest.mark.parametrize("value", [b"limit=100, remaining=3, reset=5", b'"open', b"", b'"a";R=1'])
async def test_what_an_app_says_that_nobody_can_read_does_not_spoil_ours(env: Env, value: bytes) -> None:
    app = Counting(headers=[(b"ratelimit", value)])
    answer = await call(Stack(RateLimit(calls=5, per=60, window="fixed"), env=env)(app))
    assert answer.all(b"ratelimit") == [b'"default";r=4;t=60']


# Who is counted


async def test_each_client_has_a_count_of_its_own(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=60), env=env)(app)
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        answer = await call(guarded, **from_address(address))
        assert told(answer, b"ratelimit")[0][1]["r"] == 0
        assert (await call(guarded, **from_address(address))).status == 429


async def test_a_caller_cannot_get_another_count_by_asking_otherwise(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=60), env=env)(app)
    await call(guarded)
    ways: list[dict[str, Any]] = [
        {"path": "/other"}, {"path": "/a/../b"}, {"method": "POST"}, {"method": "OPTIONS"}, {"method": "HEAD"},
        {"http_version": "2"}, {"query": b"x=1"}, {"scheme": "https"}, {"client": ("203.0.113.7", 1)},
        {"headers": [(b"x-forwarded-for", b"192.0.2.1"), (b"forwarded", b"for=192.0.2.1")]},
        {"headers": [(b"host", b"testserver.")]}, {"headers": [(b"host", b"TESTSERVER")]},
    ]  # fmt: skip
    assert {(await call(guarded, **way)).status for way in ways} <= {429, 400}  # some are no request at all
    assert app.asked == 1


async def test_a_header_is_one_key_however_its_name_is_written(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=60, by=by.header("X-Tenant")), env=env)(app)
    names = [b"x-tenant", b"X-Tenant", b"X-TENANT"]
    assert [(await call(guarded, headers=[(name, b"a")])).status for name in names] == [200, 429, 429]


@pytest.mark.parametrize("policy", [RateLimit(calls=1, per=60, by=by.header("x-tenant")), Quota(calls=1, per=60)])
async def test_a_request_without_a_key_is_refused(env: Env, app: Counting, policy: Policy) -> None:
    answer = await call(Stack(policy, env=env)(app))
    assert (answer.status, json.loads(answer.body)["code"]) == (403, "caller-unknown")
    assert app.asked == 0


async def test_the_log_names_the_key_that_is_not_known(app: Counting, caplog: pytest.LogCaptureFixture) -> None:
    await call(Stack(RateLimit(calls=1, per=60), env=Env())(app), client=None)
    assert caplog.messages == [
        "RateLimit(name='default') refuses requests of which apim_middleware.by.client is not known"
    ]


async def test_requests_without_a_key_can_be_counted_together_but_with_nobody_else(env: Env, app: Counting) -> None:
    policy = RateLimit(calls=2, per=60, by=by.header("x-tenant"), when_unknown="together")
    guarded = Stack(policy, env=env)(app)
    assert await statuses(guarded, 3) == [200, 200, 429]
    assert await statuses(guarded, 3, headers=[(b"x-tenant", b"")]) == [200, 200, 429]
    assert await statuses(guarded, 1, **from_address("192.0.2.9")) == [429]


async def test_a_client_the_server_knows_nothing_of_is_refused(env: Env, app: Counting) -> None:
    assert (await call(Stack(RateLimit(calls=2, per=60), env=env)(app), client=None)).status == 403


HOSTILE = [
    b"",
    b"a",
    b"a|b",
    b"a/b",
    b"a%2Fb",
    b"#a",
    b"?",
    b"{a}",
    b"\xe9",
    b"\xff\xfe",
    b"k" * 128,
    b"k" * 129,
    b"k" * 8000,
]


async def test_hostile_keys_are_keys_like_any_other(env: Env, slow: SlowCounters, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=60, by=by.header("x-tenant")), env=env)(app)
    for expected in (200, 429):
        for value in HOSTILE:
            assert (await call(guarded, headers=[(b"x-tenant", value)])).status == expected
    assert all(hit.key.isascii() and len(hit.key) <= 128 for hit in slow.asked)


@given(st.lists(st.text(max_size=200), min_size=2, max_size=6, unique=True))
def test_different_keys_are_different_counts(keys: list[str]) -> None:
    asked = iter(keys)
    meter = Meter(RateLimit(calls=1, per=60, by=lambda exchange: next(asked)), "", MemoryCounters())
    uses = [uses_of([meter.ask(Exchange(http_scope()))]) for _ in keys]
    assert len({use for [use] in uses}) == len(keys)
    assert all(key.isascii() and len(key) <= 128 for [(key, _, _)] in uses)


async def test_a_key_that_looks_like_the_digest_of_another_is_its_own(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=60, by=by.header("x-tenant")), env=env)(app)
    values = [b"k" * 200, hashlib.sha256(b"k" * 200).hexdigest().encode(), "\u00e9".encode("latin-1"), b"", b"?", b"#"]
    assert [(await call(guarded, headers=[(b"x-tenant", value)])).status for value in values] == [200] * len(values)


async def test_text_that_is_no_unicode_is_a_key_too(env: Env, app: Counting) -> None:
    keys = iter(["\ud800", "\ud801", "\ud800"])
    guarded = Stack(RateLimit(calls=1, per=60, by=lambda exchange: next(keys)), env=env)(app)
    assert await statuses(guarded, 3) == [200, 200, 429]


async def test_policies_that_differ_never_share_a_count(clock: FakeClock, app: Counting) -> None:
    policies = [
        RateLimit(calls=1, per=60), RateLimit(calls=1, per=60, window="fixed"), RateLimit(calls=1, per=3600),
        RateLimit(calls=1, per=60, name="other"), RateLimit(calls=1, per=60, by=by.everyone),
        RateLimit(calls=1, per=60, by=by.header("x-a")), RateLimit(calls=1, per=60, by=by.header("x-b")),
        Quota(calls=1, per=60, by=by.client), RateLimit(calls=1, per=60, by=lambda exchange: "a"),
        RateLimit(calls=1, per=60, by=lambda exchange: "a"), RateLimit(calls=2, per=60),
    ]  # fmt: skip
    guarded = Stack(*policies, env=Env(clock=clock), place="orders")(app)
    headers = [(b"x-a", b"1"), (b"x-b", b"1")]
    assert (await call(guarded, headers=headers)).status == 200
    assert (await call(guarded, headers=headers)).status == 429


def plan(exchange: Exchange) -> str:
    return "gold"


def two(exchange: Exchange) -> int:
    return 2


def test_no_two_policies_at_one_place_are_one_counter() -> None:
    """Whatever a policy counts differently, it counts elsewhere."""
    fields: list[dict[str, Any]] = [
        {}, {"cost": 2}, {"cost": two}, {"units": "bytes"}, {"units": "request-bytes"}, {"used": two}, {"shadow": True},
        {"count_when": conditions.failed}, {"count_when": conditions.status(404)}, {"increment": "afterwards"},
        {"count_when": conditions.status("5xx")}, {"tier": plan, "tiers": {"gold": 5}}, {"overrides": Overrides()},
        {"name": "other"}, {"by": by.everyone}, {"by": by.both(by.client, by.header("x-a"))}, {"calls": 3}, {"per": 61},
    ]  # fmt: skip
    rates = [{"window": window} for window in ("fixed", "log", "bucket")] + [{"window": "bucket", "burst": 2}]
    policies = [
        *(RateLimit(**{"calls": 2, "per": 60, **each}) for each in [*fields, *rates]),
        *(Quota(calls=2, period=period, by=by.client) for period in ("hour", "day", "lifetime")),
        Quota(calls=2, period="day", zone="Europe/Berlin", by=by.client),
        Quota(calls=2, per=86_400, by=by.client),
        Quota(calls=2, per=86_400, by=by.client, starts=datetime(2027, 1, 1, 5, tzinfo=UTC)),
    ]
    meters = [Meter(policy, "orders", MemoryCounters()) for policy in policies]
    limits = [limit for meter in meters for limit in meter.terms.limits]
    assert len(set(limits)) == len(limits) == len(policies)
    assert all(limit.place.isascii() and limit.place.isprintable() for limit in limits)
    assert not any("0x" in limit.place for limit in limits)  # the same in every process


async def test_equal_policies_count_apart_at_two_places_and_together_after_a_reload(env: Env, app: Counting) -> None:
    policy = RateLimit(calls=1, per=60)
    assert await statuses(Stack(policy, env=env, place="orders")(app), 2) == [200, 429]
    assert await statuses(Stack(policy, env=env, place="orders/")(app), 2) == [200, 429]
    assert await statuses(Stack(policy, env=env, place="\u00f8rders?#")(app), 2) == [200, 429]
    assert await statuses(Stack(policy, env=env, place="orders")(app), 1) == [429]


# What is counted


async def test_every_request_that_comes_in_counts_whatever_becomes_of_it(env: Env) -> None:
    async def moody(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/raise":
            raise LookupError
        status = int(scope["path"][1:])
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    guarded = Stack(RateLimit(calls=4, per=60), env=env)(moody)
    assert [(await call(guarded, path=f"/{status}")).status for status in (404, 500, 304)] == [404, 500, 304]
    with pytest.raises(LookupError):
        await call(guarded, path="/raise")
    assert (await call(guarded, path="/200")).status == 429


async def test_a_request_refused_further_out_was_never_here(env: Env, app: Counting) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Closed(Policy):
        def on_request(self, exchange: Exchange) -> None:
            if exchange.path == "/closed":
                raise Refusal(403, "closed")

    guarded = Stack(Closed(), RateLimit(calls=1, per=60), env=env)(app)
    assert [(await call(guarded, path=path)).status for path in ("/closed", "/closed", "/")] == [403, 403, 200]


async def test_a_cost_is_taken_as_a_whole_or_not_at_all(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=10, per=60, cost=4), env=env)(app)
    answers = [await call(guarded) for _ in range(3)]
    assert [told(answer, b"ratelimit")[0][1]["r"] for answer in answers] == [6, 2, 2]
    assert answers[2].status == 429


async def test_a_cost_can_depend_on_the_request(env: Env, app: Counting) -> None:
    def cost(exchange: Exchange) -> int:
        return 5 if exchange.method == "POST" else 0

    guarded = Stack(RateLimit(calls=10, per=60, cost=cost), env=env)(app)
    assert [(await call(guarded, method)).status for method in ("POST", "GET", "POST", "GET", "POST", "GET")] == [
        200, 200, 200, 200, 429, 200,
    ]  # fmt: skip


async def test_what_costs_more_than_the_limit_is_refused_without_a_time_to_wait_for(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=10, per=60, cost=lambda exchange: 11), env=env)(app)
    answer = await call(guarded)
    assert (answer.status, answer.header(b"retry-after")) == (429, None)
    assert told(answer, b"ratelimit") == [("default", {"r": 10, "t": 0})]


@pytest.mark.parametrize("cost", [-1, 1.5, True, None, "1"])
async def test_a_cost_that_is_none_closes_the_door(
    env: Env, app: Counting, cost: Any, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = Stack(RateLimit(calls=10, per=60, cost=lambda exchange: cost), env=env)(app)
    assert [(await call(guarded)).status for _ in range(2)] == [500, 500]
    assert app.asked == 0
    assert "RateLimit.cost" in caplog.text


@pytest.mark.parametrize("window", ["sliding", "fixed", "log", "bucket"])
async def test_of_a_thousand_requests_at_once_exactly_a_hundred_pass(env: Env, app: Counting, window: Any) -> None:
    guarded = Stack(RateLimit(calls=100, per=60, window=window), env=env)(app)
    seen: list[int] = []

    async def one() -> None:
        seen.append((await call(guarded)).status)

    async with anyio.create_task_group() as group:
        for _ in range(1_000):
            group.start_soon(one)
    assert (seen.count(200), seen.count(429), app.asked) == (100, 900, 100)


async def test_nobody_learns_what_others_used(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=10, per=60), env=env)(app)
    for _ in range(5):
        await call(guarded, **from_address("192.0.2.1"))
    assert told(await call(guarded, **from_address("192.0.2.2")), b"ratelimit")[0][1]["r"] == 9


# Streams, WebSockets, and what goes wrong


async def test_a_stream_flows_and_its_head_says_where_one_stands(env: Env) -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": number < 2})

    answer = await call(Stack(RateLimit(calls=5, per=60), env=env)(stream))
    assert [message.get("body") for message in answer.messages[1:]] == [b"0", b"1", b"2"]
    assert told(answer, b"ratelimit")[0][1]["r"] == 4


async def test_a_client_that_leaves_has_called(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=60), env=env)(app)
    with pytest.raises(OSError, match="gone"):
        await call(guarded, leave_after=1)
    assert (await call(guarded)).status == 429


async def test_a_websocket_handshake_counts_and_is_told(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=2, per=60, window="fixed"), env=env)(app)
    accepted = await connect(guarded)
    assert (accepted.status, accepted.header(b"ratelimit")) == (101, b'"default";r=1;t=60')
    assert (await call(guarded)).status == 200
    assert (await connect(guarded)).status == 429


async def test_a_refused_handshake_is_denied_or_closed(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=60), env=env)(app)
    await connect(guarded)
    denied = await connect(guarded)
    assert (denied.status, json.loads(denied.body)["code"]) == (429, "rate-limit-exceeded")
    assert denied.header(b"retry-after") is not None
    closed = await connect(guarded, denial=False)
    assert closed.messages == [{"type": "websocket.close", "code": 1008, "reason": "rate-limit-exceeded"}]


async def test_other_traffic_passes_uncounted(env: Env) -> None:
    seen = []

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    guarded = Stack(RateLimit(calls=1, per=60), env=env)(lifespan)
    for _ in range(3):
        await guarded({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"] * 3


def guarded_by_failing(slow: SlowCounters, clock: FakeClock, app: ASGIApp, policy: Policy) -> ASGIApp:
    slow.failure = AWAY
    return Stack(policy, env=Env(place="here", clock=clock, counters=slow))(app)


@pytest.mark.parametrize("policy", [RateLimit(calls=1, per=60), Quota(calls=1, per=60, by=by.client)])
async def test_what_cannot_be_counted_is_refused(
    slow: SlowCounters, clock: FakeClock, app: Counting, policy: Policy
) -> None:
    guarded = guarded_by_failing(slow, clock, app, policy)
    answer = await call(guarded)
    assert (answer.status, json.loads(answer.body)["code"]) == (503, "limit-store-unavailable")
    assert (await connect(guarded)).status == 503
    assert app.asked == 0


async def test_what_cannot_be_counted_can_be_let_in(slow: SlowCounters, clock: FakeClock, app: Counting) -> None:
    seen: list[Any] = []

    @dataclass(frozen=True, kw_only=True)
    class Watch(Policy):
        def on_end(self, exchange: Exchange) -> None:
            seen.append(exchange.attributes)

    policy = RateLimit(calls=1, per=60, when_store_fails="allow")
    guarded = guarded_by_failing(slow, clock, Stack(Watch())(app), policy)
    answers = [await call(guarded) for _ in range(2)]
    assert [(answer.status, answer.header(b"ratelimit")) for answer in answers] == [(200, None)] * 2
    assert seen == [{"apim.rate_limit.store": "unavailable"}] * 2


async def test_an_outage_is_logged_once_and_so_is_its_end(
    slow: SlowCounters, clock: FakeClock, app: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    guarded = guarded_by_failing(slow, clock, app, RateLimit(calls=9, per=60, name="burst"))
    for failure in (AWAY, None, AWAY, None):
        slow.failure = failure
        clock.advance(1)  # it is left alone for a while after a failure
        assert await statuses(guarded, 2) == ([503] * 2 if failure else [200] * 2)
    assert [record.getMessage() for record in caplog.records] == [
        "RateLimit(name='burst') cannot count (the counters are away): requests are refused",
        "RateLimit(name='burst') counts again",
    ] * 2


async def test_a_store_that_breaks_its_word_closes_the_door(
    slow: SlowCounters, clock: FakeClock, app: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = guarded_by_failing(slow, clock, app, RateLimit(calls=1, per=60, when_store_fails="allow"))
    slow.failure = RuntimeError("redis://user:password@host")
    answer = await call(guarded)
    assert (answer.status, app.asked) == (500, 0)
    assert b"password" not in answer.body


async def test_a_refusal_leaves_word_for_tracing(env: Env, app: Counting) -> None:
    seen: list[dict[str, Any]] = []

    @dataclass(frozen=True, kw_only=True)
    class Watch(Policy):
        def on_end(self, exchange: Exchange) -> None:
            seen.append(dict(exchange.attributes))

    guarded = Stack(Watch(), RateLimit(rate="1/minute;5/hour", name="burst"), env=env)(app)
    await statuses(guarded, 2)
    assert seen == [{}, {"apim.rate_limit.policy": "burst-60s"}]


# Quotas


async def test_a_quota_is_each_subscriptions_and_its_day_is_the_clocks(
    env: Env, clock: FakeClock, app: Counting
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Known(Policy):
        provides = frozenset({"subscription"})

        def on_request(self, exchange: Exchange) -> None:
            exchange.subscription = Subscription(id=(exchange.header(b"x-key") or b"").decode())

    guarded = Stack(Known(), Quota(calls=2, per=86_400), env=env)(app)
    clock.advance(-clock.now() % 86_400 + 86_400 - 3_600)  # 23:00 UTC
    ada, bob = {"headers": [(b"x-key", b"ada")]}, {"headers": [(b"x-key", b"bob")]}
    assert await statuses(guarded, 2, **ada) == [200, 200]
    answer = await call(guarded, **ada)
    assert (answer.status, json.loads(answer.body)["code"]) == (403, "quota-exceeded")
    assert answer.header(b"retry-after") == b"3600"
    assert told(answer, b"ratelimit-policy") == [("quota", {"q": 2, "w": 86_400})]
    assert await statuses(guarded, 1, **bob) == [200]
    clock.advance(3_600)
    assert await statuses(guarded, 3, **ada) == [200, 200, 403]


async def test_a_quota_can_be_of_a_principal(env: Env, app: Counting) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Known(Policy):
        provides = frozenset({"principal"})

        def on_request(self, exchange: Exchange) -> None:
            issuer, _, subject = (exchange.header(b"x-user") or b"").decode().partition("|")
            exchange.principal = Principal(issuer=issuer, subject=subject)

    guarded = Stack(Known(), Quota(rate="1/day", by=by.principal), env=env)(app)
    users = (b"a|bc", b"ab|c", b"a|bc", b"|abc")
    assert [(await call(guarded, headers=[(b"x-user", user)])).status for user in users] == [200, 200, 403, 200]


def at(*moment: int, zone: str = "UTC") -> float:
    """A moment of the wall clock, as seconds."""
    return datetime(*moment, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("period", "zone", "now", "ends"),
    [
        ("hour", "UTC", (2027, 3, 5, 10, 30), (2027, 3, 5, 11)),
        ("day", "Europe/Berlin", (2027, 3, 28, 0, 30), (2027, 3, 29)),  # clocks go forward: 23 hours
        ("week", "UTC", (2027, 3, 5), (2027, 3, 8)),  # a Friday, and the Monday after it
        ("month", "America/New_York", (2027, 1, 31, 23), (2027, 2, 1)),
        ("year", "Asia/Tokyo", (2027, 3, 5), (2028, 1, 1)),
    ],
)
async def test_a_quota_of_a_period_begins_anew_when_the_calendar_does(
    clock: FakeClock, env: Env, app: Counting, period: Any, zone: str, now: Any, ends: Any
) -> None:
    begun, over = at(*now, zone=zone), at(*ends, zone=zone)
    clock.advance(begun - clock.now())
    guarded = Stack(Quota(calls=2, period=period, zone=zone, by=by.client), env=env)(app)
    assert await statuses(guarded, 2) == [200, 200]
    refused = await call(guarded)
    assert (refused.status, int(refused.header(b"retry-after") or b"")) == (403, over - begun)
    assert told(refused) == [("quota", {"r": 0, "t": over - begun})]
    assert told(refused, b"ratelimit-policy") == [("quota", {"q": 2})]
    clock.advance(over - begun - 1)
    assert (await call(guarded)).status == 403
    clock.advance(1)
    assert await statuses(guarded, 3) == [200, 200, 403]


async def test_the_windows_of_a_quota_can_begin_when_a_subscription_did(
    clock: FakeClock, env: Env, app: Counting
) -> None:
    starts = datetime(2027, 1, 10, 12, 30, tzinfo=UTC)
    clock.advance(starts.timestamp() + 30 * 86_400 - 100 - clock.now())
    guarded = Stack(Quota(calls=1, per=30 * 86_400, starts=starts, by=by.client), env=env)(app)
    assert await statuses(guarded, 2) == [200, 403]
    assert (await call(guarded)).header(b"retry-after") == b"100"
    clock.advance(100)
    assert await statuses(guarded, 2) == [200, 403]


async def test_a_lifetime_never_begins_anew(clock: FakeClock, env: Env, app: Counting) -> None:
    guarded = Stack(Quota(calls=2, period="lifetime", by=by.client), env=env)(app)
    assert await statuses(guarded, 2) == [200, 200]
    clock.advance(50 * 366 * 86_400)
    answer = await call(guarded)
    assert (answer.status, answer.header(b"retry-after"), told(answer)) == (403, None, [("quota", {"r": 0})])


@pytest.mark.parametrize("rate", ["5/year", "5 per 2 years", "1/second; 5/year"])
def test_a_year_in_a_rate_is_a_mistake_for_it_would_have_360_days(rate: str) -> None:
    with pytest.raises(ConfigError, match=r"Quota\.rate: .* holds a year.*365 days"):
        Quota(rate=rate)
    with pytest.raises(ConfigError, match=r"RateLimit\.tiers: .* holds a year"):
        RateLimit(calls=1, per=60, tier=by.product, tiers={"gold": rate})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"calls": 5, "period": "fortnight"}, "period"),
        ({"calls": 5, "period": "day", "per": 60}, "per"),
        ({"rate": "5/day", "period": "day"}, "rate"),
        ({"period": "day"}, "calls"),
        ({"calls": 0, "period": "day"}, "calls"),
        ({"calls": 5, "period": "day", "zone": "Europe/Atlantis"}, "zone"),
        ({"calls": 5, "period": "day", "zone": ""}, "zone"),
        ({"calls": 5, "period": "day", "zone": "../etc/passwd"}, "zone"),
        ({"calls": 5, "per": 60, "zone": "Europe/Berlin"}, "zone"),
        ({"calls": 5, "per": 60, "starts": datetime(2027, 1, 1)}, "starts"),  # noqa: DTZ001 - the mistake
        ({"calls": 5, "per": 60, "starts": "2027-01-01"}, "starts"),
        ({"calls": 5, "period": "day", "starts": datetime(2027, 1, 1, tzinfo=UTC)}, "starts"),
    ],
)
def test_a_mistake_about_the_period_of_a_quota_names_its_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        Quota(**given)
    assert (error.value.policy, error.value.field) == ("Quota", field)
    assert error.value.cure


# Configuration


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"burst": 5}, "burst"),
        ({"burst": 5, "window": "fixed"}, "burst"),
        ({"burst": 0, "window": "bucket"}, "burst"),
        ({"burst": 10**15, "window": "bucket"}, "burst"),
        ({"burst": 2, "window": "bucket", "cost": 3}, "cost"),
    ],
)
def test_a_mistake_about_a_burst_names_its_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        RateLimit(calls=10, per=60, **given)
    assert error.value.field == field


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "calls"),
        ({"calls": 1}, "per"),
        ({"per": 1}, "calls"),
        ({"calls": 0, "per": 1}, "calls"),
        ({"calls": -1, "per": 1}, "calls"),
        ({"calls": True, "per": 1}, "calls"),
        ({"calls": 1.5, "per": 1}, "calls"),
        ({"calls": GREATEST_INTEGER + 1, "per": 1}, "calls"),
        ({"calls": 1, "per": 0}, "per"),
        ({"calls": 1, "per": -1}, "per"),
        ({"calls": 1, "per": math.nan}, "per"),
        ({"calls": 1, "per": math.inf}, "per"),
        ({"calls": 1, "per": 1e-9}, "per"),
        ({"calls": 1, "per": 1e12}, "per"),
        ({"calls": 1, "per": 10**400}, "per"),
        ({"calls": 1, "per": "60"}, "per"),
        ({"rate": "100/minute", "calls": 1}, "rate"),
        ({"rate": "100/minute", "per": 1}, "rate"),
        ({"rate": ""}, "rate"),
        ({"rate": "many"}, "rate"),
        ({"rate": "0/minute"}, "rate"),
        ({"rate": "100/fortnight"}, "rate"),
        ({"rate": "1/0 second"}, "rate"),
        ({"rate": "1/99999999999 year"}, "rate"),
        ({"rate": "9" * 5000 + "/minute"}, "rate"),
        ({"rate": "100/minute; 50 per 60 seconds"}, "rate"),
        ({"rate": 100}, "rate"),
        ({"calls": 5, "per": 60, "cost": 0}, "cost"),
        ({"calls": 5, "per": 60, "cost": 6}, "cost"),
        ({"rate": "100/minute; 5/second", "cost": 6}, "cost"),
        ({"calls": 5, "per": 60, "cost": "1"}, "cost"),
        ({"calls": 5, "per": 60, "name": ""}, "name"),
        ({"calls": 5, "per": 60, "name": "caf\u00e9"}, "name"),
        ({"calls": 5, "per": 60, "name": "a\r\nset-cookie: b"}, "name"),
        ({"calls": 5, "per": 60, "name": "n" * 65}, "name"),
        ({"calls": 5, "per": 60, "by": "client"}, "by"),
        ({"calls": 5, "per": 60, "when_unknown": "allow"}, "when_unknown"),
        ({"calls": 5, "per": 60, "when_store_fails": "ignore"}, "when_store_fails"),
        ({"calls": 5, "per": 60, "headers": "yes"}, "headers"),
        ({"call": 5, "per": 60}, "call"),
    ],
)
@pytest.mark.parametrize("kind", [RateLimit, Quota])
def test_a_mistake_names_its_field(kind: type[Policy], given: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        kind(**given)
    assert (error.value.policy, error.value.field) == (kind.__name__, field)
    assert error.value.cure


def test_a_window_of_another_kind_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"RateLimit\.window"):
        RateLimit(calls=1, per=1, window="rolling")  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["by", "cost"])
def test_a_function_that_awaits_is_a_mistake(field: str) -> None:
    async def later(exchange: Exchange) -> str:
        return "a"

    with pytest.raises(ConfigError, match="async"):
        RateLimit(calls=1, per=1, **{field: later})  # type: ignore[arg-type]


async def test_any_name_that_can_be_said_is_said(env: Env, app: Counting) -> None:
    name = '100% "burst" \\ %d'
    answer = await call(Stack(RateLimit(calls=7, per=60, name=name), env=env)(app))
    assert told(answer, b"ratelimit") == [(name, {"r": 6, "t": 60})]
    assert told(answer, b"ratelimit-policy") == [(name, {"q": 7, "w": 60})]


def test_the_key_must_be_known_before_it_is_counted() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Known(Policy):
        provides = frozenset({"client"})

    Stack(Known(), RateLimit(calls=1, per=1))
    Stack(RateLimit(calls=1, per=1, by=by.everyone), Known())
    with pytest.raises(ConfigError, match="relies on the client"):
        Stack(RateLimit(calls=1, per=1), Known())


def test_policies_are_values() -> None:
    assert RateLimit(calls=1, per=60) == RateLimit(calls=1, per=60.0) != RateLimit(calls=2, per=60)
    assert hash(Quota(calls=1, per=60)) == hash(Quota(calls=1, per=60))


# Among others


def test_it_is_a_middleware_as_it_is_and_guards_everything_behind_it() -> None:
    def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    inner = Starlette(routes=[Route("/hello", hello)])
    limit = Middleware(lambda app: RateLimit(calls=5, per=3_600)(app))
    app = Starlette(routes=[Mount("/inner", inner), Route("/hello", hello)], middleware=[limit])
    client = TestClient(app)
    paths = ["/hello", "/inner/hello", "/inner/unknown", "/unknown"]
    assert [client.get(path).status_code for path in paths] == [200, 200, 404, 404]
    assert client.options("/hello").status_code == 405
    assert {client.get(path).status_code for path in paths} == {429}


def test_add_middleware_takes_it() -> None:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("hello"))])
    app.add_middleware(RateLimit(calls=1, per=3_600))
    client = TestClient(app)
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]


def test_a_function_that_makes_keys_is_no_key() -> None:
    with pytest.raises(ConfigError, match=r"by\.route was not called"):
        RateLimit(calls=1, per=60, by=by.route)


@pytest.mark.parametrize(
    ("field", "given", "name"),
    [("by", by.header, "by.header"), ("by", by.cookie, "by.cookie"),
     ("count_when", conditions.status, "conditions.status"),
     ("tier", by.claim, "by.claim"), ("used", by.attribute, "by.attribute"), ("cost", by.attribute, "by.attribute")],
)  # fmt: skip
def test_a_factory_that_was_not_called_is_a_mistake(field: str, given: Any, name: str) -> None:
    """Found by an audit: such a policy was made, and answered every request with 500."""
    with pytest.raises(ConfigError, match=rf"RateLimit\.{field}: {name} was not called. Call it: {name}\(\.\.\.\)"):
        RateLimit(**{"calls": 1, "per": 60, field: given})


class _Later:
    async def __call__(self, exchange: Exchange) -> Any:
        return "gold"


@pytest.mark.parametrize("field", ["by", "cost", "used", "count_when", "tier"])
@pytest.mark.parametrize("given", [_Later(), partial(_Later()), _Later().__call__])
def test_what_must_be_awaited_is_a_mistake(field: str, given: Any) -> None:
    """Found by an audit: a promise was taken for a key, or counted as true."""
    tiers = {"tiers": {"gold": 2}} if field == "tier" else {}
    with pytest.raises(ConfigError, match=rf"RateLimit\.{field}: .* is async"):
        RateLimit(**{"calls": 1, "per": 60, field: given, **tiers})


def test_a_lifetime_has_no_zone() -> None:
    with pytest.raises(ConfigError, match=r"Quota\.zone: 'Europe/Berlin' means nothing"):
        Quota(calls=1, period="lifetime", zone="Europe/Berlin")


@pytest.mark.parametrize("key", [b"ada", 5, ("ada",)])
@pytest.mark.parametrize("fields", [{}, {"cost": lambda exchange: 1}])
async def test_a_key_that_is_no_text_fails_in_memory_as_it_does_at_a_store(
    env: Env, slow: SlowCounters, clock: FakeClock, app: Counting, key: Any, fields: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for each in (env, Env(place="here", clock=clock, counters=slow)):
        policy = RateLimit(calls=9, per=60, by=lambda exchange: key, **fields)
        assert await statuses(Stack(policy, env=each)(app), 2) == [500, 500]
        assert f"by gave {type(key).__name__}, which is no text" in caplog.text
    assert app.asked == 0
