"""Showing requests to another app as well: ``Mirror``."""

import logging
import random
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

import anyio

from apim_middleware._config import awaits
from apim_middleware._functions import needs
from apim_middleware._http.headers import get
from apim_middleware._loops import start
from apim_middleware._ring import seats_of
from apim_middleware._together import neighbour
from apim_middleware.bodies import Collected
from apim_middleware.conditions import Condition, holds
from apim_middleware.env import Env
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.policy import Policy, ring, stated
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("apim_middleware")


@dataclass(frozen=True)
class Mirror(Policy):
    """Send a copy of each request to another app too, such as a proxy to a shadow upstream, and forget its answers.

    ``Mirror(Proxy("http://shadow"), share=0.1)``. The request itself does not wait for its copy, nor does it notice
    when that fails. A copy begins when the app has read the request to its end; one whose body is larger than
    ``max_body_bytes``, or that would be one too many, is not made. WebSockets are not copied. What guards should stand
    before it, so that only requests that may come in are shown. Azure API Management has no such policy; its
    ``send-one-way-request`` comes close.
    """

    guards = False

    to: ASGIApp
    """The other app."""

    _: KW_ONLY

    share: float = 1.0
    """Which part of the requests is copied, from 0 to 1; all by default."""

    max_body_bytes: int = 65_536
    """The largest body that is copied, in bytes."""

    at_once: int = 100
    """How many copies may be under way at once."""

    timeout: float = 10.0
    """How long a copy may take before it is given up."""

    when: Condition | None = None
    """Which requests are copied, as a plain function of the exchange; all by default."""

    random: Callable[[], float] | None = field(default=None, repr=False, compare=False)
    """Where numbers from 0 up to 1 come from that decide; ``random.random`` by default."""

    @stated
    def leads_to(self) -> tuple[ASGIApp, ...]:
        """The app that sees the copies."""
        return (self.to,)

    @stated
    def needs(self) -> frozenset[str]:
        """What the condition relies on."""
        return frozenset() if self.when is None else needs(self.when)

    def __post_init__(self) -> None:
        """The numbers must make sense."""
        if not 0 <= self.share <= 1:
            raise self.mistake("share", "is no part", "Give a number from 0 to 1")
        if self.max_body_bytes < 0:
            raise self.mistake("max_body_bytes", "is no size", "Give bytes, 0 for requests without a body")
        if self.at_once < 1:
            raise self.mistake("at_once", "lets nothing pass", "Give a number of at least 1")
        if not 0 < self.timeout <= 3600:
            raise self.mistake("timeout", "is out of range", "Give seconds above 0, up to 3600")
        if awaits(self.when):
            raise self.mistake("when", "is async", "Give a plain function, or put Mirror into When")

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring without hooks, and behind it the mirror."""
        mirrored = _Mirrored(self, app, env)
        return ring(self, mirrored, mirrored, env)


class _Mirrored:
    def __init__(self, rule: Mirror, app: ASGIApp, env: Env) -> None:
        self._rule, self._app, self._env = rule, app, env
        self._to = neighbour(rule.to, env)
        self.seats = seats_of(app)
        self._draw = rule.random or random.random
        self._under_way: set[object] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._chosen(scope):
            await self._app(scope, receive, send)
            return
        copied = _Copy(scope)
        if _has_no_body(scope):
            self._begin(copied)
        else:
            receive = partial(self._receive, copied, receive)
        await self._app(scope, receive, send)

    def _chosen(self, scope: Scope) -> bool:
        rule = self._rule
        if rule.when is not None:
            try:
                if not holds(rule.when, Exchange.of(scope) or Exchange(scope)):
                    return False
            except Exception:
                log.exception("a request is not mirrored: its condition failed")
                return False
        return self._draw() < rule.share

    async def _receive(self, copied: "_Copy", receive: Receive) -> Message:
        message = await receive()
        if copied.open:
            copied.take(message, self._rule.max_body_bytes)
            if copied.too_large:
                self._lost("body")
            elif copied.whole:
                copied.measure()
                self._begin(copied)
        return message

    def _begin(self, copied: "_Copy") -> None:
        if len(self._under_way) >= self._rule.at_once:
            self._lost("busy")
            return
        self._under_way.add(copied)
        start(partial(self._show, copied))

    async def _show(self, copied: "_Copy") -> None:
        try:
            with anyio.move_on_after(self._rule.timeout) as clock:
                await self._to(copied.scope, copied.receive, _unheard)
            if clock.cancelled_caught:
                self._lost("slow")
        except Exception as error:
            log.debug("the copy of a request failed", exc_info=error)
            self._lost("failed")
        finally:
            self._under_way.discard(copied)

    def _lost(self, reason: str) -> None:
        self._env.count("apim.mirror.lost", {"apim.mirror.reason": reason})


class _Copy:
    """A request of its own, made of one that is under way."""

    def __init__(self, scope: Scope) -> None:
        self.scope = {**scope, "headers": list(scope["headers"]), "extensions": {}}
        self.scope.pop(KEY, None)
        self.whole = self.too_large = False
        self._body = Collected()
        self._given = False

    def measure(self) -> None:
        """Say how long the body is: a policy behind may have put another in its place since the head was copied."""
        headers = self.scope["headers"]
        said, length = get(headers, b"content-length"), b"%d" % len(self._body)
        unsaid = said is None and (not self._body or get(headers, b"transfer-encoding") is not None)
        if said != length and not unsaid:
            kept = [line for line in headers if line[0] != b"content-length"]
            self.scope["headers"] = [*kept, (b"content-length", length)]

    @property
    def open(self) -> bool:
        """Whether more of the body is to come."""
        return not (self.whole or self.too_large)

    def take(self, message: Message, most: int) -> None:
        """Keep what comes of the body. Half of one is never shown."""
        if message["type"] != "http.request":
            return
        part = message.get("body", b"")
        if len(self._body) + len(part) > most:
            self.too_large, self._body = True, Collected()
        else:
            self._body.add(part)
            self.whole = not message.get("more_body", False)

    async def receive(self) -> Message:
        """The ``receive`` of the copy, whose client never leaves."""
        if self._given:
            await anyio.sleep_forever()
        self._given = True
        return {"type": "http.request", "body": bytes(self._body), "more_body": False}


def _has_no_body(scope: Scope) -> bool:
    headers = scope["headers"]
    if get(headers, b"transfer-encoding") is not None:
        return False
    length = get(headers, b"content-length")
    if length is not None:
        return length == b"0"
    return scope["method"] in ("GET", "HEAD") or scope.get("http_version") in ("1.0", "1.1")  # RFC 9112 §6.3


async def _unheard(message: Message) -> None:
    """Where the answers to copies go."""
