"""Smaller bodies for who can read them: ``Compress``."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache

from anyio.lowlevel import checkpoint

from apim_middleware._http.content_codings import CODINGS, Choice, Coding, Encoder, choose, encoders, installed
from apim_middleware._http.entity_tags import coded_tag, matches_weakly, with_plain_tags
from apim_middleware._http.headers import get, get_all, list_members, without
from apim_middleware._ring import seats_of
from apim_middleware.documentation import Documentation, Told
from apim_middleware.env import Env
from apim_middleware.policy import Policy, ring, stated
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

TYPES = (
    "text/*", "application/json", "application/*+json", "application/x-ndjson", "application/xml", "application/*+xml",
    "application/javascript", "application/graphql", "application/yaml", "application/wasm", "application/x-javascript",
    "application/vnd.ms-fontobject", "font/otf", "font/ttf", "image/svg+xml", "image/bmp", "image/x-icon",
    "image/vnd.microsoft.icon",
)  # fmt: skip
"""Media types that are worth it."""

_TYPE = re.compile(r"[a-z0-9!#$&^_.+*-]+/[a-z0-9!#$&^_.+*-]+")
_EVENTS = b"text/event-stream"
_BODILESS = frozenset((204, 205, 206, 304))
_DIGESTS = frozenset((b"content-digest", b"repr-digest", b"digest", b"content-md5"))
_AS_IT_IS = _DIGESTS | {b"content-encoding", b"content-range"}
_SLICE = 65_536
_UNSEEN = frozenset(("http.response.pathsend", "http.response.zerocopysend"))


@dataclass(frozen=True, kw_only=True)
class Compress(Policy):
    """Compress responses with the coding the client likes best: gzip, and with the extra ``compress`` zstd and brotli.

    Which one, ``Accept-Encoding`` says (RFC 9110 §12.5.3). Every chunk of a stream goes out at once, flushed, so that
    nothing is held back but the head until the first chunk. A large body is encoded in pieces of 64 KiB, with a turn
    for everybody else after each.

    Never compressed: event streams, other media types than ``types``, bodies below ``min_bytes``, what is encoded
    already, parts (206), ``Cache-Control: no-transform``, and responses with a digest. What may be compressed says
    ``Vary: Accept-Encoding``, compressed or not. A strong ``ETag`` gets the coding as an ending, ``"x--gzip"``, which
    is taken off again in ``If-None-Match`` and ``If-Match``, so that the app sees its own tags. Files the server would
    send itself go through here instead. WebSockets pass. It refuses nothing.

    Compressed bodies tell by their length what is in them: see BREACH in the docs.
    """

    guards = False

    min_bytes: int = 1024
    """Smallest body worth it, in bytes, as far as the size is known. Default 1024."""

    types: tuple[str, ...] = TYPES
    """Media types worth it, as ``"text/*"`` or ``"application/*+json"``; by default text, JSON, XML, scripts, and such
    fonts and pictures as are not compressed already."""

    codings: tuple[Coding, ...] | None = None
    """Codings to offer, the preferred first; by default those that are installed of zstd, br and gzip."""

    gzip_level: int = 6
    """1 is fast, 9 is small. Default 6."""

    br_quality: int = 4
    """0 is fast, 11 is small and too slow for anything but files. Default 4."""

    zstd_level: int = 3
    """1 is fast, 19 is small. Default 3."""

    @stated
    def documentation(self) -> Documentation:
        """How bodies may be encoded."""
        return Documentation(headers=(Told("content-encoding"), Told("vary")))

    def __post_init__(self) -> None:
        """There must be something to compress, and something to do it with."""
        if self.min_bytes < 0:
            raise self.mistake("min_bytes", "is no size", "Give a number of bytes")
        for name, least, most in (("gzip_level", 1, 9), ("br_quality", 0, 11), ("zstd_level", 1, 19)):
            if not least <= getattr(self, name) <= most:
                raise self.mistake(name, "is no level", f"Give {least} to {most}")
        if not self.types:
            raise self.mistake("types", "is about nothing", 'Write ("text/*",), or leave it out')
        for each in self.types:
            if _TYPE.fullmatch(each) is None:
                raise self.mistake("types", f"holds {each!r}, which is no media type", 'Write ("text/*",), lower case')
        if self.codings == ():
            raise self.mistake("codings", "offers nothing", 'Write codings=("gzip",), or leave it out')
        for coding in self.codings or ():
            if not installed(coding):
                cure = 'Install the extra: pip install "apim-middleware[compress]"'
                raise self.mistake("codings", f"holds {coding!r}, for which {CODINGS[coding]} is missing", cure)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring without hooks, and behind it what compresses."""
        compressing = _Compressing(app, self)
        return ring(self, compressing, compressing, env)


class _Compressing:
    """Finds out what a client accepts, and looks at what it is answered."""

    taps_body = True

    def __init__(self, app: ASGIApp, policy: Compress) -> None:
        self._app, self.seats = app, seats_of(app)
        self._offered = policy.codings or tuple(coding for coding in CODINGS if installed(coding))
        self._tags = frozenset(coding.encode() for coding in CODINGS)
        self.min_bytes = policy.min_bytes
        levels = {"gzip": policy.gzip_level, "br": policy.br_quality, "zstd": policy.zstd_level}
        self.encoders = {coding: encoders(coding, levels[coding]) for coding in self._offered}
        self.is_compressible = lru_cache(maxsize=256)(_judge(policy.types))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accepted: bytes | None = None
        tags: list[bytes] = []
        for name, value in scope["headers"]:
            if name == b"accept-encoding":
                accepted = value if accepted is None else accepted + b"," + value
            elif name in (b"if-none-match", b"if-match"):
                tags.append(value)
        choice = choose(accepted, self._offered)
        if tags and b"--" in b"".join(tags):
            self._translate(scope, choice)
        await self._app(scope, receive, _Response(self, scope, send, choice, tags).send)

    def _translate(self, scope: Scope, choice: Choice) -> None:
        """Let the app see its own tags: of this representation to compare with, of any to act on."""
        of_this = frozenset((choice.coding.encode(),)) if choice.coding else frozenset[bytes]()
        codings = {b"if-none-match": of_this, b"if-match": self._tags}
        scope["headers"] = [
            (name, with_plain_tags(value, codings[name]) if name in codings else value)
            for name, value in scope["headers"]
        ]


def _judge(types: tuple[str, ...]) -> Callable[[bytes], bool]:
    """Whether a Content-Type is one of these types, and none that must flow."""
    patterns = "|".join(re.escape(each).replace(r"\*", "[^/]*") for each in types)
    of_types = re.compile(patterns.encode()).fullmatch

    def judge(content_type: bytes) -> bool:
        essence = content_type.partition(b";")[0].strip(b" \t").lower()
        return essence != _EVENTS and of_types(essence) is not None

    return judge


class _Response:
    """One response on its way: as it is, or encoded."""

    def __init__(self, rules: _Compressing, scope: Scope, send: Send, choice: Choice, tags: list[bytes]) -> None:
        self._rules, self._scope, self._send = rules, scope, send
        self._choice, self._tags = choice, tags
        self._flows = False
        self._head: Message | None = None
        self._encoder: Encoder | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """Take one message of the app."""
        if self._flows:
            return self._send(message)
        kind = message["type"]
        if kind == "http.response.start":
            return self._start(message)
        if kind == "http.response.body":
            return self._first(message) if self._encoder is None else self._encode(self._encoder, message)
        if kind in _UNSEEN:
            raise RuntimeError(f"the app sent {kind}, which it was not offered")
        return self._send(message)

    # The head

    def _start(self, message: Message) -> Awaitable[None]:
        """Hold a head back until the first chunk if the body may be encoded; all others go out now."""
        headers = [(name.lower(), value) for name, value in message.get("headers") or ()]
        self._flows = True
        if not self._may_differ(message, headers):
            return self._send(self._known(message, headers) if self._is_known(message, headers) else message)
        headers = _varying(headers)
        length = get(headers, b"content-length")
        if self._choice.coding is None or (length is not None and self._is_small(int(length))):
            return self._send({**message, "headers": headers})
        if self._scope["method"] == "HEAD":
            coded = headers if length is None else self._coded(headers, None)
            return self._send({**message, "headers": coded})
        self._head, self._flows = {**message, "headers": headers}, False
        return _nothing()

    def _may_differ(self, message: Message, headers: RawHeaders) -> bool:
        """Whether this response is another one for clients that accept other codings."""
        if message["status"] in _BODILESS or message.get("trailers", False):
            return False
        names = {name for name, _ in headers}
        if not _AS_IT_IS.isdisjoint(names) or not self._rules.is_compressible(get(headers, b"content-type") or b""):
            return False
        length = get(headers, b"content-length")
        if length is not None and not length.isdigit():
            return False
        return b"cache-control" not in names or b"no-transform" not in list_members(headers, b"cache-control")

    def _is_small(self, size: int) -> bool:
        return size < self._rules.min_bytes and not (self._choice.needed and size)

    def _coded(self, headers: RawHeaders, length: int | None) -> RawHeaders:
        """The head of the encoded representation: ranges and tags of the plain one are not its own."""
        coding = (self._choice.coding or "").encode()
        kept = without(headers, b"content-length", b"accept-ranges")
        kept = [(name, coded_tag(value, coding) if name == b"etag" else value) for name, value in kept]
        kept.append((b"content-encoding", coding))
        return kept if length is None else [*kept, (b"content-length", b"%d" % length)]

    def _is_known(self, message: Message, headers: RawHeaders) -> bool:
        """Whether the client is told that it has a response which could be encoded, as far as is said of that one."""
        content_type = get(headers, b"content-type")
        encodable = content_type is None or self._rules.is_compressible(content_type)
        untouched = b"no-transform" in list_members(headers, b"cache-control") or get(headers, b"content-encoding")
        return message["status"] == 304 and encodable and not untouched

    def _known(self, message: Message, headers: RawHeaders) -> Message:
        """A 304 varies as the 200 does (§15.4.5), and names the tag the client has: the encoded one, if it has that."""
        tag, coding = get(headers, b"etag"), self._choice.coding
        if tag is not None and coding is not None and self._tags and b"*" not in self._tags:
            coded = coded_tag(tag, coding.encode())
            if coded != tag and matches_weakly(self._tags, coded):
                headers = [*without(headers, b"etag"), (b"etag", coded)]
        return {**message, "headers": _varying(headers)}

    # The body

    async def _first(self, message: Message) -> None:
        """The first chunk: perhaps the only one, and perhaps not worth it."""
        head, coding = self._head, self._choice.coding
        if head is None or coding is None:
            await self._send(message)
            return
        body = message.get("body", b"")
        last = not message.get("more_body", False)
        if last and self._is_small(len(body)):
            await self._as_it_is(head, message)
            return
        encoder = self._encoder = self._rules.encoders[coding]()
        if not last or len(body) > _SLICE:
            await self._send({**head, "headers": self._coded(head["headers"], None)})
            await self._encode(encoder, message)
            return
        encoded = encoder.encode(body) + encoder.finish()
        if len(encoded) >= len(body) and not self._choice.needed:
            await self._as_it_is(head, message)
            return
        self._flows = True
        await self._send({**head, "headers": self._coded(head["headers"], len(encoded))})
        await self._send({**message, "body": encoded})

    async def _as_it_is(self, head: Message, message: Message) -> None:
        self._flows = True
        await self._send(head)
        await self._send(message)

    async def _encode(self, encoder: Encoder, message: Message) -> None:
        """Encode one chunk and send it, so that the client can read all there is of it."""
        body, last = message.get("body", b""), not message.get("more_body", False)
        for start in range(0, len(body) - _SLICE, _SLICE):
            encoded = encoder.encode(body[start : start + _SLICE])
            if encoded:
                await self._send({**message, "body": encoded, "more_body": True})
            await checkpoint()
        rest = body[(len(body) - 1) // _SLICE * _SLICE :] if body else b""
        encoded = encoder.encode(rest) + (encoder.finish() if last else encoder.flush() if rest else b"")
        self._flows = last
        await self._send({**message, "body": encoded})


async def _nothing() -> None:
    """What there is to await for a message that is held back."""


def _varying(headers: RawHeaders) -> RawHeaders:
    """The lines, saying that the response depends on Accept-Encoding."""
    members = list_members(headers, b"vary")
    if b"*" in members or b"accept-encoding" in members:
        return headers
    said = b", ".join([*get_all(headers, b"vary"), b"Accept-Encoding"])
    return [*without(headers, b"vary"), (b"vary", said)]
