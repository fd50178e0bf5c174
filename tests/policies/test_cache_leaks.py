"""Two users, and every combination of what they carry and what responses say: nothing of one reaches the other.

But what the rules make public: a response that says ``public`` or ``s-maxage`` (or, to Authorization alone,
``must-revalidate``), that nothing keeps private, and that does not vary by what tells the two apart.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest

from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import ASGIApp, RawHeaders, Receive, Scope, Send

from .caching import Elsewhere

pytestmark = pytest.mark.anyio

CARRIERS = {"authorization": b"authorization", "cookie": b"cookie", "key": b"x-api-key"}
CARRIED: tuple[tuple[str, ...], ...] = ((), ("authorization",), ("cookie",), ("key",), ("authorization", "cookie"))
DIRECTIVES = (
    b"", b"max-age=60", b"public, max-age=60", b"s-maxage=60", b"max-age=60, must-revalidate", b"private, max-age=60",
    b"private, s-maxage=60", b"no-store, public, max-age=60", b"no-cache", b"public, no-cache", b"max-age=0",
    b"max-age=60, proxy-revalidate", b'public, max-age=60, private="x-user"', b"max-age=60, stale-while-revalidate=99",
    b"public, max-age=60, stale-while-revalidate=99, stale-if-error=99", b"max-age=60, stale-if-error=99",
)  # fmt: skip
VARY = (b"", b"Cookie", b"Authorization", b"Accept, Cookie", b"*")


class Case(NamedTuple):
    """What one user carries, what the other, and what responses say."""

    alice: tuple[str, ...]
    bob: tuple[str, ...]
    directives: bytes
    vary: bytes
    sets_cookie: bool


CASES = [Case(*each) for each in itertools.product(CARRIED, CARRIED, DIRECTIVES, VARY, (False, True))]


class App:
    """Says who asks, in body, field and tag; confirms what it said to the same."""

    def __init__(self, case: Case) -> None:
        self.headers: RawHeaders = [
            line for line in ((b"cache-control", case.directives), (b"vary", case.vary)) if line[1]
        ]
        self.sets_cookie = case.sets_cookie
        self.broken = False
        self.tag: bytes | None = None  # for all; else each user has one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        names = {headers[name] for name in CARRIERS.values() if name in headers}
        user = min(names) if names else b"nobody"
        tag = b'"%b"' % (self.tag or user)
        lines = [*self.headers, (b"x-user", user), (b"etag", tag)]
        if self.sets_cookie:
            lines.append((b"set-cookie", b"session=" + user))
        status = 503 if self.broken else 304 if headers.get(b"if-none-match") == tag else 200
        await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": user if status == 200 else b""})


def request(name: bytes, carried: tuple[str, ...]) -> RawHeaders:
    return [(CARRIERS[each], name) for each in carried]


def is_public(case: Case, carried: tuple[str, ...]) -> bool:
    """Whether what was answered to somebody who carries this may be given to somebody else, by the letter."""
    said = case.directives
    if case.sets_cookie or b"no-store" in said or b"private," in said or case.vary == b"*":
        return False
    if any(each.encode() in case.vary.lower() for each in carried):
        return False
    if b"public" in said or b"s-maxage" in said:
        return True
    return b"must-revalidate" in said and set(carried) <= {"authorization"}


def check(case: Case, asks: bytes, answer: Answer) -> None:
    """What came shows nobody, who asks, or somebody whose response was public; and a cookie only the asker's own."""
    mine, carried = (asks, case.alice) if asks == b"alice" else (asks, case.bob)
    others = case.bob if asks == b"alice" else case.alice
    told = b"\n".join([answer.body, *answer.all(b"x-user"), *answer.all(b"etag")])
    other = b"bob" if asks == b"alice" else b"alice"
    if other in told:
        assert is_public(case, others), (case, carried)
    for value in answer.all(b"set-cookie"):
        assert value in (b"session=" + mine, b"session=nobody"), case
        assert (value == b"session=" + mine) is bool(carried), case


def apps(backend: str, entries: bool) -> Iterator[tuple[Case, App, ASGIApp, FakeClock]]:
    """All cases in memory on asyncio; every seventh on trio, and every third in a store elsewhere."""
    for case in CASES[:: 7 if backend == "trio" else 3 if entries else 1]:
        app, clock = App(case), FakeClock()
        env = Env(clock=clock, entries=Elsewhere() if entries else None)
        yield case, app, Stack(Cache(ttl=60), env=env, place="here")(app), clock


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_is_told_to_head_stays_with_whom_it_is_told(anyio_backend_name: str, elsewhere: bool) -> None:
    """With one tag for all, so that each answer to HEAD names what is kept; fresh, and stale."""
    for case, app, cached, clock in apps(anyio_backend_name, elsewhere):
        app.tag = b"all"
        alice, bob = request(b"alice", case.alice), request(b"bob", case.bob)
        for seconds in (0, 61):
            check(case, b"alice", await call(cached, headers=alice))
            clock.advance(seconds)
            check(case, b"bob", await call(cached, "HEAD", headers=[*bob, (b"cache-control", b"no-cache")]))
            check(case, b"alice", await call(cached, headers=alice))
            check(case, b"bob", await call(cached, headers=bob))


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_one_after_the_other(anyio_backend_name: str, elsewhere: bool) -> None:
    """Fresh, stale and confirmed, stale and the app fails."""
    for case, app, cached, clock in apps(anyio_backend_name, elsewhere):
        for seconds, broken in ((0, False), (61, False), (0, False), (61, True)):
            clock.advance(seconds)
            app.broken = broken
            for name, carried in ((b"alice", case.alice), (b"bob", case.bob)):
                check(case, name, await call(cached, headers=request(name, carried)))


async def test_both_at_once(anyio_backend_name: str) -> None:
    """Cold, and when what is kept is stale."""
    for case, _, cached, clock in apps(anyio_backend_name, False):
        for seconds in (0, 61):
            clock.advance(seconds)
            answers = {name: Answer() for name in (b"alice", b"bob")}
            async with anyio.create_task_group() as group:
                for name, carried in ((b"alice", case.alice), (b"bob", case.bob)):
                    group.start_soon(visit, cached, request(name, carried), answers[name])
            for name, answer in answers.items():
                assert answer.complete
                check(case, name, answer)


async def visit(app: ASGIApp, headers: RawHeaders, answer: Answer) -> None:
    await call(app, headers=headers, answer=answer)


def test_every_test_the_page_names_is_one() -> None:
    here = Path(__file__).parent
    page = (here.parents[1] / "docs" / "why-this-cache-cannot-leak.md").read_text("utf-8")
    tests = "".join(each.read_text("utf-8") for each in here.glob("test_cache*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 40
    assert {each for each in named if f"def {each}(" not in tests} == set()


def test_every_combination_is_there() -> None:
    assert len(CASES) == len(CARRIED) ** 2 * len(DIRECTIVES) * len(VARY) * 2


def test_the_letter_is_not_empty() -> None:
    public = [case for case in CASES if case.alice and is_public(case, case.alice)]
    assert 0 < len(public) < len(CASES) / 3
