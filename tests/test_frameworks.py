"""A policy instance is a middleware as it is, and guards everything behind it."""

import contextlib
from dataclasses import dataclass

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient, WebSocketDenialResponse

from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, Stack


@dataclass(frozen=True, kw_only=True)
class Password(Policy):
    word: bytes = b"sesame"

    def on_request(self, exchange: Exchange) -> None:
        if exchange.header(b"x-word") != self.word:
            raise Refusal(401, "wrong-word", headers={"www-authenticate": "Word"})

    def on_response(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.set(b"x-guarded", b"yes")


def fastapi_app(folder: str) -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/nested")

    @app.get("/")
    def root() -> str:
        return "root"

    @router.get("/{name}")
    def nested(name: str) -> str:
        return name

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hi")
        await websocket.close()

    app.include_router(router)
    app.mount("/sub", Starlette(routes=[Route("/page", PlainTextResponse("page"))]))
    app.mount("/static", StaticFiles(directory=folder))
    app.add_middleware(Password())  # type: ignore[arg-type]
    return app


@pytest.fixture
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    folder = tmp_path_factory.mktemp("static")
    (folder / "file.txt").write_text("file")
    return TestClient(fastapi_app(str(folder)))


EVERYTHING = ["/", "/nested/a", "/sub/page", "/sub/unknown", "/static/file.txt", "/unknown", "/docs", "/openapi.json"]


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST", "DELETE", "HEAD"])
@pytest.mark.parametrize("path", EVERYTHING)
def test_nothing_behind_a_policy_is_reached_without_it(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Word")


@pytest.mark.parametrize("path", EVERYTHING)
def test_every_answer_leaves_through_the_policy(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"x-word": "sesame"})
    assert answer.status_code == (404 if "unknown" in path else 200)
    assert answer.headers["x-guarded"] == "yes"


def test_a_websocket_is_refused_at_its_handshake(client: TestClient) -> None:
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws"):
        pass
    assert denied.value.status_code == 401
    assert denied.value.json()["code"] == "wrong-word"


def test_a_websocket_passes(client: TestClient) -> None:
    with client.websocket_connect("/ws", headers={"x-word": "sesame"}) as websocket:
        assert websocket.receive_text() == "hi"


def test_a_policy_is_a_middleware_of_a_mount_and_of_a_route() -> None:
    page = Route("/page", PlainTextResponse("page"))
    guarded = Route("/guarded", PlainTextResponse("guarded"), middleware=[Middleware(Password())])  # type: ignore[arg-type]
    mount = Mount("/sub", routes=[page], middleware=[Middleware(Password())])  # type: ignore[arg-type]
    client = TestClient(Starlette(routes=[mount, page, guarded]))
    statuses = [client.get(path).status_code for path in ("/page", "/sub/page", "/guarded")]
    assert statuses == [200, 401, 401]
    assert client.get("/sub/page", headers={"x-word": "sesame"}).text == "page"


def test_a_stack_is_a_middleware() -> None:
    app = Starlette(routes=[Route("/", PlainTextResponse("x"))])
    app.add_middleware(Stack(Password(word=b"a"), Password(word=b"a")))  # type: ignore[arg-type]
    assert TestClient(app).get("/", headers={"x-word": "a"}).text == "x"


def test_the_lifespan_of_the_app_passes() -> None:
    started: list[str] = []

    async def startup(app: Starlette) -> object:
        started.append("up")
        yield
        started.append("down")

    app = Starlette(lifespan=contextlib.asynccontextmanager(startup))  # type: ignore[arg-type]
    with TestClient(Stack(Password())(app)):
        assert started == ["up"]
    assert started == ["up", "down"]


def test_what_policies_do_to_an_app_that_raises_is_nothing() -> None:
    def fail(request: object) -> PlainTextResponse:
        raise LookupError("mine")

    app = Starlette(routes=[Route("/", fail)])
    app.add_middleware(Password())  # type: ignore[arg-type]
    client = TestClient(app, raise_server_exceptions=False)
    assert client.get("/", headers={"x-word": "sesame"}).status_code == 500
