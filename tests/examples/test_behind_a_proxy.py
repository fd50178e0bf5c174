"""The example does what its first lines promise."""

import runpy
from pathlib import Path

import pytest
from starlette.testclient import TestClient

EXAMPLE = Path(__file__).parents[2] / "examples" / "behind_a_proxy.py"
PROXY, ELSEWHERE = ("127.0.0.1", 40000), ("192.0.2.7", 40000)


@pytest.fixture(scope="module")
def app():
    return runpy.run_path(str(EXAMPLE))["app"]


def test_the_proxy_alone_is_not_let_in(app) -> None:
    assert TestClient(app, client=PROXY).get("/").json()["code"] == "address-not-allowed"


def test_a_client_it_tells_of_is_let_in(app) -> None:
    headers = {"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https", "x-forwarded-host": "api.example.com"}
    answer = TestClient(app, client=PROXY).get("/", headers=headers)
    assert answer.json() == {"address": "192.0.2.7", "url": "https://api.example.com/"}


@pytest.mark.parametrize("chain", ["192.0.2.66", "192.0.2.7, 198.51.100.1"])
def test_a_client_that_is_not_allowed_stays_out(app, chain: str) -> None:
    assert TestClient(app, client=PROXY).get("/", headers={"x-forwarded-for": chain}).status_code == 403


def test_nobody_else_can_tell_of_a_client(app) -> None:
    headers = {"x-forwarded-for": "192.0.2.8", "x-forwarded-host": "evil.example"}
    answer = TestClient(app, client=ELSEWHERE).get("/", headers=headers)
    assert answer.json() == {"address": "192.0.2.7", "url": "http://testserver/"}
