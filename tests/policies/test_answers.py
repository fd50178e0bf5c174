"""Answers given in the place of the app's: redirects that nobody can bend, and responses written beforehand."""

from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import anyio
import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware import SetHeader, Stack, TrustedProxies, When, by, conditions
from apim_middleware.errors import ConfigError
from apim_middleware.policies.answers import MockResponse, Redirect, ReturnResponse
from apim_middleware.policy import Policy
from apim_middleware.testing import Answer, call, connect, http_scope
from apim_middleware.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await send({"type": "http.response.body", "body": b"two"})


async def location(policy: Policy, path: str, query: str = "", host: str = "a.test", **more: Any) -> str | None:
    """Where a caller is sent; None for one who passes."""
    given = {"headers": [(b"host", host.encode())], "raw_path": path.encode(), "query": query.encode(), **more}
    answer = await call(policy(app), path=unquote(path), **given)
    found = answer.header(b"location")
    assert (answer.status == 200) == (found is None), answer.body
    return None if found is None else found.decode()


# Where callers are sent: the path


@pytest.mark.parametrize(
    ("match", "to", "path", "query", "there"),
    [
        ("/old", "/new", "/old", "", "/new"),
        ("/old", "/new", "/old", "a=1&b=%26", "/new?a=1&b=%26"),
        ("/old", "/new", "/old/", "", None),
        ("/old", "/new", "/new", "", None),
        ("/old/{rest:path}", "/new/{rest}", "/old/a/b%20c", "", "/new/a/b%20c"),
        ("/old/{rest:path}", "/new/{rest}", "/old", "", "/new"),
        ("/u/{id}", "/people?id={id}", "/u/7", "id=8&x=1", "/people?x=1&id=7"),
        ("/u/{id}", "/people?id={id}", "/u/7%261", "", "/people?id=7%261"),
        ("/old/{rest:path}", "https://new.test/{rest}", "/old/a", "x=1", "https://new.test/a?x=1"),
        ("/old", "https://new.test", "/old", "", "https://new.test/"),
        ("/old", "http://new.test:8080?a=b", "/old", "", "http://new.test:8080/?a=b"),
        ("/{rest:path}", "http://a.test/{rest}", "/a", "x=1", None),
        ("/old", "http://a.test/new", "/old", "", "/new"),
    ],
)
async def test_paths_of_one_shape_are_sent_to_another(match: str, to: str, path: str, query: str, there: str | None):
    assert await location(Redirect(match=match, to=to), path, query) == there


async def test_the_query_stays_behind_when_told_to():
    assert await location(Redirect(match="/old", to="/new", copy_query=False), "/old", "secret=1") == "/new"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_status_is_the_one_asked_for(status: Any):
    answer = await call(Redirect(match="/old", to="/new", status=status)(app), "POST", "/old")
    assert (answer.status, answer.header(b"content-length"), answer.body) == (status, b"0", b"")


async def test_a_redirect_holds_for_now_and_keeps_the_method_unless_told():
    assert (await call(Redirect(match="/old", to="/new")(app), "POST", "/old")).status == 307


@pytest.mark.parametrize(
    ("slash", "path", "there"),
    [
        ("add", "/a", "/a/?q=1"),
        ("add", "/a/", None),
        ("remove", "/a/", "/a?q=1"),
        ("remove", "/a", None),
        ("add", "/", None),
        ("remove", "/", None),
        ("keep", "/a/", None),
    ],
)
async def test_the_slash_at_the_end(slash: Any, path: str, there: str | None):
    assert await location(Redirect(slash=slash, hosts=("a.test",)), path, "q=1") == there


async def test_below_a_mount_templates_speak_of_the_path_behind_it():
    policy = Redirect(match="/old", to="/new")
    answer = await call(policy(app), path="/mnt/old", root_path="/mnt")
    assert answer.header(b"location") == b"/mnt/new"
    elsewhere = Redirect(match="/old/{rest:path}", to="https://b.test/{rest}")
    answer = await call(elsewhere(app), path="/mnt/old/x", root_path="/mnt")
    assert answer.header(b"location") == b"https://b.test/x"
    assert (await call(Redirect(slash="remove")(app), path="/mnt/", root_path="/mnt")).status == 200


# Where callers are sent, by scheme and host


@pytest.mark.parametrize(
    ("policy", "scheme", "host", "there"),
    [
        (Redirect(https=True, hosts=("a.test",)), "http", "a.test", "https://a.test/p?q=1"),
        (Redirect(https=True, hosts=("a.test",)), "http", "A.TEST:80", "https://a.test/p?q=1"),
        (Redirect(https=True, hosts=("a.test",)), "https", "a.test", None),
        (Redirect(https=True, hosts=("a.test",)), "https", "a.test:443", None),
        (Redirect(https=True, hosts=("a.test", "b.test:8443")), "http", "b.test:8443", "https://b.test:8443/p?q=1"),
        (Redirect(https=True, hosts=("a.test",)), "http", "evil.test", "https://a.test/p?q=1"),
        (Redirect(hosts=("www.a.test",)), "http", "a.test", "http://www.a.test/p?q=1"),
        (Redirect(hosts=("www.a.test",)), "https", "a.test", "https://www.a.test/p?q=1"),
        (Redirect(hosts=("www.a.test", "a.test")), "https", "a.test", None),
        (Redirect(hosts=("www.a.test", "a.test")), "https", "A.Test", None),
        (Redirect(hosts=("a.test",)), "https", "a.test:8443", "https://a.test/p?q=1"),
        (Redirect(hosts=("[::1]:8000",)), "http", "[::1]:8000", None),
        (Redirect(hosts=("a.test",), to="/n", match="/p"), "http", "b.test", "http://a.test/n?q=1"),
    ],
)
async def test_scheme_and_host(policy: Redirect, scheme: str, host: str, there: str | None):
    assert await location(policy, "/p", "q=1", host, scheme=scheme) == there


async def test_all_that_is_to_be_different_goes_into_one_redirect():
    policy = Redirect(match="/old/{rest:path}", to="/new/{rest}", https=True, hosts=("a.test",), slash="add")
    assert await location(policy, "/old/x", host="b.test") == "https://a.test/new/x/"


async def test_a_request_without_a_host_is_sent_to_the_first():
    guarded = Redirect(hosts=("a.test", "b.test"))(app)

    async def hostless(scope: Scope, receive: Receive, send: Send) -> None:
        await guarded({**scope, "http_version": "1.0", "headers": []}, receive, send)

    assert (await call(hostless)).header(b"location") == b"http://a.test/"


async def test_behind_a_front_that_ends_tls_the_scheme_is_the_one_the_client_used():
    stack = Stack(TrustedProxies(trusted=("203.0.113.7",), also=("scheme",)), Redirect(https=True, hosts=("a.test",)))
    headers = [(b"host", b"a.test"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"198.51.100.1")]
    assert (await call(stack(app), headers=headers)).status == 200
    with pytest.raises(ConfigError, match="Write TrustedProxies before Redirect"):
        Stack(Redirect(https=True, hosts=("a.test",)), TrustedProxies(trusted=("203.0.113.7",)))


SMUGGLED = [
    "//evil.test", "/%2Fevil.test", "/\\evil.test", "/%5Cevil.test", "/.evil.test", "/@evil.test", "/a:b@evil.test",
    "/%0d%0aset-cookie:%20a=b", "/%00", "/..%2f..", "/http://evil.test", "/https:evil.test", "///evil.test/%2e%2e",
    "/evil.test%E3%80%82", "/%E2%80%AE", "/;@evil.test", "/?@evil.test",
]  # fmt: skip


@pytest.mark.parametrize("path", SMUGGLED)
@pytest.mark.parametrize(
    "policy",
    [
        Redirect(match="/{rest:path}", to="/n/{rest}"),
        Redirect(match="/n/{rest:path}", to="/{rest}"),
        Redirect(match="/n/{x}", to="/{x}"),
        Redirect(https=True, hosts=("a.test",)),
        Redirect(slash="add"),
        Redirect(match="/{rest:path}", to="https://b.test/{rest}"),
    ],
)
async def test_nobody_can_be_sent_elsewhere(policy: Redirect, path: str):
    for sent in (path, f"/n{path}"):
        answer = await call(policy(app), path=unquote(sent), raw_path=sent.encode("latin-1"))
        there = answer.header(b"location")
        if there is None:
            assert answer.status in (200, 400)
        else:
            url = urlsplit(urljoin("http://testserver/x", there.decode()))
            assert url.netloc in ("testserver", "a.test", "b.test")
            assert not set(b"\r\n\\") & set(there)


@given(st.text(min_size=1, max_size=30), st.binary(max_size=20))
def test_no_path_and_no_query_names_the_host(text: str, query: bytes):
    policy = Redirect(match="/n/{rest:path}", to="/{rest}")(app)

    async def ask() -> Answer:
        return await call(policy, path=f"/n/{text}", raw_path=None, query=query)

    there = anyio.run(ask).header(b"location")
    if there is not None:
        assert urlsplit(urljoin("http://testserver/x", there.decode())).netloc == "testserver"


async def test_a_target_without_a_canonical_form_is_refused():
    answer = await call(Redirect(match="/{id}", to="/.{id}")(app), path="/.")
    assert answer.status == 400
    answer = await call(Redirect(match="/a/{id}", to="/.{id}")(app), path="/a/;x")
    assert (answer.status, b"bad-target" in answer.body) == (400, True)


# Redirects of WebSockets, and mistakes


async def test_a_websocket_handshake_is_redirected_by_its_denial():
    policy = Redirect(https=True, hosts=("a.test",))
    answer = await connect(policy(app), "/s", headers=[(b"host", b"a.test")])
    assert (answer.status, answer.header(b"location")) == (307, b"wss://a.test/s")
    answer = await connect(Redirect(match="/s", to="https://b.test/t")(app), "/s")
    assert answer.header(b"location") == b"wss://b.test/t"


async def test_a_websocket_handshake_that_cannot_be_redirected_is_closed():
    answer = await connect(Redirect(match="/s", to="/t")(app), "/s", denial=False)
    assert answer.messages == [{"type": "websocket.close", "code": 1008, "reason": "status 307"}]


async def test_who_asked_in_the_right_place_passes_and_bodies_flow():
    assert len((await call(Redirect(match="/old", to="/new")(app), path="/new")).messages) == 3
    assert (await connect(Redirect(match="/old", to="/new")(app), "/new")).status == 101


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "leads nowhere"),
        ({"https": True}, "would send callers to whatever host they named"),
        ({"https": True, "hosts": ("a.test:80",)}, "port of plain HTTP"),
        ({"hosts": ("a.test/x",)}, "is no host"),
        ({"hosts": ("A.test",)}, "is no host"),
        ({"hosts": ("u@a.test",)}, "is no host"),
        ({"to": "//evil.test"}, "names no host|makes no target"),
        ({"to": "new"}, "names no host"),
        ({"to": "https://{rest}/x"}, "names no host"),
        ({"to": "https://u:p@a.test/x"}, "names no host"),
        ({"to": "javascript:alert(1)"}, "names no host"),
        ({"to": "https://a.test/x#y"}, "makes no target"),
        ({"to": "/{who}"}, "makes no target"),
        ({"to": "https://a.test/", "hosts": ("a.test",)}, "says already"),
        ({"match": "x", "to": "/y"}, "matches no path"),
        ({"to": "/y", "status": 300}, "is not 301 or"),
    ],
)
def test_mistakes_of_redirects(fields: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        Redirect(**fields)


# ReturnResponse


async def test_the_response_is_the_one_written():
    policy = ReturnResponse(status=503, headers={"Retry-After": "60", "X-A": ("1", "2")}, body="back soon: café")
    answer = await call(policy(app))
    assert (answer.status, answer.body) == (503, "back soon: café".encode())
    assert answer.headers == [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"retry-after", b"60"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"content-length", b"16"),
    ]


async def test_the_type_named_is_the_type_sent():
    answer = await call(ReturnResponse(body="<p>", headers={"Content-Type": "text/html"})(app))
    assert answer.all(b"content-type") == [b"text/html"]
    assert (await call(ReturnResponse(body=b"\0")(app))).header(b"content-type") is None


async def test_without_anything_said_it_is_an_empty_200():
    answer = await call(ReturnResponse()(app))
    assert (answer.status, answer.headers, answer.body) == (200, [(b"content-length", b"0")], b"")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_no_length(status: int):
    assert (await call(ReturnResponse(status=status)(app))).headers == []


async def test_head_gets_the_head_alone():
    answer = await call(ReturnResponse(body="four")(app), "HEAD")
    assert (answer.header(b"content-length"), answer.body) == (b"4", b"")


async def test_a_function_makes_the_body_of_the_exchange():
    policy = ReturnResponse(body=lambda exchange: f"you asked for {exchange.path}")
    assert (await call(policy(app), path="/x")).body == b"you asked for /x"
    assert (await call(ReturnResponse(body=lambda exchange: b"raw")(app))).header(b"content-type") is None


async def test_a_function_that_fails_is_refused_and_not_passed():
    def fail(exchange: object) -> str:
        raise LookupError("secret")

    answer = await call(ReturnResponse(body=fail)(app))
    assert (answer.status, b"secret" in answer.body) == (500, False)


async def unreached(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("asked")


async def test_nothing_behind_is_asked_and_what_is_in_front_sees_the_response():
    policy = Stack(SetHeader(name="x-a", value="1", on="response"), ReturnResponse(status=204))
    answer = await call(policy(unreached), "POST", body=b"unread")
    assert (answer.status, answer.header(b"x-a")) == (204, b"1")


async def test_with_a_condition_the_others_pass():
    policy = When(conditions.path("/robots.txt"), ReturnResponse(body="User-agent: *\nDisallow: /\n"))
    assert (await call(policy(app), path="/robots.txt")).body.startswith(b"User-agent")
    assert (await call(policy(app), path="/")).body == b"onetwo"
    assert (await connect(policy(app), "/")).status == 101


async def test_a_websocket_gets_it_as_its_denial_or_is_closed():
    policy = ReturnResponse(status=410, body="gone")
    assert (await connect(policy(app))).messages == [
        {"type": "websocket.http.response.start", "status": 410, "headers": (await call(policy(app))).headers},
        {"type": "websocket.http.response.body", "body": b"gone", "more_body": False},
    ]
    assert (await connect(policy(app), denial=False)).messages[0]["code"] == 1008


async def test_a_client_that_left_gets_nothing():
    with pytest.raises(OSError, match="gone"):
        await call(ReturnResponse(body="x")(app), leave_after=0)


def test_it_needs_what_its_function_needs():
    assert ReturnResponse(body=by.principal).needs == {"principal"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"status": 199}, "is no status"),
        ({"status": 600}, "is no status"),
        ({"status": 204, "body": "x"}, "has no body"),
        ({"body": "\udcff"}, "half a surrogate pair"),
        ({"status": 304, "headers": {"content-type": "text/plain"}}, "describe a body"),
        ({"headers": {"Content-Length": "3"}}, "which is framing"),
        ({"headers": {"x y": "3"}}, "cannot be sent"),
        ({"headers": {"x": "a\r\nb: c"}}, "cannot be sent"),
        ({"headers": {"x": 1}}, "is not Mapping"),
    ],
)
def test_mistakes_of_responses(fields: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        ReturnResponse(**fields)


def test_a_function_that_must_be_awaited_is_a_mistake():
    async def body(exchange: object) -> str:
        return ""

    with pytest.raises(ConfigError, match="must be awaited"):
        ReturnResponse(body=body)  # type: ignore[arg-type]


def test_bodies_stay_out_of_the_repr():
    assert "secret" not in repr(ReturnResponse(body="secret"))


# MockResponse


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"id": 7, "names": ["Ada"]}, b'{"id": 7, "names": ["Ada"]}'),
        ([], b"[]"),
        (0, b"0"),
        (False, b"false"),
        ('{"as": "is"}', b'{"as": "is"}'),
        (b"\x00\xff", b"\x00\xff"),
        (None, b""),
    ],
)
async def test_an_example_goes_out_as_json_or_as_it_is(body: object, sent: bytes):
    answer = await call(MockResponse(body=body)(app))
    assert (answer.status, answer.body) == (200, sent)
    assert answer.header(b"content-type") == (b"application/json" if sent else None)


async def test_a_mock_has_the_status_type_and_headers_it_was_given():
    policy = MockResponse(status=201, content_type="text/csv", body="a,b", headers={"Location": "/things/7"})
    answer = await call(policy(app), "POST")
    assert (answer.status, answer.header(b"content-type"), answer.header(b"location")) == (
        201,
        b"text/csv",
        b"/things/7",
    )


def test_a_mock_takes_its_time():
    async def ask() -> float:
        before = anyio.current_time()
        await call(MockResponse(body=1, delay=30)(app))
        return anyio.current_time() - before

    clock = trio.testing.MockClock(autojump_threshold=0)
    assert anyio.run(ask, backend="trio", backend_options={"clock": clock}) == pytest.approx(30)


@pytest.mark.parametrize("body", [b"", [b"one", b"two"]])
async def test_a_mock_takes_no_time_for_a_client_that_leaves(body):
    """The request was kept until the delay was over, and with it what it held."""
    with anyio.fail_after(10):
        assert (await call(MockResponse(delay=60)(app), body=body, leave_after=0)).messages == []


async def test_a_mock_asks_nobody_for_a_body_meanwhile():
    """RFC 9110 §10.1.1: one that waits to be asked for it may be told that there is no need."""

    async def receive():
        raise AssertionError("it was asked")

    sent = []

    async def send(message):
        sent.append(message["type"])

    await MockResponse(delay=0.01)(app)(http_scope("PUT", headers=[(b"expect", b"100-continue")]), receive, send)
    assert sent == ["http.response.start", "http.response.body"]


async def test_a_mock_answers_a_websocket_as_a_response_does():
    assert (await connect(MockResponse(status=501)(app))).status == 501


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"body": object()}, "cannot be written as JSON"),
        ({"body": float("nan")}, "cannot be written as JSON"),
        ({"status": 204, "body": {}}, "has no body"),
        ({"delay": 61}, "is no time to wait"),
        ({"delay": -1}, "is no time to wait"),
        ({"content_type": "a\r\nb"}, "cannot be sent"),
        ({"headers": {"content-type": "x/y"}}, "holds the content type"),
    ],
)
def test_mistakes_of_mocks(fields: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        MockResponse(**fields)
