"""The commands of apim: what they print, what they exit with, and that what they serve is served."""

import json
import logging
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anyio import to_thread
from starlette.testclient import TestClient
from tests.certificates import write_certificate
from tests.servers import PATIENCE, free_port, program, redis_server
from typer.testing import CliRunner

from apim_middleware.cli import _key_stores, _serving
from apim_middleware.cli._server_log import mask_server_log
from apim_middleware.cli._targets import found
from apim_middleware.cli._watching import Watched
from apim_middleware.cli.app import app
from apim_middleware.configuration import load, loads
from apim_middleware.env import Env
from apim_middleware.gateway import Gateway
from apim_middleware.identity import Subscription
from apim_middleware.stores.keys import MemoryKeys
from apim_middleware.testing import call

ROOT = Path(__file__).parents[2]
APPS = "tests.cli.apps"
SERVE = (sys.executable, "-c", "from apim_middleware.cli import main; main()", "serve")

FILE = """
[[policies]]
use = "RateLimit"
calls = 2
per = 60
by = "by.client"

[[apis]]
name = "orders"
path = "/orders"
subscription_required = false
backend = { import = "tests.cli.apps:shop" }
"""


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "gateway.toml"
    found.write_text(FILE)
    return found


def apim(*arguments: str, exits: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == exits, (result.output, result.exception)
    return result.output


# Looking


def test_check_finds_nothing_wrong_and_gives_advice(file: Path) -> None:
    said = apim("check", str(file))
    assert "2 routes, no mistakes" in said
    assert "any /orders/* stands open" in said
    assert json.loads(apim("check", str(file), "--json"))["routes"] == 2
    apim("check", str(file), "--strict", exits=1)


OPEN = "any /orders/*"
ADDRESS = "RateLimit goes by the client's address"


def test_check_says_in_its_last_line_how_much_advice_there_is(file: Path) -> None:
    assert apim("check", str(file)).splitlines()[-1] == f"{file}: 2 routes, no mistakes; advice: 2"


def test_advice_that_was_accepted_is_counted_and_fails_nothing(file: Path) -> None:
    """A pipeline with --strict could not be had with a route that is to stand open, or with no proxy in front."""
    said = apim("check", str(file), "--strict", "--accept", f"{OPEN} stands open", "--accept", ADDRESS)
    assert said == f"{file}: 2 routes, no mistakes; accepted: 2\n"


def test_other_advice_than_was_accepted_still_fails(file: Path) -> None:
    assert "- RateLimit goes" in apim("check", str(file), "--strict", "--accept", OPEN, exits=1)


@pytest.mark.parametrize("text", ["any /order", "any /orders/* st", "stands open", "any /orders/*:", ""])
def test_advice_is_accepted_by_the_whole_words_it_begins_with(file: Path, text: str) -> None:
    assert f"- {OPEN} stands open" in apim("check", str(file), "--strict", "--accept", text, exits=1)


def test_an_acceptance_that_accepts_nothing_is_advice_itself(file: Path) -> None:
    """One of what is mended would accept it when it comes back."""
    given = ("--accept", OPEN, "--accept", ADDRESS, "--accept", "GET /gone")
    assert "--accept 'GET /gone' accepts nothing" in apim("check", str(file), "--strict", *given, exits=1)


def test_what_was_accepted_stands_apart_in_json(file: Path) -> None:
    found = json.loads(apim("check", str(file), "--accept", OPEN, "--json"))
    assert [each.partition(":")[0] for each in found["accepted"]] == [f"{OPEN} stands open"]
    assert [each.partition(",")[0] for each in found["advice"]] == [ADDRESS]


def test_what_workers_keep_apart_can_be_accepted(file: Path) -> None:
    given = ("--accept", OPEN, "--accept", ADDRESS, "--accept", "RateLimit: count apart")
    apim("check", str(file), "--strict", "--workers", "2", *given)


def test_check_says_where_a_mistake_is(file: Path) -> None:
    file.write_text(FILE.replace("calls", "cals"))
    assert "gateway.policies[0]" in apim("check", str(file), exits=1)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nowhere:app", "cannot be loaded"),
        (f"{APPS}:missing", "cannot be loaded"),
        (f"{APPS}:nothing", "cannot read the routes of str"),
        ("tests/cli/missing.py:app", "no file"),
        ("gateway.toml", "cannot be read"),
        ("gateway", "names nothing"),
    ],
)
def test_what_is_no_target_is_one_line_and_no_traceback(target: str, told: str) -> None:
    said = apim("check", target, exits=1)
    assert told in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = (", "SyntaxError: '(' was never closed (mistaken.py, line 1)"),
        ("\nraise RuntimeError('two\\nlines')", "RuntimeError: two ("),
        ("import apim_middleware as a\na.IPFilter(allow=('x',))", "IPFilter.allow"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_one_line_with_the_place(tmp_path: Path, text: str, told: str) -> None:
    """What a module raised was a traceback of fifty lines."""
    module = tmp_path / "mistaken.py"
    module.write_text(text)
    said = apim("check", f"{module}:app", exits=1)
    assert told in said
    assert len(said.splitlines()) == 1


def test_a_relative_name_is_no_target() -> None:
    assert "names nothing" in apim("check", ".apps:shop", exits=1)


def test_a_table_has_one_form() -> None:
    assert "do not go together" in apim("routes", f"{APPS}:guarded", "--json", "--html", exits=1)


def test_routes_shows_the_table(file: Path) -> None:
    assert "RateLimit" in apim("routes", str(file))
    assert json.loads(apim("routes", f"{APPS}:guarded", "--json"))[0]["path"] == "/{number}"
    assert apim("routes", "tests/cli/apps.py:guarded", "--html").startswith("<table>")


def test_routes_names_the_policies_within_a_stack() -> None:
    shown = apim("routes", f"{APPS}:middlewares")
    assert "SetHeader, CORSMiddleware, IPFilter" in shown
    assert "Stack" not in shown
    (policies, *_) = (row["policies"] for row in json.loads(apim("routes", f"{APPS}:middlewares", "--json")))
    assert [each.partition("(")[0] for each in policies] == ["SetHeader", "functools.partial", "IPFilter"]


def test_routes_tells_versions_apart() -> None:
    found = json.loads(apim("routes", f"{APPS}:versioned", "--json"))
    assert [row["version"] for row in found] == ["v1", "v2", ""]
    assert "v2" in apim("routes", f"{APPS}:versioned")


def test_the_command_says_its_version() -> None:
    assert apim("--version") == f"apim-middleware {metadata.version('apim-middleware')}\n"


def test_diff_shouts_when_protection_goes() -> None:
    said = apim("diff", f"{APPS}:before", f"{APPS}:after")
    assert "!! * /orders/*: loses IPFilter" in said
    assert "gains SetHeader" in said
    apim("diff", f"{APPS}:before", f"{APPS}:after", "--fail-on-loud", exits=1)
    found = json.loads(apim("diff", f"{APPS}:before", f"{APPS}:after", "--json"))
    assert [change["loud"] for change in found if change["kind"] == "loses"] == [True]
    assert "nothing changes" in apim("diff", f"{APPS}:before", f"{APPS}:before")


def test_diff_compares_gateways_only() -> None:
    assert "no gateway" in apim("diff", f"{APPS}:before", f"{APPS}:guarded", exits=1)


def test_request_shows_what_each_policy_did() -> None:
    found = json.loads(apim("request", f"{APPS}:after", "GET", "/orders/7?a=1", "--json"))
    assert (found["status"], found["body"]) == (200, '{"order":7}')
    limit, header = found["policies"]
    assert (limit["policy"], header["policy"]) == ("RateLimit", "SetHeader")
    assert any(line.startswith("ratelimit header") for line in limit["response"])
    assert header["request"] == ["x-a header: 1"]
    assert limit["took"] > 0


def test_request_shows_who_refused() -> None:
    found = json.loads(apim("request", f"{APPS}:before", "GET", "/orders/7", "--client", "192.0.2.1", "--json"))
    assert found["status"] == 403
    assert [(step["policy"], step["answered"]) for step in found["policies"]] == [("IPFilter", True)]
    assert "answered" in apim("request", f"{APPS}:before", "GET", "/orders/7", "--client", "192.0.2.1")


def test_request_shows_that_the_key_was_missed() -> None:
    found = json.loads(apim("request", f"{APPS}:subscribed", "GET", "/orders/7", "--json"))
    assert (found["status"], [step["policy"] for step in found["policies"]]) == (
        401,
        ["IPFilter", "the gateway itself"],
    )
    assert found["policies"][-1]["response"] == ["code: subscription-key-missing"]


def test_a_gateway_with_keys_does_not_stand_open() -> None:
    assert "stands open" not in apim("check", f"{APPS}:subscribed")
    assert "APIKeyAuth" in apim("routes", f"{APPS}:subscribed")


def test_a_policy_that_became_weaker_is_loud() -> None:
    apim("diff", f"{APPS}:before", f"{APPS}:weaker", "--fail-on-loud", exits=1)
    assert "calls=100 -> calls=500" in apim("diff", f"{APPS}:before", f"{APPS}:weaker")


def test_paths_are_printed_as_they_are() -> None:
    assert "/o/[red]/:smile:/x" in apim("routes", f"{APPS}:odd")


def test_request_refuses_what_is_no_header() -> None:
    assert "is no header" in apim("request", f"{APPS}:before", "GET", "/", "-H", "nonsense", exits=1)


def test_request_says_which_header_cannot_be_sent() -> None:
    said = apim("request", f"{APPS}:before", "GET", "/", "-H", "x-price: 5 €", exits=1)
    assert "'x-price: 5 €' holds characters that no header can" in said


# Keys


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "keys.db")
        return
    with redis_server(tmp_path) as server:
        yield server.url


def test_keys_are_made_rotated_and_revoked(store: str) -> None:
    made = apim("keys", "new", "one", "--product", "starter", "--owner", "ada", "--store", store)
    assert made.startswith("primary: apim_")
    assert "is there already" in apim("keys", "new", "one", "--store", store, exits=1)
    rotated = apim("keys", "rotate", "one", "--store", store)
    assert rotated.startswith("apim_")
    assert rotated.strip() not in made
    apim("keys", "revoke", "one", "--slot", "secondary", "--store", store)
    (row,) = json.loads(apim("keys", "list", "--store", store, "--json"))
    assert (row["subscription"], row["product"], row["owner"], row["state"]) == ("one", "starter", "ada", "active")
    assert "secondary" not in row["keys"]
    apim("keys", "revoke", "one", "--store", store)
    assert json.loads(apim("keys", "list", "--store", store, "--json"))[0]["keys"] == ""
    assert rotated.strip() not in apim("keys", "list", "--store", store)


@pytest.mark.parametrize(("options", "warned"), [((), 1), (("--product", "starter"), 0), (("--api", "*"), 0)])
def test_a_subscription_that_opens_nothing_says_so(tmp_path: Path, options: tuple[str, ...], warned: int) -> None:
    said = apim("keys", "new", "one", *options, "--store", str(tmp_path / "keys.db"))
    assert said.count("it opens no API of a gateway: --product or --api says which") == warned


def test_what_is_not_there_cannot_be_rotated(tmp_path: Path) -> None:
    store = str(tmp_path / "keys.db")
    apim("keys", "new", "two", "--store", store)
    assert "no subscription" in apim("keys", "rotate", "one", "--store", store, exits=1)


@pytest.mark.parametrize("command", [("list",), ("rotate", "one"), ("suspend", "one"), ("remove", "one")])
def test_looking_in_the_wrong_place_makes_no_store_there(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A misspelt file was made, and said to hold no subscriptions."""
    store = tmp_path / "kyes.db"
    assert "is not there. Name the one that has the keys" in apim("keys", *command, "--store", str(store), exits=1)
    assert not store.exists()


def test_a_subscription_that_ends_says_when(tmp_path: Path) -> None:
    store = str(tmp_path / "keys.db")
    apim("keys", "new", "one", "--expires", "2999-12-31", "--store", store)
    (row,) = json.loads(apim("keys", "list", "--store", store, "--json"))
    assert row["expires"] == "2999-12-31T00:00:00+00:00"


def test_a_subscription_of_a_product_may_end_too(tmp_path: Path) -> None:
    asked = ("--product", "starter", "--owner", "ada", "--gateway", f"{APPS}:promising", "--expires", "2999-12-31")
    made = json.loads(apim("keys", "new", "one", *asked, "--store", str(tmp_path / "keys.db"), "--json"))
    assert made["expires"] == "2999-12-31T00:00:00+00:00"


def test_a_subscription_expires_when_that_is_said(tmp_path: Path) -> None:
    store = str(tmp_path / "keys.db")
    apim("keys", "new", "one", "--store", store)
    said = apim("keys", "expire", "one", "--at", "2999-12-31T18:00:00+01:00", "--store", store)
    assert said == "one: expires 2999-12-31T17:00:00+00:00\n"


def test_a_subscription_expires_now_when_no_time_is_said(tmp_path: Path) -> None:
    store = str(tmp_path / "keys.db")
    apim("keys", "new", "one", "--store", store)
    before = datetime.now(UTC)
    told = json.loads(apim("keys", "expire", "one", "--store", store, "--json"))
    assert before <= datetime.fromisoformat(told["expires"]) <= datetime.now(UTC)


@pytest.mark.anyio
async def test_a_moment_too_far_away_is_listed_by_its_seconds(tmp_path: Path) -> None:
    store = str(tmp_path / "keys.db")
    async with _key_stores.opened(store, new=True) as held:
        await held.add(Subscription(id="one"), expires=1e20)
    result = await to_thread.run_sync(CliRunner().invoke, app, ["keys", "list", "--store", store, "--json"])
    assert json.loads(result.output)[0]["expires"] == "1e+20"


def test_a_subscription_that_was_removed_is_forgotten(tmp_path: Path) -> None:
    store = str(tmp_path / "keys.db")
    apim("keys", "new", "one", "--store", store)
    apim("keys", "remove", "one", "--store", store)
    assert json.loads(apim("keys", "list", "--store", store, "--json")) == []


def test_a_new_subscription_keeps_to_what_its_product_promises(store: str) -> None:
    asked = ("--product", "starter", "--owner", "ada", "--gateway", f"{APPS}:promising", "--store", store)
    made = json.loads(apim("keys", "new", "one", *asked, "--json"))
    assert (made["state"], made["product"], made["owner"]) == ("active", "starter", "ada")
    assert made["primary"].startswith("apim_")
    assert made["secondary"] != made["primary"]
    assert "'ada' has 1. Cancel one" in apim("keys", "new", "two", *asked, exits=1)
    assert apim("keys", "cancel", "one", "--store", store) == "one: cancelled\n"
    apim("keys", "new", "two", *asked)


def test_a_new_subscription_waits_for_approval_and_says_so(store: str) -> None:
    asked = ("--product", "gold", "--owner", "ada", "--gateway", f"{APPS}:promising", "--store", store)
    assert "is for partners only" in apim("keys", "new", "one", *asked, exits=1)
    for name in ("one", "two"):
        said = apim("keys", "new", name, *asked, "--group", "partners")
        assert said.startswith("primary: apim_")
        assert f"waits for approval: apim keys approve {name}" in said
    assert json.loads(apim("keys", "approve", "one", "--store", store, "--json"))["state"] == "active"
    assert apim("keys", "reject", "two", "--store", store) == "two: rejected\n"
    assert "waits for no approval: it is rejected" in apim("keys", "approve", "two", "--store", store, exits=1)
    found = json.loads(apim("keys", "list", "--store", store, "--json"))
    assert {row["subscription"]: row["state"] for row in found} == {"one": "active", "two": "rejected"}


def test_a_subscription_is_suspended_and_resumed(tmp_path: Path) -> None:
    store = str(tmp_path / "keys.db")
    apim("keys", "new", "one", "--store", store)
    for verb, state in (("suspend", "suspended"), ("resume", "active")):
        assert json.loads(apim("keys", verb, "one", "--store", store, "--json"))["state"] == state


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--product", "platinum", "--owner", "ada", "--gateway", f"{APPS}:promising"), "there is none of this name"),
        (("--product", "starter", "--gateway", f"{APPS}:promising"), "Give --owner"),
        (("--product", "starter", "--api", "orders"), "do not go together"),
        (("--expires", "soon"), "'soon' is no moment"),
        (("--expires", "2020-01-01"), "2020-01-01 has passed"),
        (("--product", "starter", "--owner", "ada", "--group", "partners"), "Give --gateway too"),
        (("--product", "starter", "--owner", "ada", "--gateway", f"{APPS}:guarded"), "no gateway"),
    ],
)
def test_what_cannot_begin_is_told_and_leaves_nothing(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    store = str(tmp_path / "keys.db")
    apim("keys", "new", "other", "--store", store)
    assert told in apim("keys", "new", "one", *options, "--store", store, exits=1)
    (row,) = json.loads(apim("keys", "list", "--store", store, "--json"))
    assert row["subscription"] == "other"


# Importing


def test_a_document_becomes_a_gateway_file(tmp_path: Path) -> None:
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Orders", "version": "1"},
        "paths": {"/orders/{id}": {"get": {"operationId": "getOrder", "responses": {"200": {"description": "one"}}}}},
    }
    described = tmp_path / "orders.json"
    described.write_text(json.dumps(document))
    options = ("--name", "orders", "--path", "/shop", "--backend", "http://orders")
    file = tmp_path / "gateway.toml"
    file.write_text(apim("import", "openapi", str(described), *options))
    (api,) = load(file, names={"keys": MemoryKeys()}).apis
    assert api.subscription_required
    file.write_text(apim("import", "openapi", str(described), *options, "--open"))
    (operation,) = load(file).apis[0].operations
    assert (operation.method, operation.template, operation.name) == ("GET", "/orders/{id}", "getOrder")


@pytest.mark.parametrize(
    ("options", "template"),
    [((), "/v1/orders"), (("--server-path", ""), "/orders"), (("--server-path", "/api"), "/api/orders")],
)
def test_what_stands_in_front_of_the_paths_of_a_document_can_be_said(
    described: Path, options: tuple[str, ...], template: str
) -> None:
    text = apim("import", "openapi", str(described), "--name", "orders", "--backend", "http://a", "--open", *options)
    (operation,) = loads(text, "toml").apis[0].operations
    assert operation.template == template


@pytest.mark.parametrize("form", ["toml", "yaml", "json"])
def test_a_document_becomes_a_gateway_that_answers_with_its_examples(described: Path, form: Any) -> None:
    options = ("--name", "orders", "--backend", "http://a", "--open", "--mock", "--format", form)
    gateway = loads(apim("import", "openapi", str(described), *options), form)
    with TestClient(gateway) as client:
        assert client.get("/v1/orders").json() == EXAMPLE


EXAMPLE = [{"use": "it", "cost": "${PRICE}", "note": "{{ note }}"}]
"""What means something else where a gateway is written."""


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A document with an example."""
    content = {"application/json": {"example": EXAMPLE}}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Orders", "version": "1"},
        "servers": [{"url": "https://orders.example/v1"}],
        "paths": {"/orders": {"get": {"responses": {"200": {"description": "all", "content": content}}}}},
    }
    file = tmp_path / "orders.json"
    file.write_text(json.dumps(document))
    return file


# Serving


@contextmanager
def served(folder: Path, *arguments: str, scheme: str = "http") -> Iterator[str]:
    """``apim serve`` in a process of its own, once it listens."""
    port = free_port()
    with program([*SERVE, *arguments, "--port", str(port)], port, log=folder / "log"):
        yield f"{scheme}://127.0.0.1:{port}"


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_a_file_is_served(file: Path, tmp_path: Path, server: str) -> None:
    with served(tmp_path, str(file), "--server", server) as url:
        statuses = [httpx2.get(f"{url}/orders/7").status_code for _ in range(3)]
    assert statuses[-1] == 429


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
@pytest.mark.parametrize(("path", "said"), [("/7", None), ("/dated/old", "Sun, 06 Nov 1994 08:49:37 GMT")])
def test_a_response_has_one_date(tmp_path: Path, server: str, path: str, said: str | None) -> None:
    with served(tmp_path, "tests.cli.apps:guarded", "--server", server) as url:
        [date] = httpx2.get(f"{url}{path}").headers.get_list("date")
    assert date == said if said else parsedate_to_datetime(date).year >= 2026


def test_an_app_is_served_by_several_workers_over_tls(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, "localhost")
    options = ("--workers", "2", "--certificate", str(certificate), "--key", str(key))
    with served(tmp_path, "tests.cli.apps:guarded", *options, scheme="https") as url:
        assert httpx2.get(f"{url}/7", verify=_unchecked()).json() == {"order": 7}


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_a_stream_without_end_does_not_keep_a_server_from_ending(tmp_path: Path, server: str) -> None:
    port = free_port()
    options = ("--server", server, "--stop-after", "1", "--port", str(port))
    with (
        program([*SERVE, "tests.cli.apps:guarded", *options], port, log=tmp_path / "log") as running,
        httpx2.stream("GET", f"{running.origin}/forever/stream", timeout=PATIENCE) as stream,
    ):
        chunks = stream.iter_raw()
        assert next(chunks) == b"first"
        os.kill(running.process, signal.SIGTERM)
        with suppress(httpx2.ReadError, httpx2.RemoteProtocolError):  # unlike a timeout
            assert not list(chunks)


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_a_worker_does_not_look_for_garbage_all_the_time(tmp_path: Path, server: str) -> None:
    with served(tmp_path, "tests.cli.apps:guarded", "--server", server) as url:
        *thresholds, frozen = httpx2.get(f"{url}/collector/thresholds").json()
    assert thresholds == [50_000, 20, 20]
    assert frozen > 10_000


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_the_lines_of_an_access_log_stand_alone_on_stdout(tmp_path: Path, server: str) -> None:
    heard = said_while_asked(tmp_path, f"{APPS}:logged", "--server", server)
    assert [json.loads(line)["url.path"] for line in heard] == ["/7"]


def test_a_handler_of_the_app_gets_each_line_once(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_HANDLER)
    heard = said_while_asked(tmp_path, str(tmp_path / "own.py:logged"), "--workers", "2", stream="2>&1 >/dev/null")
    assert [line[:7] for line in heard if "url.path" in line] == ["mine: {"]


def test_without_an_access_log_the_server_tells_what_is_asked(tmp_path: Path) -> None:
    assert any('"GET /7 HTTP/1.1" 200' in line for line in said_while_asked(tmp_path, f"{APPS}:guarded"))


def test_what_the_server_tells_of_requests_holds_no_secrets(tmp_path: Path) -> None:
    """Keys in queries stood there as they came, for whoever reads logs to use."""
    heard = said_while_asked(tmp_path, f"{APPS}:guarded", path="/7?page=2&subscription-key=canary")
    assert any('"GET /7?page=2&subscription-key=REDACTED HTTP/1.1" 200' in line for line in heard)
    assert not any("canary" in line for line in heard)


def test_what_the_server_tells_of_websockets_holds_no_secrets() -> None:
    said = {"msg": '%s - "WebSocket %s" [accepted]', "args": ("127.0.0.1:5", "/live?token=canary")}
    record = logging.makeLogRecord({"name": "uvicorn.error", **said})
    mask_server_log()
    logging.getLogger("uvicorn.error").filter(record)
    assert record.getMessage() == '127.0.0.1:5 - "WebSocket /live?token=REDACTED" [accepted]'


OWN_HANDLER = """
import logging, sys
from tests.cli.apps import logged
handler = logging.StreamHandler(sys.stderr)
handler.setFormatter(logging.Formatter("mine: %(message)s"))
logging.getLogger("apim_middleware.access").addHandler(handler)
logging.getLogger("apim_middleware.access").setLevel(logging.INFO)
"""


def said_while_asked(folder: Path, *arguments: str, stream: str = "2>/dev/null", path: str = "/7") -> list[str]:
    """The lines that ``apim serve`` writes to one of its streams while it is asked for an order."""
    port, log = free_port(), folder / "log"
    command = ["sh", "-c", f'exec "$@" {stream}', "sh", *SERVE, *arguments, "--port", str(port)]
    with program(command, port, log=log) as running:
        assert httpx2.get(f"{running.origin}{path}", timeout=PATIENCE).json() == {"order": 7}
    return log.read_text().splitlines()


def test_what_is_broken_is_not_served(file: Path) -> None:
    file.write_text(FILE.replace("calls", "cals"))
    assert "gateway.policies[0]" in apim("serve", str(file), exits=1)
    assert "do not go together" in apim("serve", str(file), "--certificate", "a.pem", exits=1)


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_a_certificate_that_cannot_be_read_is_one_line(file: Path, server: str) -> None:
    """It was a traceback of the server, once for each worker."""
    tls = ("--certificate", "missing.pem", "--key", "missing.pem")
    said = apim("serve", str(file), "--server", server, *tls, exits=1)
    assert "certificate: cannot be read" in said
    assert len(said.splitlines()) == 1


def test_a_port_that_is_none_is_not_served_at(file: Path) -> None:
    """99999 was said to be served at, and 34463 was."""
    assert "65535" in apim("serve", str(file), "--port", "99999", exits=2)


async def looked_at(watched: Watched) -> None:
    """A file that stays as it is, is seen so the second time."""
    await watched.look()
    await watched.look()


@pytest.mark.anyio
async def test_a_file_that_changed_is_taken_over_and_a_broken_one_is_not(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(file, load(file), lambda now: load(file, after=now))

    async def quota() -> bytes | None:
        answer = await call(watched, path="/orders/7")
        return answer.header(b"ratelimit-policy")

    assert await quota() == b'"default";q=2;w=60'
    _change(file, FILE.replace("calls = 2", "calls = 5"))
    await looked_at(watched)
    assert await quota() == b'"default";q=5;w=60'
    _change(file, FILE.replace("calls", "cals"))
    await looked_at(watched)
    assert await quota() == b'"default";q=5;w=60'
    assert "is not taken over" in caplog.text
    _remove(file)
    await looked_at(watched)
    assert await quota() == b'"default";q=5;w=60'
    assert caplog.text.count("is gone: what it said goes on") == 1


class Counted:
    """Who listens to what is counted."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def count(self, event: str, attributes: Mapping[str, str]) -> None:
        if event == "apim.configuration.reloads":
            self.outcomes.append(attributes["apim.configuration.outcome"])


@pytest.mark.anyio
@pytest.mark.parametrize("given", [True, False], ids=["an Env of its own", "no Env"])
async def test_it_can_be_told_which_file_serves_and_whether_changes_were_taken_over(
    file: Path, caplog: pytest.LogCaptureFixture, given: bool
) -> None:
    caplog.set_level(logging.INFO)
    counted = Counted()
    env = Env() if given else None
    watched = Watched(file, replace(load(file), env=env), lambda now: replace(load(file), env=env))
    (env or watched._served._env).listen(counted)
    for change in ("calls = 5", "cals = 5", "calls = 6"):
        _change(file, FILE.replace("calls = 2", change))
        await looked_at(watched)
    taken = [each.partition("is taken over: ")[2] for each in caplog.messages if "is taken over: " in each]
    assert [each.partition(",")[0] for each in taken] == ["generation 2", "generation 3"]
    assert taken[-1].endswith(sha256(FILE.replace("calls = 2", "calls = 6").encode()).hexdigest()[:12])
    assert counted.outcomes == ["taken-over", "failed", "taken-over"]


@pytest.mark.anyio
async def test_a_file_that_is_being_written_is_not_taken_over_before_it_stays_as_it_is(file: Path) -> None:
    """The first half of one is valid, too, and may lack what protects."""
    watched = Watched(file, load(file), lambda now: load(file, after=now))
    policies = []
    for calls in (3, 4, 5):
        _change(file, FILE.replace("calls = 2", f"calls = {calls}"))
        await watched.look()
        policies.append((await call(watched, path="/orders/7")).header(b"ratelimit-policy"))
    await watched.look()
    policies.append((await call(watched, path="/orders/7")).header(b"ratelimit-policy"))
    assert policies == [b'"default";q=2;w=60'] * 3 + [b'"default";q=5;w=60']


@pytest.mark.anyio
async def test_a_file_that_changes_while_it_is_read_is_taken_over(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker had read was taken for what the file was afterwards, so that it served the old one for ever."""

    def meanwhile(target: str, *more: Any) -> Any:
        gateway = found(target, *more)
        monkeypatch.setattr(_serving, "found", found)
        _change(file, FILE.replace("calls = 2", "calls = 5"))
        return gateway

    monkeypatch.setattr(_serving, "found", meanwhile)
    monkeypatch.setattr(_serving, "tune_gc", lambda: None)
    monkeypatch.setattr(_serving, "Dated", lambda app: app)
    monkeypatch.setenv(_serving.TARGET, str(file))
    monkeypatch.setenv(_serving.RELOAD, "1")
    watched: Any = _serving.app()
    await looked_at(watched)
    assert (await call(watched, path="/orders/7")).header(b"ratelimit-policy") == b'"default";q=5;w=60'


@pytest.mark.anyio
async def test_a_file_whose_classes_fail_in_their_own_way_is_not_taken_over(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was no ConfigError ended the watching, the lifespan, and with it every backend, in silence."""

    def read(now: Gateway) -> Gateway:
        raise RuntimeError("a class of their own")

    watched = Watched(file, load(file), read)
    _change(file, FILE.replace("calls = 2", "calls = 5"))
    await looked_at(watched)
    assert (await call(watched, path="/orders/7")).header(b"ratelimit-policy") == b'"default";q=2;w=60'
    assert "is not taken over" in caplog.text


def test_what_a_file_makes_of_tables_that_did_not_change_is_no_change(tmp_path: Path) -> None:
    """Two files with the same store of keys differed, for each had made one."""
    text = f"""
    keys = {{ use = "RecordKeys", records = {{ use = "SQLiteRecords", path = "{tmp_path}/keys.db" }} }}
    apis = [ {{ name = "orders", path = "/orders", backend = "http://127.0.0.1:9" }} ]
    """
    for name in ("old.toml", "new.toml"):
        (tmp_path / name).write_text(text)
    assert "nothing changes" in apim("diff", str(tmp_path / "old.toml"), str(tmp_path / "new.toml"))


def _change(file: Path, text: str) -> None:
    """Write a file anew, as an editor does: the old one is never half the new one."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


def _remove(file: Path) -> None:
    file.unlink()


def test_without_its_library_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; from apim_middleware.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "apim-middleware[cli]" in result.stderr
