"""The caller for tests: what it is asked to send is what the app gets."""

from collections.abc import Awaitable, Callable, Iterator

import pytest
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from apim_middleware.testing import Answer, call, connect, http_scope
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

pytestmark = pytest.mark.anyio


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    response = PlainTextResponse(f"{scope['path']} {HTTPConnection(scope).query_params}", 400)
    await response(scope, receive, send)


@pytest.mark.parametrize("ask", [call, connect])
async def test_a_query_is_given_apart(ask: Callable[..., Awaitable[Answer]]) -> None:
    assert (await ask(echo, path="/x", query=b"y=1")).body == b"/x y=1"


@pytest.mark.parametrize("ask", [call, connect])
async def test_a_query_within_the_path_is_a_mistake(ask: Callable[..., Awaitable[Answer]]) -> None:
    with pytest.raises(ValueError, match="query="):
        await ask(echo, path="/x?y=1")


def test_a_question_mark_that_came_encoded_is_part_of_the_path() -> None:
    assert http_scope(path="/x?y", raw_path=b"/x%3Fy")["path"] == "/x?y"


def answering(length: bytes, status: int = 200) -> ASGIApp:
    """Five bytes, whatever their head says."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": b"hello" if status == 200 else b""})

    return app


async def test_what_was_sent_is_not_looked_through_for_each_message() -> None:
    class Unread(list[Message]):
        def __iter__(self) -> Iterator[Message]:
            raise AssertionError("it was read")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for more in (True, True, False):
            await send({"type": "http.response.body", "body": b"x", "more_body": more})

    assert len((await call(app, answer=Answer(Unread()))).messages) == 4


@pytest.mark.parametrize("length", [b"4", b"6", b"five"])
async def test_a_body_of_another_length_than_its_head_says_is_not_complete(length: bytes) -> None:
    answer = await call(answering(length))
    assert (answer.ended, answer.complete) == (True, False)


async def test_a_head_may_say_the_length_of_what_is_not_sent() -> None:
    assert (await call(answering(b"5", 304))).complete
    assert (await call(answering(b"5"))).complete
