"""An API says where tokens for it come from, and every challenge points to what it says."""

import json
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from tests.jose.issuer import AUDIENCE, ISSUER

from apim_middleware.errors import ConfigError
from apim_middleware.policies.authorize import Authorize
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policies.protected_resource import ProtectedResource
from apim_middleware.policy import Stack
from apim_middleware.testing import call, connect
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .bearing import KEY

pytestmark = pytest.mark.anyio

WELL_KNOWN = "/.well-known/oauth-protected-resource"
RESOURCE = "https://api.example.com/orders"
POLICY = ProtectedResource(
    resource=RESOURCE, authorization_servers=(ISSUER,), scopes_supported=("orders.read",), resource_name="Orders"
)


async def inside(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"www-authenticate", b"Bearer")]})
    await send({"type": "http.response.body", "body": b"in", "more_body": True})
    await send({"type": "http.response.body", "body": b"side"})


def guarded(*more: Any) -> ASGIApp:
    return Stack(POLICY, JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=KEY, scopes="a"), *more)(inside)


async def test_the_document_is_there_for_everybody() -> None:
    """RFC 9728 §3.1."""
    answer = await call(guarded(), path=f"{WELL_KNOWN}/orders")
    assert answer.status == 200
    assert answer.header(b"content-type") == b"application/json"
    assert answer.header(b"cache-control") == b"public, max-age=3600"
    assert json.loads(answer.body) == {
        "resource": RESOURCE,
        "authorization_servers": [ISSUER],
        "scopes_supported": ["orders.read"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Orders",
    }


async def test_who_asks_for_its_head_gets_that() -> None:
    whole = await call(guarded(), path=f"{WELL_KNOWN}/orders")
    head = await call(guarded(), "HEAD", path=f"{WELL_KNOWN}/orders")
    assert head.body == b""
    assert head.header(b"content-length") == b"%d" % len(whole.body)


async def test_nobody_writes_it() -> None:
    answer = await call(guarded(), "POST", path=f"{WELL_KNOWN}/orders")
    assert (answer.status, answer.header(b"allow")) == (405, b"GET, HEAD")


@pytest.mark.parametrize("path", [WELL_KNOWN, f"{WELL_KNOWN}/other", f"{WELL_KNOWN}/orders/x", "/orders"])
async def test_other_paths_are_guarded_as_ever(path: str) -> None:
    assert (await call(guarded(), path=path)).status == 401


@pytest.mark.parametrize(
    ("resource", "path", "query"),
    [
        ("https://api.example.com", WELL_KNOWN, b""),
        ("https://api.example.com/", WELL_KNOWN, b""),
        ("https://api.example.com/a/b", f"{WELL_KNOWN}/a/b", b""),
        ("https://api.example.com/a?t=1", f"{WELL_KNOWN}/a", b"t=1"),
        ("https://api.example.com/a%20b", f"{WELL_KNOWN}/a b", b""),
    ],
)
async def test_the_path_of_the_document_is_the_resources(resource: str, path: str, query: bytes) -> None:
    app = Stack(ProtectedResource(resource=resource))(inside)
    assert json.loads((await call(app, path=path, query=query)).body)["resource"] == resource


@pytest.mark.parametrize("query", [b"", b"t=2", b"t=1&t=2"])
async def test_the_document_of_one_resource_is_not_that_of_another_query(query: bytes) -> None:
    policy = ProtectedResource(resource="https://api.example.com/a?t=1")
    app = Stack(policy, JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=KEY))(inside)
    assert (await call(app, path=f"{WELL_KNOWN}/a", query=query)).status == 401


POINTER = b', resource_metadata="https://api.example.com/.well-known/oauth-protected-resource/orders"'


async def test_every_refusal_of_a_token_points_to_it() -> None:
    """RFC 9728 §5.1."""
    missing = await call(guarded())
    assert missing.all(b"www-authenticate") == [b'Bearer realm="api", scope="a"' + POINTER]
    invalid = await call(guarded(), headers=[(b"authorization", b"Bearer x")])
    [challenge] = invalid.all(b"www-authenticate")
    assert b'error="invalid_token"' in challenge
    assert challenge.endswith(POINTER)


async def test_a_missing_scope_points_to_it_too() -> None:
    app = Stack(POLICY, Authorize(scopes="orders.write"))(inside)
    answer = await call(app)
    assert answer.all(b"www-authenticate") == [b'Bearer realm="api", scope="orders.write"' + POINTER]


@pytest.mark.parametrize(
    ("sent", "come"),
    [
        ("Bearer", b"Bearer " + POINTER[2:]),
        ('DPoP algs="ES256"', b'DPoP algs="ES256"' + POINTER),
        ('Basic realm="x"', b'Basic realm="x"'),
        ('Bearer realm="a, b", Basic realm="x"', b'Bearer realm="a, b"' + POINTER + b', Basic realm="x"'),
        ('Bearer resource_metadata="https://x"', b'Bearer resource_metadata="https://x"'),
        ('Negotiate abc==, Bearer realm="x"', b'Negotiate abc==, Bearer realm="x"' + POINTER),
        ('what"is this', b'what"is this'),
    ],
)
async def test_challenges_of_the_app_point_to_it_and_others_stay(sent: str, come: bytes) -> None:
    app = Stack(POLICY)(PlainTextResponse("no", 401, {"www-authenticate": sent}))
    assert (await call(app)).all(b"www-authenticate") == [come]


async def test_an_answer_that_refuses_nobody_stays_as_it_is() -> None:
    answer = await call(Stack(POLICY)(inside))
    assert answer.all(b"www-authenticate") == [b"Bearer"]
    assert answer.body == b"inside"


async def test_a_refused_websocket_is_told_as_well() -> None:
    answer = await connect(guarded(), f"{WELL_KNOWN}/orders")
    assert answer.status == 401
    assert answer.all(b"www-authenticate")[0].endswith(POINTER)
    assert (await connect(guarded(), denial=False)).messages[0]["type"] == "websocket.close"


async def test_what_the_app_raises_and_a_client_that_leaves_are_nobodys_business() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the app")

    with pytest.raises(RuntimeError, match="the app"):
        await call(Stack(POLICY)(broken))
    with pytest.raises(OSError, match="gone"):
        await call(Stack(POLICY)(inside), leave_after=1)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("resource", {"resource": "api"}),
        ("resource", {"resource": "http://api.example.com"}),
        ("resource", {"resource": "https://api.example.com/#x"}),
        ("resource", {"resource": 'https://api.example.com/"'}),
        ("resource", {"resource": "https://api.example.com/a/../b"}),
        ("authorization_servers", {"authorization_servers": ("issuer",)}),
        ("authorization_servers", {"authorization_servers": "https://issuer.example"}),
        ("bearer_methods_supported", {"bearer_methods_supported": ("cookie",)}),
        ("resource_documentation", {"resource_documentation": "javascript:alert(1)"}),
        ("jwks_uri", {"jwks_uri": "http://api.example.com/keys"}),
        ("more", {"more": {"resource": "https://evil.example"}}),
        ("more", {"more": {"x": object()}}),
        ("more", {"more": {"x": float("nan")}}),
        ("max_age", {"max_age": -1}),
        ("resource", {"resource": "https://u:canary@api.example.com"}),
        ("jwks_uri", {"jwks_uri": "https://u:canary@api.example.com/keys"}),
        ("authorization_servers", {"authorization_servers": ("https://u:canary@issuer.example",)}),
    ],
)
def test_a_mistake_names_its_field_and_shows_no_password(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        ProtectedResource(**{"resource": RESOURCE, **fields})
    assert (caught.value.policy, caught.value.field) == ("ProtectedResource", field)
    assert "canary" not in str(caught.value)


async def test_other_members_go_into_the_document() -> None:
    policy = ProtectedResource(resource=RESOURCE, more={"dpop_bound_access_tokens_required": True})
    answer = await call(Stack(policy)(inside), path=f"{WELL_KNOWN}/orders")
    assert json.loads(answer.body)["dpop_bound_access_tokens_required"] is True
