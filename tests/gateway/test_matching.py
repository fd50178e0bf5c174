"""One request means one operation: by host, path, method and query, the most particular first."""

import re
import string
from dataclasses import replace

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.gateway.houses import Backend, code, get, told

from apim_middleware.errors import ConfigError
from apim_middleware.gateway import Gateway
from apim_middleware.model import Api, Operation, Version, Versions
from apim_middleware.policies.cache import Cache
from apim_middleware.testing import call, connect

pytestmark = pytest.mark.anyio


def open_api(*operations: Operation, name: str = "shop", path: str = "/shop", **more: object) -> Api:
    return Api(name, path, operations=operations, subscription_required=False, **{"backend": Backend(), **more})  # type: ignore[arg-type]


def gateway(*operations: Operation, **more: object) -> Gateway:
    return Gateway(apis=(open_api(*operations),), **more)  # type: ignore[arg-type]


async def matched(app: Gateway, method: str, path: str, query: bytes = b"") -> str:
    """The name of the operation a request means, or the code of its refusal."""
    answer = await call(app, method, path, query=query)
    if answer.status != 200:
        return code(answer)
    backend = app.apis[0].backend
    assert isinstance(backend, Backend)
    name: str = backend.seen[-1]["exchange"].match.route.operation
    return name


PRECEDENCE = (
    Operation("GET", "/a/new", name="text"),
    Operation("GET", "/a/new.{ext}", name="more-text"),
    Operation("GET", "/a/{stem}.{ext}", name="mixed"),
    Operation("GET", "/a/{id}", name="parameter"),
    Operation("GET", "/a/*", name="wildcard"),
    Operation("POST", "/a/{id}", name="post"),
    Operation("GET", "/a/{id}/b", name="deep"),
    Operation("GET", "/a/new/c", name="text-deep"),
    Operation("WEBSOCKET", "/live", name="socket"),
    Operation("GET", "/live", name="plain"),
    Operation("*", "/any", name="any"),
    Operation("PUT", "/any", name="put"),
    Operation("GET", "/s?q={text}", name="search"),
    Operation("GET", "/s?q={text}&kind=fast", name="fast"),
    Operation("GET", "/s", name="all"),
    Operation("GET", "/slash/", name="slash"),
    Operation("GET", "/", name="root"),
)


@pytest.mark.parametrize(
    ("method", "path", "query", "name"),
    [
        ("GET", "/shop", b"", "root"),
        ("GET", "/shop/", b"", "root"),
        ("GET", "/shop/a/new", b"", "text"),
        ("GET", "/shop/a/new.png", b"", "more-text"),
        ("GET", "/shop/a/old.png", b"", "mixed"),
        ("GET", "/shop/a/old", b"", "parameter"),
        ("GET", "/shop/a/.png", b"", "parameter"),
        ("GET", "/shop/a/x/y/z", b"", "wildcard"),
        ("GET", "/shop/a/../b", b"", "bad-target"),
        ("GET", "/shop/a", b"", "wildcard"),
        ("GET", "/shop/a/", b"", "wildcard"),
        ("GET", "/shop/a/new/b", b"", "deep"),
        ("GET", "/shop/a/new/c", b"", "text-deep"),
        ("GET", "/shop/a/new/d", b"", "wildcard"),
        ("POST", "/shop/a/new", b"", "post"),
        ("HEAD", "/shop/a/new", b"", "text"),
        ("DELETE", "/shop/a/new", b"", "operation-not-found"),
        ("GET", "/shop/live", b"", "plain"),
        ("DELETE", "/shop/any", b"", "any"),
        ("PUT", "/shop/any", b"", "put"),
        ("GET", "/shop/s", b"q=1", "search"),
        ("GET", "/shop/s", b"%71=1", "search"),
        ("GET", "/shop/s", b"q=1&kind=fast", "fast"),
        ("GET", "/shop/s", b"q=1&kind=slow", "search"),
        ("GET", "/shop/s", b"q=1&q=2", "search"),
        ("GET", "/shop/s", b"", "all"),
        ("GET", "/shop/slash/", b"", "slash"),
        ("GET", "/shop/slash", b"", "operation-not-found"),
        ("GET", "/shopping", b"", "operation-not-found"),
        ("GET", "/", b"", "operation-not-found"),
        ("GET", "/Shop/a/new", b"", "operation-not-found"),
        ("OPTIONS", "*", b"", "operation-not-found"),
    ],
)
async def test_the_most_particular_template_wins(method: str, path: str, query: bytes, name: str) -> None:
    assert await matched(gateway(*PRECEDENCE), method, path, query) == name


@pytest.mark.parametrize(
    "query", [b"kind=fast&kind=slow", b"kind=slow&kind=fast", b"kind=fast&%6Bind=fast", b"kind&kind"]
)
async def test_a_query_that_says_twice_what_is_meant_is_refused(query: bytes) -> None:
    """It was taken for the general operation, while a backend might read the one value that was not looked at."""
    app = gateway(*PRECEDENCE)
    answer = await call(app, "GET", "/shop/s", query=b"q=1&" + query)
    assert (answer.status, code(answer)) == (400, "operation-ambiguous")
    assert (await call(app, "HEAD", "/shop/s", query=b"q=1&" + query)).status == 400
    assert not app.apis[0].backend.seen


@pytest.mark.parametrize("path", ["/shop/a/new", "/shop/any", "/shop/live"])
async def test_where_nothing_is_told_apart_by_it_a_parameter_may_come_twice(path: str) -> None:
    assert (await get(gateway(*PRECEDENCE), path, query=b"kind=fast&kind=slow")).status == 200


async def test_another_method_than_that_which_is_told_apart_is_told_what_there_is() -> None:
    app = gateway(Operation("GET", "/s?kind=fast"), unknown_method=405)
    answer = await call(app, "PUT", "/shop/s", query=b"kind=fast&kind=slow")
    assert (answer.status, answer.header(b"allow")) == (405, b"GET, HEAD")


async def test_a_handshake_is_no_plain_get() -> None:
    backend = Backend()
    app = Gateway(apis=(open_api(*PRECEDENCE, backend=backend),))
    assert (await connect(app, "/shop/live")).status == 101
    assert backend.seen[-1]["exchange"].match.route.operation == "socket"
    assert (await connect(app, "/shop/a/new")).status == 404
    assert (await connect(app, "/shop/any")).status == 101


async def test_what_parameters_stand_for_is_told_decoded() -> None:
    app = gateway(Operation("GET", "/{a}/x.{b}-{c}/{*rest}"), Operation("GET", "/s?q={text}"))
    answer = await call(app, "GET", "/shop/ä b/x.1-2-3/y/z", raw_path=b"/shop/%C3%A4%20b/x.1-2-3/y/z")
    assert told(answer)["parameters"] == {"a": "ä b", "b": "1", "c": "2-3", "rest": "y/z"}
    assert told(await get(app, "/shop/s", query=b"q=a+b"))["parameters"] == {"text": "a b"}


async def test_a_parameter_that_a_policy_took_away_is_left_out() -> None:
    """Whoever asked for parameters then failed with an IndexError: a 500."""
    app = gateway(Operation("GET", "/{id}?q={text}", policies=(Cache(without_query=("q",)),)))
    assert told(await get(app, "/shop/7", query=b"q=a"))["parameters"] == {"id": "7"}


async def test_an_api_without_operations_passes_everything() -> None:
    app = gateway()
    for method, path in (("GET", "/shop"), ("PATCH", "/shop/x/y"), ("OPTIONS", "/shop/")):
        assert await matched(app, method, path) == "any"
    assert (await connect(app, "/shop/live")).status == 101


async def test_other_methods_are_told_when_that_is_asked_for() -> None:
    app = gateway(Operation("GET", "/{id}"), Operation("POST", "/new"), unknown_method=405)
    answer = await call(app, "DELETE", "/shop/new")
    assert (answer.status, code(answer), answer.header(b"allow")) == (405, "method-not-allowed", b"GET, HEAD, POST")
    assert (await call(app, "DELETE", "/shop/a/b")).status == 404


async def test_the_star_of_options_means_no_api() -> None:
    app = Gateway(apis=(open_api(path="/"),))
    assert await matched(app, "OPTIONS", "*") == "operation-not-found"
    assert await matched(app, "OPTIONS", "/") == "any"


# Paths and hosts


async def test_the_longest_path_wins_and_no_other_is_tried() -> None:
    app = Gateway(
        apis=(
            open_api(name="root", path="/", backend=Backend("root")),
            open_api(name="a", path="/a", backend=Backend("a")),
            open_api(Operation("GET", "/only"), name="ab", path="/a/b", backend=Backend("ab")),
        )
    )
    assert told(await get(app, "/x"))["name"] == "root"
    assert told(await get(app, "/a/x"))["name"] == "a"
    assert told(await get(app, "/a/b/only"))["name"] == "ab"
    assert (await get(app, "/a/b/other")).status == 404


async def test_a_named_host_goes_before_one_with_a_star_and_that_before_all() -> None:
    app = Gateway(
        apis=(
            open_api(name="every", backend=Backend("every")),
            open_api(name="star", hosts=("*.example.com",), backend=Backend("star")),
            open_api(name="deep", hosts=("*.a.example.com",), backend=Backend("deep")),
            open_api(name="named", hosts=("api.example.com", "[::1]"), backend=Backend("named")),
        )
    )
    for host, name in (
        (b"api.example.com", "named"),
        (b"API.Example.COM.:8443", "named"),
        (b"[::1]:80", "named"),
        (b"x.example.com", "star"),
        (b"x.y.example.com", "star"),
        (b"x.a.example.com", "deep"),
        (b"example.com", "every"),
        (b"localhost", "every"),
    ):
        assert told(await call(app, "GET", "/shop", headers=[(b"host", host)]))["name"] == name, host


async def test_a_host_without_the_path_leaves_it_to_the_others() -> None:
    app = Gateway(
        apis=(
            open_api(name="every", path="/shared", backend=Backend("every")),
            open_api(name="named", path="/own", hosts=("api.example.com",), backend=Backend("named")),
        )
    )
    host = [(b"host", b"api.example.com")]
    assert told(await call(app, "GET", "/shared", headers=host))["name"] == "every"
    assert told(await call(app, "GET", "/own", headers=host))["name"] == "named"
    assert (await call(app, "GET", "/own")).status == 404


async def test_ten_thousand_hosts_are_not_remembered() -> None:
    app = Gateway(apis=(open_api(), open_api(name="named", path="/own", hosts=("api.example.com",))))
    for number in range(3000):
        await call(app, "GET", "/shop", headers=[(b"host", b"h%d.example" % number)])
    assert 0 < len(app.compiled._sites._remembered) <= 1024


async def test_the_backend_is_mounted_where_the_api_begins() -> None:
    app = gateway(Operation("GET", "/{id}"))
    answer = told(await get(app, "/shop/7"))
    assert (answer["root_path"], answer["path"]) == ("/shop", "/shop/7")
    mounted = told(await get(app, "/outer/shop/7", root_path="/outer"))
    assert (mounted["root_path"], mounted["path"]) == ("/outer/shop", "/outer/shop/7")


async def test_an_app_is_asked_for_its_root_with_a_slash() -> None:
    """Routers of apps redirect otherwise, to a path that the caller did not ask for."""
    backend = Backend()
    app = Gateway(apis=(open_api(Operation("GET", "/"), backend=backend),))
    for path in ("/shop", "/shop/"):
        assert told(await get(app, path))["path"] == "/shop/"
    assert [scope["raw_path"] for scope in backend.seen] == [b"/shop/", b"/shop/"]


async def test_the_match_is_told_to_traces_and_policies() -> None:
    backend = Backend()
    app = Gateway(apis=(open_api(Operation("GET", "/{id}"), backend=backend),))
    await get(app, "/shop/7")
    exchange = backend.seen[-1]["exchange"]
    assert exchange.attributes["http.route"] == "/shop/{id}"
    assert exchange.attributes["apim.api"] == "shop"
    assert exchange.attributes["apim.operation"] == "get-id"
    assert exchange.match.route.template == "/shop/{id}"


# Mistakes


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/{a}", "/{b}"),
        ("/x/{a}.{b}", "/x/{c}.{d}"),
        ("/f/*", "/f/{*rest}"),
        ("/s?a={x}&b=1", "/s?b=1&a={y}"),
        ("/x", "/x"),
    ],
)
def test_templates_nobody_could_choose_between_are_refused(first: str, second: str) -> None:
    with pytest.raises(ConfigError, match=r"Api shop\.operations: .* match the same requests \(GET\)\. Leave one"):
        gateway(Operation("GET", first, name="one"), Operation("GET", second, name="two"))


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ("/me", "/{me}", "get-me"),
        ("/a", "/a/", "get-a"),
        ("/a-b", "/a/b", "get-a-b"),
        (f"/{'x' * 90}/a", f"/{'x' * 90}/b", f"get-{'x' * 76}"),
    ],
)
def test_operations_of_one_name_are_refused(first: str, second: str, name: str) -> None:
    """Their places were one, and so were their limits and caches."""
    told = f"GET {first} and GET {second} are both called '{name}'"
    with pytest.raises(ConfigError, match=re.escape(told)):
        gateway(Operation("GET", first), Operation("GET", second))


def test_operations_of_two_versions_may_have_one_name() -> None:
    operations = Operation("GET", "/x"), Operation("GET", "/y")
    versions = tuple(Version(each.template[1:], operations=(replace(each, name="read"),)) for each in operations)
    assert len(list(Gateway(apis=(open_api(versions=Versions("path", versions)),)).rows(""))) == 2


def test_two_apis_on_one_path_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Api b\.path: '/shop' is where the API a begins already"):
        Gateway(apis=(open_api(name="a"), open_api(name="b")))
    Gateway(apis=(open_api(name="a"), open_api(name="b", hosts=("b.example",))))


def test_an_api_without_a_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Api shop\.backend: is missing\. Write backend="):
        Gateway(apis=(Api("shop", "/shop", subscription_required=False),))
    with pytest.raises(ConfigError, match=r"Api shop\.backend: .*cannot be asked"):
        Gateway(apis=(open_api(backend="ftp://x"),))
    with pytest.raises(ConfigError, match=r"Api shop\.backend: 7 is no app"):
        Gateway(apis=(open_api(backend=7),))


def test_names_are_given_once() -> None:
    with pytest.raises(ConfigError, match=r"Gateway\.apis: .*holds 'shop' twice"):
        Gateway(apis=(open_api(path="/a"), open_api(path="/b")))
    with pytest.raises(ConfigError, match=r"Gateway\.apis: holds none"):
        Gateway(apis=())


# At random: what is found is what a slow look through all templates finds

segment = st.sampled_from(["a", "b", "c", "{x}", "p.{x}", "{x}.q"])
templates = st.lists(
    st.tuples(st.lists(segment, max_size=4), st.booleans()).map(lambda each: [*each[0], *(["*"] if each[1] else [])]),
    min_size=1,
    max_size=12,
)
paths = st.lists(st.sampled_from(["a", "b", "c", "p.1", "1.q", "p.q", ""]), max_size=5)


def renamed(template: list[str]) -> str:
    names = iter(string.ascii_lowercase)
    return "/" + "/".join(each.replace("x", next(names)) if "{x}" in each else each for each in template)


def fits(template: list[str], path: list[str]) -> bool:
    whole = template[:-1] if template[-1:] == ["*"] else template
    if len(path) < len(whole) or (len(path) > len(whole) and whole == template):
        return False
    return all(fits_segment(*pair) for pair in zip(whole, path, strict=False))


def fits_segment(template: str, segment: str) -> bool:
    before, mark, behind = template.partition("{x}")
    if not mark:
        return template == segment
    return len(segment) > len(before + behind) and segment.startswith(before) and segment.endswith(behind)


def rank(template: list[str]) -> list[tuple[int, int, list[str]]]:
    """Smaller is more particular, segment by segment; of mixtures with as much text, in the order of their texts."""
    ranks = []
    for each in template:
        text = each.replace("{x}", "")
        kind = 3 if each == "*" else 0 if "{x}" not in each else 2 if not text else 1
        ranks.append((kind, -len(text), each.split("{x}") if kind == 1 else []))
    return [*ranks, (-1, 0, [])]


@given(templates, paths)
@example([["p.{x}"], ["{x}.q", "*"]], ["p.q"])
def test_it_finds_what_a_slow_search_finds(given_templates: list[list[str]], path: list[str]) -> None:
    unique = {renamed(each): each for each in given_templates}
    app = gateway(*(Operation("GET", text, name=f"o{number}") for number, text in enumerate(unique)))
    edition = app.compiled.entries[0].editions()[0]
    found = edition.operations.find("GET", path, b"")
    fitting = [each for each in unique.values() if fits(each, path)]
    if found is None:
        assert fitting == []
        return
    text = found.operation.template
    assert unique[text] in fitting
    assert rank(unique[text]) == min(map(rank, fitting))


def test_a_wrong_path_costs_no_more_steps_than_there_are_nodes() -> None:
    ways = [[f"{{x{at}}}" if mask >> at & 1 else "a" for at in range(10)] for mask in range(1024)]
    words = [f"/{'/'.join(way)}" for way in ways]
    app = gateway(*(Operation("GET", text, name=f"o{number}") for number, text in enumerate(words)))
    assert anyio.run(matched, app, "GET", "/shop" + "/a" * 10) == "o0"
    assert anyio.run(matched, app, "GET", "/shop" + "/a" * 11) == "operation-not-found"
