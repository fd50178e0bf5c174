"""The gate of counters in a store that is awaited, and that may be away."""

import logging
from collections.abc import Sequence

from apim_middleware._limits.asking import ask_now, at_once, tell, uses_of
from apim_middleware._limits.gates import Gate
from apim_middleware._limits.meters import LimitCheck, Meter
from apim_middleware._limits.remote import RemoteCounters
from apim_middleware._limits.stand_in import StandIn
from apim_middleware._loops import outlasting
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, Spoiled, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Change

log = logging.getLogger("apim_middleware")


_REASONS = 10
"""Why single keys cannot be counted: as many kinds are told at most."""


class GateAtStore(Gate):
    """Counts in a store that is awaited, and that may be away."""

    def __init__(self, meters: Sequence[Meter], env: Env, remote: RemoteCounters) -> None:
        super().__init__(meters, env)
        self.remote = remote
        self.when_store_fails = strictest([meter.policy.when_store_fails for meter in meters])
        self.failing = False
        self.spoiled: set[str] = set()

    async def on_request(self, exchange: Exchange) -> None:
        """Let the request in, or refuse it."""
        asked = self.ask(exchange)
        try:
            if self.settles:  # what was counted must be known, or it could not be settled when the client leaves now
                await outlasting(self._ask_store(asked), self._give_back)
            else:
                tell(asked, await self.remote.hit(uses_of(asked)))
        except StoreError as error:
            self._failed(exchange, asked, error)
            return
        if self.failing:
            self.failing = False
            log.warning("%s counts again", self)
        self.judge(exchange, asked)

    async def try_out(self, exchange: Exchange) -> None:
        """Do what ``on_request`` does, and let the request in whatever comes out."""
        try:
            await self.on_request(exchange)
        except Exception as error:
            self.failed_unfelt(exchange, error)

    async def _ask_store(self, asked: list[LimitCheck]) -> list[LimitCheck]:
        """Ask, and say which of them were counted."""
        now = asked
        if self.peeks:
            tell(asked, await self.remote.peek(uses_of(asked)))
            now = at_once(asked)
        if now:
            tell(now, await self.remote.hit(uses_of(now)))
        return at_once(asked)

    def _give_back(self, counted: list[LimitCheck]) -> None:
        """Of a request that never came in, for it was cancelled before that was known."""
        units = [
            (asked, limit, tally) for asked in counted for limit, tally in zip(asked.limits, asked.tallies, strict=True)
        ]
        changes = [Change(asked.key, limit, -asked.cost, tally.counted) for asked, limit, tally in units if asked.cost]
        self.remote.settle(changes)

    def correct(self, changes: list[Change], stand_in: StandIn | None) -> None:
        """Bring the counts in order soon."""
        self.remote.settle(changes, stand_in)

    def _failed(self, exchange: Exchange, asked: list[LimitCheck], error: StoreError) -> None:
        self._tell_of_outage(exchange, asked, error)
        if self.when_store_fails == "local":
            stand_in = self.remote.stand_in()
            ask_now(asked, stand_in, peeks=self.peeks)
            self.judge(exchange, asked, stand_in)
        elif self.when_store_fails == "refuse" and not self.shadow:
            raise Refusal(503, "limit-store-unavailable", "The request could not be counted. Try again later.")

    def _tell_of_outage(self, exchange: Exchange, asked: list[LimitCheck], error: StoreError) -> None:
        outcome = "allow" if self.shadow and self.when_store_fails == "refuse" else self.when_store_fails
        for each in asked:
            exchange.attributes[f"{each.meter.policy.topic}.store"] = "unavailable"
            told = {"apim.limits.policy": each.meter.policy.name, "apim.limits.outcome": outcome}
            self.env.count("apim.limits.uncounted", told)
        if isinstance(error, Spoiled):  # other keys are counted meanwhile: each kind is told once, and has no end
            if (reason := str(error)) not in self.spoiled and len(self.spoiled) < _REASONS:
                self.spoiled.add(reason)
                log.error("%s cannot count under some keys (%s): such requests are %s", self, error, DOING[outcome])
        elif not self.failing:
            self.failing = True
            log.error("%s cannot count (%s): requests are %s", self, error, DOING[outcome])


DOING = {"refuse": "refused", "allow": "let in uncounted", "local": "counted in this process"}
"""What becomes of requests while their store is away, in the words of a log."""


def strictest(choices: Sequence[str]) -> str:
    """What becomes of a request that several policies cannot count."""
    return next(choice for choice in ("refuse", "local", "allow") if choice in choices)
