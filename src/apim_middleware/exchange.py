"""The exchange: one request and its response, as policies see them."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

from apim_middleware._http.headers import header_name, header_value
from apim_middleware._http.json_reading import Unclear, found_at, read_json
from apim_middleware.errors import Refusal
from apim_middleware.identity import Principal, Subscription
from apim_middleware.match import Match
from apim_middleware.types import RawHeaders, Scope

KEY = "apim_middleware.exchange"

_LOWER: set[bytes] = set()
"""Names of response headers seen before, all lower case: apps say the same ones over and over."""

_REMEMBERED, _LONGEST = 2048, 64


class ResponseHead:
    """Status and header lines of a response on its way out; policies may change both in ``on_response``."""

    __slots__ = ("headers", "status")

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Copy the header lines, for the app may use its list again; names become lower case."""
        self.status: int = status
        self.headers: RawHeaders = list(headers)
        for line in self.headers:
            if type(line) is not tuple or line[0] not in _LOWER:
                self.headers = _lowered(self.headers)
                break

    def get(self, name: bytes | str) -> bytes | None:
        """The first value under a name."""
        if isinstance(name, str) or not name.islower():
            name = _lower(name)
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def get_all(self, name: bytes | str) -> list[bytes]:
        """Every value under a name, in order."""
        if isinstance(name, str) or not name.islower():
            name = _lower(name)
        return [value for key, value in self.headers if key == name]

    def set(self, name: bytes | str, value: bytes | str) -> None:
        """Replace every line of this name by one; ValueError when name or value break the grammar."""
        line = header_name(name), header_value(value)
        self.remove(name)
        self.headers.append(line)

    def append(self, name: bytes | str, value: bytes | str) -> None:
        """Add one more line of this name; ValueError when name or value break the grammar."""
        self.headers.append((header_name(name), header_value(value)))

    def remove(self, name: bytes | str) -> None:
        """Take away every line of this name."""
        own = header_name(name)
        self.headers = [pair for pair in self.headers if pair[0] != own]


def _lower(name: bytes | str) -> bytes:
    """A name as fields are found by; ValueError when it is text that no field can have for a name."""
    return header_name(name) if isinstance(name, str) else name.lower()


class AcceptedHead(ResponseHead):
    """That of an accepted WebSocket, which has one status and no other."""

    __slots__ = ()

    @property
    def status(self) -> int:
        """101."""
        return 101

    @status.setter
    def status(self, status: int) -> None: ...


def _lowered(headers: RawHeaders) -> RawHeaders:
    """The lines under lower-case names, which are remembered within bounds."""
    lines = [(name.lower(), value) for name, value in headers]
    if len(_LOWER) >= _REMEMBERED:  # upstreams invent names; those in use are back at once
        _LOWER.clear()
    _LOWER.update([name for name, _ in lines[: _REMEMBERED - len(_LOWER)] if len(name) <= _LONGEST])
    return lines


class KnownBody:
    """A request body that was read whole, and what it says."""

    __slots__ = ("_json", "bytes", "told")

    def __init__(self, body: bytes, *, told: bool = False) -> None:
        """``told`` is whether somebody further in has read it, so that it can no longer be changed."""
        self.bytes = body
        self.told: bool = told
        self._json: Any = _UNREAD

    def json(self, kind: bytes) -> Any:  # noqa: ANN401 - any JSON
        """What it says, found out once. Raises Unclear."""
        if self._json is _UNREAD:
            self._json = read_json(self.bytes, kind)
        return self._json


class Shared:
    """What all rings of one request know together; the exchange that is the first fills it in."""

    __slots__ = (
        "_attributes", "body", "clean", "completed", "error", "forwarded", "guards", "match", "principal", "refusal",
        "rejected", "response", "subscription",
    )  # fmt: skip

    clean: bool
    rejected: bool  # credentials came that were no good, whoever let the request in since
    guards: int
    match: Match | None
    principal: Principal | None
    subscription: Subscription | None
    response: ResponseHead | None
    refusal: Refusal | None
    error: BaseException | None
    completed: bool
    forwarded: RawHeaders | None
    body: KnownBody | None
    _attributes: dict[str, Any] | None

    @property
    def attributes(self) -> dict[str, Any]:
        """Outcomes worth observing, beginning with those of the match; made when somebody asks, for many never do."""
        if self._attributes is None:
            self._attributes = {} if self.match is None else {**self.match.route.attributes}
        return self._attributes

    @attributes.setter
    def attributes(self, attributes: dict[str, Any]) -> None:
        self._attributes = attributes

    def matched(self, match: Match) -> None:
        """Say where the request goes, be it further in than was said before: outcomes worth observing stay."""
        if self._attributes is not None or self.match is not None:
            self.attributes.update(match.route.attributes)
        self.match = match


class Exchange:
    """One request and its response in the hands of the policies of one ring.

    ``scope`` is the ASGI scope the app will get and ``state`` belongs to the policies of this ring, keyed by
    whatever they like (themselves, usually). Everything else is shared by all rings of the request: ``principal``,
    ``subscription``, ``response`` once its head is known, ``refusal``, ``error``, ``completed``, ``attributes``.
    """

    __slots__ = ("_index", "_indexed", "scope", "shared", "state")

    shared: Shared

    def __init__(self, scope: Scope, outer: Self | None = None) -> None:
        """Begin; what rings further out know of the request is known here too."""
        self.scope: Scope = scope
        self.state: dict[Any, Any] = {}
        self._indexed: RawHeaders | None = None
        self._index: dict[bytes, bytes] = _EMPTY  # replaced before it is ever changed
        if outer is None:  # nothing is known yet
            shared = self.shared = Shared()
            shared.guards = 0
            shared.clean = shared.completed = shared.rejected = False
            shared.match = shared.principal = shared.subscription = shared.forwarded = None
            shared.response = shared.refusal = shared.error = shared.body = shared._attributes = None
        else:  # the index of the headers goes along: whoever further out asks again makes another
            self.shared = outer.shared
            self._index, self._indexed, outer._indexed = outer._index, outer._indexed, None

    @classmethod
    def of(cls, scope: Scope) -> Self | None:
        """The exchange the nearest policies further out opened for this scope, for use by apps and endpoints."""
        found: Self | None = scope.get(KEY)
        return found

    @property
    def clean(self) -> bool:
        """Whether request hygiene has been done."""
        return self.shared.clean

    def scrubbed(self, index: dict[bytes, bytes], forwarded: RawHeaders) -> None:
        """Note that request hygiene has been done: an index of the headers, and the lines it set aside."""
        self._index, self._indexed = index, self.scope["headers"]
        self.shared.clean = True
        if forwarded:
            self.shared.forwarded = forwarded

    # What the request says

    @property
    def is_websocket(self) -> bool:
        """Whether this is a WebSocket handshake."""
        return bool(self.scope["type"] == "websocket")

    @property
    def method(self) -> str:
        """The method; GET for a WebSocket handshake, which is one (RFC 6455 §4.1)."""
        method: str = self.scope.get("method", "GET")
        return method

    @property
    def path(self) -> str:
        """The canonical path, decoded."""
        path: str = self.scope["path"]
        return path

    @property
    def client(self) -> str | None:
        """The client's address as text, or None when the server knows none."""
        client = self.scope.get("client")
        return (client[0] or None) if client else None

    def header(self, name: bytes | str) -> bytes | None:
        """The first value of a request header."""
        if isinstance(name, str) or not name.islower():
            name = _lower(name)
        if self.scope["headers"] is not self._indexed:
            self._reindex()
        return self._index.get(name)

    def index(self) -> Mapping[bytes, bytes]:
        """The first value of every request header as they are now, under their lower-case names."""
        if self.scope["headers"] is not self._indexed:
            self._reindex()
        return self._index

    def _reindex(self) -> None:
        self._indexed = self.scope["headers"]
        self._index = dict(reversed(self._indexed))

    def headers(self, name: bytes | str) -> list[bytes]:
        """Every value of a request header, in order."""
        if isinstance(name, str) or not name.islower():
            name = _lower(name)
        return [value for key, value in self.scope["headers"] if key == name]

    # Changing the request: the lists are replaced, never edited, for the server may hold them too

    def set_header(self, name: bytes | str, value: bytes | str) -> None:
        """Replace every line of a request header by one; ValueError when name or value break the grammar."""
        self.replace_line((header_name(name), header_value(value)))

    def add_header(self, name: bytes | str, value: bytes | str) -> None:
        """Add one more line of a request header; ValueError when name or value break the grammar."""
        self.put_line((header_name(name), header_value(value)))

    def remove_header(self, name: bytes | str) -> None:
        """Take away every line of a request header."""
        self.take_header(header_name(name))

    def take_header(self, name: bytes) -> list[bytes]:
        """Take away every line of a request header under its lower-case name, and give back their values."""
        headers = self.scope["headers"]
        if headers is not self._indexed:
            self._reindex()
        index = self._index
        first = index.pop(name, None)
        if first is None:
            return []
        kept, taken = [*headers], [first]
        try:
            kept.remove((name, first))
            if len(kept) != len(index):
                raise ValueError("some names stand on several lines")
        except ValueError:  # or the lines are lists, as some servers make them; nearly always it is one line a name
            kept = [line for line in headers if line[0] != name]
            taken = [line[1] for line in headers if line[0] == name]
        self._indexed = self.scope["headers"] = kept
        return taken

    def replace_line(self, line: tuple[bytes, bytes]) -> None:
        """Put a checked line under its lower-case name in the place of those of its name."""
        headers = self.scope["headers"]
        if headers is not self._indexed:
            self._reindex()
        name, value = line
        if name in self._index:
            headers = [each for each in headers if each[0] != name]
        self._index[name] = value
        self._indexed = self.scope["headers"] = [*headers, line]

    def put_line(self, line: tuple[bytes, bytes]) -> None:
        """Add a checked line under its lower-case name to those of its name."""
        headers = self.scope["headers"]
        if headers is not self._indexed:
            self._reindex()
        name, value = line
        if name not in self._index:
            self._index[name] = value
        self._indexed = self.scope["headers"] = [*headers, line]

    # What policies keep and know

    @property
    def guards(self) -> int:
        """How many policies have met the request that decide who may come in."""
        return self.shared.guards

    @property
    def principal(self) -> Principal | None:
        """Who is calling, once an authenticator has said so."""
        return self.shared.principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        self.shared.principal = self.scope["user"] = self.scope["auth"] = principal

    @property
    def subscription(self) -> Subscription | None:
        """The subscription whose key came with the request."""
        return self.shared.subscription

    @subscription.setter
    def subscription(self, subscription: Subscription) -> None:
        self.shared.subscription = subscription

    @property
    def match(self) -> Match | None:
        """What a gateway has matched: API, version, operation, product and the parameters of the path."""
        return self.shared.match

    @property
    def parameters(self) -> Mapping[str, str]:
        """What the parameters of the matched operation's template stand for, decoded; empty when nothing matched.

        They are as they were matched, whatever policies have made of the path since; those of the query are as it is.
        """
        match = self.shared.match
        return {} if match is None else match.parameters(self.scope.get("query_string", b""))

    @property
    def product(self) -> str | None:
        """The product in whose context the call is made: of the gateway's match, else of the subscription."""
        match, subscription = self.shared.match, self.shared.subscription
        if match is not None and match.route.api:
            return match.route.product or None
        return None if subscription is None else subscription.product or None

    @property
    def response(self) -> ResponseHead | None:
        """The head of the response, once known."""
        return self.shared.response

    @response.setter
    def response(self, response: ResponseHead) -> None:
        self.shared.response = response

    @property
    def refusal(self) -> Refusal | None:
        """The refusal the caller gets, if a policy refused."""
        return self.shared.refusal

    @refusal.setter
    def refusal(self, refusal: Refusal) -> None:
        self.shared.refusal = refusal

    @property
    def error(self) -> BaseException | None:
        """What escaped from the app or broke the response off, if anything did."""
        return self.shared.error

    @error.setter
    def error(self, error: BaseException) -> None:
        self.shared.error = error

    @property
    def completed(self) -> bool:
        """Whether the last byte of the response was handed on."""
        return self.shared.completed

    @completed.setter
    def completed(self, completed: bool) -> None:
        self.shared.completed = completed

    @property
    def attributes(self) -> dict[str, Any]:
        """Outcomes worth observing, named as span attributes are; ``Tracing`` records them."""
        return self.shared.attributes

    @property
    def forwarded(self) -> RawHeaders:
        """The forwarding fields the peer sent; hygiene took them out of the headers, ``TrustedProxies`` judges them."""
        return self.shared.forwarded or []

    # The body, where a policy has read it

    @property
    def body(self) -> bytes | None:
        """The body of the request, whole; None where nobody further out has read it, as ``ReadBody`` does.

        A policy behind ``ReadBody`` may put another in its place, as long as nobody further in has read it: that is
        what the app gets then, ``Content-Length`` is set to its length, and digests of the one before go.
        """
        known = self.shared.body
        return None if known is None else known.bytes

    @body.setter
    def body(self, body: bytes) -> None:
        if self._known_body().told:
            raise RuntimeError("the request body was read by a layer between, or there is none: change it before that")
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(f"a request body is bytes, not {type(body).__name__}")
        body = bytes(body)
        self.shared.body = KnownBody(body)
        for name in _DIGESTS:
            self.take_header(name)
        if self.header(b"transfer-encoding") is None:
            self.replace_line((b"content-length", b"%d" % len(body)))

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        """What the body of the request says, read once however often it is asked for; it belongs to all who ask.

        Refused with 400 ``json-invalid`` when it is no JSON, or when the app could read it otherwise.
        """
        try:
            return self._known_body().json(b",".join(self.headers(b"content-type")))
        except Unclear as error:
            raise _unclear(error) from None

    def json_at(self, steps: tuple[str, ...]) -> Any:  # noqa: ANN401 - any JSON
        """What stands in the body at the end of these steps; None where nothing does, and of a request without one.

        Refused with 400 ``json-invalid`` as by ``json``, and where names differ from these by their case alone.
        """
        if self.is_websocket or not self._known_body().bytes:
            return None
        try:
            return found_at(self.json(), steps)
        except Unclear as error:
            raise _unclear(error) from None

    def _known_body(self) -> KnownBody:
        known = self.shared.body
        if known is None:
            raise RuntimeError("nobody has read the body of this request: write ReadBody() further out")
        return known


def _unclear(error: Unclear) -> Refusal:
    return Refusal(400, "json-invalid", f"The request body cannot be read as JSON: {error}.")


_DIGESTS = (b"content-digest", b"repr-digest", b"digest", b"content-md5")
"""What tells what the bytes of a body are (RFC 9530, RFC 3230, RFC 1864)."""

_UNREAD: Any = object()
_EMPTY: dict[bytes, bytes] = {}
