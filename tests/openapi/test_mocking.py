"""Mocked answers are what the document shows: an example, else a sample, and never more than there is room for."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware import Api, ConfigError, Gateway, MockResponse, ReturnResponse, api_from_openapi, openapi_of
from apim_middleware.openapi import _mocking
from apim_middleware.openapi._mocking import MOST_SAMPLED
from apim_middleware.testing import call
from apim_middleware.types import Receive, Scope, Send

ADA = {"id": 7, "name": "Ada"}
BOB = {"id": 8, "name": "Bob"}


async def nobody(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("asked")


def imported(responses: Any, more: dict[str, Any] | None = None, **options: Any) -> Api:
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Users", "version": "1"},
        "paths": {"/users": {"get": {"operationId": "list", "responses": responses}}},
        "components": more or {},
    }
    return api_from_openapi(document, name="users", backend=nobody, mock=True, subscription_required=False, **options)


def mock(responses: Any, more: dict[str, Any] | None = None, **options: Any) -> MockResponse:
    """The mocked answer to the one operation of a document."""
    (operation,) = imported(responses, more, **options).operations
    (policy,) = operation.policies
    assert isinstance(policy, MockResponse)
    return policy


def media(kind: str = "application/json", **described: Any) -> dict[str, Any]:
    """A response of one media type."""
    return {"description": "They.", "content": {kind: described}}


def sampled(schema: Any, **schemas: Any) -> Any:
    """What a sample of a schema is; None for no body."""
    body = mock({"200": media(schema=schema)}, {"schemas": schemas}).body
    assert body is None or isinstance(body, str)
    return None if body is None else json.loads(body)


# Examples


@pytest.mark.parametrize(
    "described",
    [
        {"example": ADA},
        {"examples": {"one": {"value": ADA}, "other": {"value": BOB}}},
        {"examples": {"far": {"externalValue": "https://evil.example/ada"}, "near": {"value": ADA}}},
        {"examples": {"ada": {"$ref": "#/components/examples/ada"}}},
        {"schema": {"example": ADA}},
        {"schema": {"examples": [ADA, BOB]}},
        {"schema": {"$ref": "#/components/schemas/user"}},
        {"example": ADA, "schema": {"example": BOB}},
        {"examples": {"one": {"value": ADA}}, "schema": {"type": "object"}},
    ],
)
def test_the_first_example_is_answered(described: dict[str, Any]) -> None:
    more = {"examples": {"ada": {"value": ADA}}, "schemas": {"user": {"example": ADA}}}
    assert json.loads(str(mock({"200": media(**described)}, more).body)) == ADA


def test_a_response_may_be_described_elsewhere() -> None:
    found = mock({"200": {"$ref": "#/components/responses/ada"}}, {"responses": {"ada": media(example=ADA)}})
    assert json.loads(str(found.body)) == ADA


@pytest.mark.parametrize(
    ("responses", "status"),
    [
        ({"200": media(example=ADA)}, 200),
        ({"404": media(example=BOB), "201": media(example=ADA), "200": media(example=BOB)}, 201),
        ({"2XX": media(example=ADA)}, 200),
    ],
)
def test_the_first_success_is_answered(responses: Any, status: int) -> None:
    found = mock(responses)
    assert (found.status, json.loads(str(found.body))) == (status, ADA)


@pytest.mark.parametrize(
    "responses",
    [{}, {"default": media(example=ADA)}, {"404": media(example=ADA)}, {"200": {"description": "Done."}}],
)
def test_without_an_answer_in_the_document_it_is_an_empty_200(responses: Any) -> None:
    assert mock(responses) == MockResponse()


@pytest.mark.parametrize("status", ["204", "205"])
def test_what_has_no_body_gets_none(status: str) -> None:
    assert mock({status: media(example=ADA)}) == MockResponse(status=int(status))


@pytest.mark.parametrize(
    ("kind", "example", "content_type", "body"),
    [
        ("application/json", "ada", "application/json", '"ada"'),
        ("application/json", None, "application/json", "null"),
        ("application/json", "Zoë", "application/json", '"Zoë"'),
        ("application/hal+json; v=1", ADA, "application/hal+json; v=1", '{"id": 7, "name": "Ada"}'),
        ("*/*", [1], "application/json", "[1]"),
        ("application/*", [1], "application/json", "[1]"),
        ("text/plain", "ada", "text/plain", "ada"),
        ("application/xml", "<ada/>", "application/xml", "<ada/>"),
    ],
)
def test_an_example_is_written_as_its_media_type(kind: str, example: Any, content_type: str, body: str) -> None:
    found = mock({"200": media(kind, example=example)})
    assert (found.content_type, found.body) == (content_type, body)


@pytest.mark.parametrize(
    ("kind", "example"), [("application/xml", ADA), ("text/*", "ada"), ("no type", "ada"), ("a/b\r\nx: y", "ada")]
)
def test_what_cannot_be_written_is_left_to_the_next_media_type(kind: str, example: Any) -> None:
    content = {kind: {"example": example}, "application/json": {"example": BOB}}
    assert json.loads(str(mock({"200": {"description": "", "content": content}}).body)) == BOB


def test_an_example_of_one_media_type_goes_before_the_schema_of_another() -> None:
    content = {"application/json": {"schema": {"type": "object"}}, "text/plain": {"example": "ada"}}
    assert mock({"200": {"description": "", "content": content}}).body == "ada"


# Samples


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 0),
        ({"type": ["null", "boolean"]}, True),
        ({"type": "string", "format": "uuid"}, "00000000-0000-4000-8000-000000000000"),
        ({"type": "string", "format": "of ours"}, "string"),
        ({"enum": ["red", "green"]}, "red"),
        ({"const": 3}, 3),
        ({"type": "string", "default": "en"}, "en"),
        ({"type": "array", "items": {"type": "integer"}}, [0]),
        ({"type": "array"}, []),
        ({"type": "object"}, {}),
        ({"properties": {"id": {"type": "integer"}, "name": {"example": "Ada"}}}, {"id": 0, "name": "Ada"}),
        ({"properties": {"id": {"type": "integer"}, "password": {"type": "string", "writeOnly": True}}}, {"id": 0}),
        ({"allOf": [{"properties": {"a": {"const": 1}}}], "properties": {"b": {"const": 2}}}, {"a": 1, "b": 2}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string"),
        ({"oneOf": [{"properties": {"a": {"const": 1}}}, {"type": "string"}]}, {"a": 1}),
        ({}, None),
        (True, None),
    ],
)
def test_without_an_example_a_sample_is_made_of_the_schema(schema: Any, value: Any) -> None:
    assert sampled(schema) == value


def test_a_schema_does_not_stand_within_itself() -> None:
    node = {"$ref": "#/components/schemas/Node"}
    properties = {"id": {"type": "integer"}, "parent": node, "children": {"type": "array", "items": node}}
    assert sampled(node, Node={"type": "object", "properties": properties}) == {"id": 0, "children": []}


def test_a_schema_that_is_nothing_but_itself_is_refused() -> None:
    around = {"$ref": "#/components/schemas/A"}
    with pytest.raises(ConfigError, match="leads back to itself"):
        sampled(around, A={"$ref": "#/components/schemas/B"}, B=around)


def test_a_sample_is_of_a_bounded_size() -> None:
    """Each schema holds ten of the next: without a bound, ten to the power of nine values."""
    names = [f"S{number}" for number in range(10)]
    schemas: dict[str, Any] = {
        name: {"properties": {f"p{each}": {"$ref": f"#/components/schemas/{below}"} for each in range(10)}}
        for name, below in pairwise(names)
    }
    schemas[names[-1]] = {"type": "integer"}
    found = sampled({"$ref": f"#/components/schemas/{names[0]}"}, **schemas)
    assert 0 < json.dumps(found).count(":") <= MOST_SAMPLED


def test_a_sample_is_of_a_bounded_depth() -> None:
    schemas = {f"S{each}": {"properties": {"p": {"$ref": f"#/components/schemas/S{each + 1}"}}} for each in range(400)}
    assert json.dumps(sampled({"$ref": "#/components/schemas/S0"}, **schemas, S400={})).count("p") <= 10


def test_many_answers_made_of_one_example_are_bounded_together() -> None:
    """A small document could fill the memory so."""
    shared = {"200": {"$ref": "#/components/responses/large"}}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Users", "version": "1"},
        "paths": {f"/{each}": {"get": {"responses": shared}} for each in range(100)},
        "components": {"responses": {"large": media(example="x" * 10_000)}},
    }
    with pytest.raises(ConfigError, match="mocked answers larger than 50000 together") as caught:
        api_from_openapi(document, name="users", mock=True, max_bytes=50_000)
    assert caught.value.field.startswith("#/paths/~1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_what_an_example_says_is_what_is_answered(example: Any) -> None:
    try:
        body = mock({"200": media(example=example)}).body
    except ConfigError:
        with pytest.raises(UnicodeEncodeError):  # half a surrogate pair, which no document may hold
            json.dumps(example, ensure_ascii=False).encode()
        return
    assert json.loads(str(body)) == example


# Served


@pytest.mark.anyio
async def test_every_operation_answers_and_the_backend_is_not_asked() -> None:
    gateway = Gateway(apis=(imported({"201": media(example=ADA)}),))
    answer = await call(gateway, path="/users")
    assert (answer.status, json.loads(answer.body)) == (201, ADA)
    assert answer.header(b"content-type") == b"application/json"


@pytest.mark.anyio
async def test_policies_of_an_operation_stand_in_front_of_its_mock() -> None:
    gone = ReturnResponse(status=410)
    gateway = Gateway(apis=(imported({"200": media(example=ADA)}, operation_policies={"list": (gone,)}),))
    assert (await call(gateway, path="/users")).status == 410


def test_the_document_of_a_mocked_api_says_what_it_said() -> None:
    """A mocked answer added "OK." to each description."""
    document = openapi_of(Gateway(apis=(imported({"200": media(example=ADA)}),)))
    assert document["paths"]["/users"]["get"]["responses"]["200"] == media(example=ADA)


def test_nothing_is_mocked_unless_asked_for() -> None:
    api = imported({"200": media(example=ADA)})
    assert api.document is not None
    again = api_from_openapi(api.document, name="users")
    assert [each.policies for each in again.operations] == [()]


def test_all_samples_of_a_document_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each had one of its own: 200 operations with large schemas took half a minute, and many more as much more."""
    monkeypatch.setattr(_mocking, "MOST_LOOKED_AT", 30)
    schema = {"type": "object", "properties": {str(number): {"type": "string"} for number in range(10)}}
    media = {"application/json": {"schema": schema}}
    paths = {
        f"/{number}": {"get": {"responses": {"200": {"description": "", "content": media}}}} for number in range(9)
    }
    document = {"openapi": "3.1.0", "info": {"title": "a", "version": "1"}, "paths": paths}
    with pytest.raises(ConfigError, match="more than 30 schemas and examples"):
        api_from_openapi(json.dumps(document), name="a", backend="http://a", mock=True)


def test_a_response_that_many_operations_have_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mocking, "MOST_LOOKED_AT", 30)
    schema = {"type": "object", "properties": {str(number): {"type": "string"} for number in range(10)}}
    shared = {"description": "", "content": {"application/json": {"schema": schema}}}
    paths = {f"/{number}": {"get": {"responses": {"200": {"$ref": "#/components/responses/r"}}}} for number in range(9)}
    document = {
        "openapi": "3.1.0", "info": {"title": "a", "version": "1"}, "paths": paths,
        "components": {"responses": {"r": shared}},
    }  # fmt: skip
    api = api_from_openapi(json.dumps(document), name="a", backend="http://a", mock=True)
    assert len({operation.policies for operation in api.operations}) == 1
