"""How many may be in the house at once: ``LimitConcurrency``.

Requests are counted under a key from when they come in until the last byte of their response was handed on. Who is in
stands in ``Env.permits``; who waits stands in a line of this process.
"""

import itertools
import logging
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from anyio import Event, move_on_after
from anyio.abc import TaskGroup

from apim_middleware._alongside import alongside
from apim_middleware._config import awaits
from apim_middleware._functions import name_of
from apim_middleware._functions import needs as needs_of
from apim_middleware._limits.places import LONGEST_KEY, digest_of
from apim_middleware._limits.store_gate import DOING
from apim_middleware._ring import refusal_messages, refused, seats_of
from apim_middleware.bodies import Ahead
from apim_middleware.by import Key, everyone
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.policy import Policy, check_place, ring, stated
from apim_middleware.stores.lending import Lending
from apim_middleware.stores.outage import Outage
from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("apim_middleware")

_VISIT = "apim_middleware.concurrency.visit"
_RETRY = [(b"retry-after", b"1")]
_ASK_AGAIN = 0.05  # seconds: who leaves another process tells nobody here
_LONGEST_WAIT = 3600.0
_AHEAD = 65_536
_serial = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class LimitConcurrency(Policy):
    """Let at most ``at_once`` requests of the same key be at work at once.

    A request is at work until the last byte of its response was handed on, it failed, or its client left; a WebSocket
    until it is closed. What an app does after the last byte holds nothing.

    Refused: 429 ``too-many-at-once`` with ``Retry-After``; 403 ``caller-unknown`` for a request without a key;
    503 ``limit-store-unavailable`` when it cannot be counted.
    Follows ``limit-concurrency`` of Azure API Management and RFC 6585 §4.
    """

    guards = False

    at_once: int
    """How many may be at work at once, at least 1."""

    by: Key = everyone
    """Whom to count: a function of the exchange that gives the key. Default: all callers together."""

    queue: int = 0
    """How many more, of each key, may wait until one is done; they come in in the order they came. Default: none."""

    wait: float = 1.0
    """The longest wait in the queue in seconds, up to an hour; who waited that long is refused. Default: 1."""

    name: str = "concurrency"
    """What logs and traces call this policy; policies in one stack should have different names."""

    when_unknown: Literal["refuse", "together"] = "refuse"
    """What becomes of a request without a key: refused (the default), or counted together with all such requests."""

    when_store_fails: Literal["refuse", "allow", "local"] = "refuse"
    """What becomes of a request that cannot be counted: refused (the default), let in uncounted, or counted in this
    process alone."""

    shadow: bool = False
    """Whether the limit is only tried out: counted and reported, but nobody waits or is refused, whatever fails.
    Default: no."""

    @stated
    def documentation(self) -> Documentation:
        """What is answered where too many are at work."""
        if self.shadow:
            return Documentation()
        answers = [Answer(429, ("too-many-at-once",), ("retry-after",))]
        if self.when_unknown == "refuse" and self.by is not everyone:
            answers.append(Answer(403, ("caller-unknown",)))
        if self.when_store_fails == "refuse":
            answers.append(Answer(503, ("limit-store-unavailable",)))
        return Documentation(answers=tuple(answers))

    @stated
    def needs(self) -> frozenset[str]:
        """What the key relies on."""
        return needs_of(self.by)

    @stated
    def counts(self) -> frozenset[str]:
        """What its permits are called in a store, wherever it stands."""
        return frozenset({f"{self.name}/{name_of(self.by)}"})

    def __post_init__(self) -> None:
        """Check that somebody can come in, and nobody waits for ever."""
        if self.at_once < 1:
            raise self.mistake("at_once", "lets nobody in", "Give a number of at least 1")
        if self.queue < 0:
            raise self.mistake("queue", "is no number of requests", "Give 0 or more")
        if not 0 < self.wait <= _LONGEST_WAIT:
            raise self.mistake("wait", "is no time to wait", "Give seconds above 0, an hour at most")
        if awaits(self.by):
            raise self.mistake("by", "is async", "Give a plain function; look things up in a policy before it")
        if not (self.name.isascii() and self.name.isprintable() and 1 <= len(self.name) <= 64):
            raise self.mistake("name", "is not 1 to 64 printable ASCII characters", 'Give a name such as "reports"')

    def bind(self, env: Env) -> "_InMemory | _AtStore":
        """Count in the permits of the environment: without awaiting when they are in memory."""
        permits = env.permits(MemoryPermits)
        if isinstance(permits, MemoryPermits):
            return _InMemory(self, env, permits)
        return _AtStore(self, env, env.kept("permits.lending", lambda: Lending(permits, env.clock)))

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring of this policy, and behind it, if anybody may wait, the hall to wait in."""
        if not isinstance(env.permits(MemoryPermits), MemoryPermits):
            check_place(self, env)
        door = env.bind(self)
        return ring(self, door, _Hall(door, app) if self.queue else app, env)


class _Visit:
    """One request: under which key it counts, and how far it came."""

    __slots__ = ("at_once", "entered", "holder", "key", "source", "turn")

    def __init__(self, key: str, at_once: int) -> None:
        self.key, self.at_once, self.holder = key, at_once, f"{next(_serial)}"
        self.entered = False
        self.source: object = None  # whom it owes a permit
        self.turn: Event | None = None  # of one that waits


class _Door(ABC):
    """Who may come in, of one policy at one place, and who waits."""

    def __init__(self, policy: LimitConcurrency, env: Env) -> None:
        self.policy, self.env = policy, env
        self.by, self.at_once = policy.by, policy.at_once
        self.place = "/".join((quote(env.place, "/~"), quote(policy.name, ""), quote(name_of(policy.by), "")))
        # Of keys for which somebody waits, and no others; those from before a reload stand in the same line.
        self.lines: dict[str, deque[_Visit]] = env.kept("concurrency.lines", dict)
        self._told: set[str] = set()

    def key(self, exchange: Exchange) -> str:
        """Under which key this request counts: of any length in any script, short ASCII."""
        key = self.by(exchange)
        if key is None:
            return self._unknown()
        if len(key) > LONGEST_KEY or not key.isascii():
            return f"{self.place}#:{digest_of(key)}"
        return f"{self.place}:{key}"

    def _unknown(self) -> str:
        if self.policy.when_unknown == "refuse":
            refuses = "would refuse" if self.policy.shadow else "refuses"
            self._tell_once(f"{refuses} requests of which {name_of(self.by)} is not known")
            raise Refusal(403, "caller-unknown", "The request does not say who is calling.")
        return f"{self.place}?:"

    def no_room(self, exchange: Exchange, visit: _Visit) -> None:
        """There is no permit for this one: it waits, or is refused."""
        if self.policy.shadow:
            exchange.attributes["apim.concurrency.shadow"] = self.policy.name
            self.env.count("apim.limits.shadow", {"apim.limits.policy": self.policy.name})
            self._tell_once("would refuse requests")
        elif len(self.lines.get(visit.key, ())) < self.policy.queue:
            self.lines.setdefault(visit.key, deque()).append(visit)
            visit.turn = Event()
            exchange.state[self] = exchange.scope[_VISIT] = visit
        else:
            raise self.refusal(exchange)

    def refusal(self, exchange: Exchange) -> Refusal:
        """What one gets who cannot come in. A 429, as in Azure: a 503 would count against the health of the app."""
        exchange.attributes["apim.concurrency.policy"] = self.policy.name
        return Refusal(429, "too-many-at-once", "Too many requests are at work. Try again later.", headers=_RETRY)

    def failed_unfelt(self, exchange: Exchange, error: Exception) -> None:
        """Tell of what would have been a refusal, or an error, if the limit was not only tried out."""
        if isinstance(error, Refusal):
            exchange.attributes["apim.concurrency.shadow"] = error.code
        else:
            log.error("%r, which is only tried out, failed", self.policy, exc_info=error)

    @abstractmethod
    async def wait(self, exchange: Exchange, visit: _Visit) -> None:
        """Return when this one may come in."""

    def step_out(self, visit: _Visit) -> None:
        """This one waits no longer."""
        line = self.lines.get(visit.key)
        if line is not None and visit in line:
            line.remove(visit)
            if not line:
                del self.lines[visit.key]

    def _tell_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("%r %s; this is told once", self.policy, what)


class _InMemory(_Door):
    """Hands each permit that comes back to the first in line, so that nobody overtakes."""

    def __init__(self, policy: LimitConcurrency, env: Env, permits: MemoryPermits) -> None:
        super().__init__(policy, env)
        self._acquire, self._release = permits.acquire_now, permits.release_now

    def on_request(self, exchange: Exchange) -> None:
        try:
            self._come(exchange)
        except Exception as error:
            if not self.policy.shadow:
                raise
            self.failed_unfelt(exchange, error)

    def _come(self, exchange: Exchange) -> None:
        visit = _Visit(self.key(exchange), self.at_once)
        if self.lines and visit.key in self.lines:
            self._hand_on(visit.key)  # what came back elsewhere, as in another environment
        if self._acquire(visit.key, self.at_once, visit.holder)[0]:
            visit.entered = True
            exchange.state[self] = visit
        else:
            self.no_room(exchange, visit)

    async def wait(self, exchange: Exchange, visit: _Visit) -> None:
        if visit.turn is not None:
            await visit.turn.wait()

    def on_end(self, exchange: Exchange) -> None:
        visit: _Visit | None = exchange.state.pop(self, None)
        if visit is None:
            return
        if visit.entered:
            self._release(visit.key, visit.holder)
        else:
            self.step_out(visit)
        if visit.key in self.lines:
            self._hand_on(visit.key)

    def _hand_on(self, key: str) -> None:
        line = self.lines[key]
        while line and self._acquire(key, line[0].at_once, line[0].holder)[0]:
            visit = line.popleft()
            visit.entered = True
            if visit.turn is not None:
                visit.turn.set()
        if not line:
            del self.lines[key]


class _AtStore(_Door):
    """Asks a store that others ask too: the first in line asks again and again, the others wait for it."""

    def __init__(self, policy: LimitConcurrency, env: Env, lending: Lending) -> None:
        super().__init__(policy, env)
        self._lending, self._stand_in = lending, MemoryPermits()
        self._outcome = policy.when_store_fails
        if policy.shadow and self._outcome == "refuse":
            self._outcome = "allow"
        away = f"{policy!r} cannot count: requests are {DOING[self._outcome]}"
        self._outage = Outage(log, away, f"{policy!r} counts again")

    async def on_request(self, exchange: Exchange) -> None:
        try:
            await self._come(exchange)
        except Exception as error:
            if not self.policy.shadow:
                raise
            self.failed_unfelt(exchange, error)

    async def _come(self, exchange: Exchange) -> None:
        visit = _Visit(self.key(exchange), self.at_once)
        line = self.lines.get(visit.key)
        # Who waits by a smaller limit, from before a reload, is in nobody's way.
        if (line is None or line[0].at_once < self.at_once) and await self._enters(exchange, visit):
            exchange.state[self] = visit
        else:
            self.no_room(exchange, visit)

    async def wait(self, exchange: Exchange, visit: _Visit) -> None:
        while True:
            visit.turn = Event()
            if self.lines[visit.key][0] is not visit:
                await visit.turn.wait()
            elif await self._enters(exchange, visit):
                self.step_out(visit)
                return
            else:
                with move_on_after(_ASK_AGAIN):
                    await visit.turn.wait()

    def step_out(self, visit: _Visit) -> None:
        super().step_out(visit)
        self._call(visit.key)

    def _call(self, key: str) -> None:
        """The first in line may ask now."""
        if (line := self.lines.get(key)) and line[0].turn is not None:
            line[0].turn.set()

    def on_end(self, exchange: Exchange) -> None:
        visit: _Visit | None = exchange.state.pop(self, None)
        if visit is None:
            return
        if not visit.entered:
            self.step_out(visit)
        elif visit.source is self._stand_in:
            self._stand_in.release_now(visit.key, visit.holder)
        elif visit.source is self._lending:
            self._lending.release(visit.key, visit.holder, self._call)

    async def _enters(self, exchange: Exchange, visit: _Visit) -> bool:
        try:
            holder = await self._lending.acquire(visit.key, self.at_once, self._call)
        except StoreError as error:
            visit.entered = self._without_store(exchange, visit, error)
            return visit.entered
        if holder is not None:
            visit.entered, visit.source, visit.holder = True, self._lending, holder
        self._outage.ends()
        return visit.entered

    def _without_store(self, exchange: Exchange, visit: _Visit, error: StoreError) -> bool:
        self._outage.begins(error)
        exchange.attributes["apim.concurrency.store"] = "unavailable"
        told = {"apim.limits.policy": self.policy.name, "apim.limits.outcome": self._outcome}
        self.env.count("apim.limits.uncounted", told)
        if self._outcome == "refuse":
            raise Refusal(503, "limit-store-unavailable", "The request could not be counted. Try again later.")
        visit.source = self._stand_in if self._outcome == "local" else None
        return self._outcome == "allow" or self._stand_in.acquire_now(visit.key, self.at_once, visit.holder)[0]


class _Hall:
    """Where those wait who must: right behind the door, where it can be seen that a client leaves."""

    def __init__(self, door: _Door, app: ASGIApp) -> None:
        self.door, self.app = door, app
        self.seats = seats_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit: _Visit | None = scope.pop(_VISIT, None)
        if visit is None:
            await self.app(scope, receive, send)
            return
        ahead = Ahead(receive, _AHEAD)
        async with alongside() as tasks:  # until the end, for a read under way belongs to the app then
            refusal = await self._wait(scope[KEY], visit, ahead, tasks)
            if visit.entered:
                await self.app(scope, ahead.receive, send)
            elif refusal is not None:  # else there is nobody left to answer
                for message in refusal_messages(refusal, scope):
                    await send(message)

    async def _wait(self, exchange: Exchange, visit: _Visit, ahead: Ahead, tasks: TaskGroup) -> Refusal | None:
        """Return when the request may come in, when it is refused, or without a refusal when its client left."""
        failure: Exception | None = None
        try:
            with move_on_after(self.door.policy.wait) as patience:
                if exchange.header(b"expect") is None:  # a read would tell the client to go on (RFC 9110 §10.1.1)
                    tasks.start_soon(ahead.watch, patience.cancel)
                await self.door.wait(exchange, visit)
        except Exception as error:
            failure = error
        ahead.stop()
        if visit.entered or ahead.left:
            return None
        return refused(exchange, failure or self.door.refusal(exchange))
