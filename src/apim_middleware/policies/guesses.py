"""Guessing of passwords, keys and tokens, kept slow for who guesses and unnoticed by who does not."""

import hashlib
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Literal

from apim_middleware._config import awaits
from apim_middleware._functions import needs as needs_of
from apim_middleware._http.credentials import CARRIED
from apim_middleware._limits.build import gate_of, in_front
from apim_middleware._limits.corrections import NOW
from apim_middleware._limits.gates import Gate, Hooks
from apim_middleware._limits.places import place_of
from apim_middleware._limits.rules import Limiting
from apim_middleware.by import Key, client
from apim_middleware.conditions import authentication_failed
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.protocols import Change, Limit
from apim_middleware.types import ASGIApp

_MOST_KEYS = 4096
_MOST_CREDENTIALS = 16


@dataclass(frozen=True, kw_only=True)
class LimitGuesses(Policy):
    """Let each client fail to authenticate so many times in so many seconds; then keep it out for a while.

    It stands before the authenticators, whichever they are, and counts what they refuse for bad credentials and what an
    app behind answers with 401; a request without any credentials does not count. What is refused here does not count
    either, so the doors open again by themselves, ``per`` seconds after the last failure at the latest. Credentials in
    a header that were good, from the same client, in the last ``trusted_for`` seconds go in all the while: a neighbour
    behind the same address is not locked out. Of requests nobody knows, ``at_once`` may wait for an answer at the same
    time, and ``known_at_once`` with the same known credentials, so that guesses cannot be made all at once.

    Refused: 429 ``too-many-failures`` or ``too-many-attempts`` with ``Retry-After``; 403 ``caller-unknown`` for a
    request without a key; 503 ``limit-store-unavailable`` when failures cannot be counted and ``when_store_fails`` is
    "refuse".
    """

    guards = False

    failures: int = 10
    """How many failures are allowed."""

    per: float = 60.0
    """In how many seconds."""

    at_once: int = 100
    """How many requests of one key, besides those with credentials that are known, may wait for an answer.

    Until its head is known nobody knows which of them fail, so at the worst this many fail beyond those allowed.
    Default: what one HTTP/2 connection may ask at once (RFC 9113 §6.5.2).
    """

    known_at_once: int | None = None
    """How many requests of one key with the same known credentials may wait for an answer.

    They may come with a guess of something else, as in a login form behind. Default: ten times ``at_once``.
    """

    by: Key = client
    """Whom to count: a function of the exchange that gives the key. Default: each client's address.

    ``by.either(by.username, by.client)`` counts the failures of each name, wherever they come from.
    """

    failed: Callable[[Exchange], bool] = authentication_failed
    """Which requests were failures, as a condition at their end."""

    trusted_for: float = 86_400.0
    """Seconds for which good credentials are known, by a keyed digest in this process; 0 for not at all."""

    name: str = "guesses"
    """What it is called in traces and stores; two in one stack should have different names."""

    when_unknown: Literal["refuse", "together"] = "refuse"
    """What becomes of a request without a key: refused (the default), or counted together with all such requests."""

    when_store_fails: Literal["refuse", "allow", "local"] = "local"
    """What becomes of a request while the store is away: counted in this process (the default), let in, or refused."""

    @stated
    def documentation(self) -> Documentation:
        """What is answered to those who failed too often."""
        answers = [Answer(429, ("too-many-failures", "too-many-attempts"), ("retry-after",))]
        if self.when_unknown == "refuse":
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
        """What its limit is called in a store, wherever it stands."""
        return frozenset(map(repr, self._limiting().limits(place_of(self._limiting(), ""))))

    def __post_init__(self) -> None:
        """The numbers must be such that can be counted to."""
        if not 0 <= self.trusted_for < math.inf:
            raise self.mistake("trusted_for", "is no time", "Give seconds, 0 or more")
        if self.at_once < 1:
            raise self.mistake("at_once", "lets nobody in", "Allow at least 1 at once")
        if self.known_at_once is not None and self.known_at_once < 1:
            raise self.mistake("known_at_once", "lets nobody in", "Allow at least 1 at once")
        if awaits(self.failed):
            raise self.mistake("failed", "is async", "Give a plain function")
        self._limiting()

    def _limiting(self) -> "_Failures":
        try:
            return _Failures(
                calls=self.failures, per=self.per, by=self.by, name=self.name, count_when=self.failed,
                increment="afterwards", headers=False, when_unknown=self.when_unknown,
                when_store_fails=self.when_store_fails,
            )  # fmt: skip
        except ConfigError as error:
            field = {"calls": "failures", "rate": "per"}.get(error.field, error.field)
            raise ConfigError(type(self).__name__, field, error.problem, error.cure) from None

    def bind(self, env: Env) -> Hooks:
        """The door: plain where failures are counted in memory, async where the store has to be waited for."""
        try:
            gate = gate_of([self._limiting()], env)
        except ConfigError as error:
            if error.policy != _Failures.__name__:
                raise
            raise ConfigError(type(self).__name__, "failed", error.problem, error.cure) from None
        if not isinstance(gate, Gate):
            raise TypeError("what counts at the end of a request has a gate that settles")
        door = _AsyncDoor if iscoroutinefunction(gate.on_request) else _Door
        return door(self, gate, _Trusted(self.trusted_for, env)).hooks()

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """The policy in front of the app."""
        return in_front(self, app, env, reads=False)


@dataclass(frozen=True, kw_only=True)
class _Failures(Limiting):
    """The limit of failures that ``LimitGuesses`` counts with."""

    status = 429
    code = "too-many-failures"
    detail = "Too many attempts failed. Try again later."
    topic = "apim.guesses"

    def limit(self, units: int, window: float | None, place: str) -> Limit:
        """One limit at a place."""
        if window is None:
            raise TypeError("failures are counted in a window that was given")
        return Limit(units, window, "sliding", place)


class _Came:
    """How somebody came: under which key, with which credentials, whether those had been good, and if that is open."""

    __slots__ = ("digest", "key", "lapses", "open", "trusted")

    def __init__(self, key: str | None, digest: bytes, trusted: bool, lapses: int) -> None:
        self.key, self.digest, self.trusted, self.lapses = key, digest, trusted, lapses
        self.open = True

    @property
    def waits_as(self) -> tuple[str | None, bytes]:
        """With whom it is counted until there is an answer."""
        return self.key, self.digest if self.trusted else b""


class _Door:
    """Lets in who has not failed too often, or had the same credentials when they were good."""

    def __init__(self, policy: LimitGuesses, gate: Gate, trusted: "_Trusted") -> None:
        self._gate = gate
        self._by = policy.by
        self._failed = policy.failed
        self._trusted = trusted
        self._at_once = policy.at_once
        self._known_at_once = policy.known_at_once or 10 * policy.at_once
        self._open: dict[tuple[str | None, bytes], int] = {}
        self._lapses = 0  # how often known credentials have failed

    def hooks(self) -> Hooks:
        """The hooks that run at each request."""
        return Hooks(on_request=self.on_request, on_response=self.on_response, on_end=self.on_end)

    def on_request(self, exchange: Exchange) -> None:
        came = self._meet(exchange)
        try:
            if not came.trusted:
                self._gate.on_request(exchange)
        except BaseException:
            self._judged(came)
            raise

    def _meet(self, exchange: Exchange) -> _Came:
        """See how somebody comes; all stays open until there is an answer."""
        key = self._by(exchange)
        digest = b"" if key is None else self._trusted.digest(exchange)
        trusted = digest != b"" and self._trusted.knows(key, digest)
        came = exchange.state[self] = _Came(key, digest, trusted, self._lapses)
        line = came.waits_as
        others = self._open.get(line, 0)
        if others >= (self._known_at_once if trusted else self._at_once):
            detail = "Too many attempts at the same time. Try again in a moment."
            raise Refusal(429, "too-many-attempts", detail, headers={"retry-after": "1"})
        self._open[line] = others + 1
        return came

    def _judged(self, came: _Came) -> None:
        """It is known what became of them."""
        if came.open:
            came.open = False
            line = came.waits_as
            others = self._open.pop(line) - 1  # keys come from callers: none is kept that is not needed
            if others:
                self._open[line] = others

    def on_response(self, exchange: Exchange) -> None:
        """Somebody was let in; who was recognized is remembered as they came."""
        came: _Came = exchange.state[self]
        if self._failed(exchange):
            return
        self._judged(came)
        if came.trusted or not came.digest or (exchange.principal or exchange.subscription) is None:
            return
        if came.lapses == self._lapses:  # else one held back could bring credentials to trust again that have failed
            self._trusted.keep(came.key, came.digest)

    def on_end(self, exchange: Exchange) -> None:
        """Count a failure; one of trusted credentials, which were not counted with, is their last."""
        came: _Came = exchange.state.pop(self)
        if came.digest and self._failed(exchange):
            self._trusted.forget(came.key, came.digest)
            if came.trusted:
                self._lapses += 1
                self._count(came.key)
        self._gate.settle(exchange)
        self._judged(came)

    def _count(self, key: str | None) -> None:
        for meter in self._gate.meters:
            counted, limits = meter.terms.counters(key)
            self._gate.correct([Change(counted, limit, 1, NOW) for limit in limits], None)


class _AsyncDoor(_Door):
    async def on_request(self, exchange: Exchange) -> None:  # type: ignore[override]
        came = self._meet(exchange)
        try:
            if not came.trusted:
                await self._gate.on_request(exchange)
        except BaseException:
            self._judged(came)
            raise


class _Trusted:
    """Credentials that were good, by a digest under a key of this process; the oldest make room."""

    def __init__(self, life: float, env: Env) -> None:
        self._life, self._now = life, env.clock.monotonic
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[str | None, OrderedDict[bytes, float]] = OrderedDict()

    def digest(self, exchange: Exchange) -> bytes:
        """Stands for the credentials of a request; nothing where there are none, or none are to be known."""
        lines = _credentials(exchange) if self._life else None
        if not lines:
            return b""
        return hashlib.blake2b(b"\n".join(lines), key=self._secret, digest_size=16).digest()

    def knows(self, key: str | None, digest: bytes) -> bool:
        of_key = self._known.get(key)
        until = None if of_key is None else of_key.get(digest)
        return until is not None and until > self._now()

    def keep(self, key: str | None, digest: bytes) -> None:
        of_key = self._known.setdefault(key, OrderedDict())
        of_key[digest] = self._now() + self._life
        of_key.move_to_end(digest)
        self._known.move_to_end(key)
        if len(of_key) > _MOST_CREDENTIALS:
            of_key.popitem(last=False)
        if len(self._known) > _MOST_KEYS:
            self._known.popitem(last=False)

    def forget(self, key: str | None, digest: bytes) -> None:
        of_key = self._known.get(key)
        if of_key is not None:
            of_key.pop(digest, None)
            if not of_key:
                del self._known[key]


def _credentials(exchange: Exchange) -> list[bytes]:
    """The header lines with credentials in them; cookies where there is nothing better."""
    lines: list[bytes] = []
    cookies: list[bytes] = []
    for name, value in exchange.scope["headers"]:
        carried = CARRIED[name]
        if carried is not None and carried != "principal":  # the name of a user, which nobody guesses
            (cookies if carried == "cookie" else lines).append(b"%b:%b" % (name, value))
    return lines or cookies
