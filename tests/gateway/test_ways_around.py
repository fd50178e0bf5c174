"""Ways that were tried around the policies of a scope, each of which must end at them or nowhere."""

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.houses import KEY, Backend, Subscribers, code, get, told

from apim_middleware import conditions
from apim_middleware._http.paths import routed_path
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.gateway import Gateway
from apim_middleware.gateway.app_of_apps import AppOfApps
from apim_middleware.gateway.sub_app import SubApp
from apim_middleware.model import Api, Fragment, Operation, Product, Version, Versions
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.either import AllOf
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.anyio

LOCK = RequireHeader(name="x-pass", values=("let me in",))
PREFLIGHT = [(b"origin", b"https://page.example"), (b"access-control-request-method", b"GET")]


def open_api(name: str, path: str, backend: ASGIApp, **more: Any) -> Api:
    """An API anybody may call."""
    return Api(name, path, backend=backend, subscription_required=False, **more)


# The end of the path


@pytest.mark.parametrize("path", ["/shop/admin", "/shop/admin/", "/shop/list/", "/shop/list"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_slash_at_the_end_does_not_lead_from_an_operation_to_a_wildcard(path: str, method: str) -> None:
    backend = Backend()
    operations = (
        Operation("GET", "/admin", policies=(LOCK,)),
        Operation("GET", "/list/", policies=(LOCK,)),
        Operation("*", "/*"),
    )
    app = Gateway(apis=(open_api("shop", "/shop", backend, operations=operations),))
    assert (await get(app, path, method=method)).status == 400
    assert not backend.seen


async def test_a_slash_at_the_end_is_the_wildcards_where_no_operation_is_meant() -> None:
    backend = Backend()
    operations = (Operation("GET", "/admin", policies=(LOCK,)), Operation("*", "/*"))
    app = Gateway(apis=(open_api("shop", "/shop", backend, operations=operations),))
    for method, path in (
        ("GET", "/shop/other/"),
        ("POST", "/shop/admin/"),
        ("GET", "/shop/admin/x/"),
        ("GET", "/shop/"),
    ):
        assert (await get(app, path, method=method)).status == 200, (method, path)


async def test_parameters_are_told_with_a_slash_at_the_end() -> None:
    operations = (Operation("GET", "/{id}"), Operation("*", "/*"))
    app = Gateway(apis=(open_api("shop", "/shop", Backend(), operations=operations),))
    assert told(await get(app, "/shop/7/"))["parameters"] == {"id": "7"}


# The mark of a revision


@pytest.mark.parametrize(
    "path",
    ["/shop;rev=1/admin", "/shop;rev=1/admin/x", "/;rev=1/shop/admin/x", "/;rev=1/shop/x", "/shop;rev=1/admin;rev=1"],
)
async def test_a_revision_does_not_lead_past_an_api_that_begins_further_down(path: str) -> None:
    wide, admin = Backend("wide"), Backend("admin")
    app = Gateway(
        apis=(
            open_api("site", "/", wide, operations=(Operation("GET", "/x"), Operation("*", "/shop/*"))),
            open_api("shop", "/shop", wide),
            open_api("admin", "/shop/admin", admin, policies=(LOCK,)),
        )
    )
    assert (await get(app, path)).status in (400, 404)
    assert not wide.seen
    assert not admin.seen


@given(st.lists(st.sampled_from(["a", "b", "x", "a;rev=1", "b;rev=1", "x;rev=1", ";rev=1", "a;rev=2"]), max_size=5))
def test_what_reaches_a_backend_is_below_no_other_api(parts: list[str]) -> None:
    backends = {path: Backend(path) for path in ("/", "/a", "/a/b")}
    app = Gateway(apis=tuple(open_api(f"n{len(path)}", path, backend) for path, backend in backends.items()))
    anyio.run(get, app, "/" + "/".join(parts))
    for path, backend in backends.items():
        for scope in backend.seen:
            whole = path.rstrip("/") + routed_path(scope)[1]
            assert path == max((each for each in backends if f"{whole}/".startswith(f"{each.rstrip('/')}/")), key=len)


async def test_a_revision_does_not_lead_past_a_version_in_the_path() -> None:
    backend = Backend()
    versions = Versions(by="path", default="v1", versions=(Version("v1"), Version("v2", policies=(LOCK,))))
    app = Gateway(apis=(open_api("shop", "/shop", backend, versions=versions),))
    assert (await get(app, "/shop/v2/x")).status == 400
    assert code(await get(app, "/shop;rev=1/v2/x")) == "operation-not-found"
    assert not backend.seen
    assert (await get(app, "/shop;rev=1/x")).status == 200


# Methods


async def test_a_request_with_the_method_websocket_is_no_handshake() -> None:
    backend = Backend()
    operations = (Operation("WEBSOCKET", "/chat"), Operation("*", "/rest/*"))
    app = Gateway(apis=(open_api("shop", "/shop", backend, operations=operations),))
    assert (await get(app, "/shop/chat", method="WEBSOCKET")).status == 404
    assert not backend.seen


async def test_a_preflight_for_one_operation_does_not_lead_past_the_policies_of_its_own() -> None:
    backend = Backend()
    operations = (Operation("*", "/*", policies=(LOCK,)), Operation("GET", "/open"))
    app = Gateway(apis=(open_api("shop", "/shop", backend, operations=operations),))
    assert (await get(app, "/shop/open", method="OPTIONS")).status == 400
    assert (await get(app, "/shop/open", PREFLIGHT, method="OPTIONS")).status in (400, 404)
    assert not backend.seen


async def test_a_preflight_does_not_lead_past_the_scopes_the_other_operation_leaves_out() -> None:
    backend = Backend()
    operations = (Operation("*", "/*"), Operation("GET", "/open", inherit=False))
    app = Gateway(apis=(open_api("shop", "/shop", backend, operations=operations, policies=(LOCK,)),))
    assert (await get(app, "/shop/open", PREFLIGHT, method="OPTIONS")).status in (400, 404)
    assert not backend.seen


async def test_a_backend_behind_a_wildcard_answers_preflights_for_its_other_operations() -> None:
    backend = Backend()
    operations = (Operation("*", "/*"), Operation("GET", "/open"))
    app = Gateway(apis=(open_api("shop", "/shop", backend, operations=operations),))
    assert (await get(app, "/shop/open", PREFLIGHT, method="OPTIONS")).status == 200


# Roots


@pytest.mark.parametrize(
    ("root", "path"), [("/shop", "/shop/shop/x"), ("/shop/", "/shop/x"), ("/other", "/shop/x"), ("", "/shop/x")]
)
async def test_the_path_behind_is_the_one_that_was_judged_wherever_the_server_says_we_are(root: str, path: str) -> None:
    backend = Backend()
    app = Gateway(apis=(open_api("shop", "/shop", backend, operations=(Operation("GET", "/{rest}"),)),))
    assert told(await call(app, "GET", path, root_path=root))["parameters"] == {"rest": "x"}
    assert routed_path(backend.seen[0])[1] == "/x"


# Layers between


class Outside(Policy):
    """A policy that opens the exchange."""

    def on_request(self, exchange: Exchange) -> None:
        """Look on."""


def rewriting(app: ASGIApp) -> ASGIApp:
    """A middleware of somebody else that gives a scope of its own to those behind."""

    async def rewrites(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "path": "/shop/admin", "raw_path": b"/shop/admin"}, receive, send)

    return rewrites


async def test_the_path_that_a_layer_between_has_made_is_the_one_that_is_judged() -> None:
    backend = Backend()
    operations = (Operation("GET", "/admin", policies=(LOCK,)), Operation("GET", "/x"))
    gateway = Gateway(apis=(open_api("shop", "/shop", backend, operations=operations),))
    app = Stack(Outside(), rewriting)(gateway)
    assert (await get(app, "/shop/x")).status == 400
    assert not backend.seen


async def test_a_key_is_taken_out_of_the_scope_that_a_layer_between_has_made() -> None:
    backend, subscribers = Backend(), Subscribers()
    headers = subscribers.add("one", api="shop")
    gateway = Gateway(apis=(Api("shop", "/shop", backend=backend),), keys=subscribers.store)
    app = Stack(Outside(), rewriting)(gateway)
    assert (await get(app, "/shop/x", headers)).status == 200
    assert KEY not in dict(backend.seen[0]["headers"])


# What caches in front may keep


class Alice:
    """A user as Starlette has them."""

    is_authenticated = True


async def test_whom_a_backend_identifies_at_the_path_of_its_api_is_seen_by_caches_in_front() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        who = dict(scope["headers"]).get(b"x-who", b"nobody")
        scope["user"] = Alice()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(who))]})
        await send({"type": "http.response.body", "body": who})

    gateway = Gateway(apis=(open_api("me", "/me", app, policies=(Cache(ttl=60),)),), env=Env(clock=FakeClock()))
    for path in ("/me", "/me/", "/me/x"):
        assert (await get(gateway, path, [(b"x-who", b"alice")])).body == b"alice"
        assert (await get(gateway, path, [(b"x-who", b"bob")])).body == b"bob", path


@pytest.mark.parametrize("version", [b"", b"v7"])
async def test_a_refusal_for_want_of_a_version_is_not_given_to_those_who_name_one(version: bytes) -> None:
    versions = Versions(by="header", parameter="api-version", versions=(Version("v1"),))
    api = open_api("shop", "/shop", Backend(), versions=versions)
    cache = Cache(ttl=60, statuses=(200, 404))
    gateway = Gateway(apis=(api,), policies=(cache,), env=Env(clock=FakeClock()))
    poison = [(b"api-version", version)] if version else []
    assert (await get(gateway, "/shop/x", poison)).status == 404
    assert (await get(gateway, "/shop/x", [(b"api-version", b"v1")])).status == 200


class Gilds(Policy):
    """Tells subscribers of a product more."""

    def on_response(self, exchange: Exchange) -> None:
        """Add it."""
        assert exchange.response is not None
        exchange.response.append(b"x-gold", b"for subscribers")


@pytest.mark.parametrize("open_one", [False, True])
def test_a_cache_in_front_of_what_a_product_adds_is_refused_where_others_may_call_too(open_one: bool) -> None:
    gold = Product("gold", apis=("shop",), policies=(Gilds(),))
    free = Product("free", apis=("shop",), policies=(Gilds(),), subscription_required=False)
    api = Api("shop", "/shop", backend=Backend(), subscription_required=open_one)
    products, keys = ((free, gold) if open_one else (gold,)), Subscribers().store
    with pytest.raises(ConfigError, match=r"Gateway\.policies: holds what answers from memory"):
        Gateway(apis=(api,), products=products, policies=(Cache(),), keys=keys)


def test_a_cache_may_stand_in_front_of_products_that_add_nothing() -> None:
    products = Product("gold", apis=("shop",)), Product("free", apis=("shop",), subscription_required=False)
    Gateway(
        apis=(open_api("shop", "/shop", Backend()),), products=products, policies=(Cache(),), keys=Subscribers().store
    )


async def test_versions_that_the_query_names_are_kept_apart_though_the_cache_leaves_the_name_out() -> None:
    versions = Versions(
        by="query", parameter="v", versions=(Version("a", backend=Backend("one")), Version("b", backend=Backend("two")))
    )
    api = Api(
        "shop", "/shop", versions=versions, subscription_required=False, policies=(Cache(ttl=60, only_query=("q",)),)
    )
    gateway = Gateway(apis=(api,), env=Env(clock=FakeClock()))
    names = [told(await get(gateway, "/shop/x", query=query))["name"] for query in (b"v=a", b"v=b")]
    assert names == ["one", "two"]


BY_KIND = Operation("GET", "/x?kind=secret"), Operation("GET", "/x")


@pytest.mark.parametrize(
    "cache",
    [
        Cache(only_query=("page",)),
        Cache(only_query=("page", "kinds*")),
        Cache(without_query=("k*",)),
        When(conditions.header("x-page"), Cache(only_query=("page",))),
        Choose((conditions.header("x-page"), Stack(Cache(only_query=("page",))))),
        When(conditions.header("x-page"), Fragment("pages", (Cache(only_query=("page",)),))),
        AllOf(Stack(RequireHeader(name="x-page"), Cache(only_query=("page",)))),
    ],
    ids=repr,
)
@pytest.mark.parametrize("scope", ["gateway", "product", "api"])
def test_a_cache_that_leaves_out_what_tells_operations_apart_is_refused(scope: str, cache: Any) -> None:
    """What one operation fetched, with a credential of its own maybe, answered requests for the other."""
    where = {each: {"policies": (cache,)} if each == scope else {} for each in ("gateway", "product", "api")}
    product = Product("free", apis=("shop",), subscription_required=False, **where["product"])
    api = open_api("shop", "/shop", Backend(), operations=BY_KIND, **where["api"])
    with pytest.raises(ConfigError, match=r"Cache\.with|Cache\.only") as raised:
        Gateway(apis=(api,), products=(product,), **where["gateway"])
    assert "leaves out 'kind', by which GET /x?kind=secret behind it is found" in str(raised.value)


@pytest.mark.parametrize("cache", [Cache(only_query=("page", "kind")), Cache(without_query=("utm_*",)), Cache()])
def test_a_cache_may_leave_out_what_tells_no_operations_apart(cache: Cache) -> None:
    Gateway(apis=(open_api("shop", "/shop", Backend(), operations=BY_KIND, policies=(cache,)),))


def test_a_cache_may_leave_out_what_tells_operations_apart_whose_responses_it_does_not_keep() -> None:
    posts = tuple(Operation("POST", f"/x?kind={kind}", name=kind) for kind in ("a", "b"))
    Gateway(apis=(open_api("shop", "/shop", Backend(), operations=posts, policies=(Cache(only_query=("page",)),)),))


def test_a_cache_of_one_operation_may_leave_out_what_that_is_found_by() -> None:
    own = Operation("GET", "/x?kind=secret", policies=(Cache(only_query=("page",)),))
    Gateway(apis=(open_api("shop", "/shop", Backend(), operations=(own, BY_KIND[1])),))


@pytest.mark.parametrize("directives", [b"max-age=60", b"max-age=60, stale-while-revalidate=600"])
async def test_what_a_cache_asks_anew_goes_where_the_request_went(directives: bytes) -> None:
    clock, seen = FakeClock(), list[tuple[str, str, str | None, dict[str, str]]]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        assert exchange is not None
        seen.append((scope["path"], scope["root_path"], exchange.product, dict(exchange.parameters)))
        lines = [(b"cache-control", directives), (b"etag", b'"one"')]
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body"})

    gateway = Gateway(
        apis=(open_api("shop", "/shop", app, operations=(Operation("GET", "/{id}"),)),),
        products=(Product("free", apis=("shop",), subscription_required=False),),
        policies=(Cache(),),
        env=Env(clock=clock),
    )
    await get(gateway, "/shop/7")
    clock.advance(90)
    await get(gateway, "/shop/7")
    await anyio.wait_all_tasks_blocked()
    assert seen == [("/shop/7", "/shop", "free", {"id": "7"})] * 2


# Apps of apps


@pytest.mark.parametrize("document", [None, {"openapi": "3.1.0", "info": {"title": "a", "version": "1"}, "paths": {}}])
def test_policies_of_operations_nobody_tells_of_are_not_left_out_in_silence(document: Any) -> None:
    app = SubApp("shop", "/shop", backend=Backend(), document=document, operation_policies={"delete": (LOCK,)})
    with pytest.raises(ConfigError, match=r"SubApp shop\.operation_policies: names 'delete'"):
        AppOfApps(Gateway, app)
