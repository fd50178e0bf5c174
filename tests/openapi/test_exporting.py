"""The document of a gateway is valid, whole, and says what callers meet there."""

import copy
import json
import pickle
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import litestar
import pytest
from fastapi import FastAPI
from litestar.params import FromPath
from openapi_spec_validator import validate
from pydantic import BaseModel
from tests.openapi.test_importing import document

from apim_middleware import (
    Api,
    APIKeyAuth,
    BasicAuth,
    ConfigError,
    Deprecation,
    Env,
    Gateway,
    JWTAuth,
    LimitBody,
    MemoryKeys,
    MemoryUsers,
    Operation,
    Pool,
    Product,
    RateLimit,
    Revision,
    Stack,
    Subscription,
    Version,
    Versions,
    by,
    key_digest,
)
from apim_middleware.gateway import Reloadable
from apim_middleware.openapi import PublishOpenAPI, api_from_openapi, document_of, openapi_of
from apim_middleware.openapi._components import Components, Source
from apim_middleware.testing import call
from apim_middleware.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio

KEYS = MemoryKeys()
UPSTREAM = "http://upstream:8000"
PRODUCT_LIMIT = RateLimit(calls=5, per=60, by=by.subscription)
HEADER, QUERY = {"APIKeyAuth-header": []}, {"APIKeyAuth-query": []}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def api(name: str = "orders", **more: Any) -> Api:
    return Api(name, **{"path": f"/{name}", "backend": UPSTREAM, "operations": (Operation("GET", "/{id}"),), **more})


def exported(*apis: Api, products: tuple[Product, ...] = (), **more: Any) -> dict[str, Any]:
    settings = {name: more.pop(name) for name in ("policies", "errors", "keys", "env") if name in more}
    gateway = Gateway(apis=apis, products=products, **{"keys": KEYS, **settings})
    found = openapi_of(gateway, **more)
    validate(found)
    json.dumps(found)
    return found


def operation(found: dict[str, Any], path: str, method: str = "get") -> Any:
    return found["paths"][path][method]


def response(found: dict[str, Any], path: str, status: int, method: str = "get") -> dict[str, Any]:
    given: dict[str, Any] = operation(found, path, method)["responses"][str(status)]
    if "$ref" in given:
        given = found["components"]["responses"][given["$ref"].rpartition("/")[2]]
    return given


def codes(given: dict[str, Any]) -> list[str]:
    schema = given["content"]["application/problem+json"]["schema"]
    return list(schema["allOf"][1]["properties"]["code"]["enum"])


# What is told of an operation


def test_it_is_found_where_callers_find_it_and_asks_for_a_key() -> None:
    found = exported(api())
    get = operation(found, "/orders/{id}")
    assert get["security"] == [HEADER, QUERY]
    assert get["parameters"] == [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    assert codes(response(found, "/orders/{id}", 401)) == ["subscription-key-missing", "subscription-key-invalid"]
    assert (get["operationId"], get["tags"]) == ("get-id", ["orders"])


def test_an_api_without_subscriptions_asks_for_nothing() -> None:
    assert "security" not in operation(exported(api(subscription_required=False), keys=None), "/orders/{id}")
    both = exported(api(subscription_required=False))
    assert operation(both, "/orders/{id}")["security"] == [HEADER, QUERY, {}]
    assert "401" not in operation(both, "/orders/{id}")["responses"]


def test_keys_come_where_the_api_says() -> None:
    found = exported(api(key_header="x-key", key_query="k"))
    schemes = found["components"]["securitySchemes"].values()
    assert [(each["in"], each["name"]) for each in schemes] == [("header", "x-key"), ("query", "k")]


def test_policies_of_every_scope_are_told_of() -> None:
    users = MemoryUsers()
    operations = (Operation("GET", "/x", policies=(LimitBody(max_bytes=9),)),)
    orders = api(policies=(BasicAuth(users=users),), operations=operations)
    found = exported(orders, policies=(RateLimit(calls=9, per=9),))
    get = operation(found, "/orders/x")
    assert get["security"] == [{**HEADER, "BasicAuth": []}, {**QUERY, "BasicAuth": []}]
    assert set(get["responses"]) == {"default", "401", "403", "413", "429", "502", "503", "504"}
    assert "RateLimit" in response(found, "/orders/x", 401)["headers"]
    assert "RateLimit" in get["responses"]["default"]["headers"]


def test_at_a_place_of_its_own_a_gateway_is_told_of_alike() -> None:
    """Its policies were told of as if they stood behind the key."""
    policies = (RateLimit(calls=9, per=9),)
    assert exported(api(), policies=policies, env=Env(place="mall")) == exported(api(), policies=policies)


def test_a_product_has_a_document_of_its_own() -> None:
    products = (
        Product("starter", apis=("orders",), policies=(PRODUCT_LIMIT,), title="Starter", description="For a start."),
        Product("open", apis=("status",), subscription_required=False),
    )
    gateway = {"products": products}
    starter = exported(api(), api("status"), product="starter", **gateway)
    assert list(starter["paths"]) == ["/orders/{id}"]
    assert starter["info"] == {"title": "Starter", "version": "1", "description": "For a start."}
    assert "429" in operation(starter, "/orders/{id}")["responses"]
    opened = exported(api(), api("status"), product="open", **gateway)
    assert list(opened["paths"]) == ["/status/{id}"]
    assert {} in operation(opened, "/status/{id}")["security"]


def test_the_document_of_everything_tells_of_every_context() -> None:
    found = exported(api(), products=(Product("starter", apis=("*",), policies=(PRODUCT_LIMIT,)),))
    assert "429" in operation(found, "/orders/{id}")["responses"]
    assert operation(found, "/orders/{id}")["security"] == [HEADER, QUERY]


def test_azures_bodies_are_told_of_where_they_are_written() -> None:
    refused = response(exported(api(), errors="azure"), "/orders/{id}", 401)
    assert refused["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}


def test_what_proxies_and_pools_answer_is_told_of() -> None:
    assert codes(response(exported(api()), "/orders/{id}", 502)) == ["upstream-unreachable", "upstream-broken"]
    pooled = exported(api(backend=Pool(UPSTREAM)))
    assert "no-upstream-available" in codes(response(pooled, "/orders/{id}", 503))
    assert "502" not in operation(exported(api(backend=echo)), "/orders/{id}")["responses"]


# Templates, versions, revisions


def test_templates_are_written_as_openapi_writes_them() -> None:
    templates = ("/files/*", "/f/{*rest}", "/g/{rest:path}", "/r.{format}", "/a b", "/q?x={text}&kind=1")
    found = exported(api(path="/", operations=tuple(Operation("GET", each) for each in templates)))
    assert list(found["paths"]) == ["/files/{path}", "/f/{rest}", "/g/{rest}", "/r.{format}", "/a%20b", "/q"]
    asked = [(each["name"], each["in"], each["schema"]) for each in operation(found, "/q")["parameters"]]
    assert asked == [("x", "query", {"type": "string"}), ("kind", "query", {"const": "1"})]


def test_operations_told_apart_by_queries_come_back() -> None:
    first = (Operation("GET", "/q?k=a"), Operation("GET", "/q?k=b"), Operation("GET", "/q"))
    found = exported(api(operations=first))
    assert list(found["paths"]) == ["/orders/q"]
    assert sorted(found["x-ms-paths"]) == ["/orders/q?k=a", "/orders/q?k=b"]


def test_a_parameter_by_which_operations_are_told_apart_may_come_once() -> None:
    fast, all_ = Operation("GET", "/s?kind=fast", name="fast"), Operation("GET", "/s", name="all")
    found = exported(api(operations=(fast, all_, Operation("POST", "/s"))))
    assert codes(response(found, "/orders/s", 400)) == ["operation-ambiguous"]
    assert "400" not in found["paths"]["/orders/s"]["post"]["responses"]


def test_any_method_is_each_that_has_no_operation_of_its_own() -> None:
    operations = (Operation("*", "/x"), Operation("GET", "/x", name="own"))
    found = exported(api(operations=operations))
    assert set(found["paths"]["/orders/x"]) == {"get", "put", "post", "delete", "options", "head", "patch"}
    assert operation(found, "/orders/x")["operationId"] == "own"
    assert operation(found, "/orders/x", "put")["operationId"] == "any-x-put"


def test_a_websocket_is_a_get_that_says_so() -> None:
    found = exported(api(operations=(Operation("WEBSOCKET", "/live"),)))
    assert operation(found, "/orders/live")["x-websocket"] is True
    assert "101" in operation(found, "/orders/live")["responses"]


def test_versions_in_the_path_are_paths_of_their_own_without_the_retired() -> None:
    ending = Deprecation(since=datetime(2026, 1, 1, tzinfo=UTC), sunset=datetime(2027, 1, 1, tzinfo=UTC))
    versions = Versions("path", (Version("v0", retired=True), Version("v1", deprecation=ending), Version("v2")))
    found = exported(api(versions=versions))
    assert list(found["paths"]) == ["/orders/v1/{id}", "/orders/v2/{id}"]
    assert operation(found, "/orders/v1/{id}")["deprecated"] is True
    assert {"Deprecation", "Sunset"} <= set(operation(found, "/orders/v1/{id}")["responses"]["default"]["headers"])
    assert "deprecated" not in operation(found, "/orders/v2/{id}")


@pytest.mark.parametrize("place", ["header", "query"])
def test_versions_that_are_asked_for_are_a_parameter(place: Any) -> None:
    new = (Operation("GET", "/{id}"), Operation("GET", "/new"))
    versions = Versions(place, (Version("v1"), Version("v2", operations=new)), default="v1")
    found = exported(api(versions=versions))
    asked = {each["name"]: each for each in operation(found, "/orders/{id}")["parameters"]}["api-version"]
    assert (asked["in"], asked["schema"]) == (place, {"type": "string", "enum": ["v1", "v2"], "default": "v1"})
    (only,) = operation(found, "/orders/new")["parameters"]
    assert only["schema"]["enum"] == ["v2"]
    assert codes(response(found, "/orders/{id}", 404)) == ["api-version-unknown"]
    assert list(exported(api(versions=versions), api_version="v1")["paths"]) == ["/orders/{id}"]


def test_the_current_revision_is_shown() -> None:
    revisions = (Revision(1), Revision(2, operations=(Operation("GET", "/new"),)))
    assert list(exported(api(revisions=revisions, revision=2))["paths"]) == ["/orders/new"]


def test_hosts_are_servers_and_tell_documents_apart() -> None:
    one, two = api("one", path="/x", hosts=("a.example",)), api("two", path="/x", hosts=("b.example",))
    with pytest.raises(ConfigError, match="hosts tell apart"):
        exported(one, two)
    found = exported(one, two, host="b.example")
    assert found["paths"]["/x/{id}"]["servers"] == [{"url": "//b.example"}]


@pytest.mark.parametrize("wrong", [{"product": "x"}, {"api": "x"}, {"api_version": "x"}])
def test_what_is_not_there_is_a_mistake(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="none of the gateway"):
        exported(api(), **wrong)


# Imported documents


def imported(given: dict[str, Any] | None = None, name: str = "orders", **more: Any) -> Api:
    return api_from_openapi(given or document(), name=name, path=f"/{name}", backend=UPSTREAM, **more)


def test_an_imported_document_is_told_again_without_its_servers() -> None:
    given = document()
    given["paths"]["/orders"]["post"]["servers"] = [{"url": "https://internal.example/v1"}]
    found = exported(imported(given))
    get = operation(found, "/orders/v1/orders/{id}")
    assert (get["operationId"], get["summary"], get["x-cost"], get["deprecated"]) == ("getOrder", "One order", 3, True)
    assert get["parameters"] == [{"$ref": "#/components/parameters/id"}]
    assert found["components"]["schemas"]["Order"] == document()["components"]["schemas"]["Order"]
    assert "example" not in json.dumps([found["servers"], found["paths"]]).replace("examples", "")


def test_components_of_one_name_stay_apart_and_equal_ones_are_one() -> None:
    other = document()
    other["components"]["schemas"]["Order"] = {"type": "string"}
    found = exported(imported(), imported(other, "others"), imported(document(), "same"))
    assert set(found["components"]["schemas"]) == {"Order", "others.Order", "Problem"}
    post = operation(found, "/others/v1/orders", "post")
    body = found["components"]["requestBodies"][post["requestBody"]["$ref"].rpartition("/")[2]]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/others.Order"}
    assert post["operationId"] == "others.create order!"


@pytest.mark.parametrize("present", [10, 1000])
def test_a_component_takes_its_name_without_a_look_at_all_others(present: int) -> None:
    root = {"components": {"schemas": {"Order": {}}}}
    into = Components({"schemas": {f"other-{number}": {} for number in range(present)}})
    assert calls(lambda: into.claim(Source(root, "orders", into), "schemas", "#/components/schemas/Order")) < 50


def calls(work: Callable[[], object]) -> int:
    """How many functions, and steps of generators, it takes."""
    seen: list[str] = []
    sys.setprofile(lambda frame, event, _: seen.append(event) if event == "call" else None)
    try:
        work()
    finally:
        sys.setprofile(None)
    return len(seen)


def test_internal_operations_are_not_told_of() -> None:
    given = document()
    given["paths"]["/orders"]["post"]["x-internal"] = True
    assert list(exported(imported(given))["paths"]) == ["/orders/v1/orders/{id}"]


def test_an_imported_api_can_be_copied_and_pickled() -> None:
    first = imported()
    for again in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert exported(again) == exported(first)


def test_the_same_gateway_gives_the_same_document() -> None:
    first = exported(imported(), imported(document(), "others"))
    assert json.dumps(first) == json.dumps(exported(imported(), imported(document(), "others")))


def test_openapi_3_0_becomes_3_1() -> None:
    schema = {
        "type": "string", "nullable": True, "example": "a", "maxLength": 3,
        "properties": {
            "nullable": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            "file": {"type": "string", "format": "binary"},
            "nothing": {"$ref": "#/components/schemas/Order", "description": "ignored in 3.0"},
        },
    }  # fmt: skip
    given = document(openapi="3.0.3")
    given["components"]["schemas"] = {"Order": schema}
    found = exported(imported(given))["components"]["schemas"]["Order"]
    assert found == {
        "type": ["string", "null"], "examples": ["a"], "maxLength": 3,
        "properties": {
            "nullable": {"type": "integer", "exclusiveMinimum": 0},
            "file": {"type": "string", "contentMediaType": "application/octet-stream"},
            "nothing": {"$ref": "#/components/schemas/Order"},
        },
    }  # fmt: skip


def test_references_into_paths_become_components() -> None:
    given = document()
    part = "#/paths/~1orders~1{id}/delete/responses/204"
    given["paths"]["/orders"]["post"]["responses"]["204"] = {"$ref": part}
    found = exported(imported(given))
    reference = operation(found, "/orders/v1/orders", "post")["responses"]["204"]["$ref"]
    assert found["components"]["responses"][reference.rpartition("/")[2]] == {"description": "Gone."}


def test_discriminators_and_links_follow_what_they_name() -> None:
    given = document()
    choice = {"propertyName": "kind", "mapping": {"a": "Order", "b": "#/components/schemas/Order", "c": "https://x"}}
    given["components"]["schemas"]["Any"] = {"oneOf": [{"$ref": "#/components/schemas/Order"}], "discriminator": choice}
    given["components"]["schemas"]["Order"]["title"] = "another one"
    links = {"next": {"operationId": "getOrder", "server": {"url": "https://internal.example"}}}
    schema = {"schema": {"$ref": "#/components/schemas/Any"}}
    given["paths"]["/orders"]["post"]["responses"]["201"] |= {"content": {"application/json": schema}, "links": links}
    found = exported(imported(), imported(given, "others"))
    mapping = found["components"]["schemas"]["Any"]["discriminator"]["mapping"]
    assert mapping == {"a": mapping["b"], "b": "#/components/schemas/others.Order", "c": "https://x"}
    created = operation(found, "/others/v1/orders", "post")["responses"]["201"]
    assert created["links"] == {"next": {"operationId": "others.getOrder"}}


def test_security_of_the_document_is_needed_besides_ours() -> None:
    given = document(security=[{"oauth": ["read"]}])
    flows = {"clientCredentials": {"tokenUrl": "https://i.example/token", "scopes": {"read": ""}}}
    given["components"]["securitySchemes"] = {"oauth": {"type": "oauth2", "flows": flows}}
    given["paths"]["/orders"]["post"]["security"] = []
    found = exported(imported(given))
    assert operation(found, "/orders/v1/orders/{id}")["security"] == [
        {**HEADER, "oauth": ["read"]},
        {**QUERY, "oauth": ["read"]},
    ]
    assert operation(found, "/orders/v1/orders", "post")["security"] == [HEADER, QUERY]


def test_versions_may_be_imported_from_documents_of_their_own() -> None:
    old, new = imported(), imported(document(openapi="3.0.0"), deprecated_since=None)
    versions = Versions("path", (Version("v1", operations=old.operations), Version("v2", operations=new.operations)))
    found = exported(api(versions=versions, operations=()))
    assert len(found["paths"]) == 4


class Part(BaseModel):
    name: str
    parts: "list[Part]" = []


def frameworks() -> list[FastAPI]:
    """Apps of several shapes, whose documents the framework makes."""
    plain, nested, older = FastAPI(title="plain"), FastAPI(title="nested"), FastAPI()
    older.openapi_version = "3.0.3"

    @plain.get("/a/{x}", operation_id="a", deprecated=True)
    @plain.put("/a/{x}", operation_id="b")
    def a(x: int, q: str | None = None) -> Part: ...  # type: ignore[empty-body]

    callbacks = FastAPI()

    @callbacks.post("{$request.body#/url}")
    def called(part: Part) -> None: ...

    @nested.post("/{a}/{b}.json", callbacks=callbacks.routes, responses={404: {"model": Part}})
    def b(a: str, part: Part | None = None) -> list[Part]: ...  # type: ignore[empty-body]

    @older.api_route("/{rest:path}", methods=["GET", "DELETE"], name="any")
    def c(rest: str) -> dict[str, Part]: ...  # type: ignore[empty-body]

    return [plain, nested, older]


@pytest.mark.filterwarnings("ignore:Duplicate Operation ID")
@pytest.mark.parametrize("number", range(3))
def test_documents_of_frameworks_are_imported_and_told_again(number: int) -> None:
    app = frameworks()[number]
    given = app.openapi()
    if len(given["paths"]) == 1 and number == 2:  # one function for several methods has one id for both
        for method, each in given["paths"]["/{rest}"].items():
            each["operationId"] = method
    found = exported(imported(given, "app"))
    for path, item in given["paths"].items():
        for method, each in item.items():
            again = operation(found, f"/app{path}", method)
            assert again["operationId"] == each["operationId"]
            assert set(each["responses"]) <= set(again["responses"])
            assert again.get("requestBody") == each.get("requestBody")
            assert again.get("callbacks") == each.get("callbacks")
            assert again["parameters"][: len(each.get("parameters", []))] == each.get("parameters", [])
    assert found["components"]["schemas"].items() >= given["components"]["schemas"].items()


def test_a_document_of_litestar_is_imported_and_told_again() -> None:
    @litestar.get("/parts/{name:str}")
    async def part(name: FromPath[str]) -> Part: ...  # type: ignore[empty-body]

    found = exported(imported(litestar.Litestar([part]).openapi_schema.to_schema(), "app"))
    assert operation(found, "/app/parts/{name}")["operationId"] == "PartsNamePart"


def test_what_is_exported_can_be_imported() -> None:
    found = exported(imported(), api("raw", operations=(Operation("GET", "/q?k=a"), Operation("GET", "/q?k=b"))))
    again = api_from_openapi(found, name="again", backend=UPSTREAM)
    told = {(each.method, each.template) for each in again.operations}
    assert told == {
        ("GET", "/orders/v1/orders/{id}"), ("DELETE", "/orders/v1/orders/{id}"), ("POST", "/orders/v1/orders"),
        ("GET", "/raw/q"), ("GET", "/raw/q?k=b"),
    }  # fmt: skip


# Serving it


def gateway(*names: str) -> Gateway:
    product = Product("starter", apis=("orders",), policies=(PRODUCT_LIMIT,))
    return Gateway(apis=tuple(api(name, backend=echo) for name in names), products=(product,), keys=KEYS)


async def test_it_is_served_beside_the_gateway() -> None:
    KEYS.add(Subscription(id="s", product="starter"), primary=key_digest("k" * 32))
    app = PublishOpenAPI(products=("starter",))(gateway("orders", "status"))
    answer = await call(app, path="/openapi.json")
    assert (answer.status, answer.header(b"content-type")) == (200, b"application/json")
    assert set(json.loads(answer.body)["paths"]) == {"/orders/{id}", "/status/{id}"}
    starter = json.loads((await call(app, path="/openapi.json", query=b"product=starter")).body)
    assert set(starter["paths"]) == {"/orders/{id}"}
    through = await call(app, path="/orders/7", headers=[(b"ocp-apim-subscription-key", b"k" * 32)])
    assert through.body == b"/orders/7"
    assert json.loads((await call(app, path="/openapi.json", query=b"product=x")).body)["code"] == "product-unknown"


async def test_who_has_it_is_told_so_and_head_has_no_body() -> None:
    app = PublishOpenAPI()(gateway("orders"))
    first = await call(app, path="/openapi.json")
    tag = first.header(b"etag")
    assert tag is not None
    again = await call(app, path="/openapi.json", headers=[(b"if-none-match", tag)])
    assert (again.status, again.body) == (304, b"")
    head = await call(app, "HEAD", path="/openapi.json")
    assert (head.body, head.header(b"content-length")) == (b"", first.header(b"content-length"))
    assert (await call(app, "POST", path="/openapi.json")).status == 404


async def test_what_stands_in_front_guards_it_too() -> None:
    app = Stack(APIKeyAuth(keys=MemoryKeys()), PublishOpenAPI())(gateway("orders"))
    assert (await call(app, path="/openapi.json")).status == 401


async def test_it_tells_of_the_gateway_that_serves_now() -> None:
    serving = Reloadable(gateway("orders"))
    app = PublishOpenAPI()(serving)
    await serving.reload(gateway("orders", "later"))
    found = json.loads((await call(app, path="/openapi.json")).body)
    assert "/later/{id}" in found["paths"]
    assert document_of(serving)["paths"].keys() == found["paths"].keys()


def test_a_path_that_is_none_is_refused() -> None:
    for path in ("openapi.json", "/{x}", "/a/*", "/a?b"):
        with pytest.raises(ConfigError, match=r"PublishOpenAPI\.path"):
            PublishOpenAPI(path=path)
    with pytest.raises(ConfigError, match="product"):
        PublishOpenAPI(products=("none",))(gateway("orders"))


def test_tokens_of_several_issuers_are_schemes_of_their_own() -> None:
    one = JWTAuth(issuer="https://one.example", audience="a", keys=b"s" * 32, algorithms=("HS256",))
    other = JWTAuth(
        issuer="https://two.example", audience="a", keys=b"s" * 32, algorithms=("HS256",), token_from="cookie:t"
    )
    found = exported(api(policies=(one,)), api("others", policies=(other,)))
    assert {"JWTAuth", "JWTAuth-cookie"} <= set(found["components"]["securitySchemes"])
