"""Sending a part of the requests elsewhere: ``Split``."""

import random
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

from apim_middleware._config import awaits
from apim_middleware._digest import digest
from apim_middleware._functions import needs
from apim_middleware._together import Neighbour, neighbour
from apim_middleware.by import Key
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.types import ASGIApp


@dataclass(frozen=True)
class Split(Policy):
    """Send a part of the requests to another app, such as a proxy to the next version: a canary.

    ``Split(Proxy("http://next"), share=0.05, by=by.subscription)``. With a key the same caller always goes the same
    way, in every process; when the share grows, those who went to the other app stay there. Several of them stand one
    after the other, each with a share of what the ones before have left. WebSockets are split as well, and the other
    app has a lifespan with the one behind.

    What guards must stand before it, for what stands behind is not met on the way to the other app.
    """

    guards = False

    to: ASGIApp
    """The other app."""

    _: KW_ONLY

    share: float
    """Which part goes there, from 0 to 1."""

    by: Key | None = None
    """Who goes the same way each time, such as ``by.principal``. Requests without a key, and all when it is None, are
    drawn anew each time."""

    name: str = "split"
    """What it is called in traces; splits of the same name send the same callers elsewhere."""

    random: Callable[[], float] | None = field(default=None, repr=False, compare=False)
    """Where numbers from 0 up to 1 come from that decide; ``random.random`` by default."""

    @stated
    def needs(self) -> frozenset[str]:
        """What the key relies on."""
        return frozenset() if self.by is None else needs(self.by)

    @stated
    def leads_to(self) -> tuple[ASGIApp, ...]:
        """The other app."""
        return (self.to,)

    @stated
    def answers(self) -> bool:
        """It answers without asking those behind it."""
        return True

    def __post_init__(self) -> None:
        """The share must be one."""
        if not 0 <= self.share <= 1:
            raise self.mistake("share", "is no part", "Give a number from 0 to 1")
        if awaits(self.by):
            raise self.mistake("by", "is async", "Give a plain function; look things up in a policy before it")

    def bind(self, env: Env) -> "_Fork":
        """What decides at one place."""
        return _Fork(self, neighbour(self.to, env))


class _Fork:
    def __init__(self, rule: Split, to: Neighbour) -> None:
        self._rule, self._to = rule, to
        self._draw = rule.random or random.random

    def on_request(self, exchange: Exchange) -> ASGIApp | None:
        rule = self._rule
        key = None if rule.by is None else rule.by(exchange)
        number = self._draw() if key is None else digest(f"{rule.name}\n{key}") / (1 << 64)
        goes = number < rule.share
        exchange.attributes[f"apim.split.{rule.name}"] = goes
        return self._to if goes else None
