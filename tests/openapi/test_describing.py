"""A FastAPI app says in its own document what stands in front of each route, and says nothing that is not so."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse
from fastapi.security import OAuth2PasswordBearer
from litestar import Litestar, get
from litestar.params import FromPath
from openapi_spec_validator import validate
from pydantic import BaseModel
from starlette.testclient import TestClient
from tests.jose.issuer import AUDIENCE, ISSUER
from tests.policies.bearing import KEY

from apim_middleware import (
    APIKeyAuth,
    Authorize,
    Cache,
    ConfigError,
    ETag,
    Idempotency,
    JWTAuth,
    LimitBody,
    MemoryKeys,
    Only,
    RateLimit,
    RequireHeader,
    Stack,
    by,
    guard,
)
from apim_middleware.openapi import PublishOpenAPI, describe, document_of
from apim_middleware.openapi._operations import resolved

JWT = JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=KEY)
LIMIT = RateLimit(calls=10, per=60, by=by.client)


class Order(BaseModel):
    id: int
    parts: "list[Order]" = []


def shop() -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/orders", tags=["orders"])

    @router.get("/{id}", responses={403: {"description": "Not yours."}, 429: {"model": Order}})
    def order(id: int) -> Order:  # noqa: A002
        raise HTTPException(403)

    @router.post("/")
    def create(order: Order) -> Order:
        return order

    @app.get("/health")
    def health() -> str:
        return "fine"

    app.include_router(router)
    return app


def guarded() -> Any:
    return guard(
        shop(),
        policies=(LIMIT, JWT),
        routes={
            "tag:orders": (Authorize(scopes="orders"),),
            "POST /orders/": (LimitBody(max_bytes=100), Idempotency()),
            "GET /orders/{id}": (ETag(),),
            "/health": Only(),
        },
    )


@pytest.fixture
def document() -> dict[str, Any]:
    app = guarded()
    describe(app)
    found = app.app.openapi()
    validate(found)
    return found


def response(document: dict[str, Any], path: str, method: str, status: int) -> dict[str, Any]:
    found = document["paths"][path][method]["responses"][str(status)]
    if "$ref" in found:
        found = document["components"]["responses"][found["$ref"].rpartition("/")[2]]
    return dict(found)


def codes(response: dict[str, Any]) -> list[str]:
    schema = response["content"]["application/problem+json"]["schema"]
    return list(schema["allOf"][1]["properties"]["code"]["enum"])


def test_it_names_the_credentials_and_the_scopes(document: dict[str, Any]) -> None:
    bearer = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    assert document["components"]["securitySchemes"] == {"JWTAuth": bearer}
    assert document["paths"]["/orders/{id}"]["get"]["security"] == [{"JWTAuth": ["orders"]}]


def test_it_names_refusals_with_their_codes_and_fields(document: dict[str, Any]) -> None:
    refused = response(document, "/orders/{id}", "get", 401)
    assert codes(refused) == ["token-missing", "token-invalid", "authentication-required"]
    assert set(refused["headers"]) == {"WWW-Authenticate", "RateLimit", "RateLimit-Policy"}
    limited = response(document, "/orders/", "post", 429)
    assert codes(limited) == ["rate-limit-exceeded"]
    assert set(limited["headers"]) == {"Retry-After", "RateLimit", "RateLimit-Policy"}
    assert codes(response(document, "/orders/", "post", 413)) == ["body-too-large"]


def test_what_is_for_some_methods_is_told_of_these(document: dict[str, Any]) -> None:
    assert "content" not in response(document, "/orders/{id}", "get", 304)
    assert "304" not in document["paths"]["/orders/"]["post"]["responses"]
    asked = document["paths"]["/orders/"]["post"]["parameters"]
    assert asked == [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}]
    assert "Idempotent-Replayed" in response(document, "/orders/", "post", 200)["headers"]


def test_what_the_app_says_of_a_status_stays(document: dict[str, Any]) -> None:
    forbidden = response(document, "/orders/{id}", "get", 403)
    assert forbidden["description"].startswith("Not yours.")
    assert codes(forbidden) == ["caller-unknown", "insufficient-scope"]
    limited = response(document, "/orders/{id}", "get", 429)
    assert set(limited["content"]) == {"application/json", "application/problem+json"}


def test_an_open_route_says_what_it_said_before(document: dict[str, Any]) -> None:
    assert document["paths"]["/health"] == shop().openapi()["paths"]["/health"]


def test_the_app_serves_it() -> None:
    app = describe(guard(shop(), policies=(LIMIT,)))
    served = TestClient(app).get("/openapi.json").json()
    assert "429" in served["paths"]["/health"]["get"]["responses"]
    assert TestClient(app).get("/docs").status_code == 200


def test_describing_again_adds_nothing() -> None:
    app = guarded()
    describe(app)
    first = app.app.openapi()
    assert describe(describe(app)) is app
    assert app.app.openapi() == first
    assert document_of(app) == first


def test_the_document_is_made_once() -> None:
    app = describe(guarded())
    assert app.app.openapi() is app.app.openapi()


def test_what_the_app_makes_of_itself_is_not_changed() -> None:
    app, plain = guarded(), shop().openapi()
    describe(app).app.openapi()
    assert app.app.openapi.undescribed() == plain


def test_middlewares_of_the_app_are_told_of() -> None:
    app = shop()
    app.add_middleware(RequireHeader(name="x-tenant"))
    found = document_of(app)
    parameters = found["paths"]["/health"]["get"]["parameters"]
    assert parameters == [{"name": "x-tenant", "in": "header", "required": True, "schema": {"type": "string"}}]
    assert codes(response(found, "/health", "get", 400)) == ["header-missing"]


def test_policies_around_an_app_are_told_of() -> None:
    app = Stack(LIMIT, Cache())(shop())
    found = document_of(app)
    validate(found)
    assert "429" in found["paths"]["/health"]["get"]["responses"]
    assert set(response(found, "/health", "get", 200)["headers"]) == {
        "RateLimit",
        "RateLimit-Policy",
        "Age",
        "Cache-Status",
    }


def test_mounted_apps_say_it_in_documents_of_their_own() -> None:
    app, inner = shop(), shop()
    app.mount("/inner", inner)
    outer = describe(guard(app, policies=(LIMIT,), routes={"/inner/health": Only()}))
    assert "429" not in inner.openapi()["paths"]["/health"]["get"]["responses"]
    assert "429" in inner.openapi()["paths"]["/orders/{id}"]["get"]["responses"]
    assert "429" in outer.app.openapi()["paths"]["/health"]["get"]["responses"]


def test_credentials_the_app_asks_for_itself_are_needed_besides() -> None:
    app = FastAPI()
    scheme = OAuth2PasswordBearer(tokenUrl="token")

    @app.get("/me")
    def me(token: Annotated[str, Depends(scheme)]) -> str:
        return token

    found = document_of(guard(app, policies=(APIKeyAuth(keys=MemoryKeys()),)))
    validate(found)
    assert found["paths"]["/me"]["get"]["security"] == [
        {"APIKeyAuth-header": [], "OAuth2PasswordBearer": []},
        {"APIKeyAuth-query": [], "OAuth2PasswordBearer": []},
    ]


def test_references_are_followed_with_their_escapes() -> None:
    response = {"description": "Found."}
    root = {"components": {"responses": {"a b": response, "c": {"$ref": "#/components/responses/a%20b"}}}}
    assert resolved("response", {"$ref": "#/components/responses/c"}, root) == response


def test_names_the_app_uses_already_stay_the_apps() -> None:
    class Problem(BaseModel):
        mine: int

    app = FastAPI()

    @app.get("/mine")
    def mine() -> Problem:
        return Problem(mine=1)

    schemas = document_of(guard(app, policies=(LIMIT,)))["components"]["schemas"]
    assert (list(schemas["Problem"]["properties"]), "Problem-2" in schemas) == (["mine"], True)


def test_routes_that_are_not_in_the_document_stay_out() -> None:
    app = FastAPI()

    @app.get("/hidden", include_in_schema=False)
    def hidden() -> JSONResponse:
        return JSONResponse({})

    assert document_of(guard(app, policies=(LIMIT,)))["paths"] == {}


def test_an_app_without_a_document_is_a_mistake() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match="has no OpenAPI document"):
        describe(app)


def test_a_litestar_app_is_told_of_beside_itself() -> None:
    @get("/orders/{id:int}")
    async def order(id: FromPath[int]) -> str:  # noqa: A002
        return "order"

    app = guard(Litestar([order]), policies=(LIMIT,))
    found = document_of(app)
    validate(found)
    assert "429" in found["paths"]["/orders/{id}"]["get"]["responses"]
    assert TestClient(PublishOpenAPI()(app)).get("/openapi.json").json()["paths"].keys() == found["paths"].keys()
    with pytest.raises(ConfigError, match="PublishOpenAPI"):
        describe(app)
