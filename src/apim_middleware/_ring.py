"""The ring: neighbouring policies fused into one ASGI layer that nobody can tell from the layers nested.

On the way in every ``on_request`` runs, outermost first. The first that refuses or answers ends the way in, and the
answer leaves through the policies before it, and only those. On the way out each message passes a ``_Passage``.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from apim_middleware._http.hygiene import Scrub
from apim_middleware._http.problems import render
from apim_middleware._lifespan import Ending, ending_with
from apim_middleware._server import look_at_server
from apim_middleware.errors import Refusal, ResponseOver
from apim_middleware.exchange import KEY, AcceptedHead, Exchange, ResponseHead
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send, Tap

log = logging.getLogger("apim_middleware")

_UNTAPPABLE = frozenset({"http.response.pathsend", "http.response.zerocopysend", "http.response.trailers"})
_STARTS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "websocket.http.response.body"})


class Seat(NamedTuple):
    """A policy in a ring, the object whose hooks run for it, and the environment it was bound in."""

    policy: Any
    hooks: Any
    env: Any = None


class Ring:
    """Neighbouring policies, outermost first, around an app."""

    seats: tuple[Seat, ...]
    app: ASGIApp
    closed: bool

    endings: frozenset[Ending]

    __slots__ = (
        "_awaited", "_guards", "_inbound", "_may_tap", "_scrub", "_through", "_ways", "app", "closed", "endings",
        "seats",
    )  # fmt: skip

    def __init__(
        self,
        seats: Sequence[Seat],
        app: ASGIApp,
        scrub: Scrub,
        *,
        closed: bool = False,
        endings: frozenset[Ending] = frozenset(),
    ) -> None:
        """Resolve every hook now. A ``closed`` ring takes in no policies further in: they stand behind a branch.

        ``endings`` are run when the lifespan of the app has ended.
        """
        if isinstance(app, Ring) and not closed and not app.closed_to(seats):
            seats, closed, endings = (*seats, *app.seats), app.closed, endings | app.endings
            app = app.app
        self.endings = endings
        self.seats: tuple[Seat, ...] = tuple(seats)
        self.closed = closed
        self.app: ASGIApp = app
        self._scrub = scrub.__call__  # found once
        hooks = [seat.hooks for seat in self.seats]
        self._inbound = _resolved(hooks, "on_request")
        self._awaited = _awaited(self._inbound)
        self._ways = tuple(_WayOut.out_of(hooks[:depth]) for depth in range(len(hooks) + 1))
        self._through = self._ways[-1]
        self._guards = sum(1 for seat in self.seats if seat.policy.guards is not False)
        self._may_tap = any(getattr(each, "taps_body", False) for each in hooks)

    def closed_to(self, seats: Sequence[Seat]) -> bool:
        """Whether an equal hook object is already in here: two of them would mix up what they keep in ``state``."""
        return any(seat.hooks == mine.hooks for seat in seats for mine in self.seats)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the exchange through the policies and the app."""
        kind = scope["type"]
        if kind != "http" and kind != "websocket":
            look_at_server(scope, receive)
            await self.app(scope, receive, ending_with(send, self.endings))
            return
        if self._may_tap and scope.get("extensions"):
            _hide_untappable(scope)
        outer: Exchange | None = scope.get(KEY)
        exchange = Exchange(scope, outer)
        if outer is None:
            scope[KEY] = exchange
        target, way, depth = self.app, self._through, 0
        try:
            try:
                shared = exchange.shared
                shared.guards += self._guards
                if not shared.clean:
                    index, aside = self._scrub(scope)
                    exchange.scrubbed(index, aside)
                for depth, hook in self._inbound:
                    answer = hook(exchange)
                    if answer is not None:
                        if depth in self._awaited:
                            answer = await answer
                            if answer is None:
                                continue
                        target, way = answer, self._ways[depth]
                        break
            except Exception as error:
                target, way = _answering(refused(exchange, error)), self._ways[depth]
            except BaseException as error:
                exchange.error = error
                _end(self._ways[depth].ends, exchange)
                raise
            if way.silent:
                await target(scope, receive, send)
                return
            passage = _Passage(exchange, way, send)
            try:
                await target(scope, receive, passage.send)
            except BaseException as error:
                over = _is_over(error)
                if not over:
                    exchange.error = error
                if not (over and passage.over):
                    raise
            finally:
                if way.ends and not passage.ended:
                    passage.end()
            if passage.failure is not None:
                raise passage.failure
        finally:
            if outer is None:  # what holds each other is parted here, without the collector
                scope.pop(KEY, None)  # the scope and its exchange
                exchange.shared.error = None  # and what was raised, whose frames hold them and the bodies


def seats_of(app: ASGIApp) -> tuple[Seat, ...]:
    """The policies that are seen from in front of an app, outermost first, for whoever looks at their order.

    What a policy puts between its ring and the one behind lets that be seen: ``self.seats = seats_of(app)``.
    """
    own: tuple[Seat, ...] = getattr(app, "seats", ())
    return (*own, *seats_of(app.app)) if isinstance(app, Ring) else own


def _is_over(error: BaseException) -> bool:
    """Whether it is only that a response was replaced or broken off, be it told to several tasks of an app."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(ResponseOver)[1] is None
    return isinstance(error, ResponseOver)


def refused(exchange: Exchange, error: Exception) -> Refusal:
    """The refusal this error of a policy is: itself, or a 500 that says nothing of what went wrong."""
    if not isinstance(error, Refusal):
        log.error("a policy failed", exc_info=error)
        error = Refusal(500, "policy-failed", "The request could not be processed.")
    error.__traceback__ = None  # an answer like any other: where it was raised is of no use, and its frames are heavy
    if error.__suppress_context__:
        error.__context__ = None
    exchange.refusal = error
    return error


async def refuse(error: Exception, scope: Scope, send: Send) -> None:
    """Answer a request from within a layer with a ``Refusal``, as those are answered that policies raise.

    It is written as the gateway writes them, and the access log and traces know of it. Any other error is told to the
    log, and answered with 500 ``policy-failed``. Nothing may have been sent before.
    """
    for message in refusal_messages(refused(Exchange.of(scope) or Exchange(scope), error), scope):
        await send(message)


def _answering(refusal: Refusal) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        for message in refusal_messages(refusal, scope):
            await send(message)

    return answer


def refusal_messages(refusal: Refusal, scope: Scope) -> list[Message]:
    headers, body = _rendered(refusal, scope)
    if scope["type"] == "http":
        if scope.get("method") == "HEAD":
            body = b""
        return _answer("http.response", refusal.status, headers, body)
    if "websocket.http.response" in (scope.get("extensions") or ()):
        return _answer("websocket.http.response", refusal.status, headers, body)
    return [{"type": "websocket.close", "code": 1008, "reason": refusal.code}]


def _rendered(refusal: Refusal, scope: Scope) -> tuple[RawHeaders, bytes]:
    """As the gateway that matched the request writes refusals, else as problem+json."""
    exchange: Exchange | None = scope.get(KEY)
    match = None if exchange is None else exchange.shared.match
    return render(refusal) if match is None else match.route.render(refusal)


def _answer(kind: str, status: int, headers: RawHeaders, body: bytes) -> list[Message]:
    return [
        {"type": f"{kind}.start", "status": status, "headers": headers},
        {"type": f"{kind}.body", "body": body, "more_body": False},
    ]


def _hide_untappable(scope: Scope) -> None:
    """Take the ways to send a body past a tap out of the scope; not out of the extensions, which are the server's.

    The scope itself goes on, for layers further out read there what the app notes in it, such as the route.
    """
    extensions = scope["extensions"]
    if not _UNTAPPABLE.isdisjoint(extensions):
        scope["extensions"] = {name: value for name, value in extensions.items() if name not in _UNTAPPABLE}


_Hook = Callable[[Exchange], Any]


def _resolved(hooks: Sequence[Any], name: str) -> tuple[tuple[int, _Hook], ...]:
    """The hooks of this name, each with the place it has among all."""
    found = [(place, getattr(each, name, None)) for place, each in enumerate(hooks)]
    return tuple((place, hook) for place, hook in found if hook is not None)


def _awaited(resolved: Iterable[tuple[int, _Hook]]) -> frozenset[int]:
    """The places of those that must be awaited."""
    return frozenset(place for place, hook in resolved if inspect.iscoroutinefunction(hook))


_AWAIT, _CALL, _END = range(3)


@dataclass(frozen=True, slots=True)
class _WayOut:
    """The way out from one depth of a ring."""

    hooks: tuple[Any, ...]
    refused: bool  # the innermost of them has refused the response: it only ends
    heads: tuple[tuple[int, _Hook], ...]  # on_response, innermost first
    awaited: frozenset[int]  # the places of those of them that must be
    finale: tuple[tuple[int, _Hook], ...]  # on_sent and on_end when all is sent, outermost first
    ends: tuple[_Hook, ...]  # on_end alone, when it is cut short, innermost first
    silent: bool  # nobody looks at the response

    @classmethod
    def out_of(cls, hooks: Sequence[Any], *, refused: bool = False) -> "_WayOut":
        """The way out through these policies, the innermost of which may have ``refused`` the response."""
        speaking = len(hooks) - refused
        heads = _resolved(hooks[:speaking], "on_response")[::-1]
        finale: list[tuple[int, _Hook]] = []
        for place, each in enumerate(hooks):
            sent, end = getattr(each, "on_sent", None), getattr(each, "on_end", None)
            if sent is not None and place < speaking:
                finale.append((_AWAIT if inspect.iscoroutinefunction(sent) else _CALL, sent))
            if end is not None:
                finale.append((_END, end))
        ends = tuple(hook for kind, hook in reversed(finale) if kind == _END)
        return cls(tuple(hooks), refused, heads, _awaited(heads), tuple(finale), ends, not (heads or finale))


def _end(ends: Iterable[_Hook], exchange: Exchange) -> None:
    """Run each ``on_end``; none may keep the others from running."""
    for hook in ends:
        try:
            hook(exchange)
        except Exception:
            log.exception("a policy failed after the response")


_ALL_RUN: Iterator[tuple[int, _Hook]] = iter(())


class _Passage:
    """One response on its way out through the policies that let its request in."""

    __slots__ = (
        "_exchange", "_finale", "_head_sent", "_outer", "_send", "_taps", "_trailers", "_way", "ended", "failure",
    )  # fmt: skip

    _finale: Iterator[tuple[int, _Hook]] | None  # once all is sent; who takes a hook runs it, so that none runs twice
    _outer: "_Passage | None"  # what goes on without the policies whose response was replaced
    failure: BaseException | None

    def __init__(self, exchange: Exchange, way: _WayOut, send: Send) -> None:
        self._exchange, self._way, self._send = exchange, way, send
        self._taps: tuple[Tap, ...] = ()
        self._head_sent = self._trailers = self.ended = False
        self._finale = self._outer = self.failure = None

    @property
    def over(self) -> bool:
        """Whether the response of the app was replaced or broken off."""
        return self._outer is not None or self.failure is not None

    def send(self, message: Message) -> Awaitable[None]:
        """The ``send`` the app gets."""
        kind = message["type"]
        if kind == "http.response.start" and not self._head_sent:  # found without a search, as most are
            return self._start(message)
        if kind == "http.response.body" or kind in _BODIES:
            last = not message.get("more_body", False)
            if self._taps:
                message = self._tapped(message, last)
            ends = last and not self._trailers and self._way.finale
            return self._finish(message) if ends else self._send(message)
        if kind in _STARTS and not self._head_sent:
            return self._start(message)
        if kind == "http.response.pathsend":
            return self._finish(self._tapped(message, last=True) if self._taps else message)
        if kind == "websocket.close" or (kind == "http.response.trailers" and not message.get("more_trailers", False)):
            return self._finish(message)
        return self._send(message)

    def _start(self, message: Message) -> Awaitable[None]:
        exchange, way = self._exchange, self._way
        status, headers = message.get("status"), message.get("headers") or ()
        head = AcceptedHead(101, headers) if status is None else ResponseHead(status, headers)
        exchange.shared.response = head
        if "trailers" in message:
            self._trailers = message["trailers"]
        if way.awaited:
            return self._start_slowly(message, head)
        for place, hook in way.heads:
            try:
                tap = hook(exchange)
                if tap is not None:
                    self._tap(place, tap)
            except Exception as error:
                return self._replace(place, error)
        self._head_sent = True
        return self._send(_with_head(message, head))

    async def _start_slowly(self, message: Message, head: ResponseHead) -> None:
        for place, hook in self._way.heads:
            try:
                tap = hook(self._exchange)
                if place in self._way.awaited:
                    tap = await tap
                if tap is not None:
                    self._tap(place, tap)
            except Exception as error:
                await self._replace(place, error)
                return
        self._head_sent = True
        await self._send(_with_head(message, head))

    def _tap(self, place: int, tap: Tap) -> None:
        if not getattr(self._way.hooks[place], "taps_body", False):
            name = type(self._way.hooks[place]).__name__
            raise TypeError(f"{name} taps the body without saying so: set taps_body = True on the class with the hooks")
        if self._exchange.response is not None and self._exchange.response.status != 101:
            self._taps += (tap,)

    def _tapped(self, message: Message, last: bool) -> Message:
        if message["type"] in _UNTAPPABLE:
            self._break_off(0, RuntimeError(f"the app sent {message['type']}, which it was not offered"))
        chunk = message.get("body", b"")
        for place, tap in enumerate(self._taps):
            try:
                chunk = tap(chunk, last)
            except ResponseOver:
                raise
            except Exception as error:
                self._break_off(place, error)
        return {**message, "body": chunk}

    def _break_off(self, place: int, error: Exception) -> NoReturn:
        """The head is out, so an honest end is not to be had any more: neither now nor later."""
        log.error("the response is broken off", exc_info=error)
        self.failure = error
        self._exchange.error = error
        self._taps = (*self._taps[:place], _broken_off)
        self._send = _nothing_more
        raise ResponseOver("the response was broken off")

    async def _finish(self, message: Message) -> None:
        await self._send(message)
        if self._finale is not None:
            return
        exchange = self._exchange
        exchange.shared.completed = True
        finale = self._finale = iter(self._way.finale)
        for kind, hook in finale:
            try:
                waiting = hook(exchange)
                if kind == _AWAIT:
                    await waiting
            except Exception:
                log.exception("a policy failed after the response")
        self.ended = self._outer is None

    async def _replace(self, place: int, error: Exception) -> None:
        """A policy refuses the response: those further out get the refusal instead, those further in go on unheard."""
        refusal = refused(self._exchange, error)
        hooks, send = self._way.hooks, self._send
        outer = self._outer = _Passage(self._exchange, _WayOut.out_of(hooks[: place + 1], refused=True), send)
        self._way, self._send = _WayOut.out_of(hooks[place + 1 :], refused=self._way.refused), self._unheard
        self._head_sent = True
        try:
            for message in refusal_messages(refusal, self._exchange.scope):
                await outer.send(message)
        finally:
            self.failure = outer.failure

    async def _unheard(self, message: Message) -> None:
        """Where a replaced response goes: an app about to finish may finish, one that streams on is told to stop.

        From then on nothing makes it whole, whatever the app still sends.
        """
        if message.get("more_body", False) or message["type"] == "websocket.send":
            self._send = _nothing_more
            raise ResponseOver("the response was replaced")

    def end(self) -> None:
        """Nothing more will come: run each ``on_end`` that has not run, once."""
        finished = self._finale is not None
        left = tuple(self._finale or self._way.finale)
        self._finale = _ALL_RUN
        if left:
            shared = self._exchange.shared
            # What was completed may be another response, which took the place of this one.
            completed, shared.completed = shared.completed, finished
            _end([hook for kind, hook in reversed(left) if kind == _END], self._exchange)
            shared.completed = completed
        if self._outer is not None:
            self._outer.end()


def _with_head(message: Message, head: ResponseHead) -> Message:
    """The message with this head; the one given is the app's own, which may send it again."""
    if type(head) is AcceptedHead:
        return {**message, "headers": head.headers}
    return {**message, "status": head.status, "headers": head.headers}


def _broken_off(chunk: bytes, last: bool) -> bytes:
    """The tap in the place of one that failed."""
    raise ResponseOver("the response was broken off")


async def _nothing_more(message: Message) -> None:
    """The ``send`` in the place of that of a response that was broken off."""
    raise ResponseOver("the response was broken off")
