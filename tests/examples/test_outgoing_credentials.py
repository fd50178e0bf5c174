"""The example does what its first lines promise, on real connections."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers import serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "outgoing_credentials.py"


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def client(example: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setenv("GATEWAY_CLIENT_SECRET", example["CLIENT_SECRET"])
    with serving(example["provider"]) as provider, serving(example["upstream"]) as upstream:
        app = example["gateway"](provider.origin, upstream.origin)
        with serving(app) as gateway, httpx.Client(base_url=gateway.origin, trust_env=False) as client:
            yield client


def test_the_gateway_shows_its_own_token_and_the_callers_key_stays(
    client: httpx.Client, example: dict[str, Any]
) -> None:
    key = {"Ocp-Apim-Subscription-Key": example["acme_key"], "Authorization": "Bearer of-the-caller"}
    answers = [client.get("/orders", headers=key) for _ in range(3)]
    assert [answer.json() for answer in answers] == [{"orders": [1, 2, 3], "token_used": 0, "keys_seen": []}] * 3
    assert len(example["issued"]) == 1


def test_a_token_that_was_revoked_is_replaced(client: httpx.Client, example: dict[str, Any]) -> None:
    key = {"Ocp-Apim-Subscription-Key": example["acme_key"]}
    assert client.get("/orders", headers=key).status_code == 200
    example["issued"].clear()
    assert client.get("/orders", headers=key).status_code == 401
    assert client.get("/orders", headers=key).status_code == 200


def test_who_has_no_key_does_not_come_through(client: httpx.Client, example: dict[str, Any]) -> None:
    assert client.get("/orders").status_code == 401
    assert client.get("/orders", headers={"Ocp-Apim-Subscription-Key": "guess"}).status_code == 401
    assert example["issued"] == {}
