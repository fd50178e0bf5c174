"""Faults on purpose, to see how callers cope: ``Faults``."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import iscoroutinefunction

import anyio

from apim_middleware.by import needs
from apim_middleware.conditions import Condition, holds
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy

_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Faults(Policy):
    """Keep some requests waiting, and refuse some, as an upstream in trouble would; nothing happens unless told.

    Refused: ``status`` with code ``fault-injected``. Azure API Management has no such policy.
    """

    slow: float = 0.0
    """Which part of the requests is kept waiting, from 0 (the default) to 1."""

    seconds: float = 1.0
    """How long they are kept waiting, up to an hour."""

    fail: float = 0.0
    """Which part of the requests is refused, from 0 (the default) to 1; whether one is slow makes no difference."""

    status: int = 503
    """The status of those that are refused, from 400 to 599."""

    when: Condition | None = None
    """Which requests it may happen to, as a plain function of the exchange; all by default."""

    random: Callable[[], float] | None = field(default=None, repr=False, compare=False)
    """Where numbers from 0 up to 1 come from that decide; ``random.random`` by default."""

    @property
    def documentation(self) -> Documentation:
        """What is answered to those who are refused."""
        return Documentation(answers=(Answer(self.status, ("fault-injected",)),) if self.fail else ())

    @property
    def needs(self) -> frozenset[str]:
        """What the condition relies on."""
        return frozenset() if self.when is None else needs(self.when)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        """The numbers must make sense."""
        for name in ("slow", "fail"):
            if not 0 <= getattr(self, name) <= 1:
                raise self.mistake(name, "is no part", "Give a number from 0 to 1")
        if not 0 < self.seconds <= _HOUR:
            raise self.mistake("seconds", "is out of range", f"Give seconds above 0, up to {_HOUR:g}")
        if not 400 <= self.status <= 599:
            raise self.mistake("status", "refuses nobody", "Give a status from 400 to 599")
        if iscoroutinefunction(self.when):
            raise self.mistake("when", "is async", "Give a plain function, or put Faults into When")

    def bind(self, env: Env) -> "_Mischief":
        """What decides at one place."""
        return _Mischief(self, env)


class _Mischief:
    def __init__(self, rule: Faults, env: Env) -> None:
        self._rule, self._count = rule, env.count
        self._draw = rule.random or random.random

    async def on_request(self, exchange: Exchange) -> None:
        rule = self._rule
        if rule.when is not None and not holds(rule.when, exchange):
            return
        if self._draw() < rule.slow:
            self._note(exchange, "slow")
            await anyio.sleep(rule.seconds)
        if self._draw() < rule.fail:
            self._note(exchange, "fail")
            raise Refusal(rule.status, "fault-injected", "This request was refused on purpose.")

    def _note(self, exchange: Exchange, kind: str) -> None:
        exchange.attributes["apim.faults.kind"] = kind
        self._count("apim.faults", {"apim.faults.kind": kind})
