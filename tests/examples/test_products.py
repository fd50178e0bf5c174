"""The example does what its first lines promise."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

EXAMPLE = Path(__file__).parents[2] / "examples" / "products.py"


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def client(example: dict[str, Any]) -> TestClient:
    return TestClient(example["gateway"])


def key_of(example: dict[str, Any], product: str) -> dict[str, str]:
    return {"Ocp-Apim-Subscription-Key": example[f"{product}_key"]}


def test_an_open_product_asks_nobody(client: TestClient) -> None:
    answer = client.get("/status")
    assert (answer.status_code, answer.json()) == (200, {"status": "fine"})
    assert answer.headers["x-served-by"] == "gateway"
    assert "r=59" in answer.headers["ratelimit"]


def test_the_orders_need_a_key_of_a_product(client: TestClient, example: dict[str, Any]) -> None:
    assert client.get("/orders/v2").status_code == 401
    starter = client.get("/orders/v2", headers=key_of(example, "starter"))
    assert (starter.json(), "r=4" in starter.headers["ratelimit"]) == ({"orders": [1, 2, 3]}, True)
    unlimited = client.get("/orders/v2/7", headers=key_of(example, "unlimited"))
    assert (unlimited.json(), "ratelimit" in unlimited.headers) == ({"order": 7}, False)


def test_the_limit_of_a_product_is_one_for_both_versions(client: TestClient, example: dict[str, Any]) -> None:
    paths = ["/orders/v1", "/orders/v2", "/orders/v2/7", "/orders/v1", "/orders/v2", "/orders/v2"]
    statuses = [client.get(path, headers=key_of(example, "starter")).status_code for path in paths]
    assert statuses == [200, 200, 200, 200, 200, 429]


def test_an_operation_has_a_limit_of_its_own(client: TestClient, example: dict[str, Any]) -> None:
    statuses = [client.post("/orders/v2", headers=key_of(example, "unlimited")).status_code for _ in range(3)]
    assert statuses == [201, 201, 429]


def test_the_old_version_says_what_comes_after_it(client: TestClient, example: dict[str, Any]) -> None:
    answer = client.get("/orders/v1", headers=key_of(example, "starter"))
    assert answer.headers["deprecation"] == "@1767225600"
    assert answer.headers["link"] == '</orders/v2>; rel="successor-version"'
    assert client.get("/orders/v3").status_code == 404


def test_the_table_shows_what_guards_what(example: dict[str, Any]) -> None:
    lines = example["table"]().splitlines()
    [starter] = [line for line in lines if line.startswith("POST") and " starter " in line]
    assert "RateLimit (gateway/product/starter), Quota (gateway/product/starter)" in starter
    assert starter.endswith("RateLimit (gateway/api/orders/version/v2/operation/post)")
