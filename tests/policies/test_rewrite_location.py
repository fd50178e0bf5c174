"""Responses point at the public, whatever the upstream calls itself."""

from typing import Any

import pytest

from apim_middleware import Stack, TrustedProxies
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.policies.rewrite_location import RewriteLocation
from apim_middleware.policy import Policy
from apim_middleware.testing import Answer, call, connect
from apim_middleware.types import ASGIApp, RawHeaders, Receive, Scope, Send

pytestmark = pytest.mark.anyio

UPSTREAM = "http://backend:8080/api"


def answering(*lines: tuple[str, str], status: int = 302) -> ASGIApp:
    """An app that streams, with these header lines."""
    headers: RawHeaders = [(name.encode(), value.encode()) for name, value in lines]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": headers})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    return app


async def asked(policy: Policy | Stack, *lines: tuple[str, str], host: str = "site.test", **more: Any) -> Answer:
    headers = [(b"host", host.encode()), *more.pop("headers", ())]
    return await call(policy(answering(*lines)), headers=headers, **more)


async def test_a_redirect_of_the_upstream_leads_to_where_the_client_asked():
    policy = RewriteLocation(upstream=UPSTREAM)
    answer = await asked(policy, ("Location", "http://backend:8080/api/x?y"), scheme="https", host="site.test:8443")
    assert answer.header(b"location") == b"https://site.test:8443/x?y"


@pytest.mark.parametrize(
    ("field", "value", "becomes"),
    [
        ("Location", "http://backend:8080/api/é?ü#ö", "https://site.test/é?ü#ö"),
        ("Refresh", "0; http://backend:8080/api/x", "0; https://site.test/x"),
        ("Refresh", "0 http://backend:8080/api/x", "0 https://site.test/x"),
        ("Refresh", "0;url='http://backend:8080/api/x' it's", "0;url='https://site.test/x' it's"),
        ("Refresh", "0; url=http://backend:8080/api/it's", "0; url=https://site.test/it's"),
    ],
)
async def test_the_upstream_does_not_show_where_only_browsers_read_a_reference(field: str, value: str, becomes: str):
    """What no standard allows, but browsers follow, was passed on with the host of the upstream."""
    policy = RewriteLocation(upstream=UPSTREAM, public="https://site.test")
    answer = await asked(policy, (field, value))
    assert answer.header(field.lower().encode()) == becomes.encode()


async def test_every_field_that_points_somewhere_is_rewritten_and_no_other():
    policy = RewriteLocation(upstream=UPSTREAM, public="https://site.test/shop")
    answer = await asked(
        policy,
        ("Location", "/api/x"),
        ("Content-Location", "http://backend:8080/api/y"),
        ("Refresh", "1; url=http://backend:8080/api/z"),
        ("Set-Cookie", "a=1; Path=/api; Domain=backend"),
        ("Set-Cookie", "b=2; Path=/api/b"),
        ("Link", "<http://backend:8080/api/>; rel=next"),
        ("X-Location", "http://backend:8080/api/x"),
    )
    assert answer.headers == [
        (b"location", b"/shop/x"),
        (b"content-location", b"https://site.test/shop/y"),
        (b"refresh", b"1; url=https://site.test/shop/z"),
        (b"set-cookie", b"a=1; Path=/shop"),
        (b"set-cookie", b"b=2; Path=/shop/b"),
        (b"link", b"<http://backend:8080/api/>; rel=next"),
        (b"x-location", b"http://backend:8080/api/x"),
    ]


async def test_a_public_path_stands_at_the_origin_the_client_asked_for():
    answer = await asked(RewriteLocation(upstream=UPSTREAM, public="/shop"), ("location", "http://backend:8080/api/x"))
    assert answer.header(b"location") == b"http://site.test/shop/x"


async def test_by_default_it_stands_where_the_app_is_mounted():
    policy = RewriteLocation(upstream=UPSTREAM)
    answer = await asked(policy, ("location", "/api/x"), path="/a b/x", root_path="/a b", raw_path=b"/a%20b/x")
    assert answer.header(b"location") == b"/a%20b/x"


async def test_of_several_upstreams_the_most_exact_is_meant():
    policy = RewriteLocation(
        upstream=("http://one", UPSTREAM, "http://backend:8080/api/v2"), public="https://site.test"
    )
    assert (await asked(policy, ("location", "http://one/x"))).header(b"location") == b"https://site.test/x"
    found = await asked(policy, ("location", "http://backend:8080/api/v2/x"))
    assert found.header(b"location") == b"https://site.test/x"


async def test_behind_a_front_the_public_is_what_the_client_asked_the_front_for():
    front = TrustedProxies(trusted=("203.0.113.7",), also=("scheme", "host"))
    stack = Stack(front, RewriteLocation(upstream=UPSTREAM))
    headers = [
        (b"x-forwarded-for", b"198.51.100.1"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"www.site.test"),
    ]
    answer = await asked(stack, ("location", "http://backend:8080/api/x"), headers=headers)
    assert answer.header(b"location") == b"https://www.site.test/x"
    with pytest.raises(ConfigError, match="Write TrustedProxies before RewriteLocation"):
        Stack(RewriteLocation(upstream=UPSTREAM), front)


@pytest.mark.parametrize("reference", ["/web/x", "http://backend:8080/web/x", "http://backend:8080/API/x", "/ap/x"])
async def test_a_path_as_long_as_the_base_is_not_below_it(reference: str):
    answer = await asked(RewriteLocation(upstream=UPSTREAM), ("location", reference))
    assert answer.header(b"location") == reference.encode()


@pytest.mark.parametrize("cookie", ["a=1; Path=", "a=1; Path=x", "a=1; Domain="])
async def test_an_attribute_that_browsers_pass_over_stays(cookie: str):
    policy = RewriteLocation(upstream="http://backend:8080", public="/shop", cookie_domain="site.test")
    assert (await asked(policy, ("set-cookie", cookie))).header(b"set-cookie") == cookie.encode()


async def test_without_a_host_a_redirect_keeps_to_its_path():
    guarded = RewriteLocation(upstream=UPSTREAM)(answering(("location", "http://backend:8080/api/x")))

    async def hostless(scope: Scope, receive: Receive, send: Send) -> None:
        await guarded({**scope, "http_version": "1.0", "headers": []}, receive, send)

    assert (await call(hostless)).header(b"location") == b"/x"


async def test_a_cookie_gets_the_domain_it_is_to_have():
    policy = RewriteLocation(upstream="http://app.corp.test", cookie_domain="site.test")
    answer = await asked(
        policy, ("set-cookie", "a=1; Domain=corp.test; SameSite=Lax; Priority=High"), host="www.site.test"
    )
    assert answer.header(b"set-cookie") == b"a=1; Domain=site.test; SameSite=Lax; Priority=High"


async def test_a_cookie_for_a_domain_that_both_are_in_stays():
    policy = RewriteLocation(upstream="http://app.site.test")
    answer = await asked(policy, ("set-cookie", "a=1; Domain=site.test"), host="www.site.test")
    assert answer.header(b"set-cookie") == b"a=1; Domain=site.test"


async def test_responses_that_point_nowhere_flow_as_they_are():
    answer = await asked(RewriteLocation(upstream=UPSTREAM), ("X-A", "1"))
    assert [message["type"] for message in answer.messages] == ["http.response.start"] + ["http.response.body"] * 2
    assert answer.headers == [(b"x-a", b"1")]


async def test_the_headers_of_a_response_that_is_used_again_are_not_touched():
    lines = [(b"location", b"/api/x")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 302, "headers": lines})
        await send({"type": "http.response.body"})

    await call(RewriteLocation(upstream=UPSTREAM)(app))
    assert lines == [(b"location", b"/api/x")]


async def test_a_websocket_gets_its_cookies_and_its_denial_rewritten():
    policy = RewriteLocation(upstream=UPSTREAM)
    answer = await connect(policy(answering(("set-cookie", "a=1; Path=/api"))))
    assert answer.header(b"set-cookie") == b"a=1; Path=/"

    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        head = [(b"location", b"http://backend:8080/api/login")]
        await send({"type": "websocket.http.response.start", "status": 302, "headers": head})
        await send({"type": "websocket.http.response.body", "body": b""})

    assert (await connect(policy(deny), scheme="wss")).header(b"location") == b"https://testserver/login"


async def test_refusals_errors_and_leaving_pass_through():
    class Refusing(Policy):
        def on_request(self, exchange: object) -> None:
            raise Refusal(302, "elsewhere", headers={"location": "http://backend:8080/api/x"})

    policy = RewriteLocation(upstream=UPSTREAM)
    answer = await call(Stack(policy, Refusing())(answering()))
    assert answer.header(b"location") == b"http://testserver/x"

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("app")

    with pytest.raises(LookupError):
        await call(policy(failing))
    with pytest.raises(OSError, match="gone"):
        await call(policy(answering(("location", "/api/x"))), leave_after=1)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"upstream": ()}, "names nothing to hide"),
        ({"upstream": "backend:8080"}, "cannot be found in responses"),
        ({"upstream": "http://backend?x"}, "cannot be found in responses"),
        ({"upstream": UPSTREAM, "public": "site.test"}, "cannot be put in its place"),
        ({"upstream": UPSTREAM, "public": "//site.test"}, "cannot be put in its place"),
        ({"upstream": UPSTREAM, "cookie_domain": "a;b"}, "is no domain"),
        ({"upstream": UPSTREAM, "cookie_domain": ""}, "is no domain"),
    ],
)
def test_mistakes(fields: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        RewriteLocation(**fields)


def test_a_password_in_the_upstream_is_not_shown():
    with pytest.raises(ConfigError, match="holds a user name or password") as caught:
        RewriteLocation(upstream="http://user:secret@backend")
    assert "secret" not in str(caught.value)
