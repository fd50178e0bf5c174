"""Faults on purpose, to see how callers cope: ``Faults``."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from apim_middleware._alongside import alongside
from apim_middleware._config import awaits
from apim_middleware._functions import needs
from apim_middleware._ring import refuse, seats_of
from apim_middleware.bodies import Ahead
from apim_middleware.conditions import Condition, holds
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.policy import Policy, ring, stated
from apim_middleware.types import ASGIApp, Receive, Scope, Send

_SLOW = "apim_middleware.faults.slow"
_HOUR = 3600.0
_AHEAD = 65_536


@dataclass(frozen=True, kw_only=True)
class Faults(Policy):
    """Keep some requests waiting, and refuse some, as an upstream in trouble would; nothing happens unless told.

    One whose client leaves meanwhile is kept no longer, and goes no further.
    Refused: ``status`` with code ``fault-injected``. Azure API Management has no such policy.
    """

    guards = False

    slow: float = 0.0
    """Which part of the requests is kept waiting, from 0 (the default) to 1."""

    delay: float = 1.0
    """Seconds for which they are kept waiting, up to an hour."""

    fail: float = 0.0
    """Which part of the requests is refused, from 0 (the default) to 1; whether one is slow makes no difference."""

    status: int = 503
    """The status of those that are refused, from 400 to 599."""

    when: Condition | None = None
    """Which requests it may happen to, as a plain function of the exchange; all by default."""

    random: Callable[[], float] | None = field(default=None, repr=False, compare=False)
    """Where numbers from 0 up to 1 come from that decide; ``random.random`` by default."""

    @stated
    def documentation(self) -> Documentation:
        """What is answered to those who are refused."""
        return Documentation(answers=(Answer(self.status, ("fault-injected",)),) if self.fail else ())

    @stated
    def needs(self) -> frozenset[str]:
        """What the condition relies on."""
        return frozenset() if self.when is None else needs(self.when)

    def __post_init__(self) -> None:
        """The numbers must make sense."""
        for name in ("slow", "fail"):
            if not 0 <= getattr(self, name) <= 1:
                raise self.mistake(name, "is no part", "Give a number from 0 to 1")
        if not 0 < self.delay <= _HOUR:
            raise self.mistake("delay", "is out of range", f"Give seconds above 0, up to {_HOUR:g}")
        if not 400 <= self.status <= 599:
            raise self.mistake("status", "refuses nobody", "Give a status from 400 to 599")
        if awaits(self.when):
            raise self.mistake("when", "is async", "Give a plain function, or put Faults into When")

    def bind(self, env: Env) -> "_Mischief":
        """What decides at one place."""
        return _Mischief(self, env)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring of this policy, and behind it, if anybody may have to wait, the place to do so."""
        mischief = env.bind(self)
        return ring(self, mischief, _Waiting(mischief, app) if self.slow else app, env)


class _Mischief:
    def __init__(self, rule: Faults, env: Env) -> None:
        self.rule, self._count = rule, env.count
        self._draw = rule.random or random.random

    def on_request(self, exchange: Exchange) -> None:
        rule = self.rule
        if rule.when is not None and not holds(rule.when, exchange):
            return
        if self._draw() < rule.slow:
            self._note(exchange, "slow")
            exchange.scope[_SLOW] = True
        else:
            self.go_on(exchange)

    def go_on(self, exchange: Exchange) -> None:
        """What becomes of a request that waits no longer."""
        if self._draw() < self.rule.fail:
            self._note(exchange, "fail")
            raise Refusal(self.rule.status, "fault-injected", "This request was refused on purpose.")

    def _note(self, exchange: Exchange, kind: str) -> None:
        exchange.attributes["apim.faults.kind"] = kind
        self._count("apim.faults", {"apim.faults.kind": kind})


class _Waiting:
    """Where those wait who must: right behind the policy, where it can be seen that a client leaves."""

    def __init__(self, mischief: _Mischief, app: ASGIApp) -> None:
        self._mischief, self._app = mischief, app
        self.seats = seats_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.pop(_SLOW, False):
            await self._app(scope, receive, send)
            return
        ahead = Ahead(receive, _AHEAD)
        async with alongside() as tasks:  # until the end, for a read under way belongs to the app then
            with anyio.move_on_after(self._mischief.rule.delay) as waiting:
                if scope[KEY].header(b"expect") is None:  # a read would tell the client to go on (RFC 9110 §10.1.1)
                    tasks.start_soon(ahead.watch, waiting.cancel)
                await anyio.sleep_forever()
            ahead.stop()
            if not ahead.left:
                await self._go_on(scope, ahead.receive, send)

    async def _go_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._mischief.go_on(scope[KEY])
        except Refusal as refusal:
            await refuse(refusal, scope, send)
        else:
            await self._app(scope, receive, send)
