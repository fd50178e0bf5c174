"""An authorization server that others wrote gives us tokens, and takes no other client for us."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from flask import Flask
from tests.servers import LOOPBACK
from werkzeug.serving import WSGIRequestHandler, make_server

from apim_middleware.credentials.oauth import ClientCredentials
from apim_middleware.env import Env
from apim_middleware.policies.upstream_auth import UpstreamAuth
from apim_middleware.policy import Stack
from apim_middleware.testing import call
from apim_middleware.transports.default import DefaultTransport
from apim_middleware.types import Receive, Scope, Send


class Client(ClientMixin):  # type: ignore[misc]
    """This gateway, as the server knows it."""

    client_id = "gateway"

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str) -> str:
        return " ".join(each for each in (scope or "").split() if each == "orders.read")

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == "hush-1"

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in ("client_secret_basic", "client_secret_post")

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


class Grant(ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")


class Quiet(WSGIRequestHandler):
    def log(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def provider() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The server, and the tokens it gave."""
    given: list[dict[str, Any]] = []
    app = Flask("provider")
    server = AuthorizationServer(
        app,
        query_client=lambda client_id: Client() if client_id == Client.client_id else None,
        save_token=lambda token, request: given.append(dict(token)),
    )
    server.register_grant(Grant)
    app.post("/token")(lambda: server.create_token_response())
    listener = make_server(LOOPBACK, 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    yield f"http://{LOOPBACK}:{listener.server_port}/token", given
    listener.shutdown()
    listener.server_close()
    thread.join()


async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
    shown = dict(scope["headers"])[b"authorization"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": shown})


@pytest.mark.anyio
@pytest.mark.parametrize("auth", ["basic", "post"])
async def test_it_gives_this_gateway_a_token(provider: tuple[str, list[dict[str, Any]]], auth: Any) -> None:
    url, given = provider
    transport = DefaultTransport()
    credential = ClientCredentials(
        token_url=url, client_id="gateway", client_secret="hush-1", auth=auth, scope="orders.read"
    )
    app = Stack(UpstreamAuth(credential=credential), env=Env(transport=transport))(upstream)
    shown = [(await call(app)).body.decode() for _ in range(3)]
    await transport.aclose()
    assert shown == [f"Bearer {given[-1]['access_token']}"] * 3
    assert given[-1]["scope"] == "orders.read"


@pytest.mark.anyio
async def test_it_gives_nothing_to_who_has_not_our_secret(provider: tuple[str, list[dict[str, Any]]]) -> None:
    transport = DefaultTransport()
    credential = ClientCredentials(token_url=provider[0], client_id="gateway", client_secret="another")
    app = Stack(UpstreamAuth(credential=credential), env=Env(transport=transport))(upstream)
    assert (await call(app)).status == 503
    await transport.aclose()
