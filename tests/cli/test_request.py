"""``apim request``: what each policy did, of whatever app it is, and no credential."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.apps import KEY
from typer.testing import CliRunner

from apim_middleware.cli.app import app

APPS = "tests.cli.apps"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setenv("COLUMNS", "200")


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["request", *arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def asked(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed(*arguments, "--json"))
    return found


def names(found: dict[str, Any]) -> list[str]:
    return [step["policy"] for step in found["policies"]]


# What is shown of secrets


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_no_secret_is_shown(form: tuple[str, ...]) -> None:
    said = printed(f"{APPS}:secretive", "GET", "/orders/7?a=1", *form)
    assert "s3cret" not in said
    assert said.count("REDACTED") >= 4


def test_what_was_changed_is_told_though_its_value_is_not() -> None:
    found = asked(f"{APPS}:secretive", "GET", "/orders/7")
    assert [step["request"] for step in found["policies"]] == [
        ["x-partner header: REDACTED"],
        ["x-plan header: gold"],
        ["query: REDACTED"],
        ["x-ticket header: REDACTED"],
    ]


def test_response_headers_are_shown_but_for_their_credentials() -> None:
    headers = dict(asked(f"{APPS}:secretive", "GET", "/orders/7")["headers"])
    assert (headers["set-cookie"], headers["x-plan"]) == ("REDACTED", "gold")


# Who looks at the key of a gateway


def test_the_check_of_a_key_has_its_row_when_it_lets_in() -> None:
    found = asked(f"{APPS}:entered", "GET", "/orders/7", "-H", f"Ocp-Apim-Subscription-Key: {KEY}")
    assert (found["status"], names(found)) == (200, ["APIKeyAuth"])
    assert found["policies"][0]["request"] == ["subscription: demo"]
    assert KEY not in str(found)


# Apps that are not well


@pytest.mark.parametrize(
    ("path", "told"), [("/failing", "the app raised RuntimeError: out of ("), ("/silent", "the app gave no answer")]
)
def test_what_went_wrong_is_one_line_below_the_table(path: str, told: str) -> None:
    """It was a traceback in the place of the table."""
    result = CliRunner().invoke(app, ["request", f"{APPS}:unwell", "GET", path])
    assert result.exit_code == 1
    assert "x-tried header: 1" in result.stdout
    assert result.stderr.startswith(told)
    assert len(result.stderr.splitlines()) == 1


def test_json_of_what_went_wrong_is_json() -> None:
    result = CliRunner().invoke(app, ["request", f"{APPS}:unwell", "GET", "/failing", "--json"])
    assert json.loads(result.stdout)["policies"][0]["request"] == ["x-tried header: 1"]


def test_a_path_is_decoded_as_a_server_does() -> None:
    assert asked(f"{APPS}:shop", "GET", "/%37")["body"] == '{"order":7}'


# Versions and revisions


@pytest.mark.parametrize(
    ("path", "marks"),
    [("/orders/v1/7", ["version", "operation"]), ("/orders/v1;rev=2/7", ["revision", "anew"])],
)
def test_policies_of_versions_and_revisions_are_seen(path: str, marks: list[str]) -> None:
    """Operations that a version or a revision had of its own had no row, and what they made of secrets was shown."""
    found = asked(f"{APPS}:revised", "GET", path)
    assert [step["response"] for step in found["policies"]] == [[f"x-{mark} header: {mark}"] for mark in marks]


def test_no_secret_of_a_revision_is_shown() -> None:
    assert "s3cret" not in printed(f"{APPS}:revised", "GET", "/orders/v1;rev=3/7")


# Apps of every kind


def test_the_middlewares_of_an_app_are_seen() -> None:
    found = asked(f"{APPS}:middlewares", "GET", "/7", "-H", "Origin: https://a.example")
    assert (found["status"], names(found)) == (200, ["SetHeader", "CORSMiddleware", "IPFilter"])
    assert "access-control-allow-origin header: https://a.example" in found["policies"][1]["response"]


def test_the_app_itself_stays_as_it_was() -> None:
    from tests.cli.apps import middlewares

    before = list(middlewares.user_middleware)
    asked(f"{APPS}:middlewares", "GET", "/7")
    assert middlewares.user_middleware == before


def test_a_guarded_app_shows_the_policies_of_the_route() -> None:
    assert names(asked(f"{APPS}:marked_guarded", "GET", "/7")) == ["IPFilter", "RateLimit"]
    assert names(asked(f"{APPS}:marked_guarded", "GET", "/nowhere/at/all")) == ["IPFilter"]


def test_a_stack_around_an_app_is_seen() -> None:
    found = asked(f"{APPS}:stacked", "GET", "/7")
    assert [(step["policy"], step["response"]) for step in found["policies"]] == [
        ("IPFilter", []),
        ("SetHeader", ["x-a header: 1"]),
    ]


def test_middlewares_around_an_app_are_seen() -> None:
    found = asked(f"{APPS}:wrapped", "GET", "/7", "-H", "Origin: https://a.example")
    assert (found["status"], names(found)) == (200, ["AccessLog", "Tracing", "IPFilter", "CORSMiddleware"])
    assert not any(step["answered"] for step in found["policies"])


def test_who_refused_in_front_of_an_app_is_seen() -> None:
    found = asked(f"{APPS}:middlewares", "GET", "/7", "--client", "192.0.2.1")
    assert (found["status"], names(found)) == (403, ["SetHeader", "CORSMiddleware", "IPFilter"])
    assert found["policies"][-1]["answered"]
