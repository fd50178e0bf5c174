"""Responses past their time: confirmed, replaced, given away meanwhile or on errors; and what is decided here."""

from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.headers import SetHeader
from apim_middleware.policy import Stack
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import RawHeaders, Receive, Scope, Send

from .caching import Guarded, status

pytestmark = pytest.mark.anyio

REVALIDATED = (b"cache-control", b"max-age=60, stale-while-revalidate=30")
ON_ERROR = (b"cache-control", b"max-age=60, stale-if-error=600")


class App:
    """Numbers its answers, and says 304 to who has the tag it says."""

    def __init__(self, *headers: tuple[bytes, bytes], status: int = 200) -> None:
        self.headers: RawHeaders = list(headers)
        self.status = status
        self.error: Exception | None = None
        self.asked: list[Scope] = []
        self.gate = anyio.Event()
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        number = len(self.asked)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        tag = dict(self.headers).get(b"etag")
        same = tag is not None and dict(scope["headers"]).get(b"if-none-match") == tag
        status = 304 if same else self.status
        await send({"type": "http.response.start", "status": status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if same else b"answer %d" % number})


async def settle() -> None:
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


# While it is asked anew (RFC 5861 §3)


async def test_a_stale_response_is_given_away_at_once_and_asked_for_once_in_the_background(
    guarded: Guarded, clock: FakeClock
) -> None:
    origin = App(REVALIDATED)
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.gate = anyio.Event()
    answers = [await call(app) for _ in range(5)]
    assert [each.body for each in answers] == [b"answer 1"] * 5
    assert status(answers[0]) == "apim;hit;ttl=-1;detail=stale-while-revalidate"
    await settle()
    assert len(origin.asked) == 2
    origin.gate.set()
    await settle()
    answer = await call(app)
    assert (answer.body, status(answer)) == (b"answer 2", "apim;hit;ttl=60")


async def test_a_refresh_survives_the_client_that_caused_it(guarded: Guarded, clock: FakeClock) -> None:
    origin = App(REVALIDATED)
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.gate = anyio.Event()
    with pytest.raises(OSError, match="gone"):
        await call(app, leave_after=1)
    await settle()
    origin.gate.set()
    await settle()
    assert (await call(app)).body == b"answer 2"


async def test_a_refresh_that_fails_is_logged_and_leaves_what_is_there(
    guarded: Guarded, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    origin = App(REVALIDATED)
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.error = RuntimeError("boom")
    assert (await call(app)).body == b"answer 1"
    await settle()
    assert caplog.messages == ["a stored response could not be refreshed"]
    assert (await call(app)).body == b"answer 1"


async def test_a_refresh_asks_whether_what_is_kept_still_holds(guarded: Guarded, clock: FakeClock) -> None:
    origin = App(REVALIDATED, (b"etag", b'"one"'))
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    await call(app)
    await settle()
    assert dict(origin.asked[1]["headers"])[b"if-none-match"] == b'"one"'
    answer = await call(app)
    assert (answer.body, status(answer)) == (b"answer 1", "apim;hit;ttl=60")


def test_a_refresh_under_way_ends_with_the_event_loop() -> None:
    clock, over = FakeClock(), list[str]()

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        if clock.now() > 1_800_000_030:
            try:
                await anyio.sleep_forever()
            finally:
                over.append("ended")
        await PlainTextResponse("x", headers={"cache-control": "max-age=10, stale-while-revalidate=99"})(
            scope, receive, send
        )

    app = Stack(Cache(), env=Env(clock=clock))(hangs)

    async def visits() -> None:
        await call(app)
        clock.advance(31)
        await call(app)
        await settle()
        assert over == []

    for backend in ("asyncio", "trio"):
        clock._now = clock._monotonic = 1_800_000_000.0
        over.clear()
        app = Stack(Cache(), env=Env(clock=clock))(hangs)
        anyio.run(visits, backend=backend)
        assert over == ["ended"]


async def test_policies_further_in_see_the_refresh_and_those_further_out_do_not(
    guarded: Guarded, clock: FakeClock
) -> None:
    origin = App(REVALIDATED)
    outer, inner = SetHeader(name="x-out", value="1", on="request"), SetHeader(name="x-in", value="1", on="request")
    app = guarded(origin, outer, Cache(), inner)
    await call(app)
    clock.advance(61)
    await call(app)
    await settle()
    names = [name for name, _ in origin.asked[1]["headers"]]
    assert names.count(b"x-out") == names.count(b"x-in") == 1


# When the app fails (RFC 5861 §4)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
async def test_a_stale_response_stands_in_for_an_error(guarded: Guarded, clock: FakeClock, code: int) -> None:
    origin = App(ON_ERROR)
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.status = code
    answer = await call(app)
    assert (answer.status, answer.body) == (200, b"answer 1")
    assert status(answer) == f"apim;fwd=stale;fwd-status={code};detail=stale-if-error"


async def test_and_for_an_app_that_raises(guarded: Guarded, clock: FakeClock) -> None:
    origin = App(ON_ERROR)
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.error = RuntimeError("boom")
    answer = await call(app)
    assert (answer.status, answer.body) == (200, b"answer 1")
    clock.advance(601)
    with pytest.raises(RuntimeError, match="boom"):
        await call(app)


async def test_a_request_that_may_have_it_on_an_error_is_nobody_elses_reason_to(
    guarded: Guarded, clock: FakeClock
) -> None:
    """Who waits for the same at the same time has not said so."""
    origin = App((b"cache-control", b"max-age=60"))
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.status, origin.gate = 503, anyio.Event()
    answers = [Answer(), Answer()]
    async with anyio.create_task_group() as group:
        for answer, asks in zip(answers, (b"stale-if-error=600", b"x"), strict=True):
            group.start_soon(lambda answer=answer, asks=asks: ask(app, answer, asks))
        await settle()
        origin.gate.set()
    assert [each.status for each in answers] == [200, 503]


async def ask(app: Any, answer: Answer, says: bytes) -> None:
    await call(app, headers=[(b"cache-control", says)], answer=answer)


async def test_a_cache_that_heeds_no_request_gives_it_to_none(clock: FakeClock) -> None:
    origin = App((b"cache-control", b"max-age=60"))
    app = Stack(Cache(ignore_request_directives=True), env=Env(clock=clock))(origin)
    await call(app)
    clock.advance(61)
    origin.status = 503
    assert (await call(app, headers=[(b"cache-control", b"stale-if-error=600")])).status == 503


async def test_waits_for_one_confirmation_and_all_are_answered_by_it(guarded: Guarded, clock: FakeClock) -> None:
    origin = App((b"cache-control", b"max-age=60"), (b"etag", b'"one"'))
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.gate = anyio.Event()
    answers: list[Answer] = [Answer() for _ in range(20)]
    async with anyio.create_task_group() as group:
        for answer in answers:
            group.start_soon(lambda answer=answer: call(app, answer=answer))
        await settle()
        origin.gate.set()
    assert len(origin.asked) == 2
    assert [each.body for each in answers] == [b"answer 1"] * 20
    told = sorted({status(each) for each in answers})
    assert told == ["apim;fwd=stale;fwd-status=304", "apim;fwd=stale;fwd-status=304;collapsed"]


@pytest.mark.parametrize(
    ("says", "asked"),
    [
        ((b"cache-control", b"no-cache"), 3), ((b"pragma", b"no-cache"), 3), ((b"cache-control", b"max-age=30"), 3),
        ((b"cache-control", b"min-fresh=90"), 3), ((b"cache-control", b"max-stale=0"), 2),
        ((b"cache-control", b"x"), 2),
    ],
)  # fmt: skip
async def test_who_says_how_new_a_response_must_be_does_not_wait_for_one_that_was_asked_for_before(
    guarded: Guarded, clock: FakeClock, says: tuple[bytes, bytes], asked: int
) -> None:
    """What is on its way may be older than that; found with the public conformance suite, where a store is slow."""
    origin = App((b"cache-control", b"max-age=60"), (b"age", b"50"), (b"etag", b'"one"'))
    app = guarded(origin)
    await call(app)
    clock.advance(11)
    origin.gate = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(call, app)
        await settle()
        group.start_soon(lambda: call(app, headers=[says]))
        await settle()
        assert len(origin.asked) == asked
        origin.gate.set()


async def test_a_confirmation_that_says_private_is_for_nobody_else(guarded: Guarded, clock: FakeClock) -> None:
    origin = App((b"cache-control", b"max-age=60"), (b"etag", b'"one"'))
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.headers = [(b"cache-control", b"private"), (b"etag", b'"one"'), (b"x-user", b"somebody")]
    origin.gate = anyio.Event()
    answers: list[Answer] = [Answer() for _ in range(5)]
    async with anyio.create_task_group() as group:
        for answer in answers:
            group.start_soon(lambda answer=answer: call(app, answer=answer))
        await settle()
        assert len(origin.asked) == 2
        origin.gate.set()
    assert len(origin.asked) == 6
    assert [status(each) for each in answers].count("apim;fwd=stale;detail=not-shared") == 4


async def test_who_waits_with_a_credential_gets_what_is_for_all_and_nothing_else(
    guarded: Guarded, clock: FakeClock
) -> None:
    """What was for all may be so no longer when it is asked for anew."""
    origin = App((b"cache-control", b"public, max-age=60"))
    app = guarded(origin, Cache(ttl=60))
    await call(app)
    clock.advance(61)
    origin.headers = []  # fresh by our word alone, and so for requests without credentials
    origin.gate = anyio.Event()
    plain, cookie = Answer(), Answer()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: call(app, answer=plain))
        await settle()
        group.start_soon(lambda: call(app, answer=cookie, headers=[(b"cookie", b"alice")]))
        await settle()
        assert len(origin.asked) == 2
        origin.gate.set()
    assert (plain.body, cookie.body) == (b"answer 2", b"answer 3")


async def test_a_confirmation_with_a_credential_is_the_callers_own(guarded: Guarded, clock: FakeClock) -> None:
    origin = App((b"cache-control", b"public, max-age=60"), (b"etag", b'"one"'))
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.headers = [(b"cache-control", b"private"), (b"etag", b'"one"')]
    assert (await call(app, headers=[(b"cookie", b"alice")])).body == b"answer 1"
    origin.headers = []
    assert (await call(app)).body == b"answer 3"


# What is decided here instead of by the app


async def test_a_time_can_be_fixed_but_not_whether_a_response_is_kept(guarded: Guarded, clock: FakeClock) -> None:
    origin = App((b"cache-control", b"max-age=1"))
    app = guarded(origin, Cache(fixed_ttl=100))
    await call(app)
    clock.advance(99)
    assert (await call(app)).body == b"answer 1"
    for value in (b"private, max-age=60", b"no-store", b"no-cache"):
        origin.headers = [(b"cache-control", value)]
        await call(app, path="/" + value.decode()[:5])
        assert (await call(app, path="/" + value.decode()[:5])).body != b"answer 1"
    assert len(origin.asked) == 7


async def test_a_part_of_the_time_it_had_not_changed(guarded: Guarded, clock: FakeClock) -> None:
    origin = App((b"last-modified", b"Fri, 15 Jan 2027 07:43:20 GMT"))  # 1,000 seconds before
    app = guarded(origin, Cache(heuristic=0.1))
    await call(app)
    clock.advance(99)
    assert status(await call(app)) == "apim;hit;ttl=1"
    clock.advance(2)
    assert not status(await call(app)).startswith("apim;hit")


async def test_statuses_can_be_named_that_are_kept(guarded: Guarded) -> None:
    app = guarded(App(status=302), Cache(ttl=60, statuses=(200, 302)))
    await call(app)
    assert status(await call(app)).startswith("apim;hit")


async def test_a_status_that_was_named_is_kept_for_as_long_as_it_says(guarded: Guarded) -> None:
    app = guarded(App((b"cache-control", b"max-age=60"), status=503), Cache(statuses=(200, 503)))
    await call(app)
    assert status(await call(app)) == "apim;hit;ttl=60"


@pytest.mark.parametrize("says", [(b"expires", b"0"), (b"cache-control", b"max-age=0")])
@pytest.mark.parametrize("fields", [{"fixed_ttl": 60}, {"stale_while_revalidate": 60}, {"stale_if_error": 60}])
async def test_a_redirection_that_is_not_fresh_becomes_so_by_nothing(
    guarded: Guarded, says: tuple[bytes, bytes], fields: dict[str, int]
) -> None:
    app = guarded(App(says, status=302), Cache(**fields))  # type: ignore[arg-type]
    await call(app)
    assert not status(await call(app)).startswith("apim;hit")


async def test_a_status_that_was_named_and_says_nothing_is_fresh_for_no_time_of_its_own(guarded: Guarded) -> None:
    app = guarded(
        App((b"last-modified", b"Fri, 15 Jan 2027 07:43:20 GMT"), status=302), Cache(heuristic=0.1, statuses=(302,))
    )
    await call(app)
    assert status(await call(app)) == "apim;fwd=uri-miss;detail=no-freshness"


async def test_what_requests_say_can_be_ignored(guarded: Guarded) -> None:
    app = guarded(App((b"cache-control", b"max-age=60")), Cache(ignore_request_directives=True))
    for value in (b"no-store", b"no-cache", b"max-age=0", b"only-if-cached"):
        answer = await call(app, headers=[(b"cache-control", value), (b"pragma", b"no-cache")])
    assert answer.body == b"answer 1"


async def test_stale_answers_can_be_allowed_for_responses_that_do_not_say(guarded: Guarded, clock: FakeClock) -> None:
    app = guarded(App((b"cache-control", b"max-age=60")), Cache(stale_while_revalidate=30))
    await call(app)
    clock.advance(61)
    assert status(await call(app)).endswith("detail=stale-while-revalidate")


async def test_the_key_is_told_when_it_is_asked_for(guarded: Guarded) -> None:
    app = guarded(App((b"cache-control", b"max-age=60")), Cache(show_key=True))
    told = [status(await call(app, path="/a", query=b"b=c")) for _ in range(2)]
    assert told == [
        'apim;fwd=uri-miss;stored;key="http://testserver/a?b=c"', 'apim;hit;ttl=60;key="http://testserver/a?b=c"',
    ]  # fmt: skip


def test_it_refreshes_behind_fastapi_too() -> None:
    clock = FakeClock()
    app, worked = FastAPI(), list[int]()
    app.add_middleware(Stack(Cache(), env=Env(clock=clock)))

    @app.get("/prices")
    def prices() -> PlainTextResponse:
        worked.append(1)
        if len(worked) == 2:
            raise RuntimeError("boom")
        return PlainTextResponse("tea", headers={"cache-control": "max-age=60, stale-if-error=600"})

    with TestClient(app) as client:
        client.get("/prices")
        clock.advance(61)
        assert client.get("/prices").text == "tea"
    assert len(worked) == 2


@pytest.mark.parametrize(("method", "headers"), [("HEAD", []), ("GET", [(b"range", b"bytes=0-1")])])
async def test_what_a_client_asks_for_itself_is_not_what_is_asked_in_the_background(
    guarded: Guarded, clock: FakeClock, method: str, headers: RawHeaders
) -> None:
    """The answer to HEAD, or a part, kept as the whole would be an empty page for everybody."""
    origin = App(REVALIDATED)
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    await call(app, method, headers=headers)
    await settle()
    assert origin.asked[1]["method"] == "GET"
    assert b"range" not in dict(origin.asked[1]["headers"])
    answer = await call(app)
    assert (answer.body, status(answer)) == (b"answer 2", "apim;hit;ttl=60")


async def test_a_request_that_asks_for_nothing_to_be_kept_causes_no_refresh(guarded: Guarded, clock: FakeClock) -> None:
    origin = App(REVALIDATED)
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    assert (await call(app, headers=[(b"cache-control", b"no-store")])).body == b"answer 2"
    await settle()
    assert len(origin.asked) == 2


async def test_a_confirmation_without_a_date_is_of_now(guarded: Guarded, clock: FakeClock) -> None:
    date = (b"date", b"Fri, 15 Jan 2027 08:00:00 GMT")  # when the clock of the test begins
    origin = App((b"cache-control", b"max-age=60"), (b"etag", b'"one"'), date)
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.headers.remove(date)
    await call(app)
    assert status(await call(app)) == "apim;hit;ttl=60"


async def test_a_cookie_that_comes_with_a_confirmation_is_for_whose_request_that_was(
    guarded: Guarded, clock: FakeClock
) -> None:
    origin = App((b"cache-control", b"max-age=60"), (b"etag", b'"one"'))
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.headers.append((b"set-cookie", b"session=mine"))
    first = await call(app)
    assert (first.body, first.header(b"set-cookie")) == (b"answer 1", b"session=mine")
    origin.headers.pop()
    assert (await call(app)).header(b"set-cookie") is None


async def test_a_field_for_one_caller_comes_to_that_caller_and_to_nobody_who_waits(
    guarded: Guarded, clock: FakeClock
) -> None:
    origin = App((b"cache-control", b"max-age=60"))
    app = guarded(origin)
    await call(app)
    clock.advance(61)
    origin.headers = [(b"cache-control", b'max-age=60, private="x-user"'), (b"x-user", b"first")]
    origin.gate = anyio.Event()
    first, second = Answer(), Answer()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: call(app, answer=first))
        await settle()
        group.start_soon(lambda: call(app, answer=second))
        await settle()
        origin.gate.set()
    assert (first.header(b"x-user"), second.header(b"x-user")) == (b"first", None)
    assert first.body == second.body == b"answer 2"


async def test_a_request_that_hangs_is_not_waited_for_by_those_who_come_a_minute_later(clock: FakeClock) -> None:
    origin = App((b"cache-control", b"max-age=60"))
    app = Stack(Cache(), env=Env(clock=clock))(origin)
    await call(app)
    clock.advance(61)
    hanging = origin.gate = anyio.Event()
    answer = Answer()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: call(app, answer=answer))
        await settle()
        clock.advance(61)
        origin.gate = anyio.Event()
        origin.gate.set()
        assert (await call(app)).body == b"answer 3"
        hanging.set()
    assert answer.body == b"answer 2"
