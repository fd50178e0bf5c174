"""The values a gateway is made of: written short, shown short, and refused where they make no sense."""

import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from apim_middleware.errors import ConfigError
from apim_middleware.model import (
    Api,
    Deprecation,
    Fragment,
    NamedValue,
    Operation,
    Product,
    Revision,
    User,
    Version,
    Versions,
    definitions,
)

VALUES = [
    Api(
        "orders", "/orders", backend="http://orders", operations=(Operation("GET", "/{id}"),), hosts=("*.example.com",)
    ),
    Operation("WEBSOCKET", "/live", inherit=False),
    Versions("header", (Version("v1", retired=True), Version("v2", revisions=(Revision(1), Revision(2)), revision=2))),
    Product("starter", apis=("*",), subscriptions_limit=3),
    Deprecation(since=datetime(2026, 1, 1, tzinfo=UTC)),
    Fragment("baseline", ()),
    User("ada", groups=("developers",)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_can_be_copied_pickled_and_pasted_back(value: Any) -> None:
    names = {type(each).__name__: type(each) for each in [*VALUES, VALUES[2].versions[0], Revision(1)]}  # type: ignore[union-attr]
    scope = {**names, "datetime": __import__("datetime")}
    for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value)), eval(repr(value), scope)):
        assert other == value
        assert hash(other) == hash(value)


def test_a_value_shows_what_was_said() -> None:
    assert repr(Product("p", apis=("a",))) == "Product('p', apis=('a',))"
    assert repr(Api("a", "/a")) == "Api('a', '/a')"
    assert repr(NamedValue("key", "secret")) == "NamedValue('key')"
    assert repr(NamedValue("key", "known", secret=False)) == "NamedValue('key', secret=False, value='known')"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Api("a b"), r"Api\.name: 'a b' cannot be a name\. Use letters"),
        (lambda: Api("a/b"), r"Api\.name"),
        (lambda: Api(""), r"Api\.name"),
        (lambda: Api("x" * 81), r"Api\.name"),
        (lambda: Api("a", "orders"), r"Api\.path: 'orders' begins no path"),
        (lambda: Api("a", "/{x}"), r"Api\.path: .* is not plain text"),
        (lambda: Api("a", "/x/"), r"Api\.path: .* is not plain text"),
        (lambda: Api("a", "/*"), r"Api\.path: .* is not plain text"),
        (lambda: Api("a", "/x;rev=2"), r"Api\.path: .* is not plain text"),
        (lambda: Api("a", "/x?y=1"), r"Api\.path: .* is not plain text"),
        (lambda: Api("a", hosts=("A.example",)), r"Api\.hosts: .*holds 'A\.example', which is no host"),
        (lambda: Api("a", hosts=("a.example:80",)), r"Api\.hosts"),
        (lambda: Api("a", hosts=("a.*",)), r"Api\.hosts"),
        (lambda: Api("a", revision=0), r"Api\.revision: 0 is no revision"),
        (lambda: Api("a", revisions=(Revision(1), Revision(1))), r"Api\.revisions: .*holds '1' twice"),
        (lambda: Revision(1_000_000), r"Revision\.number: 1000000 is no revision"),
        (lambda: Operation("get", "/"), r"Operation\.method: 'get' is no method"),
        (lambda: Operation("GET", "x"), r"Operation\.template: 'x' matches no path"),
        (lambda: Operation("GET", "/", name="a b"), r"Operation\.name"),
        (lambda: Revision(0), r"Revision\.number"),
        (lambda: Versions("path", (Version("v1"),), parameter="a b"), r"Versions\.parameter"),
        (lambda: Versions("cookie", (Version("v1"),)), r"Versions\.by"),  # type: ignore[arg-type]
        (lambda: Product("p", apis=("a", "a")), r"Product\.apis: .*holds 'a' twice"),
        (lambda: Product("p", apis=(), subscriptions_limit=0), r"Product\.subscriptions_limit"),
        (
            lambda: Product("p", apis=(), subscription_required=False, approval_required=True),
            r"Product\.approval_required: True needs subscriptions",
        ),
        (lambda: NamedValue("a"), r"NamedValue\.value: has no source, or two"),
        (lambda: NamedValue("a", "secret", provider=lambda: "b"), r"NamedValue\.value: has no source, or two"),
        (lambda: User(""), r"User\.id"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "template", "name"),
    [
        ("GET", "/", "get"),
        ("GET", "/{id}/invoice.{format}", "get-id-invoice-format"),
        ("*", "/*", "any"),
        ("POST", "/search?q={text}", "post-search-q-text"),
        ("GET", "/" + "a" * 90, "get-" + "a" * 76),
        ("GET", "/ä", "get"),
    ],
)
def test_operations_have_names(method: str, template: str, name: str) -> None:
    assert Operation(method, template).name == name


def test_definitions_have_everything_they_take_from_wider_ones() -> None:
    operations = (Operation("GET", "/x"),)
    api = Api(
        "a",
        backend="api",
        operations=operations,
        policies=(print,),  # type: ignore[arg-type]
        versions=Versions(
            "path",
            (
                Version(
                    "v1", backend="v1", revisions=(Revision(1), Revision(2, backend="r2", policies=())), revision=2
                ),
                Version("v2", operations=()),
            ),
        ),
    )
    found = [(each.label, each.backend, each.operations, each.current) for each in definitions(api)]
    assert found == [
        ("a v1", "r2", operations, True),
        ("a v1;rev=1", "v1", operations, False),
        ("a v2", "api", (), True),
    ]
    assert {each.api_policies for each in definitions(api)} == {(print,)}
