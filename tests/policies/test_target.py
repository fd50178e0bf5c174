"""Paths are rewritten and parameters set so that nothing a caller sends becomes more than it was."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from apim_middleware import by
from apim_middleware._http.hygiene import Hygiene
from apim_middleware._http.paths import canonical_path
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policies.target import RemoveQuery, RewritePath, SetQuery
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import Answer, call, connect
from apim_middleware.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio

ORIGINAL = "apim_middleware.original_path"


@dataclass
class Target:
    """An app that keeps the target it was asked for."""

    scope: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = dict(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    @property
    def path(self) -> str:
        return self.scope["path"]

    @property
    def raw(self) -> str:
        return self.scope["raw_path"].decode()

    @property
    def query(self) -> str:
        return self.scope["query_string"].decode()


async def asked(layer: Callable[..., Any], path: str, query: str = "", **more: Any) -> Target:
    """What the app behind the layer is asked for when a caller sends this encoded path."""
    app = Target()
    answer = await call(layer(app), path=unquote(path), raw_path=path.encode(), query=query.encode(), **more)
    assert answer.status == 200, answer.body
    return app


# Rewriting


@pytest.mark.parametrize(
    ("match", "to", "path", "becomes"),
    [
        ("/old", "/new", "/old", "/new"),
        ("/old", "/new", "/old/", "/old/"),
        ("/old", "/new", "/older", "/older"),
        ("/old", "/new", "/a/old", "/a/old"),
        ("/old", "/new", "/OLD", "/OLD"),
        ("/old/", "/new/", "/old/", "/new/"),
        ("/", "/home", "/", "/home"),
        ("/users/{id}", "/people/{id}", "/users/7", "/people/7"),
        ("/users/{id}", "/people/{id}", "/users/", "/users/"),
        ("/users/{id}", "/people/{id}", "/users/7/x", "/users/7/x"),
        ("/users/{id}", "/people/id-{id}.json", "/users/7", "/people/id-7.json"),
        ("/{a}/{b}", "/{b}/{a}{b}", "/1/2", "/2/12"),
        ("/{a}/{b}", "/x", "/1/2", "/x"),
        ("/api/{rest:path}", "/{rest}", "/api/v1/users", "/v1/users"),
        ("/api/{rest:path}", "/{rest}", "/api/v1/", "/v1/"),
        ("/api/{rest:path}", "/{rest}", "/api/", "/"),
        ("/api/{rest:path}", "/{rest}", "/api", "/"),
        ("/api/{rest:path}", "/{rest}", "/apis", "/apis"),
        ("/api/{rest:path}", "/v2/{rest}", "/api", "/v2"),
        ("/api/{rest:path}", "/v2", "/api/a/b", "/v2"),
        ("/{rest:path}", "/v2/{rest}", "/", "/v2/"),
        ("/{rest:path}", "/v2/{rest}", "/a/b", "/v2/a/b"),
        ("/{tenant}/{rest:path}", "/t/{tenant}/x/{rest}", "/blue/a/b", "/t/blue/x/a/b"),
        ("/café/{id}", "/thé/{id}:run", "/caf%C3%A9/7", "/th%C3%A9/7:run"),
        ("/api/{id}", "/x/{id}", "/%61pi/%37", "/x/%37"),
        ("/a.b/{id}", "/x/{id}", "/aXb/7", "/aXb/7"),
        ("/a b", "/c d", "/a%20b", "/c%20d"),
    ],
)
async def test_rewriting(match: str, to: str, path: str, becomes: str):
    app = await asked(RewritePath(match=match, to=to), path)
    assert (app.raw, app.path) == (becomes, unquote(becomes))


SMUGGLED = [
    "..%2Fx", "a%3Fadmin=1", "a%23z", "a%26b=c", "%2561dmin", "a;x=1", "%7Bid%7D", "evil.example", "@evil", "a%20b",
    "%E2%80%AE", "http:", "a%25b", "%25zz", "...", ".a", "~",
]  # fmt: skip


@pytest.mark.parametrize("sent", SMUGGLED)
async def test_what_callers_send_stays_one_segment_as_they_escaped_it(sent: str):
    app = Target()
    policy, path = RewritePath(match="/a/{id}", to="/b/{id}/c"), f"/a/{sent}"
    answer = await call(policy(app), path=unquote(path), raw_path=path.encode())
    if "%2F" in sent:
        assert (answer.status, app.scope) == (400, {})
    else:
        assert (app.raw, app.query, app.scope["headers"]) == (f"/b/{sent}/c", "", [(b"host", b"testserver")])


segments = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


@given(segments, segments)
async def test_any_segment_comes_out_as_it_went_in(first: str, second: str):
    sent = f"/a/{quote(first, safe='')}/{quote(second, safe='')}"
    try:
        canonical_path(unquote(sent), sent.encode())
    except ValueError:
        assume(False)
    app = await asked(RewritePath(match="/a/{x}/{y}", to="/b/{y}/c/{x}"), sent)
    assert app.path == f"/b/{second}/c/{first}"
    assert app.path.count("/") == app.raw.count("/") == 4
    assert canonical_path(app.path, app.raw.encode()) == (app.path, app.raw.encode())


@given(st.text(st.sampled_from("./;a%2Fe\\?#:{}"), max_size=12))
async def test_whatever_is_sent_what_comes_out_is_canonical_or_refused(sent: str):
    app = Target()
    stack = Stack(RewritePath(match="/{a}/{rest:path}", to="/.{a}/{rest}"), RewritePath(match="/{a}", to="/{a}.{a}"))
    answer = await call(stack(app), path=unquote(f"/{sent}", errors="replace"), raw_path=f"/{sent}".encode())
    assert answer.status in (200, 400)
    if answer.status == 200:
        assert canonical_path(app.path, app.scope["raw_path"]) == (app.path, app.scope["raw_path"])


async def test_a_result_that_is_a_dot_segment_is_refused():
    app = Target()
    answer = await call(RewritePath(match="/a/{id}", to="/b/.{id}")(app), path="/a/;x")
    assert answer.status == 400
    assert b'"bad-target"' in answer.body
    assert not app.scope


@pytest.mark.parametrize(
    ("path", "becomes"),
    [("/a/x%2Fy/z%5C", "/b/x%2Fy/z%5C"), ("/a/x%252Fy", "/b/x%252Fy"), ("/a/x%2fy%C3%A9", "/b/x%2fy%C3%A9")],
)
async def test_encoded_slashes_that_are_let_in_stay_encoded_once(path: str, becomes: str):
    env = Env(hygiene=Hygiene(encoded_slashes="keep"))
    app = await asked(Stack(RewritePath(match="/a/{rest:path}", to="/b/{rest}"), env=env), path)
    assert app.raw == becomes


@pytest.mark.parametrize("stale", [b"/a/7", b"/a//%zz", b"/a/%FF", b"/a/../b", None])
async def test_a_path_that_a_layer_further_out_changed_alone_is_the_one_rewritten(stale: bytes | None):
    def foreign(app: Any) -> Any:
        async def changing(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "path": "/a/8 9", "raw_path": stale}, receive, send)

        return changing

    app = Target()
    answer = await call(Stack(SetQuery(name="x", value="1"), foreign, RewritePath(match="/a/{id}", to="/b/{id}"))(app))
    if stale in (b"/a/7", None):
        assert app.raw == "/b/8%209"
    else:
        assert (answer.status, app.scope) == (400, {})


async def test_the_path_as_it_was_stays_known():
    stack = Stack(RewritePath(match="/a", to="/b"), RewritePath(match="/b", to="/c"))
    app = await asked(stack, "/a")
    assert (app.path, app.scope[ORIGINAL]) == ("/c", "/a")
    assert ORIGINAL not in (await asked(stack, "/x")).scope


async def test_policies_further_in_judge_what_the_app_gets():
    class Refuses(Policy):
        def on_request(self, exchange: Exchange) -> None:
            if exchange.path.startswith("/admin"):
                raise Refusal(403, "no")

    app = Target()
    answer = await call(Stack(RewritePath(match="/x/{rest:path}", to="/{rest}"), Refuses())(app), path="/x/admin/1")
    assert answer.status == 403


@pytest.mark.parametrize(
    ("to", "copied", "path", "query", "becomes"),
    [
        ("/b", True, "/a/7", "x=1&y=%7e", "x=1&y=%7e"),
        ("/b", False, "/a/7", "x=1", ""),
        ("/b?id={id}", True, "/a/7", "", "id=7"),
        ("/b?id={id}", True, "/a/7", "id=9&x=1&%69d=8", "x=1&id=7"),
        ("/b?id={id}", False, "/a/7", "id=9&x=1", "id=7"),
        ("/b?kind=a b&id={id}&id=v-{id}", True, "/a/7", "x", "x&kind=a%20b&id=7&id=v-7"),
        ("/b?flag", True, "/a/7", "", "flag="),
        ("/b?id={id}", True, "/a/x%26admin=1+2%23", "", "id=x%26admin%3D1%2B2%23"),
        ("/b?id={id}", True, "/a/%C3%A9%3D", "", "id=%C3%A9%3D"),
    ],
)
async def test_the_query_goes_along_but_for_what_the_template_names(
    to: str, copied: bool, path: str, query: str, becomes: str
):
    app = await asked(RewritePath(match="/a/{id}", to=to, copy_query=copied), path, query)
    assert (app.raw, app.query) == ("/b", becomes)


async def test_the_rest_may_become_a_parameter():
    app = await asked(RewritePath(match="/a/{rest:path}", to="/b?path={rest}"), "/a/x/y")
    assert parse_qsl(app.query) == [("path", "/x/y")]


async def test_below_a_mount_templates_speak_of_what_the_app_routes():
    policy = RewritePath(match="/{rest:path}", to="/v2/{rest}")
    for path, becomes in [
        ("/api/x", "/api/v2/x"),
        ("/api", "/api/v2"),
        ("/apix", "/v2/apix"),
        ("/a%70i/x", "/a%70i/v2/x"),
    ]:
        app = await asked(policy, path, root_path="/api")
        assert (app.raw, app.path) == (becomes, unquote(becomes))
        assert app.scope["root_path"] == "/api"


def test_a_mounted_starlette_app_routes_the_rewritten_path():
    async def person(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.path_params['id']} {request.url.path}")

    rewriting = Middleware(RewritePath(match="/users/{id}", to="/people/{id}"))
    app = Starlette(routes=[Mount("/api/v1", routes=[Route("/people/{id}", person)], middleware=[rewriting])])
    client = TestClient(app)
    assert client.get("/api/v1/users/a%20b").text == "a b /api/v1/people/a b"
    assert client.get("/users/7").status_code == 404


async def test_a_websocket_is_rewritten_like_any_request():
    app = Target()
    stack = Stack(RewritePath(match="/ws/{room}", to="/rooms?room={room}"), SetQuery(name="x", value="1"))
    assert (await connect(stack(app), path="/ws/7")).status == 101
    assert (app.path, app.query) == ("/rooms", "room=7&x=1")


async def test_an_options_request_for_the_server_itself_passes():
    app = Target()
    await call(RewritePath(match="/{rest:path}", to="/v2/{rest}")(app), "OPTIONS", "*", raw_path=b"*")
    assert app.path == "*"


async def test_nobody_looks_at_the_response():
    sends: list[Send] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sends.append(send)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    stack = Stack(RewritePath(match="/a", to="/b"), SetQuery(name="x", value="1"), RemoveQuery(name="y"))
    answer = await call(stack(app))
    assert [each.get("body") for each in answer.messages] == [None, b"one", b"two"]
    assert sends[0].__qualname__.startswith("exchange.")


async def test_an_app_that_raises_still_raises():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("app")

    with pytest.raises(LookupError):
        await call(Stack(RewritePath(match="/", to="/b"), SetQuery(name="x", value="1"))(app))


async def test_a_client_that_leaves_is_no_error_of_ours():
    answer = Answer()
    with pytest.raises(OSError, match="gone"):
        await call(RewritePath(match="/", to="/b")(Target()), leave_after=2, answer=answer)
    assert answer.status == 200


def test_a_long_path_takes_no_longer_than_its_length():
    """Each segment is matched once: a shape that almost fits is given up at once."""
    hooks = RewritePath(match="/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/{k}/{l}/end", to="/x").bind(Env())
    exchange = Exchange({"path": "/a" * 4000 + "/", "raw_path": b"", "query_string": b"", "type": "http"})
    for _ in range(1000):
        hooks.on_request(exchange)
    assert exchange.path.startswith("/a/a")


# Parameters


@pytest.mark.parametrize(
    ("exists", "query", "becomes"),
    [
        ("override", "", "t=new"),
        ("override", "a=1", "a=1&t=new"),
        ("override", "t=1&a=%7e&T=3&%74=2&b=+", "a=%7e&T=3&b=+&t=new"),
        ("override", "t", "t=new"),
        ("append", "t=1&a=2", "t=1&a=2&t=new"),
        ("skip", "a=1", "a=1&t=new"),
        ("skip", "t&a=1", "t&a=1"),
        ("skip", "%74=1", "%74=1"),
    ],
)
async def test_what_happens_to_parameters_that_are_there(exists: Any, query: str, becomes: str):
    assert (await asked(SetQuery(name="t", value="new", exists=exists), "/", query)).query == becomes


async def test_several_values_repeat_the_parameter():
    assert (await asked(SetQuery(name="t", value=("a", "b")), "/", "t=0")).query == "t=a&t=b"


async def test_every_parameter_of_a_removed_name_goes_and_the_others_stay_byte_for_byte():
    app = await asked(RemoveQuery(name="t u"), "/", "t+u=1&x=%7e&t%20u&&tu=2")
    assert app.query == "x=%7e&&tu=2"


async def test_a_scope_without_a_query_has_none():
    app = Target()
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"a")]}

    async def nothing(*message: Any) -> Any: ...

    await Stack(RemoveQuery(name="a"), SetQuery(name="b", value="1", exists="skip"))(app)(scope, nothing, nothing)
    assert app.query == "b=1"


async def test_a_function_of_the_exchange_gives_the_value():
    app = await asked(SetQuery(name="from", value=by.client), "/", "from=evil")
    assert app.query == "from=203.0.113.7"


async def test_no_value_overrides_too_so_that_callers_cannot_speak_under_the_name():
    assert (await asked(SetQuery(name="user", value=by.principal), "/", "user=admin&a=1")).query == "a=1"


@pytest.mark.parametrize("exists", ["append", "skip"])
async def test_no_value_leaves_the_parameters_alone(exists: Any):
    policy = SetQuery(name="t", value=lambda exchange: None, exists=exists)
    assert (await asked(policy, "/", "t=1&a=2")).query == "t=1&a=2"


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
async def test_any_text_is_one_value_and_no_more(text: str):
    app = await asked(SetQuery(name="t", value=lambda exchange: text), "/", "a=1")
    assert parse_qsl(app.query, keep_blank_values=True) == [("a", "1"), ("t", text)]


async def test_half_a_surrogate_pair_is_refused_and_logged(caplog: pytest.LogCaptureFixture):
    answer = await call(SetQuery(name="t", value=lambda exchange: "\ud800")(Target()))
    assert answer.status == 400
    assert b'"bad-query-value"' in answer.body
    assert "query parameter t" in caplog.text


async def test_a_function_of_the_wrong_kind_fails_closed(caplog: pytest.LogCaptureFixture):
    answer = await call(SetQuery(name="t", value=lambda exchange: 3)(Target()))  # type: ignore[arg-type, return-value]
    assert answer.status == 500


# Configuration


async def awaited(exchange: Exchange) -> str:
    return "1"


@pytest.mark.parametrize(
    ("match", "to", "message"),
    [
        ("users", "/x", r"match: .* does not begin with a slash"),
        ("", "/x", "does not begin with a slash"),
        ("{rest:path}", "/x", r"RewritePath\.match"),
        ("/a//b", "/x", "two slashes"),
        ("/a/../b", "/x", "dot segment"),
        ("/a?b=1", "/x", "more than a path"),
        ("/a#b", "/x", "more than a path"),
        ("/a%20b", "/x", "percent-escape"),
        ("/a\\b", "/x", "backslash"),
        ("/a\x00", "/x", "control character"),
        ("/{a}/{a}", "/x", "twice"),
        ("/{a}/{a:path}", "/x", "twice"),
        ("/{a:path}/b", "/x", "a whole segment"),
        ("/v{a}", "/x", "a whole segment"),
        ("/{a", "/x", "a whole segment"),
        ("/{1}", "/x", "a whole segment"),
        ("/{a:int}", "/x", "a whole segment"),
        ("/a/*", "/x", r"a star stands for nothing.*\{rest:path\}"),
        ("/a*", "/x", "a star stands for nothing"),
        ("/{a}", "x", r"to: .* does not begin with a slash"),
        ("/{a}", "{a}", "does not begin with a slash"),
        ("/{a}", "http://evil/{a}", "does not begin with a slash"),
        ("/{a}", "//evil/{a}", "two slashes"),
        ("/{a}", "/{b}", "match has no {b}"),
        ("/{a}", "/{a", "brace"),
        ("/{a}", "/x?b={b}", "match has no {b}"),
        ("/{a}", "/x?a={a", "brace"),
        ("/{a}", "/x?{a}=1", "without a name"),
        ("/{a}", "/x?={a}", "without a name"),
        ("/{a}", "/x?a=%20", "percent-escape"),
        ("/{a}", "/x?a=1#b", "fragment"),
        ("/{a}", "/x#b", "more than a path"),
        ("/{a}", "/%20", "percent-escape"),
        ("/a/{rest:path}", "/{rest}/b", "only be the last"),
        ("/a/{rest:path}", "/b{rest}", "only be the last"),
        ("/a/{rest:path}", "/{rest}/{rest}", "only be the last"),
        ("/a/{rest:path}", "/{rest:path}", "brace"),
    ],
)
def test_a_template_that_cannot_work_is_found_while_building(match: str, to: str, message: str):
    with pytest.raises(ConfigError, match=message):
        RewritePath(match=match, to=to)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SetQuery(name="", value="1"), r"SetQuery\.name"),
        (lambda: RemoveQuery(name=""), r"RemoveQuery\.name"),
        (lambda: RemoveQuery(name="\ud800"), r"RemoveQuery\.name"),
        (lambda: SetQuery(name="a", value=()), "Use RemoveQuery"),
        (lambda: SetQuery(name="a", value=("b", "\ud800")), "surrogate"),
        (lambda: SetQuery(name="a", value=awaited), "Give a plain function"),
        (lambda: SetQuery(name="a", value=None), r"SetQuery\.value"),
        (lambda: SetQuery(name="a", value="1", exists="delete"), r"SetQuery\.exists"),
        (lambda: RewritePath(match="/a"), r"RewritePath\.to: is missing"),
        (lambda: RewritePath(match="/a", to="/b", copy_query="no"), r"RewritePath\.copy_query"),
    ],
)
def test_a_mistake_is_found_while_building(make: Callable[[], Policy], message: str):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_value_may_be_a_secret_and_is_not_shown():
    assert "s3cret" not in repr(SetQuery(name="code", value="s3cret"))


def test_a_value_relies_on_what_it_is_made_of():
    assert SetQuery(name="t", value=by.claim("tenant")).needs == {"principal"}
