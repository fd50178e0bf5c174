"""The example does what its first lines promise."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

EXAMPLE = Path(__file__).parents[2] / "examples" / "rate_limits.py"


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def client(example: dict[str, Any]) -> TestClient:
    return TestClient(example["app"])


@pytest.fixture
def acme(example: dict[str, Any]) -> dict[str, str]:
    return {"Ocp-Apim-Subscription-Key": example["acme_key"]}


def test_a_caller_sees_where_they_stand_in_each_limit(client: TestClient, acme: dict[str, str]) -> None:
    answer = client.get("/orders/7", headers=acme)
    assert answer.json() == {"order": 7}
    left = dict(member.split(";")[:2] for member in answer.headers["ratelimit"].split(", "))
    assert left == {
        '"flood"': "r=19", '"guessing"': "r=4", '"burst"': "r=9", '"bytes"': "r=999999", '"quota"': "r=999",
    }  # fmt: skip


def test_reports_cost_more_and_the_limit_that_refuses_says_how_long(client: TestClient, acme: dict[str, str]) -> None:
    paths = ["/orders/7", "/reports/2026", "/reports/2026", "/orders/8"]
    answers = [client.get(path, headers=acme) for path in paths]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 120
    assert '"quota";r=997' in answers[3].headers["ratelimit"]  # what one refused, none has counted


def test_another_customer_is_another_count_on_a_larger_plan(
    client: TestClient, acme: dict[str, str], example: dict[str, Any]
) -> None:
    statuses = [client.get("/orders/7", headers=acme).status_code for _ in range(11)]
    assert statuses == [200] * 10 + [429]
    globex = {"Ocp-Apim-Subscription-Key": example["globex_key"]}
    answer = client.get("/orders/7", headers=globex)
    assert (answer.status_code, '"burst";q=100;w=60' in answer.headers["ratelimit-policy"]) == (200, True)


def test_guessing_keys_is_limited_too(client: TestClient) -> None:
    answers = [client.get("/", headers={"Ocp-Apim-Subscription-Key": f"guess-{number}"}) for number in range(9)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 4
