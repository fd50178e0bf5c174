"""The gates of ``JWTAuth``: they find a token, believe it or refuse, and remember whom it spoke of.

``StaticGate`` has its keys at hand and awaits nothing; ``RemoteGate`` may have to fetch them; ``WatchfulGate`` also
checks proofs and asks for revocations. Which one it is, is settled when the policy is bound.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from typing import NamedTuple

from apim_middleware._jose.binding import Possession, check_plainly
from apim_middleware._jose.claims import claim
from apim_middleware._jose.memory import Known, Memory
from apim_middleware._jose.places import TOKEN, Find
from apim_middleware._jose.refusals import SOON, Refusals, proofs_refused
from apim_middleware._jose.remote import KeysUnavailable
from apim_middleware._jose.revocations import Revoked
from apim_middleware._jose.rules import Demand, Rules
from apim_middleware._jose.sources import Source, StaticKeys, StaticKeysOfMany
from apim_middleware._jose.tokens import BadToken, Signed, claims_in, take_apart
from apim_middleware.errors import StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Clock
from apim_middleware.stores.outage import Outage

log = logging.getLogger("apim_middleware.jwt")


class Checks(NamedTuple):
    """What a gate asks of requests and tokens."""

    find: Find
    refusals: Refusals
    rules: Rules
    algorithms: frozenset[str]
    types: frozenset[str]
    longest: int
    scopes: frozenset[str]
    roles: tuple[tuple[str, ...], Demand] | None
    optional: bool
    decrypt: Callable[[bytes], bytes] | None
    possession: Possession | None
    revoked: Revoked | None


class Memories(NamedTuple):
    """The tokens that were verified: those anybody may use who bears them, and those bound to their owner."""

    free: Memory
    bound: Memory

    @classmethod
    def of(cls, room: int) -> "Memories":
        """For so many tokens, whichever they are."""
        return cls(Memory(room), Memory(room))

    def keep(self, token: bytes, known: Known) -> None:
        """Remember a token where it belongs."""
        (self.bound if "cnf" in known.principal.claims else self.free).keep(token, known)

    def forget(self, token: bytes) -> None:
        """Forget a token."""
        self.free.forget(token)
        self.bound.forget(token)

    def forget_keys(self, marks: frozenset[str]) -> None:
        """Forget every token that was signed with one of these keys."""
        self.free.forget_keys(marks)
        self.bound.forget_keys(marks)


class _Gate:
    """What all gates do alike."""

    def __init__(self, checks: Checks, memories: Memories, clock: Clock) -> None:
        self._find = checks.find
        self._now = clock.now
        self._memories = memories
        self._recall = memories.free.get
        self._checks = checks
        self._refusals = checks.refusals

    def _without_token(self) -> None:
        if not self._checks.optional:
            raise self._refusals.missing()

    def _read(self, token: bytes) -> Signed:
        """The token taken apart, if it is of a kind that could be believed. Raises BadToken."""
        checks = self._checks
        if len(token) > checks.longest:
            raise BadToken("malformed", "too long")
        if checks.decrypt is not None and token.count(b".") == 4:
            token = checks.decrypt(token)
        signed = take_apart(token)
        if signed.algorithm not in checks.algorithms:
            raise BadToken("algorithm", signed.algorithm)
        if signed.type not in checks.types:
            raise BadToken("type", signed.type)
        return signed

    def _believed(self, token: bytes, signed: Signed, mark: str) -> Known:
        """What a token whose signature is good says. Raises BadToken, or Refusal when it grants too little."""
        now, checks = self._now(), self._checks
        principal, expires = checks.rules.believe(claims_in(signed.payload), now)
        if not checks.scopes <= principal.scopes:
            raise self._refusals.insufficient()
        if checks.roles is not None and not checks.roles[1](claim(principal.claims, checks.roles[0])):
            raise self._refusals.forbidden()
        known = Known(expires, principal, mark)
        if now < expires:
            self._memories.keep(token, known)
        return known

    def _bound(self, token: bytes) -> Known | None:
        """A token that was verified before and is bound to its owner, whose binding is looked at every time."""
        known = self._memories.bound.get(token)
        if known is None or known.expires > self._now():
            return known
        return None


class StaticGate(_Gate):
    """The keys are here, so nothing is awaited."""

    def __init__(self, checks: Checks, memories: Memories, clock: Clock, keys: StaticKeys | StaticKeysOfMany) -> None:
        """Use these keys."""
        super().__init__(checks, memories, clock)
        self._verify = keys.verify_now

    def on_request(self, exchange: Exchange) -> None:
        """Let in, or refuse."""
        token = self._find(exchange)
        if token is None:
            return self._without_token()
        known = self._recall(token)
        if known is None or known.expires <= self._now():
            known = self._judged(exchange, token)
        exchange.principal, exchange.scope[TOKEN] = known.principal, token
        return None

    def _judged(self, exchange: Exchange, token: bytes) -> Known:
        try:
            known = self._bound(token)
            if known is None:
                self._memories.forget(token)
                signed = self._read(token)
                known = self._believed(token, signed, self._verify(signed))
            check_plainly(exchange, known.principal.claims)
        except BadToken as bad:
            self._refusals.refuse(exchange, bad)
        return known


class RemoteGate(_Gate):
    """The keys may be elsewhere; what was verified with one that is gone is forgotten."""

    def __init__(self, checks: Checks, memories: Memories, clock: Clock, source: Source) -> None:
        """Use the keys of this source."""
        super().__init__(checks, memories, clock)
        self._source = source
        self._monotonic = clock.monotonic

    async def on_request(self, exchange: Exchange) -> None:
        """Let in, or refuse."""
        token = self._find(exchange)
        if token is None:
            return self._without_token()
        if self._monotonic() >= self._source.look_at:
            self._source.review()
        known = self._recall(token)
        if known is None or known.expires <= self._now():
            known = await self._judged(exchange, token)
        exchange.principal, exchange.scope[TOKEN] = known.principal, token
        return None

    async def _judged(self, exchange: Exchange, token: bytes) -> Known:
        try:
            known = self._bound(token) or await self._verified(token)
            await self._confirm(exchange, token, known)
        except BadToken as bad:
            self._refusals.refuse(exchange, bad)
        return known

    async def _verified(self, token: bytes) -> Known:
        self._memories.forget(token)
        signed = self._read(token)
        with self._needing_keys():
            mark = await self._source.verify(signed)
        return self._believed(token, signed, mark)

    async def _confirm(self, exchange: Exchange, token: bytes, known: Known) -> None:
        check_plainly(exchange, known.principal.claims)

    @contextmanager
    def _needing_keys(self) -> Iterator[None]:
        try:
            yield
        except KeysUnavailable as missing:
            raise self._refusals.unavailable("keys-unavailable", missing.retry_after) from None


class WatchfulGate(RemoteGate):
    """Checks the proofs of bound tokens, and asks whether a token was revoked."""

    def __init__(self, checks: Checks, memories: Memories, clock: Clock, source: Source) -> None:
        """Use the keys of this source."""
        super().__init__(checks, memories, clock, source)
        self._outage = Outage(log, "whether a token was revoked cannot be said", "revocations are known again")

    async def on_request(self, exchange: Exchange) -> None:
        """Let in, or refuse."""
        token = self._find(exchange)
        if token is None:
            return self._without_token()
        if self._monotonic() >= self._source.look_at:
            self._source.review()
        possession = self._checks.possession
        known = self._recall(token) if possession is None or not possession.wanted(exchange) else None
        if known is None or known.expires <= self._now():
            known = await self._judged(exchange, token)
        ask = self._checks.revoked
        if ask is not None and await self._is_revoked(ask, known):
            self._memories.forget(token)
            self._refusals.refuse(exchange, BadToken("revoked"))
        exchange.principal, exchange.scope[TOKEN] = known.principal, token
        return None

    async def _confirm(self, exchange: Exchange, token: bytes, known: Known) -> None:
        if self._checks.possession is None:
            await super()._confirm(exchange, token, known)
            return
        with proofs_refused(exchange, self._refusals):
            await self._checks.possession.check(exchange, token, known.principal.claims)

    async def _is_revoked(self, ask: Revoked, known: Known) -> bool:
        """Whatever is not plainly False counts as revoked. Raises Refusal when nobody can say."""
        try:
            verdict = ask(known.principal)
            if isawaitable(verdict):
                verdict = await verdict
        except StoreError as error:
            self._outage.begins(error)
            raise self._refusals.unavailable("revocations-unavailable", SOON) from None
        if self._outage.lasting:
            self._outage.ends()
        return verdict is not False
