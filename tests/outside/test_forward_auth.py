"""Front servers that carry the bytes themselves and ask our policies before each request.

Caddy and nginx, as the examples have them; httpd has nothing of the kind among its own modules.
"""

import base64
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.servers import LOOPBACK, Running, serving
from websockets.exceptions import InvalidStatus

from apim_middleware.errors import Refusal
from apim_middleware.policy import Policy
from apim_middleware.serving.forward_auth import ForwardAuth

from .conftest import CLIENT, Front, Seen, example, running_front

ALICE = ("Authorization", "Basic " + base64.b64encode(b"alice:wonderland").decode())
LIES = [
    ("X-User-Id", "admin"),
    ("X-User-Scopes", "everything"),
    ("X-Auth-Status", "200"),
    ("X-Original-URI", "/public"),
    ("X-Original-Method", "OPTIONS"),
    ("X-Forwarded-Uri", "/public"),
    ("X-Forwarded-Method", "OPTIONS"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Proto", "http"),
]
SITES = {"caddy": "forward_auth.Caddyfile", "nginx": "forward_auth.conf"}


class Told(Policy):
    """Keeps what it was told of requests, and refuses what the path says."""

    def __init__(self):
        object.__setattr__(self, "seen", [])

    def on_request(self, exchange):
        scope = exchange.scope
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        self.seen.append((scope["method"], target, exchange.header(b"host"), scope["scheme"], exchange.client))
        if scope["path"].startswith("/refused/"):
            raise Refusal(int(scope["path"][9:]), "as-you-wish", headers={"retry-after": "7"})


@pytest.fixture(scope="session", params=SITES)
def judged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, behind: Running
) -> Iterator[tuple[Front, Told]]:
    """Each front server that can ask, before the upstream itself, with the policies of its example behind ours."""
    name = request.param
    app = example(f"behind_{name}", "forward_auth.py")["app"]
    assert isinstance(app, ForwardAuth)
    told = Told()

    def layer(inner):
        return told(app.layer(inner))

    options = {"headers": app.headers, "told_by": app.told_by, "refuse_with": app.refuse_with}
    with ExitStack() as stack:
        policies = stack.enter_context(serving(ForwardAuth(layer, trusted=app.trusted, **options)))
        words = {"127.0.0.1:8001": f"{LOOPBACK}:{policies.port}", "127.0.0.1:9000": f"{LOOPBACK}:{behind.port}"}
        front = stack.enter_context(running_front(name, SITES[name], words, tmp_path_factory.mktemp(f"ask{name}")))
        yield front, told


@pytest.mark.parametrize("lies", [[], LIES], ids=["honest", "lying"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_policies_judge_the_request_as_it_came(judged: tuple[Front, Told], method: str, lies):
    front, told = judged
    seen = front.ask(method, "/orders/a%20b?page=2", headers=[ALICE, *lies], body=b"x" * (method == "POST"))
    assert seen.status == 200
    assert told.seen[-1] == (method, b"/orders/a%20b?page=2", b"api.example", "https", CLIENT)
    assert seen.lines("x-user-id") == ["alice"]
    assert seen.lines("x-user-scopes") == ["orders.read"]


def test_the_body_goes_past_the_policies_to_the_upstream(judged: tuple[Front, Told]):
    front, _ = judged
    assert b'"size": 100000' in front.ask("POST", headers=[ALICE], body=bytes(100_000)).body


@pytest.mark.parametrize("lies", [[], LIES], ids=["honest", "lying"])
def test_who_is_not_known_is_challenged(judged: tuple[Front, Told], lies):
    front, _ = judged
    seen = front.ask(headers=lies)
    assert seen.status == 401
    assert seen.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("status", [403, 429, 503])
def test_a_refusal_reaches_the_client(judged: tuple[Front, Told], status: int):
    front, _ = judged
    seen = front.ask(path=f"/refused/{status}", headers=[ALICE])
    assert seen.status == status
    assert seen.headers["Retry-After"] == "7"


def test_a_header_no_policy_has_set_is_not_the_clients(judged: tuple[Front, Told]):
    """Whatever the version of the front server copies when there is nothing to copy."""
    front, _ = judged
    seen = front.ask(headers=[ALICE, ("X-User-Scopes", "everything"), ("x-user-scopes", "more")])
    assert seen.lines("x-user-scopes") == ["orders.read"]


def test_a_websocket_is_judged_by_its_handshake(judged: tuple[Front, Told]):
    front, told = judged
    with front.websocket("/talk?x=1", additional_headers=[ALICE, *LIES]) as socket:
        seen = Seen(101, socket.recv().encode(), {})
        socket.send("hello")
        assert socket.recv() == "hello"
    assert told.seen[-1] == ("GET", b"/talk?x=1", b"api.example", "https", CLIENT)
    assert seen.lines("x-user-id") == ["alice"]
    with pytest.raises(InvalidStatus) as caught, front.websocket("/talk"):
        pass
    assert caught.value.response.status_code == 401


def test_the_place_where_the_front_asks_is_not_for_clients(judged: tuple[Front, Told]):
    front, _ = judged
    assert front.ask(path="/_judge").status in (401, 404)
