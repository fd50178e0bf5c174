"""Documents become APIs as they are, or are refused with the place and the reason."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apim_middleware import Api, Cache, ConfigError, Gateway, LimitBody, RateLimit, RequireHeader
from apim_middleware.openapi import api_from_openapi, openapi_of
from apim_middleware.openapi._reading import _object as plain_object
from apim_middleware.testing import call
from apim_middleware.types import Receive, Scope, Send


def document(**changed: Any) -> dict[str, Any]:
    """A document of OpenAPI with one of everything."""
    found = {
        "openapi": "3.1.0",
        "info": {"title": "Orders", "version": "7", "description": "All of them.", "x-team": "shop"},
        "servers": [{"url": "https://{host}/v1/", "variables": {"host": {"default": "evil.example"}}}],
        "tags": [{"name": "orders"}],
        "paths": {
            "/orders/{id}": {
                "parameters": [{"$ref": "#/components/parameters/id"}],
                "get": {
                    "operationId": "getOrder",
                    "summary": "One order",
                    "description": "As it is now.",
                    "tags": ["orders"],
                    "deprecated": True,
                    "x-cost": 3,
                    "responses": {"200": {"$ref": "#/components/responses/order"}},
                },
                "delete": {"responses": {"204": {"description": "Gone."}}},
            },
            "/orders": {
                "post": {
                    "operationId": "create order!",
                    "requestBody": {"$ref": "#/components/requestBodies/order"},
                    "responses": {"201": {"description": "Made."}},
                }
            },
        },
        "components": {
            "parameters": {"id": {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}},
            "responses": {"order": {"description": "It.", "content": {"application/json": {"schema": ORDER}}}},
            "requestBodies": {"order": {"content": {"application/json": {"schema": ORDER}}}},
            "schemas": {"Order": {"type": "object", "properties": {"parts": {"type": "array", "items": ORDER}}}},
        },
        **changed,
    }
    return copy.deepcopy(found)


ORDER = {"$ref": "#/components/schemas/Order"}


def imported(given: Any, **more: Any) -> Api:
    return api_from_openapi(given, **{"name": "orders", "path": "/shop", "backend": "http://orders:8000", **more})


def refusal(given: Any, **more: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        imported(given, **more)
    return caught.value


def changed(*names: str | int, to: Any) -> dict[str, Any]:
    """The document with one part of it replaced."""
    found = document()
    holder: Any = found
    for name in names[:-1]:
        holder = holder[name]
    holder[names[-1]] = to
    return copy.deepcopy(found)


# What becomes of a document


def test_its_operations_are_those_of_the_document() -> None:
    api = imported(document())
    told = [(each.name, each.method, each.template, each.title, each.tags) for each in api.operations]
    assert told == [
        ("getOrder", "GET", "/v1/orders/{id}", "One order", ("orders",)),
        ("delete-v1-orders-id", "DELETE", "/v1/orders/{id}", "", ()),
        ("create-order", "POST", "/v1/orders", "", ()),
    ]
    assert (api.title, api.description, api.tags) == ("Orders", "All of them.", ("orders",))
    assert api.backend == "http://orders:8000"


def test_what_it_says_is_kept_extensions_and_path_parameters_included() -> None:
    api = imported(document())
    assert api.document == document()
    kept = api.operations[0].document
    assert kept is not None
    assert (kept["x-cost"], kept["deprecated"]) == (3, True)
    assert kept["parameters"] == [{"$ref": "#/components/parameters/id"}]


def test_the_document_that_was_given_is_nobody_elses() -> None:
    mine = document()
    api = imported(mine)
    mine["paths"].clear()
    assert api.document == document()


def test_what_stands_in_front_of_paths_can_be_said() -> None:
    assert imported(document(), server_path="").operations[0].template == "/orders/{id}"
    assert imported(document(), server_path="/api").operations[0].template == "/api/orders/{id}"


def test_servers_of_a_path_or_an_operation_go_before_those_of_the_document() -> None:
    given = document()
    given["paths"]["/orders"]["servers"] = [{"url": "/v2"}]
    given["paths"]["/orders/{id}"]["get"]["servers"] = [{"url": "https://x.example"}]
    templates = [each.template for each in imported(given).operations]
    assert templates == ["/orders/{id}", "/v1/orders/{id}", "/v2/orders"]


def test_policies_and_deprecation_are_given_by_name() -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    limit = LimitBody(max_bytes=10)
    api = imported(document(), operation_policies={"create-order": (limit,)}, deprecated_since=since)
    get, delete, create = api.operations
    assert (get.policies, create.policies) == ((), (limit,))
    assert get.deprecation is not None
    assert (get.deprecation.since, delete.deprecation) == (since, None)


def test_policies_for_no_operation_are_refused() -> None:
    wrong = refusal(document(), operation_policies={"getorder": (LimitBody(max_bytes=1),)})
    assert wrong.field == "operation_policies"
    assert "getOrder" in wrong.cure


def test_undeclared_parameters_of_a_path_are_text() -> None:
    given = document(paths={"/a/{x}": {"get": {}}})
    kept = imported(given).operations[0].document
    assert kept is not None
    assert kept["parameters"] == [{"name": "x", "in": "path", "required": True, "schema": {"type": "string"}}]


def test_percent_escapes_of_plain_text_are_decoded() -> None:
    given = document(servers=[], paths={"/caf%C3%A9/a%20b": {"get": {}}})
    assert imported(given).operations[0].template == "/café/a b"


def test_operations_told_apart_by_their_query() -> None:
    paths = {"/find?kind=a": {"get": {}}, "/find?kind=b": {"get": {}}}
    given = document(servers=[], paths={}, **{"x-ms-paths": paths})
    assert [each.template for each in imported(given).operations] == ["/find?kind=a", "/find?kind=b"]


def test_a_path_may_be_described_elsewhere_in_the_document() -> None:
    given = document(paths={"/a": {"$ref": "#/components/pathItems/a"}})
    given["components"]["pathItems"] = {"a": {"get": {"operationId": "a"}}}
    assert [each.name for each in imported(given).operations] == ["a"]


def test_names_that_would_be_the_same_are_numbered() -> None:
    paths = {f"/{each}": {"get": {"operationId": text}} for each, text in enumerate(("a b", "a-b", "a/b"))}
    assert [each.name for each in imported(document(paths=paths)).operations] == ["a-b", "a-b-2", "a-b-3"]


@pytest.mark.parametrize("version", ["3.0.0", "3.0.4", "3.1.0", "3.1.1", "3.1.0-rc1"])
def test_openapi_3_0_and_3_1_are_read(version: str) -> None:
    assert len(imported(document(openapi=version)).operations) == 3


# Ways to give one


def test_text_bytes_files_and_dicts_are_one(tmp_path: Path) -> None:
    text = json.dumps(document())
    file = tmp_path / "openapi.json"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    whole = imported(document())
    for form in (text, text.encode(), file, bytearray(text.encode())):
        assert imported(form) == whole


YAML = """
# What a person would write
openapi: 3.0.3
info: {title: Orders, version: 2020-01-01}
servers: [{url: /v1}]
paths:
  /orders/{id}:
    get:
      operationId: get
      parameters:
        - &id {name: id, in: path, required: true, schema: {type: string, enum: [no, yes, on, 0x1F, 1_000]}}
      responses:
        200: {description: All of it}
        default: {description: ''}
    delete:
      parameters: [*id]
      responses: {'204': {description: ''}}
"""


def test_yaml_means_what_its_version_1_2_says() -> None:
    api = imported(YAML)
    assert [each.method for each in api.operations] == ["GET", "DELETE"]
    assert api.document is not None
    assert api.document["info"]["version"] == "2020-01-01"
    get = api.document["paths"]["/orders/{id}"]["get"]
    assert list(get["responses"]) == ["200", "default"]
    assert get["parameters"][0]["schema"]["enum"] == ["no", "yes", "on", 31, "1_000"]


# What is refused, and where


PATH = ("paths", "/orders/{id}")
GET = "#/paths/~1orders~1{id}/get"
PARAMETER = "#/paths/~1orders~1{id}/parameters/0"
ORDERS = "#/components/schemas/Order"


def beside(paths: Any) -> dict[str, Any]:
    """A document with more paths, where Azure writes those with a query."""
    return document(**{"x-ms-paths": paths})


BESIDE = "#/x-ms-paths/~1a%3Fb=c"
OPENAPI = {"openapi": "3.1.0", "info": {"title": "Orders", "version": "7"}}

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (changed("openapi", to="2.0"), "#/openapi", "does not read"),
    (changed("openapi", to="3.2.0"), "#/openapi", "does not read"),
    (changed("openapi", to=3.1), "#/openapi", "does not read"),
    ({"swagger": "2.0", "info": {}, "paths": {}}, "#/swagger", "Swagger 2.0"),
    ({"hello": "world"}, "#/openapi", "is missing"),
    (changed("info", to=None), "#/info", "is missing"),
    (changed("info", "title", to=7), "#/info/title", "where text is wanted"),
    (changed("paths", to={}), "#/paths", "no operations"),
    (changed("paths", to=[]), "#/paths", "where an object is wanted"),
    (changed("paths", "/orders", to=[]), "#/paths/~1orders", "where an object is wanted"),
    (changed("paths", "/orders", "post", to="x"), "#/paths/~1orders/post", "where an object is wanted"),
    (changed(*PATH, "get", "tags", to="orders"), f"{GET}/tags", "no array of texts"),
    (changed(*PATH, "get", "tags", to=[7]), f"{GET}/tags", "no array of texts"),
    (changed(*PATH, "get", "deprecated", to="yes"), f"{GET}/deprecated", "neither true nor false"),
    (changed(*PATH, "get", "operationId", to=["x"]), f"{GET}/operationId", "where text is wanted"),
    (changed(*PATH, "get", "operationId", to="create order!"), "#/paths/~1orders/post/operationId", "as that of"),
    (changed(*PATH, "get", "responses", to=[]), f"{GET}/responses", "where an object is wanted"),
    (changed(*PATH, "get", "parameters", to={}), f"{GET}/parameters", "where an array is wanted"),
    (changed(*PATH, "get", "parameters", to=[{"name": "q"}]), f"{GET}/parameters/0", "in no place"),
    (changed(*PATH, "get", "parameters", to=[{"in": "query", "name": 7}]), f"{GET}/parameters/0/name", "text"),
    (
        changed(*PATH, "get", "parameters", to=[{"in": "query", "name": "q"}] * 2),
        f"{GET}/parameters/1",
        "declares the parameter 'q' twice",
    ),
    (changed(*PATH, "get", "parameters", to=[{"in": "path", "name": "ID"}]), GET, "not in the path"),
    (changed(*PATH, "get", "security", to=[{"nobody": []}]), f"{GET}/security/0/nobody", "not there"),
    (changed(*PATH, "get", "security", to=[{"nobody": "x"}]), f"{GET}/security/0/nobody", "array of scopes"),
    # References
    (changed(*PATH, "parameters", 0, to={"$ref": "#/components/parameters/no"}), PARAMETER, "not there"),
    (changed(*PATH, "parameters", 0, to={"$ref": "other.yaml#/x"}), PARAMETER, "out of the document"),
    (changed(*PATH, "parameters", 0, to={"$ref": "http://169.254.169.254/"}), PARAMETER, "out of"),
    (changed(*PATH, "parameters", 0, to={"$ref": "file:///etc/passwd"}), PARAMETER, "out of"),
    (changed(*PATH, "parameters", 0, to={"$ref": "#anchor"}), PARAMETER, "no JSON pointer"),
    (changed("components", "parameters", "id", to={"$ref": "#/components/parameters/id"}), PARAMETER, "leads back"),
    (changed(*PATH, to={"$ref": "#/paths/~1orders~1{id}"}), "#/paths/~1orders~1{id}", "leads back"),
    (changed(*PATH, "$ref", to="#/paths/~1orders"), "#/paths/~1orders~1{id}/delete", "beside a $ref"),
    (changed("components", "schemas", "Order", "$id", to="https://x"), f"{ORDERS}/$id", "another base"),
    (changed("components", "schemas", "Order", "properties", to={"a": 7}), f"{ORDERS}/properties/a", "object"),
    (changed("components", "schemas", to=[]), "#/components/schemas", "object is wanted"),
    # Paths
    (document(paths={"orders": {"get": {}}}), "#/paths/orders", "begin with a slash"),
    (document(paths={"/a/../b": {"get": {}}}), "#/paths/~1a~1..~1b", "no request can have"),
    (document(paths={"/a/%2e%2e/b": {"get": {}}}), "#/paths/~1a~1%252e%252e~1b", "no request can have"),
    (document(paths={"/a%2fb": {"get": {}}}), "#/paths/~1a%252fb", "hides a slash"),
    (document(paths={"/a%5Cb": {"get": {}}}), "#/paths/~1a%255Cb", "hides a slash"),
    (document(paths={"/a%2525": {"get": {}}}), "#/paths/~1a%252525", "hides a slash"),
    (document(paths={"/a%ff": {"get": {}}}), "#/paths/~1a%25ff", "no UTF-8"),
    (document(paths={"/a//b": {"get": {}}}), "#/paths/~1a~1~1b", "empty segment"),
    (document(paths={"/a?b=c": {"get": {}}}), "#/paths/~1a%3Fb=c", "with a query"),
    (document(paths={"/a/*": {"get": {}}}), "#/paths/~1a~1*", "wildcard"),
    (document(paths={"/{a:path}": {"get": {}}}), "#/paths/~1{a:path}", "wildcard"),
    (document(paths={"/{a}{b}": {"get": {}}}), "#/paths/~1{a}{b}", "where a parameter"),
    (document(paths={"/{a}/{a}": {"get": {}}}), "#/paths/~1{a}~1{a}", "twice"),
    (document(paths={"/{a": {"get": {}}}), "#/paths/~1{a", "braces"),
    (document(paths={"/{}": {"get": {}}}), "#/paths/~1{}", "without a name"),
    (document(paths={"/" + "/".join("a" * 100): {"get": {}}}), "#/paths/", "more than 64 segments"),
    (
        document(paths={"/{a}": {"get": {}}, "/{b}": {"get": {}}}),
        "#/paths/~1{b}/get",
        "same requests as #/paths/~1{a}/get",
    ),
    # Servers
    (document(servers=[{"url": "/a"}, {"url": "/b"}]), "#/servers", "different paths, '/a', '/b'"),
    (document(servers=[{"url": "https://x/{v}"}]), "#/servers/0/url", "no default"),
    (document(servers=[{"url": "v1"}]), "#/servers/0/url", "where the document was found"),
    (document(servers=[{"url": "file:///etc"}]), "#/servers/0/url", "no base of paths"),
    (document(servers=[{"url": "https://x/a?b"}]), "#/servers/0/url", "no base of paths"),
    (document(servers=[{"url": "https://x/%2e%2e%2fadmin"}]), "#/servers/0/url", "hides a slash"),
    (document(servers=[{"url": "https://x/*"}]), "#/servers/0/url", "no plain text"),
    (document(servers=[{"url": "https://[x/"}]), "#/servers/0/url", "no URL"),
    (document(servers=[{}]), "#/servers/0", "has no url"),
    (document(servers={"url": "/"}), "#/servers", "array is wanted"),
    # What Azure writes beside the paths
    (beside([]), "#/x-ms-paths", "object is wanted"),
    (beside({"/a?b=c": {"get": "x"}}), f"{BESIDE}/get", "object is wanted"),
    (beside({"/a?b=c": {"get": {"parameters": 7}}}), f"{BESIDE}/get/parameters", "array is wanted"),
    (beside({"/a?b=c": {"get": {"servers": ["/"]}}}), f"{BESIDE}/get/servers/0", "object is wanted"),
    (beside({"/a?b=c": {"get": {"operationId": ["x"]}}}), f"{BESIDE}/get/operationId", "text"),
    (
        beside({"/a?b=c": {"get": {"responses": {"200": {"$ref": "#/no"}}}}}),
        f"{BESIDE}/get/responses/200",
        "not there",
    ),
    # Security before what it names
    ({**OPENAPI, "security": [{"a": []}], "components": "x", "paths": {}}, "#/security/0/a", "not there"),
    (
        {**OPENAPI, "security": [{"a": []}], "components": {"securitySchemes": 7}, "paths": {}},
        "#/security/0/a",
        "not there",
    ),
]


@pytest.mark.parametrize(("given", "place", "reason"), REFUSED, ids=lambda each: each if isinstance(each, str) else "")
def test_it_is_refused_with_place_and_reason(given: dict[str, Any], place: str, reason: str) -> None:
    wrong = refusal(given)
    assert wrong.field.startswith(place), wrong
    assert reason in wrong.problem
    assert wrong.cure


NO_DOCUMENTS: dict[str, tuple[Any, str]] = {
    "nothing": ("", "not an object"),
    "a list": ("[1]", "not an object"),
    "None": (None, "not an object"),
    "a name": ("openapi.yaml", "name of a file"),
    "NaN": ('{"a": NaN}', "NaN"),
    "infinity": ('{"a": 1e999}', "which JSON does not have"),
    "many digits": ('{"a": ' + "1" * 5000 + "}", "no JSON"),
    "half a pair": ('{"a": "\\ud800"}', "surrogate"),
    "twice": ('{"a": 1, "a": 2}', "'a' twice"),
    "deep json": ('{"a":' * 100_000, "deep"),
    "deep but whole": ('{"a":' * 200 + "1" + "}" * 200, "deep"),
    "deep yaml": ("- " * 5000, "deep"),
    "deep flow": ("[" * 100_000, "deep"),
    "no utf-8": (b"\xff\xfe", "UTF-8"),
    "not json": ("{]", "no JSON"),
    "not yaml": ("a: b: c", "no YAML"),
    "a tag": ("a: !!python/object/apply:os.system [x]", "tag"),
    "a merge": ("a: &a {b: 1}\nc: {<<: *a}", "merges"),
    "yaml twice": ("a: 1\na: 2", "twice"),
    "a name that is a list": ("? [1]\n: 2", "no text"),
    "yaml nan": ("a: .nan", "which JSON does not have"),
    "two documents": ("a: 1\n---\nb: 2", "several"),
    "itself": ("a: &a [*a]", "stands for nothing"),
    "an unknown alias": ("a: *b", "stands for nothing"),
    "a set": ({"a": {1}}, "set"),
    "names that are numbers": ({"a": {1: 2}}, "no text"),
    "bytes within": ({"a": b"x"}, "bytes"),
}


@pytest.mark.parametrize("name", NO_DOCUMENTS)
def test_what_is_no_document_is_refused(name: str) -> None:
    given, reason = NO_DOCUMENTS[name]
    assert reason in refusal(given).problem


class Compared(str):
    """A name that counts how often it is compared with another."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Compared.comparisons += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


def test_a_name_that_is_there_twice_is_found_in_one_pass() -> None:
    pairs = [(Compared(f"k{number}"), 0) for number in (*range(1000), 999)]
    with pytest.raises(ValueError, match="'k999' twice"):
        plain_object(pairs)
    assert Compared.comparisons < 1000


def test_a_bomb_of_aliases_is_refused_before_it_goes_off() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30))]
    assert "too many values" in refusal("\n".join(lines)).problem


def test_a_dict_that_holds_itself_is_refused() -> None:
    given = document()
    given["x-itself"] = given
    assert "deep" in refusal(given).problem


def test_a_dict_that_shares_its_parts_over_and_over_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apim_middleware.openapi._reading.MOST_VALUES", 10_000)
    shared: list[Any] = ["x"]
    for _ in range(30):
        shared = [shared] * 10
    assert "values" in refusal(document(**{"x-shared": shared})).problem


def test_schemas_may_lead_to_themselves() -> None:
    given = document()
    given["components"]["schemas"]["A"] = {"$ref": "#/components/schemas/B"}
    given["components"]["schemas"]["B"] = {"anyOf": [{"$ref": "#/components/schemas/A"}, ORDER]}
    assert len(imported(given).operations) == 3


def test_a_chain_of_references_has_an_end() -> None:
    given = document()
    parameters = given["components"]["parameters"]
    for number in range(200):
        parameters[f"p{number}"] = {"$ref": f"#/components/parameters/p{number + 1}"}
    parameters["p200"] = parameters["id"]
    parameters["id"] = {"$ref": "#/components/parameters/p0"}
    assert "on and on" in refusal(given).problem


def test_what_looks_like_a_reference_in_an_example_is_data() -> None:
    given = changed("components", "schemas", "Order", "example", to={"$ref": "https://elsewhere.example"})
    given["components"]["schemas"]["Order"]["properties"]["$ref"] = {"type": "string"}
    assert len(imported(given).operations) == 3


def test_it_is_not_larger_than_it_may_be(tmp_path: Path) -> None:
    text = json.dumps(document())
    file = tmp_path / "openapi.json"
    file.write_text(text)
    for form in (text, text.encode(), file):
        assert "larger than 100 bytes" in refusal(form, max_bytes=100).problem
    assert "more than 2 operations" in refusal(document(), max_operations=2).problem


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "no.json").problem


def test_a_server_path_that_is_none_is_refused() -> None:
    assert refusal(document(), server_path="v1").field == "server_path"


def test_messages_hold_no_control_characters_and_end() -> None:
    text = str(refusal(document(paths={"/a\r\nFORGED" + "x" * 10_000: {"get": {"tags": 1}}})))
    assert text.isprintable()
    assert len(text) < 1000


# At random


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.sampled_from(
    ["$ref", "paths", "get", "parameters", "schema", "properties", "/a/{b}", "in", "name", "url", "items", "x"]
) | st.text(max_size=4)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["#/paths", "#/components/schemas/Order", "#", "/a", "path"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


def places(value: Any) -> list[Callable[[Any], None]]:
    """Ways to put something else in the place of each part of a value."""
    found: list[Callable[[Any], None]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in list(items):
        found.append(lambda new, name=name: value.__setitem__(name, new))  # type: ignore[misc]
        found += places(each)
    return found


POLICIES = (RateLimit(calls=1, per=1), RequireHeader(name="x"), Cache())


@settings(max_examples=150)
@given(st.data())
def test_anything_is_imported_or_refused_as_a_mistake(data: st.DataObject) -> None:
    given = beside({"/orders?open={open}": {"get": {"parameters": [], "responses": {"200": {"description": "They."}}}}})
    for _ in range(data.draw(st.integers(1, 3))):
        data.draw(st.sampled_from(places(given)))(copy.deepcopy(data.draw(VALUES)))
    mock = data.draw(st.booleans())
    for form in (given, json.dumps(given)):
        try:
            api = imported(form, mock=mock)
        except ConfigError:
            continue
        assert api.operations
        if form is given:
            json.dumps(openapi_of(Gateway(apis=(replace(api, subscription_required=False, policies=POLICIES),))))


@settings(max_examples=100)
@given(st.text(alphabet="ab:-{}[]&*!<>|#'\"%? \n\\0", max_size=60))
def test_any_yaml_is_read_or_refused_as_a_mistake(text: str) -> None:
    with pytest.raises(ConfigError):
        imported(text)


# Served


async def orders(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


@pytest.mark.anyio
async def test_an_imported_api_serves_its_operations_and_no_others() -> None:
    api = imported(document(), backend=orders, subscription_required=False)
    gateway = Gateway(apis=(api,))
    assert (await call(gateway, path="/shop/v1/orders/7")).body == b"/shop/v1/orders/7"
    assert (await call(gateway, "POST", path="/shop/v1/orders/7")).status == 404
    assert (await call(gateway, path="/shop/v1/invoices")).status == 404
