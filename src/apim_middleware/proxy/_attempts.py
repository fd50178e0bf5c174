"""The attempts of one request at a pool: which members are asked, how often, and how long each has."""

from collections.abc import Awaitable, Callable
from itertools import count
from math import inf
from typing import Self, TypeAlias

import anyio

from apim_middleware._http.headers import header_name, header_value
from apim_middleware._http.lines import Checked
from apim_middleware._http.targets import IDEMPOTENT
from apim_middleware._ring import refused
from apim_middleware._telemetry.calls import CALLS, Calls
from apim_middleware.by import Key
from apim_middleware.credentials.credential import RESERVED, Showing
from apim_middleware.credentials.renewing import Unavailable
from apim_middleware.errors import ConnectFailed, NoConnectionFree, Refusal, TransportError, UpstreamTimeout
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import UpstreamRequest, UpstreamResponse
from apim_middleware.proxy._kept_body import Body, begin, is_awaited, is_whole, kept, leave
from apim_middleware.proxy._node import Node, Try
from apim_middleware.proxy._outcomes import kind_of, retry_after
from apim_middleware.proxy._racing import Race
from apim_middleware.proxy._running_pool import RunningPool
from apim_middleware.proxy._statuses import statuses_of
from apim_middleware.proxy._trouble import Trouble
from apim_middleware.proxy._writing import Writer
from apim_middleware.proxy.retry import Budget, Hedge, Retry
from apim_middleware.types import Message, Scope, Send

Asking: TypeAlias = Callable[[Node, UpstreamRequest], Awaitable[UpstreamResponse]]
"""How a member is sent a request."""

Came: TypeAlias = UpstreamResponse | TransportError
"""What came of a request."""

_CALLERS = (b"authorization", b"dpop")
"""Where callers show who they are, which is not for a member that has a credential of its own."""

_HEADS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class RetryPlan:
    """How often the requests of a proxy are sent, and to how many at once."""

    def __init__(self, pool: RunningPool, retry: Retry | None, hedge: Hedge | None) -> None:
        """A request is neither repeated nor sent twice unless there is a rule for it."""
        now = pool.clock.monotonic()
        self.pool, self.retry, self.hedge = pool, retry, hedge
        self.bad = frozenset[int]() if retry is None else statuses_of(retry, "statuses")
        self.repeating = Budget(1.0 if retry is None else retry.budget, now)
        self.hedging = Budget(1.0 if hedge is None else hedge.budget, now)


class Attempts:
    """A transport for one request, which sends it to a pool; after ``begin`` it is a context, which ends it there.

    ``asking`` is how a member is sent a request, where that is not by its transport's ``send``.
    """

    __slots__ = (
        "_answered", "_asking", "_attributes", "_calls", "_key", "_live", "_plan", "_scope", "_stamps", "_tried",
    )  # fmt: skip

    _live: Try

    def __init__(self, plan: RetryPlan, scope: Scope, asking: Asking | None = None) -> None:
        """Nothing is under way yet."""
        self._plan, self._scope, self._asking = plan, scope, asking or _sent
        self._calls: Calls | None = scope.get(CALLS) if asking is None else None
        self._attributes: dict[str, object] = {}
        self._key: str | None = None
        self._stamps: list[bytes] = []
        self._answered = False
        self._tried: dict[Node, float] = {}
        """Who has answered or failed, and when each may be asked again."""

    async def begin(self, index: dict[bytes, bytes] | None) -> tuple[UpstreamRequest, dict[bytes, bytes]]:
        """Choose a member, and write the request for it. Raises Refusal."""
        pool, scope = self._plan.pool, self._scope
        pool.begin()
        if pool.looks_up:
            await pool.find()
        exchange = Exchange.of(scope)
        if exchange is not None:
            self._attributes = exchange.attributes
        if pool.rules.key is not None:
            self._key = _key(pool.rules.key, exchange or Exchange(scope))
        if pool.stamp is not None:
            self._stamps = pool.stamp.found(scope["headers"])
        try:
            self._live = live = pool.first(self._key, self._stamps)
        except Refusal as refusal:
            self._attributes["apim.upstream.error"] = refusal.code
            raise
        try:
            return live.node.writer.request(scope, index)
        except BaseException:
            live.leave()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        """Nothing of the request is under way any more."""
        if isinstance(error, TransportError):
            self._plan.pool.broke_off(self._live)
            if self._live.call is not None:
                self._live.call.end(error)
        self._live.leave()

    @property
    def writer(self) -> Writer:
        """Who writes for the member that is asked."""
        return self._live.node.writer

    @property
    def trouble(self) -> Trouble:
        """What goes wrong with the member that is asked."""
        return self._live.node.writer.trouble

    @property
    def via(self) -> tuple[bytes, bytes]:
        """The line of ``Via`` for its responses."""
        return self._live.node.writer.via

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """The answer of a member, which may be the second or third that was asked. Raises TransportError."""
        retry = self._plan.retry
        if retry is None:
            return await self._once(request, None)
        self._plan.repeating.pay_in()
        body = request.body = kept(request.body, retry.max_body_bytes)
        try:
            return await self._repeated(request, retry)
        finally:
            leave(body)

    async def opening(self, request: UpstreamRequest, rules: object) -> UpstreamResponse:
        """The answer to a WebSocket handshake, sent as ``send`` sends a request; ``asking`` knows the rules for it."""
        return await self.send(request)

    async def aclose(self) -> None:
        """There is nothing to close: the connections belong to others."""

    def stamping(self, send: Send) -> Send:
        """A ``send`` that gives the client the cookie of its member, unless it has it."""
        stamp, scope = self._plan.pool.stamp, self._scope
        if stamp is None:
            return send

        async def sending(message: Message) -> None:
            mine = self._live.node.stamp
            if message["type"] in _HEADS and self._answered and mine not in self._stamps:
                message = {**message, "headers": [*message["headers"], stamp.line(mine, scope)]}
            await send(message)

        return sending

    # Again

    async def _repeated(self, request: UpstreamRequest, retry: Retry) -> UpstreamResponse:
        clock = self._plan.pool.clock
        over = inf if retry.deadline is None else clock.monotonic() + retry.deadline
        for repetition in count(1):
            came = await self._what_comes(request, min(retry.per_try or inf, over - clock.monotonic()))
            if repetition >= retry.attempts or not self._may_go_again(retry, request, came):
                break
            turn = self._turn(retry, repetition, over)
            if turn is None:
                break
            live, wait = turn
            if isinstance(came, TransportError):
                self.trouble.failed(came)  # of the last one the client hears
            self._turn_to(live, _reason(came), repetition)
            if not isinstance(came, TransportError):
                await came.aclose()
            await anyio.sleep(wait)
            request = self._rewritten(request, self._live)
        if isinstance(came, TransportError):
            raise came
        return came

    async def _what_comes(self, request: UpstreamRequest, seconds: float) -> Came:
        try:
            return await self._once(request, None if seconds == inf else seconds)
        except TransportError as error:
            return error

    def _may_go_again(self, retry: Retry, request: UpstreamRequest, came: Came) -> bool:
        """Whether there is reason to send the request again, and nothing against it."""
        begun = not isinstance(came, ConnectFailed)
        if begun and request.method not in retry.methods:  # it may have been executed
            return False
        if isinstance(came, TransportError):
            if begun and request.method not in IDEMPOTENT and not retry.non_idempotent:  # nobody said that it was not
                return False
            wanted = (kind_of(came) or ("connect" if isinstance(came, NoConnectionFree) else None)) in retry.errors
        else:
            wanted = came.status in self._plan.bad
        if wanted and not is_whole(request.body, retry.max_body_bytes, begun=begun):
            self._attributes["apim.upstream.not_repeated"] = "body"
            return False
        return wanted

    def _turn(self, retry: Retry, repetition: int, over: float) -> tuple[Try, float] | None:
        """Who is asked next, and the seconds before: another member at once, one that was asked only after a while."""
        pool, now = self._plan.pool, self._plan.pool.clock.monotonic()
        live = pool.another(self._key, self._tried)
        if live is None:
            return None
        wait, fits = 0.0, True
        if live.node in self._tried:
            left = self._tried[live.node] - now
            wait = max(left, retry.wait(repetition, pool.draw()))
            fits = left <= retry.max_backoff
        if not fits or now + wait >= over or not self._plan.repeating.take(now):
            live.leave()
            return None
        return live, wait

    def _turn_to(self, live: Try, reason: str, repetition: int) -> None:
        self._live.leave()
        told = {"apim.upstream.member": self._live.node.name, "apim.upstream.reason": reason}
        self._plan.pool.count("apim.upstream.retries", told)
        self._attributes["apim.upstream.retries"] = repetition
        self._live = live

    def _rewritten(self, request: UpstreamRequest, live: Try) -> UpstreamRequest:
        other, _ = live.node.writer.request(self._scope)
        other.body, other.trailers, other.early_hints = request.body, request.trailers, request.early_hints
        return other

    # Once, or twice at once

    async def _once(self, request: UpstreamRequest, seconds: float | None) -> UpstreamResponse:
        hedge = self._plan.hedge
        plain = self._asking is _sent and request.body is None and request.method in ("GET", "HEAD")
        if hedge is None or not plain:
            return await self._ask(self._live, request, seconds)
        self._plan.hedging.pay_in()
        first = self._live

        async def ask(live: Try) -> UpstreamResponse:
            return await self._ask(live, request if live is first else self._rewritten(request, live), seconds)

        self._live, response = await Race(ask).run(first, self._second, hedge.after)
        self._attributes["apim.upstream.member"] = self._live.node.name
        return response

    def _second(self) -> Try | None:
        """Another member that may be asked as well."""
        plan = self._plan
        pool, now = plan.pool, plan.pool.clock.monotonic()
        live = pool.another(self._key, {**self._tried, self._live.node: now}, only_fresh=True)
        if live is None:
            return None
        if not plan.hedging.take(now):
            live.leave()
            return None
        self._attributes["apim.upstream.hedged"] = True
        pool.count("apim.upstream.hedges", {"apim.upstream.member": self._live.node.name})
        return live

    async def _ask(self, live: Try, request: UpstreamRequest, seconds: float | None) -> UpstreamResponse:
        """Ask one member, and tell the pool what came of it."""
        pool, node = self._plan.pool, live.node
        self._attributes["apim.upstream.member"] = node.name
        if node.breaker is not None:
            self._attributes["apim.upstream.breaker"] = node.breaker.state
        try:
            asked = self._asking(node, request) if node.showing is None else self._shown(node, node.showing, request)
            if seconds is not None:
                asked = _within(seconds, asked, request.body)
            if self._calls is not None:
                live.call = self._calls.begin(request)
                asked = live.call.over(asked)
            response = await asked
        except TransportError as error:
            pool.failed(live, error)
            self._note(node, error)
            raise
        except BaseException:
            live.leave()
            raise
        pool.answered(live, response.status, response.headers)
        self._answered = True
        self._note(node, response)
        return response

    async def _shown(self, node: Node, showing: Showing, request: UpstreamRequest) -> UpstreamResponse:
        """Ask a member that has a credential of its own. Raises ConnectFailed where there is none to be had."""
        scope, lines = self._scope, request.headers
        try:
            (name, value), drop = await showing(Exchange.of(scope) or Exchange(scope))
            line = header_name(name), header_value(value)
            if line[0] in RESERVED:
                raise ValueError("it belongs to the connection")
        except Unavailable as missing:
            if missing.denied:
                raise missing.refusal() from None
            raise ConnectFailed(f"there is no credential for it: {missing.reason}") from None
        except ValueError:
            raise ConnectFailed("its credential cannot stand in a header") from None
        shown = [*(each for each in lines if each[0] not in _CALLERS and each[0] != line[0]), line]
        request.headers = Checked(shown) if type(lines) is Checked else shown
        response = await self._asking(node, request)
        if drop is not None and response.status == 401:
            drop()
        return response

    def _note(self, node: Node, came: Came) -> None:
        """Remember when a member may be asked again; one without a connection for us may not."""
        if self._plan.retry is None:
            return
        clock, wait = self._plan.pool.clock, 0.0
        if not isinstance(came, TransportError):
            wait = retry_after(came.headers, clock.now()) or 0.0
        elif isinstance(came, NoConnectionFree):
            wait = inf
        self._tried[node] = clock.monotonic() + wait


def _key(key: Key, exchange: Exchange) -> str | None:
    try:
        return key(exchange)
    except Exception as error:
        raise refused(exchange, error) from error


def _sent(node: Node, request: UpstreamRequest) -> Awaitable[UpstreamResponse]:
    return node.transport.send(request)


def _reason(came: Came) -> str:
    return kind_of(came) or "busy" if isinstance(came, TransportError) else str(came.status)


async def _within(seconds: float, asked: Awaitable[UpstreamResponse], body: Body) -> UpstreamResponse:
    begin(body)
    with anyio.move_on_after(seconds):
        return await asked
    if is_awaited(body):  # which no member is to blame for
        detail = "The request body took too long to come."
        raise Refusal(408, "request-timeout", detail, headers={"connection": "close"})
    raise UpstreamTimeout("the upstream took too long for one try")
