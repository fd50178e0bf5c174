"""Splits: who goes where, and that they stay there."""

import random
from collections import Counter

import pytest

from apim_middleware import by
from apim_middleware.errors import ConfigError
from apim_middleware.policies.headers import SetHeader
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.policies.split import Split
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import call, connect

pytestmark = pytest.mark.anyio


def named(name, lifespans=None):
    """An app that says its name."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for _ in range(2):
                kind = (await receive())["type"]
                lifespans.append((name, kind))
                await send({"type": f"{kind}.complete"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": [(b"x-app", name.encode())]})
            await send({"type": "websocket.close", "code": 1000})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": name[:1].encode(), "more_body": True})
            await send({"type": "http.response.body", "body": name[1:].encode()})

    return app


OLD, NEW = named("old"), named("new")
TENANT = by.header("x-tenant")


def tenant(number):
    return [(b"x-tenant", b"%d" % number)]


async def where(app, number):
    return (await call(app, headers=tenant(number))).body


async def test_a_part_of_the_requests_goes_to_the_other_app():
    app = Split(NEW, share=0.2, random=random.Random(1).random)(OLD)
    counts = Counter([(await call(app)).body for _ in range(500)])
    assert 70 < counts[b"new"] < 130
    assert set(counts) == {b"old", b"new"}


@pytest.mark.parametrize(("share", "name"), [(0, b"old"), (1, b"new")])
async def test_all_or_none_may_go(share, name):
    app = Split(NEW, share=share)(OLD)
    assert {(await call(app)).body for _ in range(50)} == {name}


async def test_the_same_caller_goes_the_same_way():
    app = Split(NEW, share=0.5, by=TENANT)(OLD)
    first = [await where(app, number) for number in range(100)]
    assert [await where(app, number) for number in range(100)] == first
    assert 30 < first.count(b"new") < 70


async def test_those_who_went_stay_when_more_go():
    less, more = (Split(NEW, share=share, by=TENANT)(OLD) for share in (0.2, 0.6))
    went = [number for number in range(100) if await where(less, number) == b"new"]
    assert went
    assert {await where(more, number) for number in went} == {b"new"}


async def test_splits_of_other_names_send_others():
    one, other = (Split(NEW, share=0.5, by=TENANT, name=name)(OLD) for name in ("a", "b"))
    ways = [[await where(app, number) for number in range(50)] for app in (one, other)]
    assert ways[0] != ways[1]


async def test_several_share_what_is_left():
    app = Stack(Split(named("one"), share=1, by=TENANT, name="x"), Split(NEW, share=1))(OLD)
    assert (await call(app)).body == b"one"


async def test_websockets_are_split_as_well():
    assert (await connect(Split(NEW, share=1)(OLD))).header(b"x-app") == b"new"
    assert (await connect(Split(NEW, share=0)(OLD))).header(b"x-app") == b"old"


async def test_the_answer_passes_out_through_the_policies_before_it():
    app = Stack(SetHeader(name="x-out", value="1", on="response"), Split(NEW, share=1))(OLD)
    assert (await call(app)).header(b"x-out") == b"1"


class Look(Policy):
    def on_end(self, exchange):
        SEEN.append(dict(exchange.attributes))


SEEN: list[dict[str, object]] = []


async def test_the_exchange_says_which_way_it_went():
    await call(Stack(Look(), Split(NEW, share=1, name="canary"))(OLD))
    assert SEEN[-1] == {"apim.split.canary": True}


async def test_an_error_of_the_other_app_comes_out_as_it_is():
    async def failing(scope, receive, send):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await call(Split(failing, share=1)(OLD))


async def test_what_guards_cannot_stand_behind_it():
    class Guard(Policy):
        guards = True

    with pytest.raises(ConfigError, match=r"would answer without asking it.* Write Guard before Split"):
        Stack(Split(NEW, share=0.1), Guard())
    Stack(Guard(), RequireHeader(name="x-a"), Split(NEW, share=0.1))


# Their lifespans


async def live(app):
    said, stage = [], iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive():
        return {"type": next(stage)}

    async def send(message):
        said.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    return said


async def test_both_apps_have_a_lifespan():
    lived = []
    app = Split(named("new", lived), share=0.1)(named("old", lived))
    assert await live(app) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    both = [("new", "old"), ("startup", "shutdown")]
    assert lived == [(name, f"lifespan.{kind}") for kind in both[1] for name in both[0]]


async def test_an_app_without_a_lifespan_goes_without():
    async def bare(scope, receive, send):
        raise RuntimeError("no lifespan here")

    lived = []
    assert await live(Split(bare, share=0.1)(named("old", lived))) == [
        "lifespan.startup.complete", "lifespan.shutdown.complete",
    ]  # fmt: skip
    with pytest.raises(RuntimeError, match="no lifespan here"):
        await live(Split(named("new", lived), share=0.1)(bare))


async def test_an_app_that_does_not_start_is_told_of_and_the_other_goes_on(caplog):
    async def broken(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "Traceback\nno database"})

    app = Split(broken, share=0.1)(named("old", []))
    assert await live(app) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert caplog.messages == ["an app beside the main one does not start: no database"]


async def later(exchange):
    return "a"


@pytest.mark.parametrize(
    ("fields", "field"), [({"share": 1.1}, "share"), ({}, "share"), ({"share": 0.1, "by": later}, "by")]
)
def test_a_mistake_names_its_field(fields, field):
    with pytest.raises(ConfigError, match=rf"Split\.{field}"):
        Split(NEW, **fields)
