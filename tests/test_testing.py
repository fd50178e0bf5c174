"""The caller for tests: what it is asked to send is what the app gets."""

from collections.abc import Awaitable, Callable

import pytest
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from apim_middleware.testing import Answer, call, connect, http_scope
from apim_middleware.types import Receive, Scope, Send

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
