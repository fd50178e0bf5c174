"""The example does what its first lines promise."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

EXAMPLE = Path(__file__).parents[2] / "examples" / "described.py"


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def client(example: dict[str, Any]) -> TestClient:
    return TestClient(example["app"], headers={"Ocp-Apim-Subscription-Key": example["starter_key"]})


def test_the_document_says_what_is_there(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    validate(document)
    assert document["info"]["title"] == "The shop"
    assert list(document["paths"]) == ["/shop/v1/orders", "/shop/v1/orders/{id}"]
    assert "orders.internal" not in str(document)


def test_a_product_has_a_document_of_its_own(client: TestClient) -> None:
    starter = client.get("/openapi.json?product=starter").json()
    unlimited = client.get("/openapi.json?product=unlimited").json()
    assert "429" in starter["paths"]["/shop/v1/orders/{id}"]["get"]["responses"]
    assert "429" not in unlimited["paths"]["/shop/v1/orders/{id}"]["get"]["responses"]


def test_what_it_says_is_so(client: TestClient) -> None:
    first = client.get("/shop/v1/orders/7")
    assert (first.json(), "RateLimit" in first.headers) == ({"order": 7, "note": None}, True)
    assert client.get("/shop/v1/orders/7").headers["cache-status"].startswith("apim;hit")
    assert client.post("/shop/v1/orders", content=b"x" * 10_001).json()["code"] == "body-too-large"
    for _ in range(5):
        last = client.get("/shop/v1/orders/8")
    assert last.json()["code"] == "rate-limit-exceeded"


def test_it_tells_what_to_try(
    example: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example["uvicorn"], "run", lambda app, **options: None)
    example["main"]()
    assert "GET    /shop/v1/orders/{id}" in capsys.readouterr().out
