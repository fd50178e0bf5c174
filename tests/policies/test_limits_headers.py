"""The fields that tell callers where they stand, under the names their policy wants."""

from typing import Any

import pytest

from apim_middleware import by
from apim_middleware._limits.answers import told_in
from apim_middleware._limits.headers import LimitHeaders
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.policies.limits import Limits, Quota, RateLimit
from apim_middleware.policy import Stack
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import Answer, FakeClock, call, connect

from .counting import Counting, SlowCounters

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(start=1_800_000_000.0)


@pytest.fixture(params=["memory", "slow"])
def env(request: pytest.FixtureRequest, clock: FakeClock) -> Env:
    return Env(
        place="here",
        clock=clock,
        counters=MemoryCounters(clock=clock) if request.param == "memory" else SlowCounters(clock),
    )


@pytest.fixture
def app() -> Counting:
    return Counting()


def limit(calls: int = 2, **fields: Any) -> RateLimit:
    return RateLimit(**{"calls": calls, "per": 60, "window": "fixed", **fields})


def trio(answer: Answer) -> list[int]:
    """Limit, remaining and reset; each is said once."""
    values = [answer.all(b"x-ratelimit-" + name) for name in (b"limit", b"remaining", b"reset")]
    return [int(value) for [value] in values]


TRIO = LimitHeaders(ietf=False, x_ratelimit="seconds")


async def test_the_older_three_fields_are_told_when_wanted(env: Env, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(limit(headers=TRIO), env=env)(app)
    clock.advance(12.5)
    answers = [await call(guarded) for _ in range(3)]
    assert [trio(answer) for answer in answers] == [[2, 1, 48], [2, 0, 48], [2, 0, 48]]
    assert all(answer.header(b"ratelimit") is None for answer in answers)
    assert answers[2].header(b"retry-after") == b"48"


async def test_their_reset_can_be_a_date(env: Env, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(limit(headers=LimitHeaders(x_ratelimit="epoch")), env=env)(app)
    clock.advance(12.5)
    answer = await call(guarded)
    assert trio(answer) == [2, 1, 1_800_000_061]  # what the wall clock says, rounded up
    assert answer.header(b"ratelimit") == b'"default";r=1;t=48'


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_of_several_limits_they_tell_the_one_of_which_least_is_left(
    env: Env, app: Counting, order: tuple[int, int], together: bool
) -> None:
    policies = [limit(5, headers=TRIO, name="a"), limit(3, headers=TRIO, name="b")]
    policies = [policies[number] for number in order]
    guarded = Stack(*([Limits(*policies)] if together else policies), env=env)(app)
    assert trio(await call(guarded)) == [3, 2, 60]


@pytest.mark.parametrize("together", [False, True])
async def test_of_limits_that_are_used_up_they_tell_the_one_that_comes_back_last(
    env: Env, app: Counting, together: bool
) -> None:
    """From an audit: with ``2/second; 2/hour`` the reset was 1 beside a ``Retry-After`` of 3,600."""
    fields: dict[str, Any] = {"window": "fixed", "headers": TRIO}
    one = RateLimit(rate="2/second; 2/hour", **fields)
    two = [RateLimit(rate=rate, name=rate, **fields) for rate in ("2/second", "2/hour")]
    guarded = Stack(Limits(*two) if together else one, env=env)(app)
    answers = [await call(guarded) for _ in range(3)]
    assert [trio(answer) for answer in answers[1:]] == [[2, 0, 3_600]] * 2
    assert answers[2].header(b"retry-after") == b"3600"


async def test_a_refusal_tells_of_the_limit_that_refused(env: Env, app: Counting) -> None:
    """From an audit: of two limits, it told of the one of which less was left, although that one let in."""
    policies = [limit(1, name="few", headers=TRIO), limit(5, name="many", headers=TRIO, cost=4, per=600)]
    guarded = Stack(Limits(*policies), env=env)(app)
    await call(guarded)
    env.clock.advance(60)  # type: ignore[attr-defined]
    assert trio(await call(guarded)) == [5, 1, 540]


async def test_a_lifetime_has_no_reset(env: Env, app: Counting) -> None:
    policy = Quota(calls=1, period="lifetime", by=by.client, headers=LimitHeaders(x_ratelimit="seconds"))
    guarded = Stack(policy, env=env)(app)
    for status in (200, 403):
        answer = await call(guarded)
        assert (answer.status, answer.header(b"x-ratelimit-remaining")) == (status, b"0")
        assert answer.header(b"x-ratelimit-reset") is None
        assert answer.header(b"ratelimit-policy") == b'"quota";q=1'
        assert answer.header(b"ratelimit") == b'"quota";r=0'
        assert answer.header(b"retry-after") is None


async def test_fields_can_have_the_names_that_callers_know(env: Env, app: Counting) -> None:
    headers = LimitHeaders(ietf=False, retry_after="X-Wait", remaining="Calls-Left", total="Calls-Total")
    guarded = Stack(limit(1, headers=headers), env=env)(app)
    passed, refused = await call(guarded), await call(guarded)
    for answer in (passed, refused):
        assert (answer.header(b"calls-left"), answer.header(b"calls-total")) == (b"0", b"1")
    assert (passed.header(b"x-wait"), refused.header(b"x-wait")) == (None, b"60")
    assert refused.header(b"retry-after") is None


async def test_each_of_several_limits_keeps_its_own_names(env: Env, app: Counting) -> None:
    policies = [
        limit(5, name="a", headers=LimitHeaders(ietf=False, remaining="Left-A")),
        limit(3, name="b", headers=LimitHeaders(remaining="Left-B")),
    ]
    answer = await call(Stack(Limits(*policies), env=env)(app))
    assert (answer.header(b"left-a"), answer.header(b"left-b")) == (b"4", b"2")
    assert answer.header(b"ratelimit") == b'"b";r=2;t=60'


def test_what_callers_are_told_in_is_known_beforehand() -> None:
    headers = LimitHeaders(ietf=False, x_ratelimit="epoch", remaining="X-Left")
    told = told_in(RateLimit(calls=1, per=60, headers=headers))
    assert told == ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-left")
    assert told_in(RateLimit(calls=1, per=60)) == ("ratelimit", "ratelimit-policy")
    assert told_in(RateLimit(calls=1, per=60, headers=False)) == ()


async def test_a_handshake_is_told_too(env: Env, app: Counting) -> None:
    guarded = Stack(limit(1, headers=LimitHeaders(ietf=False, remaining="Left", x_ratelimit="seconds")), env=env)(app)
    accepted, denied = await connect(guarded), await connect(guarded)
    assert (accepted.status, accepted.header(b"left"), trio(accepted)) == (101, b"0", [1, 0, 60])
    assert (denied.status, denied.header(b"left"), trio(denied)) == (429, b"0", [1, 0, 60])


async def test_what_an_app_says_in_their_place_gives_way(env: Env) -> None:
    app = Counting(headers=[(b"x-ratelimit-remaining", b"many"), (b"calls-left", b"99"), (b"x-ratelimit-reset", b"7")])
    guarded = Stack(limit(3, headers=LimitHeaders(x_ratelimit="seconds", remaining="Calls-Left")), env=env)(app)
    answer = await call(guarded)
    assert (trio(answer), answer.all(b"calls-left")) == ([3, 2, 60], [b"2"])


async def test_those_who_want_the_usual_fields_get_the_same_as_by_default(env: Env, app: Counting) -> None:
    usual, asked_for = limit(), limit(headers=LimitHeaders())
    answers = [await call(Stack(each, env=env, place=place)(app)) for place, each in (("a", usual), ("b", asked_for))]
    assert answers[0].headers == answers[1].headers


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"retry_after": ""}, "retry_after"),
        ({"retry_after": "Retry After"}, "retry_after"),
        ({"remaining": "Left\r\nSet-Cookie: a=b"}, "remaining"),
        ({"remaining": "caf\u00e9"}, "remaining"),
        ({"remaining": "Content-Length"}, "remaining"),
        ({"total": "RateLimit"}, "total"),
        ({"total": "Left", "remaining": "left"}, "remaining"),
        ({"remaining": "Location"}, "remaining"),
        ({"remaining": "ETag"}, "remaining"),
        ({"total": "Cache-Control"}, "total"),
        ({"retry_after": "Server"}, "retry_after"),
        ({"remaining": "Retry-After"}, "remaining"),
        ({"retry_after": "X-Wait", "total": "retry-after"}, "total"),
        ({"x_ratelimit": True}, "x_ratelimit"),
        ({"x_ratelimit": "minutes"}, "x_ratelimit"),
        ({"ietf": "yes"}, "ietf"),
        ({"remaning": "Left"}, "remaning"),
    ],
)
def test_a_mistake_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        LimitHeaders(**fields)
    assert (error.value.policy, error.value.field) == ("LimitHeaders", field)
