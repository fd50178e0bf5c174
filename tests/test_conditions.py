"""Conditions judge what the app will route, so that no spelling of a request gets around them."""

import inspect
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware import by, conditions
from apim_middleware._functions import needs
from apim_middleware._http.hygiene import Hygiene
from apim_middleware.conditions import Condition
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange, ResponseHead
from apim_middleware.testing import http_scope, websocket_scope

scrub = Hygiene().compiled()


def holds(condition: Condition, path: str = "/", **more: Any) -> bool:
    """What the condition says of a request with this encoded path, once hygiene has been done."""
    exchange = Exchange(http_scope(path=unquote(path), **{"raw_path": path.encode(), **more}))
    exchange.scrubbed(*scrub(exchange.scope))
    return conditions.holds(condition, exchange)


@pytest.mark.parametrize(
    ("pattern", "path", "held"),
    [
        ("/admin", "/admin", True),
        ("/admin", "/admin/", True),
        ("/admin/", "/admin", True),
        ("/admin", "/admin/users", False),
        ("/admin/*", "/admin", True),
        ("/admin/*", "/admin/", True),
        ("/admin/*", "/admin/users/7", True),
        ("/admin/*", "/administrator", False),
        ("/admin/*", "/", False),
        ("/admin/*", "/x/admin", False),
        ("/admin/*", "//admin//users", True),
        ("/admin/*", "/%61dmin/users", True),
        ("/admin/*", "/%2561dmin/users", False),
        ("/admin/*", "/ADMIN/users", False),
        ("/admin/*", "/%EF%BD%81dmin/users", False),
        ("/admin/*", "/admin;x=1/users", False),
        ("/café/*", "/caf%C3%A9/au%20lait", True),
        ("/", "/", True),
        ("/", "/x", False),
        ("/*", "/", True),
        ("/*", "/x/y", True),
    ],
)
def test_path(pattern: str, path: str, held: bool):
    assert holds(conditions.path(pattern), path) is held


def test_one_of_several_paths_is_enough():
    condition = conditions.path("/health", "/docs/*")
    assert [holds(condition, path) for path in ("/health", "/docs/x", "/health/x", "/x")] == [True, True, False, False]


@given(st.text(st.sampled_from("/.;%2FfaAdmin5C\\"), max_size=12))
def test_whatever_is_sent_a_path_the_app_takes_for_the_guarded_one_is_found(sent: str):
    """The app compares what hygiene leaves in the scope; the condition may not say no where that begins with /admin."""
    exchange = Exchange(http_scope(path=unquote(f"/{sent}", errors="replace"), raw_path=f"/{sent}".encode()))
    try:
        exchange.scrubbed(*scrub(exchange.scope))
    except Refusal:
        return
    routed = [segment for segment in exchange.path.split("/") if segment]
    assert conditions.holds(conditions.path("/admin/*"), exchange) is (routed[:1] == ["admin"])


@pytest.mark.parametrize(
    ("path", "root", "held"),
    [
        ("/api/admin/x", "/api", True),
        ("/api/admin", "/api", True),
        ("/api", "/api", False),
        ("/apix/admin", "/api", False),
        ("/admin", "/api", True),
        ("/admin/admin", "/admin", True),
        ("/admin/x", "/admin", False),
    ],
)
def test_below_a_mount_a_path_is_what_the_mounted_app_routes(path: str, root: str, held: bool):
    assert holds(conditions.path("/admin/*"), path, root_path=root) is held


def test_the_root_of_a_mounted_app_is_its_root():
    assert holds(conditions.path("/"), "/api", root_path="/api")
    assert holds(conditions.path("/*"), "/api", root_path="/api")


def test_method():
    condition = conditions.method("POST", "put")
    assert [holds(condition, method=each) for each in ("POST", "PUT", "GET", "HEAD")] == [True, True, False, False]


def test_head_goes_where_get_goes_and_so_does_a_handshake():
    condition = conditions.method("GET")
    assert [holds(condition, method=each) for each in ("GET", "HEAD", "POST")] == [True, True, False]
    assert conditions.holds(condition, Exchange(websocket_scope()))


@pytest.mark.parametrize(
    ("lines", "there", "on"),
    [
        ([], False, False),
        ([(b"x-beta", b"")], True, False),
        ([(b"x-beta", b"on")], True, True),
        ([(b"X-Beta", b"on")], True, True),
        ([(b"x-beta", b"off"), (b"x-beta", b"on")], True, True),
        ([(b"x-beta", b"ON")], True, False),
    ],
)
def test_header(lines: list[tuple[bytes, bytes]], there: bool, on: bool):
    assert holds(conditions.header("X-Beta"), headers=lines) is there
    assert holds(conditions.header("X-Beta", "on"), headers=lines) is on


def test_is_websocket():
    assert conditions.is_websocket(Exchange(websocket_scope()))
    assert not conditions.is_websocket(Exchange(http_scope()))


def yes(exchange: Exchange) -> bool:
    return True


def no(exchange: Exchange) -> bool:
    return False


def fails(exchange: Exchange) -> bool:
    raise LookupError


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        (conditions.not_(no), True),
        (conditions.not_(yes), False),
        (conditions.all_of(yes, yes), True),
        (conditions.all_of(yes, no, fails), False),
        (conditions.any_of(no, no), False),
        (conditions.any_of(no, yes, fails), True),
        (conditions.all_of(conditions.not_(no), conditions.any_of(no, yes)), True),
        (conditions.any_of(by.client), True),
        (conditions.not_(by.principal), True),
    ],
)
def test_conditions_join(condition: Condition, held: bool):
    assert holds(condition) is held


class Promise:
    """What an async function gives: nothing yet, but it counts as true."""

    def __await__(self) -> Any:
        yield


@pytest.mark.parametrize("join", [conditions.not_, conditions.all_of, conditions.any_of, lambda condition: condition])
def test_a_promise_is_not_taken_for_an_answer(join: Callable[..., Condition]):
    with pytest.raises(TypeError, match="async def"):
        holds(join(lambda exchange: Promise()))


def test_joined_conditions_need_what_each_of_them_needs():
    condition = conditions.all_of(yes, conditions.not_(by.principal), by.subscription)
    assert needs(condition) == {"principal", "subscription"}


def test_a_condition_reads_as_it_was_written():
    condition = conditions.not_(conditions.any_of(conditions.path("/a", "/b/*"), conditions.method("POST")))
    assert condition.__name__ == "not_(any_of(path('/a', '/b/*'), method('POST')))"


async def awaited(exchange: Exchange) -> bool:
    return True


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conditions.path(), "path: .* is not text"),
        (lambda: conditions.path(3), "path: .* is not text"),
        (lambda: conditions.path("admin"), "does not begin with a slash"),
        (lambda: conditions.path("/admin", "*"), "does not begin with a slash"),
        (lambda: conditions.path("/admin*"), "star elsewhere"),
        (lambda: conditions.path("/*/admin"), "star elsewhere"),
        (lambda: conditions.path("/a//b"), "two slashes"),
        (lambda: conditions.path("/a/../b"), "dot segment"),
        (lambda: conditions.path("/%61dmin"), "percent-escape"),
        (lambda: conditions.path("/a?b"), "more than a path"),
        (lambda: conditions.path("/a#b"), "more than a path"),
        (lambda: conditions.path("/a\x00"), "control character"),
        (lambda: conditions.path("/a\ud800"), "UTF-8"),
        (lambda: conditions.method(), "method: .* is not text"),
        (lambda: conditions.method("GET POST"), "names no method"),
        (lambda: conditions.method("gét"), "names no method"),
        (lambda: conditions.header("x y"), "header: .* cannot be met"),
        (lambda: conditions.header("x", "a\n"), "header: .* cannot be met"),
        (lambda: conditions.header("x", 1), "header: .* is not text"),
        (lambda: conditions.header("X-Forwarded-Proto", "http"), "header: .* sets aside for TrustedProxies"),
        (lambda: conditions.not_(True), "not_: .* no plain conditions"),
        (lambda: conditions.not_(awaited), "not_: .* no plain conditions"),
        (lambda: conditions.all_of(), "all_of: .* no plain conditions"),
        (lambda: conditions.any_of(yes, awaited), "any_of: .* no plain conditions"),
    ],
)
def test_a_condition_that_cannot_work_is_found_while_building(make: Callable[[], Condition], message: str):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("wanted", "status", "holds"),
    [
        ((404,), 404, True),
        ((404,), 403, False),
        (("404",), 404, True),
        (("4xx",), 499, True),
        (("4XX",), 400, True),
        (("4xx",), 500, False),
        ((200, "5xx"), 503, True),
        (("500-504",), 504, True),
        (("500-504",), 505, False),
        (("500-504", 429), 429, True),
        ((200, "5xx"), None, False),
    ],
)
def test_a_status_is_one_of_those_wanted(wanted: tuple[int | str, ...], status: int | None, holds: bool) -> None:
    assert conditions.status(*wanted)(answered(status)) is holds


@pytest.mark.parametrize(
    ("status", "error", "succeeded", "failed"),
    [
        (200, None, True, False),
        (101, None, True, False),
        (304, None, True, False),
        (400, None, False, True),
        (500, None, False, True),
        (None, None, False, True),
        (None, LookupError(), False, True),
        (200, OSError("gone"), True, True),  # its status says one thing, its end another: neither is free
    ],
)
def test_success_is_told_by_the_status_and_failure_also_by_the_end(
    status: int | None, error: BaseException | None, succeeded: bool, failed: bool
) -> None:
    exchange = answered(status, error)
    assert (conditions.succeeded(exchange), conditions.failed(exchange)) == (succeeded, failed)


@pytest.mark.parametrize(("status", "failed"), [(200, True), (101, False)])
def test_a_response_whose_end_was_never_sent_has_failed_but_a_websocket_may_end_like_that(
    status: int, failed: bool
) -> None:
    exchange = answered(status)
    exchange.completed = False
    assert (conditions.succeeded(exchange), conditions.failed(exchange)) == (True, failed)


def test_a_response_that_was_replaced_further_out_has_not_failed() -> None:
    exchange = answered(200)
    exchange.completed, exchange.refusal = False, Refusal(304, "not-modified")
    assert not conditions.failed(exchange)


@pytest.mark.parametrize(
    "wanted", [(), (99,), (600,), ("6xx",), ("40x",), ("",), (None,), (True,), ("504-500",), ("500-5xx",)]
)
def test_what_is_no_status_is_a_mistake(wanted: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match="names no statuses"):
        conditions.status(*wanted)


def answered(status: int | None, error: BaseException | None = None) -> Exchange:
    exchange = Exchange(http_scope())
    if status is not None:
        exchange.response = ResponseHead(status, ())
        exchange.completed = error is None
    if error is not None:
        exchange.error = error
    return exchange


@pytest.mark.parametrize(
    ("refusal", "status", "held"),
    [
        (Refusal(401, "token-invalid"), 401, True),
        (Refusal(401, "credentials-invalid"), None, True),
        (Refusal(401, "credentials-missing"), 401, False),
        (Refusal(401, "authentication-required"), 401, False),
        (Refusal(403, "forbidden"), 403, False),
        (Refusal(429, "rate-limit-exceeded"), 429, False),
        (None, 401, True),
        (None, 403, False),
        (None, 200, False),
        (None, None, False),
    ],
)
def test_authentication_has_failed_when_credentials_came_and_were_no_good(
    refusal: Refusal | None, status: int | None, held: bool
) -> None:
    exchange = Exchange(http_scope())
    if refusal is not None:
        exchange.refusal = refusal
    if status is not None:
        exchange.response = ResponseHead(status, [])
    assert conditions.authentication_failed(exchange) == held


def test_authentication_has_failed_though_another_of_several_ways_has_let_in() -> None:
    exchange = answered(200)
    exchange.shared.rejected = True
    assert conditions.authentication_failed(exchange)


def test_completion_offers_conditions_alone() -> None:
    assert dir(conditions) == sorted(conditions.__all__)


def test_whatever_makes_a_condition_or_is_one_is_offered() -> None:
    """``holds`` asks one, and is none."""
    made_here = [each for each in vars(conditions).values() if inspect.isfunction(each)]
    public = {each.__name__ for each in made_here if each.__module__ == conditions.__name__ and each.__name__[0] != "_"}
    assert public - {"holds"} == set(conditions.__all__) - {"Condition", "PlainCondition"}
