"""The example does what its first lines promise."""

import runpy
from pathlib import Path

import pytest
from starlette.testclient import TestClient

EXAMPLE = Path(__file__).parents[2] / "examples" / "rewriting.py"


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(runpy.run_path(str(EXAMPLE))["app"], client=("192.0.2.7", 40000))


def test_the_new_path_reaches_the_old_app(client: TestClient) -> None:
    answer = client.get("/v2/users/7", headers={"x-client": "somebody else"})
    assert answer.json() == {"query": "lang=en&id=7", "client": "192.0.2.7"}


def test_what_is_not_the_callers_to_choose_is_not_chosen(client: TestClient) -> None:
    assert client.get("/v2/users/7?id=1&debug=1&lang=da").json()["query"] == "lang=da&id=7"


def test_what_a_caller_sends_as_an_id_stays_an_id(client: TestClient) -> None:
    assert client.get("/v2/users/7%26lang=xx%23").json()["query"] == "lang=en&id=7%26lang%3Dxx%23"


def test_the_headers_are_the_new_ones(client: TestClient) -> None:
    headers = client.get("/v2/users/7").headers
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("max-age=60", "nosniff")
    assert "x-powered-by" not in headers


def test_something_else_answers_for_the_health(client: TestClient) -> None:
    assert client.get("/v2/health").text == "fine"


@pytest.mark.parametrize("path", ["/people.php?id=7", "/people%2Ephp", "//people.php", "/", "/V2/users/7"])
def test_the_old_face_is_gone(client: TestClient, path: str) -> None:
    assert client.get(f"http://testserver{path}").status_code == 410


@pytest.mark.parametrize("path", ["/v2/people.php", "/v2/users", "/v2/users/7/"])
def test_nothing_else_of_the_old_app_can_be_reached(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
