"""The FastAPI app guarded in a few lines."""

import runpy
from pathlib import Path

import pytest
from starlette.testclient import TestClient

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "wrap_fastapi.py"))


@pytest.fixture
def client() -> TestClient:
    return TestClient(EXAMPLE["app"])


@pytest.fixture
def key() -> dict[str, str]:
    return {"ocp-apim-subscription-key": EXAMPLE["keys"].issue("demo")}


@pytest.mark.parametrize("path", ["/orders/7", "/docs", "/openapi.json", "/unknown"])
def test_nothing_is_open_without_a_key(client: TestClient, path: str) -> None:
    assert client.get(path).json()["code"] == "subscription-key-missing"


def test_with_a_key_the_app_answers_and_knows_its_caller(client: TestClient, key: dict[str, str]) -> None:
    answer = client.get("/orders/7", headers=key)
    assert answer.json() == {"order": 7, "ordered_by": "demo"}
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_second_answer_comes_from_the_cache(client: TestClient, key: dict[str, str]) -> None:
    statuses = [client.get("/orders/8", headers=key).headers["cache-status"] for _ in range(2)]
    assert statuses[0].endswith("stored")
    assert "hit" in statuses[1]


def test_the_limit_is_told(client: TestClient, key: dict[str, str]) -> None:
    assert client.get("/orders/9", headers=key).headers["ratelimit-policy"] == '"default";q=100;w=60'
