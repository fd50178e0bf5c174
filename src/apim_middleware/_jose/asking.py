"""The gate of ``OAuth2Introspection``: finds a token, asks about it unless the answer is known, lets in or refuses."""

import hashlib
import logging
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

from apim_middleware._jose.binding import Possession, check_plainly
from apim_middleware._jose.claims import claim
from apim_middleware._jose.introspection import Endpoint, Unavailable
from apim_middleware._jose.places import TOKEN, Find
from apim_middleware._jose.refusals import SOON, Refusals, proofs_refused
from apim_middleware._jose.rules import Claims, Demand, check_times, principal, seconds, texts
from apim_middleware._jose.tokens import BadToken
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal
from apim_middleware.protocols import Clock
from apim_middleware.stores.flights import Flights
from apim_middleware.stores.outage import Outage

log = logging.getLogger("apim_middleware.jwt")

A = TypeVar("A")

_TOKEN = re.compile(rb"[!-~]+")


class Wishes(NamedTuple):
    """What must be said of a token for it to be let in."""

    audiences: frozenset[str] | None
    issuers: frozenset[str] | None
    required: Mapping[tuple[str, ...], Demand]
    clients: frozenset[str]
    subject_claim: str
    leeway: float
    scopes: frozenset[str]
    roles: tuple[tuple[str, ...], Demand] | None

    def caller(self, claims: Claims, now: float, server: str) -> Principal:
        """Whom these claims speak of, by the word of this server unless they name an issuer. Raises BadToken."""
        check_times(claims, now, self.leeway)
        issuer = claims.get("iss", "")
        if not isinstance(issuer, str) or (self.issuers is not None and issuer not in self.issuers):
            raise BadToken("issuer")
        if self.audiences is not None and self.audiences.isdisjoint(texts(claims.get("aud"))):
            raise BadToken("audience")
        found = principal(claims, self.subject_claim, self.required, self.clients, self.leeway)
        return replace(found, issuer=issuer or server)

    def objection(self, caller: Principal, refusals: Refusals) -> Callable[[], Refusal] | None:
        """What the caller lacks, if anything."""
        if not self.scopes <= caller.scopes:
            return refusals.insufficient
        if self.roles is not None and not self.roles[1](claim(caller.claims, self.roles[0])):
            return refusals.forbidden
        return None


class Habits(NamedTuple):
    """How tokens are looked for and remembered, in seconds."""

    find: Find
    refusals: Refusals
    optional: bool
    longest: int
    room: int
    remember_for: float
    remember_refused_for: float
    possession: Possession | None


class _Active(NamedTuple):
    """A token that is let in: until when nobody need be asked, when it expires, and whom it speaks of."""

    until: float
    expires: float
    principal: Principal


class _Refused(NamedTuple):
    """A token that is refused: until when nobody need be asked, why, and with what."""

    until: float
    reason: str
    refusal: Callable[[], Refusal]


class AskingGate:
    """Active tokens and refused ones are remembered apart, so that made-up tokens push out none that are good."""

    def __init__(
        self, wishes: Wishes, habits: Habits, endpoint: Endpoint, clock: Clock, failed: Callable[[], None]
    ) -> None:
        """Nothing is known of any token; ``failed`` is told of every question that was not answered."""
        self._failed = failed
        self._wishes, self._habits, self._endpoint = wishes, habits, endpoint
        self._refusals = habits.refusals
        self._now, self._monotonic = clock.now, clock.monotonic
        self._active: OrderedDict[bytes, _Active] = OrderedDict()
        self._refused: OrderedDict[bytes, _Refused] = OrderedDict()
        self._outage = Outage(log, "a token cannot be asked about", "tokens can be asked about again")
        self._flights: Flights[_Active | _Refused] = Flights(failures=1)

    async def on_request(self, exchange: Exchange) -> None:
        """Let in, or refuse."""
        token = self._habits.find(exchange)
        if token is None:
            if not self._habits.optional:
                raise self._refusals.missing()
            return
        if len(token) > self._habits.longest or _TOKEN.fullmatch(token) is None:
            self._refusals.refuse(exchange, BadToken("malformed"))
        answer = await self._answer(token)
        if isinstance(answer, _Refused):
            exchange.attributes["apim.jwt.failure"] = answer.reason
            raise answer.refusal()
        await self._confirm(exchange, token, answer.principal)
        exchange.principal, exchange.scope[TOKEN] = answer.principal, token

    async def _answer(self, token: bytes) -> _Active | _Refused:
        digest, now = hashlib.sha256(token).digest(), self._monotonic()
        active = self._active.get(digest)
        if active is not None and active.until > now and active.expires > self._now():
            return active
        refused = self._refused.get(digest)
        if refused is not None and refused.until > now:
            return refused
        try:
            return await self._flights.run(digest, lambda _: self._ask(digest, token))
        except Unavailable:
            raise self._refusals.unavailable("introspection-unavailable", SOON) from None

    async def _ask(self, digest: bytes, token: bytes) -> _Active | _Refused:
        self._active.pop(digest, None)
        self._refused.pop(digest, None)
        try:
            answer = self._judged(await self._endpoint.claims(token))
        except Unavailable as error:
            self._failed()
            self._outage.begins(error)
            raise
        self._outage.ends()
        if isinstance(answer, _Active):
            _keep(self._active, digest, answer, self._habits.room)
        else:
            _keep(self._refused, digest, answer, self._habits.room)
        return answer

    def _judged(self, claims: Claims | None) -> _Active | _Refused:
        now = self._monotonic()
        try:
            if claims is None:
                raise BadToken("inactive")
            caller = self._wishes.caller(claims, self._now(), self._endpoint.url)
        except BadToken as bad:
            log.debug("a token was refused: %s %s", bad.reason, ascii(bad.detail[:80]))
            return _Refused(now + self._habits.remember_refused_for, bad.reason, self._refusals.invalid)
        objection = self._wishes.objection(caller, self._refusals)
        if objection is not None:
            return _Refused(now + self._habits.remember_refused_for, "insufficient", objection)
        expires = seconds(caller.claims, "exp")
        return _Active(now + self._habits.remember_for, math.inf if expires is None else expires, caller)

    async def _confirm(self, exchange: Exchange, token: bytes, caller: Principal) -> None:
        """A token that is bound to its owner comes from its owner."""
        possession = self._habits.possession
        try:
            if possession is None:
                check_plainly(exchange, caller.claims)
                return
            with proofs_refused(exchange, self._refusals):
                await possession.check(exchange, token, caller.claims)
        except BadToken as bad:
            self._refusals.refuse(exchange, bad)


def _keep(answers: OrderedDict[bytes, A], digest: bytes, answer: A, room: int) -> None:
    """Remember an answer; the oldest makes room."""
    answers[digest] = answer
    if len(answers) > room:
        answers.popitem(last=False)
