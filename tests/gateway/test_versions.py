"""Versions and revisions: how callers say which they want, what they are told of their end, and what is gone."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.houses import Backend, Passes, code, get, told

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.gateway import Gateway
from apim_middleware.gateway._sites import revision_in
from apim_middleware.model import Api, Deprecation, Operation, Revision, Version, Versions
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.limits import RateLimit
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def versioned(versions: Versions, **more: object) -> Gateway:
    return Gateway(
        apis=(Api("shop", "/shop", versions=versions, subscription_required=False, **{"backend": Backend(), **more}),)  # type: ignore[arg-type]
    )


V1, V2 = Version("v1", backend=Backend("one")), Version("v2", backend=Backend("two"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/shop/v1/x", "one"),
        ("/shop/v2", "two"),
        ("/shop/v2/v1", "two"),
        ("/shop/x", "api-version-missing"),
        ("/shop", "api-version-missing"),
        ("/shop/v3/x", "api-version-missing"),
        ("/shop/V1/x", "api-version-missing"),
    ],
)
async def test_a_version_in_the_path(path: str, name: str) -> None:
    answer = await get(versioned(Versions("path", (V1, V2))), path)
    if answer.status == 200:
        assert told(answer)["name"] == name
        assert told(answer)["root_path"] == path[:8]
    else:
        assert (answer.status, code(answer)) == (404, name)


async def test_a_default_version_has_the_plain_path() -> None:
    app = versioned(Versions("path", (V1, V2), default="v1"))
    assert told(await get(app, "/shop/x"))["name"] == "one"
    assert told(await get(app, "/shop/x"))["root_path"] == "/shop"
    assert told(await get(app, "/shop/v2/x"))["name"] == "two"


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ([b"v1"], "one"),
        ([b" v2 "], "two"),
        ([b"v2", b"v2"], "two"),
        ([b"v1", b"v2"], "api-version-ambiguous"),
        ([b"v3"], "api-version-unknown"),
        ([b"\xff"], "api-version-unknown"),
        ([], "api-version-missing"),
    ],
)
async def test_a_version_in_a_header(values: list[bytes], outcome: str) -> None:
    app = versioned(Versions("header", (V1, V2), parameter="X-Version"))
    answer = await get(app, "/shop/x", [(b"x-version", value) for value in values])
    assert (told(answer)["name"] if answer.status == 200 else code(answer)) == outcome
    assert answer.status in (200, 404, 400 if outcome.endswith("ambiguous") else 404)
    assert (answer.status == 400) == outcome.endswith("ambiguous")


@pytest.mark.parametrize(
    ("query", "outcome"),
    [
        (b"api-version=v1", "one"),
        (b"a=1&api%2dversion=v2", "two"),
        (b"api-version=v1&api-version=v2", "api-version-ambiguous"),
        (b"api-version=", "api-version-unknown"),
        (b"a=1", "api-version-missing"),
    ],
)
async def test_a_version_in_the_query(query: bytes, outcome: str) -> None:
    answer = await call(versioned(Versions("query", (V1, V2))), "GET", "/shop/x", query=query)
    assert (told(answer)["name"] if answer.status == 200 else code(answer)) == outcome


async def test_versions_in_a_header_are_told_to_caches() -> None:
    app = versioned(Versions("header", (V1, V2), parameter="X-Version"))
    assert (await get(app, "/shop", [(b"x-version", b"v1")])).all(b"vary") == [b"x-version"]


async def test_a_cache_in_front_of_versions_keeps_them_apart() -> None:
    async def dated(scope: Scope, receive: Receive, send: Send) -> None:
        version = dict(scope["headers"])[b"x-version"]
        headers = [(b"cache-control", b"max-age=60"), (b"x-made-for", version)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": version})

    api = Api(
        "shop", "/shop", backend=dated, policies=(Cache(),), subscription_required=False,
        versions=Versions("header", (Version("v1"), Version("v2")), parameter="x-version"),
    )  # fmt: skip
    app = Gateway(apis=(api,), env=Env(clock=FakeClock()))
    for version in (b"v1", b"v2", b"v1", b"v2"):
        assert (await get(app, "/shop", [(b"x-version", version)])).body == version


async def test_a_limit_of_the_api_is_one_for_all_versions_and_one_of_a_version_is_its_own() -> None:
    version = Version("v2", policies=(RateLimit(calls=1, per=60, name="v2"),))
    app = versioned(Versions("path", (V1, version)), policies=(RateLimit(calls=3, per=60),))
    statuses = [(await get(app, f"/shop/{name}")).status for name in ("v2", "v2", "v1", "v1")]
    assert statuses == [200, 429, 200, 429]


async def test_versions_have_operations_of_their_own() -> None:
    app = versioned(
        Versions("path", (Version("v1"), Version("v2", operations=(Operation("GET", "/new"),)))),
        operations=(Operation("GET", "/old"),),
    )
    statuses = [(await get(app, path)).status for path in ("/shop/v1/old", "/shop/v1/new", "/shop/v2/new")]
    assert statuses == [200, 404, 200]


# Deprecation, and what is gone


async def test_deprecation_is_told_on_every_response_of_the_version() -> None:
    ending = Deprecation(
        since=SINCE,
        sunset=datetime(2026, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=1))),
        link="https://shop.example/deprecated",
        successor="/shop/v2",
    )
    version = Version("v1", deprecation=ending, policies=(RateLimit(calls=1, per=60),))
    app = versioned(Versions("path", (version, V2)))
    for status in (200, 429):
        answer = await get(app, "/shop/v1")
        assert answer.status == status
        assert answer.header(b"deprecation") == b"@1767225600"
        assert answer.header(b"sunset") == b"Thu, 31 Dec 2026 22:59:59 GMT"
        assert answer.header(b"link") == (
            b'<https://shop.example/deprecated>; rel="deprecation", </shop/v2>; rel="successor-version"'
        )
    assert (await get(app, "/shop/v2")).header(b"deprecation") is None


async def test_one_operation_may_be_deprecated() -> None:
    operations = (Operation("GET", "/old", deprecation=Deprecation(since=SINCE)), Operation("GET", "/new"))
    app = Gateway(apis=(Api("s", "/s", backend=Backend(), operations=operations, subscription_required=False),))
    old = await get(app, "/s/old")
    assert (old.header(b"deprecation"), old.header(b"link"), old.header(b"sunset")) == (b"@1767225600", None, None)
    assert (await get(app, "/s/new")).header(b"deprecation") is None


async def test_a_retired_version_is_gone_and_says_where_to_go() -> None:
    ending = Deprecation(since=SINCE, successor="/shop/v2")
    app = versioned(Versions("path", (Version("v1", retired=True, deprecation=ending), V2)))
    answer = await get(app, "/shop/v1/anything", method="DELETE")
    assert (answer.status, code(answer)) == (410, "version-retired")
    assert answer.header(b"link") == b'</shop/v2>; rel="successor-version"'


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"since": datetime(2026, 1, 1)}, r"Deprecation\.since: .* has no time zone"),  # noqa: DTZ001
        ({"since": SINCE, "sunset": SINCE - timedelta(1)}, r"Deprecation\.sunset: .* is before the deprecation"),
        ({"since": SINCE, "link": "a> b"}, r"Deprecation\.link: .* cannot stand in a Link field"),
    ],
)
def test_a_deprecation_that_cannot_be_told_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Deprecation(**fields)  # type: ignore[arg-type]


# Revisions

REVISED = Api(
    "shop",
    "/shop",
    backend=Backend("one"),
    revisions=(
        Revision(1),
        Revision(2, backend=Backend("two"), operations=(Operation("GET", "/new"),), policies=(Passes("new"),)),
        Revision(3, backend=Backend("three"), online=False),
    ),
    subscription_required=False,
    policies=(Passes("old"),),
)


async def name_at(api: Api, path: str) -> str:
    answer = await get(Gateway(apis=(api,)), path)
    return str(told(answer)["name"]) if answer.status == 200 else code(answer)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/shop/new", "one"),
        ("/shop;rev=1/new", "one"),
        ("/shop;rev=2/new", "two"),
        ("/shop;rev=2/old", "operation-not-found"),
        ("/shop;rev=3/new", "operation-not-found"),
        ("/shop;rev=4/new", "operation-not-found"),
        ("/shop;rev=02/new", "operation-not-found"),
        ("/shop;rev=/new", "operation-not-found"),
        ("/shop;rev=2;rev=1/new", "operation-not-found"),
        ("/shop;x=1/new", "operation-not-found"),
    ],
)
async def test_a_revision_is_named_behind_the_path(path: str, name: str) -> None:
    assert await name_at(REVISED, path) == name


async def test_a_revision_has_its_own_policies() -> None:
    app = Gateway(apis=(REVISED,))
    assert told(await get(app, "/shop/x"))["passed"] == ["old"]
    assert told(await get(app, "/shop;rev=2/new"))["passed"] == ["new"]


async def test_a_revision_is_promoted_and_rolled_back() -> None:
    promoted = REVISED.promote(2)
    assert await name_at(promoted, "/shop/new") == "two"
    assert await name_at(promoted, "/shop;rev=1/new") == "one"
    assert promoted.promote(1) == REVISED
    assert await name_at(REVISED.promote(3), "/shop/new") == "three"
    with pytest.raises(ConfigError, match=r"Api\.revision: 9 is none of the revisions\. Give one of \[1, 2, 3\]"):
        REVISED.promote(9)


async def test_versions_have_revisions_of_their_own() -> None:
    two = Version("v2", revisions=(Revision(1), Revision(2, backend=Backend("two"))))
    api = Api("shop", "/shop", backend=Backend("one"), versions=Versions("path", (Version("v1"), two)),
              subscription_required=False)  # fmt: skip
    assert await name_at(api, "/shop/v2/x") == "one"
    assert await name_at(api, "/shop/v2;rev=2/x") == "two"
    assert await name_at(api.promote(2, version="v2"), "/shop/v2/x") == "two"
    assert await name_at(api, "/shop/v1;rev=1/x") == "one"
    assert await name_at(api, "/shop/v1;rev=2/x") == "operation-not-found"
    with pytest.raises(ConfigError, match=r"Api\.versions: .* has no 'v9'"):
        api.promote(2, version="v9")


async def test_an_api_at_the_root_has_revisions_too() -> None:
    api = Api("root", "/", backend=Backend("one"), revisions=(Revision(1), Revision(2, backend=Backend("two"))),
              subscription_required=False)  # fmt: skip
    assert await name_at(api, "/x") == "one"
    assert await name_at(api, "/;rev=2/x") == "two"


async def test_a_limit_is_one_for_the_revisions_that_share_it() -> None:
    api = Api("s", "/s", backend=Backend(), policies=(RateLimit(calls=2, per=60),), subscription_required=False,
              revisions=(Revision(1), Revision(2, backend=Backend())))  # fmt: skip
    app = Gateway(apis=(api,))
    statuses = [(await get(app, path)).status for path in ("/s", "/s;rev=2", "/s", "/s;rev=2")]
    assert statuses == [200, 200, 429, 429]


@given(st.text(max_size=20))
def test_what_is_no_mark_of_a_revision_stays_as_it_is(segment: str) -> None:
    text, number = revision_in(segment)
    assert segment == (f"{text};rev={number}" if number else text)


# Mistakes


def test_versions_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Versions\.versions: .*holds 'v1' twice"):
        Versions("path", (V1, V1))
    with pytest.raises(ConfigError, match=r"Versions\.default: 'v3' is none of the versions"):
        Versions("path", (V1,), default="v3")
    with pytest.raises(ConfigError, match=r"Versions\.versions: .*holds none"):
        Versions("path", ())
    with pytest.raises(ConfigError, match=r"Api b\.path: '/shop/v1' is where the API shop begins already"):
        Gateway(
            apis=(
                Api("shop", "/shop", backend=Backend(), versions=Versions("path", (V1,)), subscription_required=False),
                Api("b", "/shop/v1", backend=Backend(), subscription_required=False),
            )
        )
    with pytest.raises(ConfigError, match=r"Api\.revisions: .* are given beside versions"):
        Api("s", versions=Versions("path", (V1,)), revisions=(Revision(1),))
