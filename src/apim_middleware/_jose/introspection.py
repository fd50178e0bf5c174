"""Asking an authorization server about a token (RFC 7662)."""

import base64
import secrets
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote_plus, urlencode

import anyio

from apim_middleware._http.headers import get
from apim_middleware._jose.documents import BadDocument, Question, fetched
from apim_middleware._jose.rules import Claims
from apim_middleware._jose.tokens import BadToken, claims_in
from apim_middleware.errors import TransportError, UpstreamBroken
from apim_middleware.protocols import Clock, Transport
from apim_middleware.types import RawHeaders

_FORM = (b"content-type", b"application/x-www-form-urlencoded")
_JSON = (b"accept", b"application/json")
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_LIFE = 60


class Unavailable(Exception):
    """The authorization server did not answer, or not with an answer."""


class Credentials(NamedTuple):
    """What goes along to say who asks: header lines and form fields."""

    headers: RawHeaders
    fields: Mapping[str, str]

    def __repr__(self) -> str:
        """Nothing of them; they are secrets."""
        return "<Credentials>"


Authenticate = Callable[[], Credentials]
"""The credentials for one question."""


def basic(client: str, secret: str) -> Authenticate:
    """Name and secret in ``Authorization``, each form-encoded first (RFC 6749 §2.3.1)."""
    pair = f"{quote_plus(client)}:{quote_plus(secret)}".encode()
    found = Credentials([(b"authorization", b"Basic " + base64.b64encode(pair))], {})
    return lambda: found


def post(client: str, secret: str) -> Authenticate:
    """Name and secret in the form."""
    found = Credentials([], {"client_id": client, "client_secret": secret})
    return lambda: found


def assertion(client: str, audience: str, clock: Clock, sign: Callable[[Mapping[str, object]], str]) -> Authenticate:
    """A statement signed with the client's key, a new one for each question (RFC 7523 §2.2)."""

    def make() -> Credentials:
        now = int(clock.now())
        claims = {"iss": client, "sub": client, "aud": audience, "jti": secrets.token_urlsafe(16)}
        signed = sign({**claims, "iat": now, "exp": now + _ASSERTION_LIFE})
        fields = {"client_id": client, "client_assertion_type": _ASSERTION, "client_assertion": signed}
        return Credentials([], fields)

    return make


class Endpoint:
    """The introspection endpoint; asks so many questions at once, and lets nobody wait who would be one too many."""

    def __init__(
        self, url: str, transport: Transport, authenticate: Authenticate, *, seconds: float, at_once: int
    ) -> None:
        """Nothing is asked yet."""
        self.url = url
        self._transport, self._authenticate, self._seconds = transport, authenticate, seconds
        self._room = at_once

    async def claims(self, token: bytes) -> Claims | None:
        """What the server says of a token, None when it is not active. Raises Unavailable."""
        if not self._room:
            raise Unavailable("too many tokens are asked about")
        self._room -= 1
        try:
            with anyio.fail_after(self._seconds):
                try:
                    return await self._answer(token)
                except UpstreamBroken:  # a kept connection may be dead, and to ask twice changes nothing
                    return await self._answer(token)
        except (BadDocument, BadToken, TransportError, TimeoutError) as error:
            raise Unavailable(str(error) or type(error).__name__) from error
        finally:
            self._room += 1

    async def _answer(self, token: bytes) -> Claims | None:
        headers, fields = self._authenticate()
        form = urlencode({"token": token.decode("latin-1"), "token_type_hint": "access_token", **fields}).encode()
        question = Question(self.url, [_FORM, _JSON, *headers], self._seconds, form)
        document = await fetched(self._transport, question)
        kind = (get(document.headers, b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise BadDocument("the answer is not JSON")
        claims = claims_in(document.body)
        active = claims.get("active")
        if not isinstance(active, bool):
            raise BadDocument("the answer does not say whether the token is active")
        return claims if active else None
