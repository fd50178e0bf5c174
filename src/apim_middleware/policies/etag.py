"""Entity tags for responses that have none, and the conditions clients make of them: ``ETag``."""

import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal

from apim_middleware._http.entity_tags import matches_strongly, matches_weakly, strong_tag
from apim_middleware._http.freshness import not_modified_fields
from apim_middleware._http.headers import get, get_all, list_members
from apim_middleware._ring import refusal_messages, refuse, refused, seats_of
from apim_middleware.bodies import Gathered
from apim_middleware.documentation import Answer, Documentation, Told
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, ResponseOver, TransportError, refusal_of
from apim_middleware.exchange import KEY
from apim_middleware.policy import Policy, ring, stated
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

log = logging.getLogger("apim_middleware")

_DESCRIBING = (b"content-type", b"content-encoding", b"content-language")


@dataclass(frozen=True, kw_only=True)
class ETag(Policy):
    """Give responses an entity tag, and spare clients what they have already (RFC 9110 §8.8.3, §13).

    A 200 to a GET is held until it is whole, and tagged: strongly, by SHA-256 of its bytes and of what describes them.
    A request whose ``If-None-Match`` names the tag is answered with 304 and no body; one whose ``If-Match`` does not is
    refused with 412 ``precondition-failed``. The app runs either way: what is spared is the sending.

    Untagged, and flowing as it comes: a body of more than ``max_bytes``, event streams, files the server sends itself,
    ``Cache-Control: no-store``, every other status and method. A response that has a tag keeps it, flows, and its
    conditions are answered by that. HEAD is tagged only where the app gives the whole body for it, for no other tag
    could be the one GET has. Conditions of methods that change something are the app's, which alone can check and act
    in one.

    An upstream that breaks off a response while that is held is a 502 ``upstream-broken``, or 504 ``upstream-timeout``,
    for the client has nothing of it yet.
    """

    guards = False

    max_bytes: int = 1 << 20
    """Largest body that is held for its tag, in bytes; each response under way may hold as much. Default 1 MiB."""

    @stated
    def documentation(self) -> Documentation:
        """The tag, and what is answered to those who have it."""
        answers = (Answer(304, (), ("etag",)), Answer(412, ("precondition-failed",)))
        return Documentation(answers=answers, headers=(Told("etag"),)).only("GET", "HEAD")

    def __post_init__(self) -> None:
        """There must be room for a body."""
        if self.max_bytes < 1:
            raise self.mistake("max_bytes", "is no room for a body", "Give a number of bytes of at least 1")

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring without hooks, and behind it what holds responses."""
        tagging = _Tagging(app, self.max_bytes)
        return ring(self, tagging, tagging, env)


class _Tagging:
    """Lets all pass but what GET and HEAD are answered."""

    def __init__(self, app: ASGIApp, cap: int) -> None:
        self._app, self._cap = app, cap
        self.seats = seats_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        response = _Response(scope, send, self._cap)
        try:
            await self._app(scope, receive, response.send)
        except Exception as error:
            if response.over:
                log.debug("the app failed when the rest of its response was not wanted", exc_info=True)
            elif response.held and isinstance(error, TransportError):  # nothing was sent: there is time to say so
                refusal = refusal_of(error)
                log.warning("%s: %s", refusal.code, error)
                await refuse(refusal, scope, send)
            else:
                raise


class _Response:
    """One response on its way: held, flowing, or answered with something else."""

    def __init__(self, scope: Scope, send: Send, cap: int) -> None:
        self._scope, self._send = scope, send
        self._gathered = Gathered(send, cap)
        self._headers: RawHeaders = []
        self._flows = False
        self.answered = False
        """Whether the client got another response in the place of this one."""
        self.over = False
        """Whether the app was told that nobody wants the rest of its own."""

    @property
    def held(self) -> bool:
        """Whether the response has begun, and nothing of it was sent."""
        return self._gathered.head is not None and not (self._gathered.flowing or self._flows or self.answered)

    def send(self, message: Message) -> Awaitable[None]:
        """Take one message of the app."""
        if self._flows:
            return self._send(message)
        if self.answered:
            return self._drop(message)
        return self._start(message) if message["type"] == "http.response.start" else self._gather(message)

    async def _start(self, message: Message) -> None:
        headers = self._headers = _lower(message)
        tag = get(headers, b"etag")
        if message["status"] != 200 or (tag is None and b"no-store" in list_members(headers, b"cache-control")):
            self._flows = True
        elif tag is not None:
            self._flows = not await self._answers(tag, headers)
        if self._flows:
            await self._send(message)
        elif not self.answered:
            await self._gathered(message)

    async def _gather(self, message: Message) -> None:
        await self._gathered(message)
        self._flows = self._gathered.flowing
        head = self._gathered.head
        if self._gathered.whole and head is not None:
            await self._conclude(head, self._gathered.body)

    async def _conclude(self, head: Message, body: bytes) -> None:
        """The response is whole: send it with its tag, or what the client asked for instead."""
        headers = self._headers
        is_head = self._scope["method"] == "HEAD"
        if is_head and not _is_whole(headers, body):
            self._flows = True
            await self._gathered.release()
            return
        tag = strong_tag(body, [get(headers, name) for name in _DESCRIBING])
        headers = [line for line in headers if line[0] != b"content-length"]
        headers += [(b"etag", tag), (b"content-length", b"%d" % len(body))]
        if not await self._answers(tag, headers):
            self._flows = True
            await self._send({**head, "headers": headers})
            await self._send({"type": "http.response.body", "body": b"" if is_head else body, "more_body": False})

    async def _answers(self, tag: bytes, headers: RawHeaders) -> bool:
        """Answer in the place of a response with this tag, if the client asked for that."""
        status = _verdict(self._scope["headers"], tag)
        if status is None:
            return False
        self.answered = True
        for message in self._unmet() if status == 412 else _not_modified(headers):
            await self._send(message)
        return True

    def _unmet(self) -> list[Message]:
        refusal = Refusal(412, "precondition-failed", "The resource is not in the state that If-Match names.")
        return refusal_messages(refused(self._scope[KEY], refusal), self._scope)

    async def _drop(self, message: Message) -> None:
        if message.get("more_body", False):
            self.over = True
            raise ResponseOver("the client has this response already")


def _verdict(asked: RawHeaders, tag: bytes) -> Literal[304, 412] | None:
    """What a request is answered in the place of a 200 with this tag, If-Match first (RFC 9110 §13.2.2)."""
    match = get_all(asked, b"if-match")
    if match and not matches_strongly(match, tag):
        return 412
    none_match = get_all(asked, b"if-none-match")
    return 304 if none_match and matches_weakly(none_match, tag) else None


def _not_modified(headers: RawHeaders) -> list[Message]:
    kept = list(not_modified_fields(headers))
    return [
        {"type": "http.response.start", "status": 304, "headers": kept},
        {"type": "http.response.body", "body": b"", "more_body": False},
    ]


def _is_whole(headers: RawHeaders, body: bytes) -> bool:
    """Whether the app gave for HEAD the body that GET has: a missing one looks like none."""
    length = get(headers, b"content-length")
    return body != b"" and (length is None or length == b"%d" % len(body))


def _lower(message: Message) -> RawHeaders:
    return [(name.lower(), value) for name, value in message.get("headers") or ()]
