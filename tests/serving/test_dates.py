"""Every response has one date, where the server writes none."""

from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from apim_middleware.serving.dates import Dated
from apim_middleware.testing import call, connect
from apim_middleware.types import RawHeaders, Receive, Scope, Send

pytestmark = pytest.mark.anyio

OLD = b"Sun, 06 Nov 1994 08:49:37 GMT"


def answering(headers: RawHeaders | None) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200}
        await send(start if headers is None else {**start, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    return app


@pytest.mark.parametrize("headers", [None, [], [(b"x-date", OLD)]])
async def test_a_response_without_a_date_gets_that_of_the_moment(headers: RawHeaders | None) -> None:
    app = Dated(answering(headers))
    dates = [parsedate_to_datetime((await call(app)).header(b"date").decode()) for _ in range(2)]
    assert dates[0].year >= 2025
    assert 0 <= (dates[1] - dates[0]).total_seconds() < 60


async def test_header_lines_may_be_any_iterable() -> None:
    answer = await call(Dated(answering(line for line in [(b"x-one", b"1")])))  # type: ignore[arg-type]
    assert answer.header(b"x-one") == b"1"
    assert answer.header(b"date")


@pytest.mark.parametrize("name", [b"date", b"Date"])
async def test_a_date_is_left_as_it_is(name: bytes) -> None:
    answer = await call(Dated(answering([(name, OLD)])))
    assert [value for name, value in answer.headers if name.lower() == b"date"] == [OLD]


async def test_the_list_of_the_app_is_left_alone() -> None:
    headers: RawHeaders = []
    await call(Dated(answering(headers)))
    assert headers == []


async def test_a_websocket_needs_none() -> None:
    async def accepting(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})

    answer = await connect(Dated(accepting))
    assert answer.messages == [{"type": "websocket.accept"}]
