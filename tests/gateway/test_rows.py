"""The plan as data is the plan that requests take."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.houses import Backend, Passes, Subscribers, get, told

from apim_middleware.gateway import Gateway, Row
from apim_middleware.model import Api, Operation, Product, Revision, Version, Versions

pytestmark = pytest.mark.anyio


def names(row: Row) -> list[str]:
    return [guarded.layer.name for guarded in row.layers if isinstance(guarded.layer, Passes)]


def house(flags: tuple[bool, ...], subscribers: Subscribers) -> Gateway:
    g, p, a, v, o, closed = flags
    return Gateway(
        policies=(Passes("global"),) if g else (),
        products=(
            Product("starter", apis=("shop",), policies=(Passes("product"),) if p else (), inherit=not closed),
            Product("free", apis=("news",), policies=(Passes("free"),), subscription_required=False),
        ),
        apis=(
            Api(
                "shop", "/shop", backend=Backend(), policies=(Passes("api"),) if a else (),
                versions=Versions("path", (Version("v1", policies=(Passes("version"),) if v else ()),)),
                operations=(Operation("GET", "/x", policies=(Passes("operation"),) if o else ()),
                            Operation("POST", "/{id}", inherit=o)),
            ),
            Api("news", "/news", backend=Backend(), operations=(Operation("GET", "/"),), hosts=("testserver",)),
        ),
        keys=subscribers.store,
    )  # fmt: skip


@given(st.tuples(*[st.booleans()] * 6))
@settings(max_examples=30)
def test_each_row_says_what_a_request_meets(flags: tuple[bool, ...]) -> None:
    import anyio

    subscribers = Subscribers()
    keys = {"starter": subscribers.add("a", product="starter"), "": subscribers.add("b", api="*"), "free": []}
    app = house(flags, subscribers)
    for row in app.rows():
        path = row.path.replace("{id}", "7")
        answer = anyio.run(lambda p=path, r=row: get(app, p, keys[r.product], r.method))
        assert told(answer)["passed"] == names(row), row
        assert (told(answer)["product"] or "") == row.product


async def test_a_row_says_where_each_layer_is_written() -> None:
    app = house((True, True, True, True, True, False), Subscribers())
    row = next(row for row in app.rows("starter") if row.method == "GET")
    assert row[:10] == ("shop", "v1", 1, True, (), "GET", "/shop/v1/x", "get-x", "starter", True)
    assert [guarded.place for guarded in row.layers] == [
        "gateway",
        "gateway/product/starter",
        "gateway/api/shop",
        "gateway/api/shop/version/v1",
        "gateway/api/shop/version/v1/operation/get-x",
    ]


async def test_rows_can_be_asked_for_by_context() -> None:
    app = house((False,) * 6, Subscribers())
    assert {row.product for row in app.rows()} == {"", "starter", "free"}
    assert {row.api for row in app.rows("free")} == {"news"}
    assert list(app.rows("nobody")) == []
    news = next(row for row in app.rows("free"))
    assert (news.subscription_required, news.hosts, news.path) == (False, ("testserver",), "/news")


async def test_revisions_have_rows() -> None:
    api = Api("s", "/s", backend=Backend(), revisions=(Revision(1), Revision(2)), revision=2,
              subscription_required=False)  # fmt: skip
    assert [(row.revision, row.current) for row in Gateway(apis=(api,)).rows()] == [(2, True), (1, False)]
