"""Endpoints are told who is calling, by Starlette's own means and by typed dependencies, or refuse."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from apim_middleware.dependencies import (
    maybe_principal,
    maybe_subscription,
    principal,
    principal_with,
    subscription,
)
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.basic import BasicAuth
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.keys import MemoryKeys
from apim_middleware.stores.users import Cost, MemoryUsers

USERS = MemoryUsers(cost=Cost(ln=4, r=8, p=1))
USERS.add("ada", "hush", scopes="orders.read")
KEYS = MemoryKeys()
KEYS.add(Subscription(id="acme", product="starter"))
KEY = {"Ocp-Apim-Subscription-Key": KEYS.issue("acme")}
ADA = ("ada", "hush")


def orders() -> FastAPI:
    app = FastAPI()

    @app.get("/caller")
    def caller(caller: Annotated[Principal, Depends(principal)]) -> str:
        return caller.subject

    @app.get("/subscription")
    def account(account: Annotated[Subscription, Depends(subscription)]) -> str:
        return f"{account.id} {account.product}"

    @app.get("/anybody")
    def anybody(
        caller: Annotated[Principal | None, Depends(maybe_principal)],
        account: Annotated[Subscription | None, Depends(maybe_subscription)],
    ) -> list[bool]:
        return [caller is None, account is None]

    @app.get("/read")
    def read(caller: Annotated[Principal, Depends(principal_with("orders.read"))]) -> str:
        return caller.subject

    @app.get("/write")
    def write(caller: Annotated[Principal, Depends(principal_with("orders.read", "orders.write"))]) -> str:
        return caller.subject

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, caller: Annotated[Principal, Depends(principal)]) -> None:
        await websocket.accept()
        await websocket.send_text(caller.subject)
        await websocket.close()

    return app


def behind(*policies: Policy, app: Any = None) -> TestClient:
    return TestClient(Stack(*policies)(app or orders()))


OPTIONAL = (APIKeyAuth(keys=KEYS, optional=True), BasicAuth(users=USERS, optional=True))


def test_an_endpoint_is_told_the_caller() -> None:
    assert behind(*OPTIONAL).get("/caller", auth=ADA).json() == "ada"


def test_an_endpoint_is_told_the_subscription() -> None:
    assert behind(*OPTIONAL).get("/subscription", headers=KEY).json() == "acme starter"


@pytest.mark.parametrize(("path", "scheme"), [("/caller", "Bearer"), ("/subscription", "AzureApiManagementKey")])
@pytest.mark.parametrize("policies", [OPTIONAL, ()])
def test_where_nobody_is_known_it_is_401_with_a_challenge(path: str, scheme: str, policies: Any) -> None:
    answer = behind(*policies).get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith(scheme)


def test_what_may_be_missing_is_none() -> None:
    assert behind(*OPTIONAL).get("/anybody").json() == [True, True]
    assert behind(*OPTIONAL).get("/anybody", headers=KEY, auth=ADA).json() == [False, False]
    assert TestClient(orders()).get("/anybody").json() == [True, True]


def test_scopes_can_be_asked_for() -> None:
    client = behind(*OPTIONAL)
    assert client.get("/read", auth=ADA).json() == "ada"
    answer = client.get("/write", auth=ADA)
    assert answer.status_code == 403
    assert 'scope="orders.read orders.write"' in answer.headers["www-authenticate"]
    assert client.get("/write").status_code == 401


def test_a_websocket_is_told_the_caller_or_closed() -> None:
    client = behind(BasicAuth(users=USERS, optional=True))
    with client.websocket_connect("/socket", headers={"Authorization": "Basic YWRhOmh1c2g="}) as socket:
        assert socket.receive_text() == "ada"
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/socket"):
        pass
    assert caught.value.code == 1008


def test_the_schema_asks_for_nothing_that_is_not_there() -> None:
    paths = TestClient(orders()).get("/openapi.json").json()["paths"]
    assert all("parameters" not in operation for path in paths.values() for operation in path.values())


def test_the_caller_is_the_user_of_starlette() -> None:
    async def who(request: Request) -> Response:
        told = [request.user.display_name, request.user.is_authenticated, sorted(request.auth.scopes)]
        return JSONResponse(told)

    @requires("orders.read")
    async def read(request: Request) -> Response:
        return JSONResponse("read")

    @requires("orders.write", status_code=403)
    async def write(request: Request) -> Response:
        return JSONResponse("written")

    routes = [Route("/who", who), Route("/read", read), Route("/write", write)]
    client = behind(BasicAuth(users=USERS), app=Starlette(routes=[Mount("/deep", routes=routes)]))
    assert client.get("/deep/who", auth=ADA).json() == ["ada", True, ["orders.read"]]
    assert client.get("/deep/read", auth=ADA).json() == "read"
    assert client.get("/deep/write", auth=ADA).status_code == 403


def test_a_subscription_is_the_user_of_starlette_too() -> None:
    async def who(request: Request) -> Response:
        return JSONResponse([request.user.identity == request.auth.identity, request.user.subject])

    client = behind(APIKeyAuth(keys=KEYS), app=Starlette(routes=[Route("/", who)]))
    assert client.get("/", headers=KEY).json() == [True, "acme"]
