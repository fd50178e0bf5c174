"""The example does what its first lines promise."""

import runpy
from pathlib import Path

import pytest
from starlette.testclient import TestClient

EXAMPLE = Path(__file__).parents[2] / "examples" / "responses.py"


@pytest.fixture
def client() -> TestClient:
    return TestClient(runpy.run_path(str(EXAMPLE))["app"], follow_redirects=False)


def test_the_old_paths_lead_to_the_new_ones(client: TestClient) -> None:
    answer = client.get("/v1/orders?page=2")
    assert (answer.status_code, answer.headers["location"]) == (308, "/orders?page=2")


def test_orders_are_compressed_and_need_not_come_twice(client: TestClient) -> None:
    gzip = {"Accept-Encoding": "gzip"}
    first = client.get("/orders", headers=gzip)
    assert (first.headers["content-encoding"], len(first.json())) == ("gzip", 50)
    again = client.get("/orders", headers={**gzip, "If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.headers["etag"], again.content) == (304, first.headers["etag"], b"")


def test_an_order_sent_twice_is_one_order(client: TestClient) -> None:
    key = {"Idempotency-Key": "8e03978e"}
    answers = [client.post("/orders", json={"item": "tea"}, headers=key).json() for _ in range(2)]
    assert answers == [{"number": 51, "item": "tea"}] * 2
    assert client.post("/orders", json={"item": "coffee"}, headers=key).status_code == 422
    assert client.post("/orders", json={"item": "coffee"}).json()["number"] == 52


def test_orders_have_a_size(client: TestClient) -> None:
    assert client.post("/orders", json={"item": "x" * 10_000}).status_code == 413


def test_what_is_not_there_is_answered_for(client: TestClient) -> None:
    assert client.get("/invoices/7").json() == {"number": 7, "total": "12.00 EUR"}
    assert client.get("/robots.txt").text == "User-agent: *\nDisallow: /\n"
