"""The example does what its first lines promise."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

EXAMPLE = Path(__file__).parents[2] / "examples" / "keys_and_tokens.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def client(example: dict[str, Any]) -> TestClient:
    return TestClient(example["app"])


def test_a_partner_comes_in_by_key(client: TestClient, example: dict[str, Any]) -> None:
    answer = client.get("/partners/whoami", headers={"Ocp-Apim-Subscription-Key": example["acme_key"]})
    assert answer.json() == {"subject": "acme", "issuer": "urn:apim-middleware:subscription", "scopes": []}


def test_a_person_comes_in_by_token(client: TestClient, example: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {example['token']('ada', 'orders.read')}"}
    answer = client.get("/people/whoami", headers=headers)
    assert answer.json() == {"subject": "ada", "issuer": "https://login.example.com/", "scopes": ["orders.read"]}


def test_each_door_has_its_own_key(client: TestClient, example: dict[str, Any]) -> None:
    key = {"Ocp-Apim-Subscription-Key": example["acme_key"]}
    token = {"Authorization": f"Bearer {example['token']('ada', 'orders.read')}"}
    assert client.get("/people/whoami", headers=key).json()["code"] == "token-missing"
    assert client.get("/partners/whoami", headers=token).json()["code"] == "subscription-key-missing"


def test_a_token_without_the_scope_or_past_its_time_is_refused(client: TestClient, example: dict[str, Any]) -> None:
    token = example["token"]
    for text, status in ((token("ada", "orders.write"), 403), (token("ada", "orders.read", -1), 401)):
        assert client.get("/people/whoami", headers={"Authorization": f"Bearer {text}"}).status_code == status


def test_a_suspended_subscription_is_refused_at_once(client: TestClient, example: dict[str, Any]) -> None:
    headers = {"Ocp-Apim-Subscription-Key": example["acme_key"]}
    example["keys"].suspend("acme")
    assert client.get("/partners/whoami", headers=headers).json()["code"] == "subscription-key-invalid"
    example["keys"].resume("acme")
    assert client.get("/partners/whoami", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/partners/nowhere", "/people/nowhere", "/people/docs"])
def test_nothing_behind_the_doors_is_open(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 401
