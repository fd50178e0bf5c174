"""What a client must know of an API to get a token for it, published where clients look (RFC 9728)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from starlette.responses import Response

from apim_middleware._http.challenges import has_parameter, is_quotable, scheme_of, split, with_parameters
from apim_middleware._http.paths import BadTarget
from apim_middleware._http.resource_metadata import metadata_path, metadata_url
from apim_middleware._jose.urls import Allowance, fault_of, mistake_of
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy
from apim_middleware.types import ASGIApp

_OURS = frozenset({"resource", "authorization_servers", "scopes_supported", "bearer_methods_supported"})
_TEXTS = ("resource_name", "resource_documentation", "resource_policy_uri", "resource_tos_uri", "jwks_uri")
_ASKING = frozenset({"bearer", "dpop"})
_SHOWN = frozenset({401, 403})


@dataclass(frozen=True, kw_only=True)
class ProtectedResource(Policy):
    """Publish the metadata of a protected resource (RFC 9728), and have every challenge point to it.

    The document is served at ``/.well-known/oauth-protected-resource``, followed by the path of ``resource``, to
    whoever asks: so this stands outside of what checks tokens. ``Bearer`` and ``DPoP`` challenges of 401 and 403
    get the parameter ``resource_metadata`` (§5.1), wherever they come from; one that has it keeps its own.

    Refusal: 405 ``method-not-allowed`` for another method than GET and HEAD on that path.
    """

    guards = False

    resource: str
    """The API, by the https URL clients know it under; its tokens are made for this audience."""

    authorization_servers: tuple[str, ...] = ()
    """The issuers whose tokens count, by the names they have in ``iss``."""

    scopes_supported: tuple[str, ...] = ()
    """Scopes there are."""

    bearer_methods_supported: tuple[Literal["header", "body", "query"], ...] = ("header",)
    """How a token may be sent (RFC 6750 §2)."""

    resource_name: str | None = None
    """What people call the API."""

    resource_documentation: str | None = None
    """The URL of a page for developers."""

    resource_policy_uri: str | None = None
    """The URL of a page on what callers may do with the data."""

    resource_tos_uri: str | None = None
    """The URL of the terms of service."""

    jwks_uri: str | None = None
    """The URL of the API's own keys."""

    more: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Other members of the document, such as ``dpop_bound_access_tokens_required``: anything JSON has."""

    max_age: int = 3600
    """Seconds for which clients may keep the document."""

    allow_http: bool = False
    """Whether ``resource`` may be http on another machine, for tests."""

    def __post_init__(self) -> None:
        """The document must be one, and say nothing twice."""
        allowed = Allowance(http=self.allow_http, private=True)
        for name in ("resource", *(each for each in _TEXTS[1:] if getattr(self, each) is not None)):
            if (fault := fault_of(getattr(self, name), allowed)) is not None:
                raise mistake_of(self, name, fault)
        if not is_quotable(self.resource):
            raise self.mistake("resource", "cannot stand in a challenge", "Escape quotes and backslashes")
        try:
            metadata_path(self.resource)
        except BadTarget as bad:
            raise self.mistake("resource", f"is never asked for: {bad}", "Write its path as clients send it") from None
        for server in self.authorization_servers:
            if (fault := fault_of(server, allowed)) is not None:
                raise mistake_of(self, "authorization_servers", fault)
        if self.max_age < 0:
            raise self.mistake("max_age", "is no time", "Give seconds, 0 for none")
        if known := sorted((_OURS | set(_TEXTS)) & self.more.keys()):
            raise self.mistake("more", f"holds {known[0]}, which has a field of its own", f"Write {known[0]}=...")
        try:
            self._document()
        except (TypeError, ValueError):
            raise self.mistake("more", "holds what is not JSON", "Give texts, numbers, lists and dicts") from None

    def _document(self) -> bytes:
        lists = ("authorization_servers", "scopes_supported", "bearer_methods_supported")
        members = {"resource": self.resource, **{name: list(getattr(self, name)) for name in lists}}
        members |= {name: getattr(self, name) for name in _TEXTS}
        given = {name: value for name, value in members.items() if value not in (None, [])}
        return json.dumps({**given, **self.more}, allow_nan=False).encode()

    def bind(self, env: Env) -> "_Sign":
        """The document, written once."""
        return _Sign(self, self._document())


class _Sign:
    """Answers who asks for the document, and points everybody else to it."""

    def __init__(self, policy: ProtectedResource, document: bytes) -> None:
        self._path = metadata_path(policy.resource)
        self._query = urlsplit(policy.resource).query.encode()
        self._url = metadata_url(policy.resource)
        self._document = document
        self._headers = {"cache-control": f"public, max-age={policy.max_age}", "content-length": str(len(document))}

    def on_request(self, exchange: Exchange) -> ASGIApp | None:
        if exchange.path != self._path or exchange.is_websocket:
            return None
        if self._query and exchange.scope.get("query_string") != self._query:
            return None
        if exchange.method not in ("GET", "HEAD"):
            detail = "This document can only be read."
            raise Refusal(405, "method-not-allowed", detail, headers={"allow": "GET, HEAD"})
        body = self._document if exchange.method == "GET" else b""
        return Response(body, media_type="application/json", headers=self._headers)

    def on_response(self, exchange: Exchange) -> None:
        head = exchange.response
        if head is None or head.status not in _SHOWN:
            return
        asked = head.get_all(b"www-authenticate")
        if asked:
            head.remove(b"www-authenticate")
            for line in asked:
                head.append(b"www-authenticate", self._pointing(line.decode("latin-1")).encode("latin-1"))

    def _pointing(self, line: str) -> str:
        return ", ".join(self._pointed(challenge) for challenge in split(line))

    def _pointed(self, challenge: str) -> str:
        if scheme_of(challenge) not in _ASKING or has_parameter(challenge, "resource_metadata"):
            return challenge
        return with_parameters(challenge, resource_metadata=self._url)
