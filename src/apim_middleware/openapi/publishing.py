"""``PublishOpenAPI``: the documents of a gateway or an app, served beside what they describe."""

import json
from dataclasses import dataclass

from starlette.responses import Response

from apim_middleware._http import queries
from apim_middleware._http.entity_tags import matches_weakly, strong_tag
from apim_middleware._http.paths import routed_path
from apim_middleware._http.url_templates import parsed
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.openapi.describing import document_of
from apim_middleware.openapi.exporting import openapi_of
from apim_middleware.policy import Policy, ring
from apim_middleware.types import ASGIApp


@dataclass(frozen=True, kw_only=True)
class PublishOpenAPI(Policy):
    """Serve the OpenAPI document of a gateway: ``PublishOpenAPI()(gateway)``, or last in a stack in front of one.

    ``path`` answers GET and HEAD with the document of everything; with ``?product=starter`` with that of a product
    which ``products`` names. All else goes on to the gateway. What stands in front guards the document too. It is made
    when the gateway is, and again when another was taken over (``Reloadable``). It has a tag, so that who has it
    already gets 304.

    A FastAPI app publishes its own, with ``describe``; in front of one that does not, and of a guarded Litestar app,
    this publishes it. Refusal: 404 ``product-unknown``.
    ConfigError: no such product, or an app without a document.
    """

    guards = False

    path: str = "/openapi.json"
    """Where the documents are."""

    products: tuple[str, ...] = ()
    """The products that have a document of their own."""

    title: str = ""
    """What the document of everything is called; the name of the gateway unless given."""

    version: str = "1"
    """The version of the documents (``info.version``)."""

    servers: tuple[str, ...] = ("/",)
    """The base URLs callers use, such as ``https://api.example.com``."""

    def __post_init__(self) -> None:
        """The path is plain text."""
        try:
            plain = all(isinstance(each, str) for each in parsed(self.path).segments)
        except ValueError as error:
            raise self.mistake("path", f"is no path: {error}", 'Write path="/openapi.json"') from None
        if not plain or "?" in self.path or "*" in self.path:
            raise self.mistake("path", "is not plain text", 'Write path="/openapi.json"')

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """The documents beside the app. Raises ConfigError for an app that has none."""
        published = _Published(self, app)
        for product in ("", *self.products):
            published.page(product)
        return ring(self, published, app, env)


class _Published:
    """Answers with documents that are written once for each gateway."""

    def __init__(self, rule: PublishOpenAPI, app: ASGIApp) -> None:
        self._rule, self._app = rule, app
        self._pages: dict[str, tuple[object, bytes, bytes]] = {}

    def on_request(self, exchange: Exchange) -> ASGIApp | None:
        if exchange.scope["type"] != "http" or exchange.method not in ("GET", "HEAD"):
            return None
        if routed_path(exchange.scope)[1] != self._rule.path:
            return None
        product = next(iter(queries.values(exchange.scope.get("query_string", b""), "product")), "")
        if product and product not in self._rule.products:
            raise Refusal(404, "product-unknown", "There is no document of such a product.")
        body, tag = self.page(product)
        headers = {"etag": tag.decode(), "cache-control": "no-cache"}
        if matches_weakly(exchange.headers(b"if-none-match"), tag):
            return Response(status_code=304, headers=headers)
        headers["content-length"] = str(len(body))
        return Response(body if exchange.method == "GET" else b"", headers=headers, media_type="application/json")

    def page(self, product: str) -> tuple[bytes, bytes]:
        """A document and its tag. Raises ConfigError."""
        source = self._app.gateway if isinstance(self._app, Reloadable) else self._app
        known = self._pages.get(product)
        if known is None or known[0] is not source:
            body = json.dumps(self._made(source, product), ensure_ascii=False).encode()
            known = self._pages[product] = source, body, strong_tag(body, ())
        return known[1], known[2]

    def _made(self, source: object, product: str) -> dict[str, object]:
        rule = self._rule
        if not isinstance(source, Gateway):
            return document_of(source)
        title = "" if product else rule.title
        return openapi_of(source, product=product or None, title=title, version=rule.version, servers=rule.servers)
