"""The hooks of limits: requests come in through a gate, and what they used is settled when they are over."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from apim_middleware._limits.answers import Answers
from apim_middleware._limits.corrections import NOW
from apim_middleware._limits.meters import LimitCheck, Meter
from apim_middleware._limits.stand_in import StandIn
from apim_middleware._limits.transfer import Transfer, begin
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Change
from apim_middleware.types import Tap

log = logging.getLogger("apim_middleware")

_BODILESS = frozenset((204, 304))
"""Statuses whose responses have no body, whatever the app makes of it (RFC 9110 §6.4.1)."""


class Hooks:
    """Those hooks of a gate that have something to do; nobody waits for the others."""

    def __init__(self, **hooks: object) -> None:
        self.__dict__.update(hooks)


class Visit(NamedTuple):
    """A request that was let in: what it was told, what is read and sent of it, and who counted it."""

    asked: list[LimitCheck]
    transfer: Transfer | None = None
    stand_in: StandIn | None = None


class Gate(ABC):
    """Asks the meters of one or several policies what a request uses, and lets it in if all of them agree."""

    def __init__(self, meters: Sequence[Meter], env: Env) -> None:
        self.meters = list(meters)
        self.env = env
        self.answers = Answers(meters, env.clock.now)
        self.shadow = all(meter.policy.shadow for meter in meters)
        self.settles = any(meter.policy.settles for meter in meters)
        self.peeks = any(meter.afterwards for meter in meters)
        self.reads = any(meter.policy.units in ("request-bytes", "bytes") for meter in meters)
        self.taps = any(meter.policy.units in ("response-bytes", "bytes") for meter in meters)
        self._warned = False

    def __str__(self) -> str:
        return ", ".join(map(repr, self.meters))

    def hooks(self) -> Hooks:
        """The hooks that are needed."""
        hooks: dict[str, Any] = {"on_request": self.try_out if self.shadow else self.on_request}
        if self.taps:
            hooks |= {"on_response": self.announce_and_tap, "taps_body": True}
        elif self.answers.speaks and not self.shadow:
            hooks["on_response"] = self.announce
        if self.settles:
            hooks["on_end"] = self.settle
        return Hooks(**hooks)

    @abstractmethod
    def on_request(self, exchange: Exchange) -> Any:  # noqa: ANN401 - some await
        """Let the request in, or refuse it."""

    @abstractmethod
    def try_out(self, exchange: Exchange) -> Any:  # noqa: ANN401 - some await
        """Do what ``on_request`` does, and let the request in whatever comes out."""

    def ask(self, exchange: Exchange) -> list[LimitCheck]:
        """What the request asks of every meter."""
        return [meter.ask(exchange) for meter in self.meters]

    def judge(self, exchange: Exchange, asked: list[LimitCheck], stand_in: StandIn | None = None) -> None:
        """Let the request in, or refuse it."""
        for each in asked:
            for tally in each.tallies:
                if not tally[0]:
                    self._refuse(exchange, asked)
                    return
        transfer = begin(exchange) if self.reads else Transfer() if self.taps else None
        exchange.state[self] = Visit(asked, transfer, stand_in)

    def _refuse(self, exchange: Exchange, asked: list[LimitCheck]) -> None:
        refusing = [each for each in asked if not each.allowed]
        kind = "shadow" if self.shadow else "policy"
        for each in refusing:
            noted = f"{each.meter.policy.topic}.{kind}"
            names = exchange.attributes.get(noted)
            exchange.attributes[noted] = ", ".join([*([names] if names else []), *each.refusing])
        if self.shadow:
            self._tell_of_shadow(refusing)
            return
        deciding = max(refusing, key=lambda each: each.wait)
        policy = deciding.meter.policy
        headers = self.answers.refused(asked, deciding)
        raise Refusal(policy.status, policy.code, deciding.said, headers=headers)

    def _tell_of_shadow(self, refusing: list[LimitCheck]) -> None:
        for each in refusing:
            self.env.count("apim.limits.shadow", {"apim.limits.policy": each.meter.policy.name})
        if not self._warned:
            self._warned = True
            log.warning("%s would refuse requests; this is told once", self)

    def failed_unfelt(self, exchange: Exchange, error: Exception) -> None:
        """Tell of what would have been a refusal, or an error, if the limit was not only tried out."""
        if isinstance(error, Refusal):
            for meter in self.meters:
                exchange.attributes[f"{meter.policy.topic}.shadow"] = error.code
        else:
            log.error("%s, which is only tried out, failed", self, exc_info=error)

    def announce(self, exchange: Exchange) -> None:
        """Tell the caller where they stand."""
        visit, head = exchange.state.get(self), exchange.shared.response
        if visit is not None and head is not None:
            self.answers.write(head, visit[0])

    def announce_and_tap(self, exchange: Exchange) -> Tap | None:
        """Tell the caller where they stand, and count the bytes of the response, if any are sent."""
        visit: Visit | None = exchange.state.get(self)
        if visit is None or visit.transfer is None:
            return None
        if not self.shadow:
            self.announce(exchange)
        head = exchange.shared.response
        if exchange.method == "HEAD" or (head is not None and head.status in _BODILESS):
            return None  # apps answer HEAD as they do GET, and servers leave the body out (RFC 9110 §9.3.2)
        return visit.transfer.sent_too

    def settle(self, exchange: Exchange) -> None:
        """Count what the request used beyond what it held, or give back what it did not use."""
        visit: Visit | None = exchange.state.pop(self, None)
        if visit is None:
            return
        changes: list[Change] = []
        for asked in visit.asked:
            used = asked.meter.used(exchange, asked, visit.transfer)
            units = used if asked.meter.afterwards else used - asked.cost
            for limit, tally in zip(asked.limits, asked.tallies, strict=True) if units else ():
                # What is given back was taken then; what more was used may be from a window that is over by now.
                changes.append(Change(asked.key, limit, units, NOW if units > 0 else tally.counted))
        if changes:
            self.correct(changes, visit.stand_in)

    @abstractmethod
    def correct(self, changes: list[Change], stand_in: StandIn | None) -> None:
        """Bring the counts in order."""
