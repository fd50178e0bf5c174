"""The example does what its first lines promise."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

EXAMPLE = Path(__file__).parents[2] / "examples" / "cached.py"


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def client(example: dict[str, Any]) -> TestClient:
    return TestClient(example["app"])


def test_prices_are_worked_out_once(client: TestClient) -> None:
    first, second = client.get("/shop/prices"), client.get("/shop/prices")
    assert first.json() == second.json()
    assert [each.headers["cache-status"].split(";")[1] for each in (first, second)] == ["fwd=uri-miss", "hit"]


def test_changed_prices_are_seen_at_once(client: TestClient) -> None:
    client.get("/shop/prices")
    client.put("/shop/prices", json={"tea": 5})
    assert client.get("/shop/prices").json()["prices"] == {"tea": 5, "coffee": 4}


def test_each_customer_gets_their_own_orders(client: TestClient, example: dict[str, Any]) -> None:
    acme, globex = ({"Ocp-Apim-Subscription-Key": example[f"{name}_key"]} for name in ("acme", "globex"))
    answers = [client.get("/customers/orders", headers=headers) for headers in (acme, globex, acme, globex)]
    assert [each.json()["orders"] for each in answers] == [["tea"], ["coffee", "coffee"]] * 2
    assert [each.headers["cache-status"].split(";")[1] for each in answers] == ["fwd=uri-miss"] * 2 + ["hit"] * 2


def test_without_a_key_there_are_no_orders(client: TestClient, example: dict[str, Any]) -> None:
    client.get("/customers/orders", headers={"Ocp-Apim-Subscription-Key": example["acme_key"]})
    assert client.get("/customers/orders").status_code == 401


def test_where_a_visitor_comes_from_makes_no_other_page(client: TestClient) -> None:
    first = client.get("/shop/prices?utm_source=news")
    assert client.get("/shop/prices?utm_campaign=spring").json() == first.json()


def test_what_another_url_changes_is_taken_away_by_name(client: TestClient) -> None:
    first = client.get("/shop/prices")
    assert "cache-tag" not in first.headers
    client.post("/deliveries?name=tea")
    assert client.get("/shop/prices").json()["prices"]["tea"] == first.json()["prices"]["tea"] - 1
