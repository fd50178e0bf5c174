"""An app's own errors look like the refusals of policies."""

import json
import logging
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from apim_middleware import AccessLog, Refusal, SetHeader, Stack
from apim_middleware.problems import problem_handlers

MEANT = {
    "/refused": Refusal(409, "order-shipped", "It is on its way.", headers={"retry-after": "60"}),
    "/gone": HTTPException(410, "The order was deleted.", headers={"x-deleted": "yes"}),
    "/unnamed": HTTPException(499, "gone before"),
    "/listed": HTTPException(400, [{"field": "size"}]),
    "/unchanged": HTTPException(304, headers={"etag": '"1"'}),
    "/broken": ZeroDivisionError("of a secret"),
}


def shop() -> FastAPI:
    app = FastAPI(exception_handlers=problem_handlers())

    @app.get("/orders/{number}")
    async def order(number: int, secret: int = 0) -> int:
        return number

    @app.get("/{meant}")
    async def fails(meant: str) -> None:
        raise MEANT[f"/{meant}"]

    @app.websocket("/{when}")
    async def socket(websocket: WebSocket, when: str) -> None:
        if when != "asked":
            await websocket.accept()
        raise HTTPException(404) if when == "missing" else Refusal(403, "not-here", "Not here.")

    return app


@pytest.fixture
def client() -> TestClient:
    guarded = Stack(SetHeader(name="x-seen", value="yes", on="response"))(shop())
    return TestClient(guarded, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/nothing/here", {"title": "Not Found", "status": 404, "code": "not-found"}),
        (
            "/refused",
            {"title": "Conflict", "status": 409, "code": "order-shipped", "detail": "It is on its way."},
        ),
        ("/gone", {"title": "Gone", "status": 410, "code": "gone", "detail": "The order was deleted."}),
        ("/unnamed", {"title": "Error", "status": 499, "code": "error", "detail": "gone before"}),
        ("/listed", {"title": "Bad Request", "status": 400, "code": "bad-request", "errors": [{"field": "size"}]}),
        ("/broken", {"title": "Internal Server Error", "status": 500, "code": "internal-server-error"}),
    ],
)
def test_every_error_is_a_problem(client: TestClient, path: str, problem: dict[str, Any]) -> None:
    answer = client.get(path)
    assert answer.json() == {"type": "about:blank", **problem}
    assert answer.status_code == problem["status"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_method_that_is_not_allowed_says_which_are(client: TestClient) -> None:
    answer = client.delete("/orders/1")
    assert (answer.json()["code"], answer.headers["allow"]) == ("method-not-allowed", "GET")


@pytest.mark.parametrize(("path", "name", "value"), [("/refused", "retry-after", "60"), ("/gone", "x-deleted", "yes")])
def test_headers_go_along(client: TestClient, path: str, name: str, value: str) -> None:
    assert client.get(path).headers[name] == value


def test_what_is_not_valid_is_told_but_never_shown(client: TestClient) -> None:
    answer = client.get("/orders/1", params={"secret": "hush"})
    assert answer.json()["errors"] == [
        {
            "loc": ["query", "secret"],
            "msg": "Input should be a valid integer, unable to parse string as an integer",
            "type": "int_parsing",
        }
    ]
    assert "hush" not in answer.text


def test_what_has_no_body_gets_none(client: TestClient) -> None:
    answer = client.get("/unchanged")
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"1"')


def test_an_answer_to_head_has_no_body(client: TestClient) -> None:
    assert client.head("/nothing/here").content == b""


def test_a_refusal_of_an_endpoint_is_in_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "apim_middleware.access"):
        TestClient(Stack(AccessLog())(shop())).get("/refused")
    [line] = [record.getMessage() for record in caplog.records if record.name == "apim_middleware.access"]
    assert json.loads(line)["apim.refusal.code"] == "order-shipped"


def test_a_websocket_is_denied_before_it_is_accepted(client: TestClient) -> None:
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/asked"):
        pass
    assert (denied.value.status_code, denied.value.json()["code"]) == (403, "not-here")


@pytest.mark.parametrize(("path", "reason"), [("/accepted", "not-here"), ("/missing", "not-found")])
def test_an_accepted_websocket_is_closed(client: TestClient, path: str, reason: str) -> None:
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect(path) as socket:
        socket.receive_text()
    assert (closed.value.code, closed.value.reason) == (1008, reason)


def test_starlette_takes_them_as_well() -> None:
    async def refuses(request: Request) -> Response:
        raise Refusal(409, "order-shipped")

    app = Starlette(routes=[Route("/", refuses)], exception_handlers=problem_handlers())
    client = TestClient(app)
    assert [client.get(path).json()["code"] for path in ("/", "/nothing")] == ["order-shipped", "not-found"]
