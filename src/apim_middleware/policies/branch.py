"""Branches: layers in front of some requests and not of others (Azure's choose)."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from inspect import isawaitable
from typing import Self, TypeAlias

from apim_middleware._config import awaits, check_one_by_one
from apim_middleware._functions import needs
from apim_middleware._order import guarding, unmet
from apim_middleware._ring import Ring
from apim_middleware.conditions import Condition, holds
from apim_middleware.documentation import Documentation, documentation_of, either
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Composable, Policy, policies_in, ring, stated
from apim_middleware.types import ASGIApp, Layer

Branch: TypeAlias = tuple[Condition, Layer]


class _Branching(Policy):
    """What ``When`` and ``Choose`` share: towards the order check they are all the policies in their branches."""

    otherwise: Layer | None

    @abstractmethod
    def _branches(self) -> Sequence[Branch]:
        """The conditions and their layers, in the order they are asked."""

    def _ways(self) -> list[list[Policy]]:
        return [policies_in(layer) for layer in [*(layer for _, layer in self._branches()), self.otherwise]]

    @stated
    def needs(self) -> frozenset[str]:
        """What conditions rely on, and what a branch relies on and does not establish itself."""
        conditions = [needs(condition) for condition, _ in self._branches()]
        return frozenset[str]().union(*conditions, *map(unmet, self._ways()))

    @stated
    def provides(self) -> frozenset[str]:
        """What one of the branches establishes."""
        return frozenset[str]().union(*(each.provides for way in self._ways() for each in way))

    @stated
    def guards(self) -> bool | None:
        """Whether one of the branches decides who may come in."""
        return guarding(each for way in self._ways() for each in way)

    @stated
    def answers(self) -> bool:
        """Whether one of the branches may answer from memory."""
        return any(each.answers for way in self._ways() for each in way)

    @stated
    def leads_to(self) -> tuple[ASGIApp, ...]:
        """Where the branches send requests besides."""
        return tuple(app for way in self._ways() for each in way for app in each.leads_to)

    @stated
    def documentation(self) -> Documentation:
        """What the branches ask of callers and may answer; a request takes one or none."""
        ways = [*(layer for _, layer in self._branches()), self.otherwise]
        return either(map(documentation_of, ways))

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """Every branch in front of the app, and before them the fork."""
        here = env.within(type(self).__name__)
        ways = [(condition, _built(layer, app, here)) for condition, layer in self._branches()]
        last = None if self.otherwise is None else _built(self.otherwise, app, here)
        fork = _AwaitingFork if any(awaits(condition) for condition, _ in ways) else _Fork
        built = [last, *(way for _, way in ways)]  # which no lifespan comes to
        endings = frozenset(end for each in built if isinstance(each, Ring) for end in each.endings)
        return ring(self, fork(ways, last), app, env, closed=True, endings=endings)


@dataclass(frozen=True)
class When(_Branching):
    """Put a layer in front of the requests for which a condition holds; the others go past it.

    ``When(conditions.path("/admin/*"), JWTAuth(...))``. The layer is a policy, a ``Stack`` or any ASGI middleware.
    A condition that raises is logged and refused with 500 ``policy-failed``: nobody comes in for want of an answer.
    Only requests and WebSocket handshakes are asked about; the lifespan goes to the app, and to the backends that a
    ``SetBackend`` or ``Split`` of the layer leads to.
    """

    condition: Condition
    """A function of the exchange that says whether the layer applies; it may be async."""

    layer: Layer
    """What stands in front of the app then."""

    _: KW_ONLY

    otherwise: Layer | None = None
    """What stands in front of the app when the condition does not hold; nothing unless given."""

    def _branches(self) -> Sequence[Branch]:
        return [(self.condition, self.layer)]


@dataclass(frozen=True, init=False)
class Choose(_Branching):
    """Put the layer of the first condition that holds in front of a request, and only that one.

    ``Choose((conditions.header("x-plan", "gold"), RateLimit(calls=1000)), otherwise=RateLimit(calls=10))``.
    Conditions behind the first that holds are not asked. One that raises is refused with 500 ``policy-failed``.
    Follows Azure's ``choose``.
    """

    one_by_one = "branches"

    branches: tuple[Branch, ...]
    """Pairs of a condition and a layer, given one after the other, asked in that order."""

    otherwise: Layer | None = None
    """What stands in front of the app when no condition holds; nothing unless given."""

    def __new__(cls, *branches: Branch, **given: object) -> Self:
        """Check what was given, the pairs as one field."""
        check_one_by_one(cls.__name__, "branches", given)
        return super().__new__(cls, branches=branches, **given)

    @classmethod
    def cure_of(cls, field: str, value: object) -> str | None:
        """Branches are pairs."""
        pairs = not isinstance(value, tuple) or all(isinstance(each, tuple) and len(each) == 2 for each in value)
        return None if field != "branches" or pairs else "Write Choose((condition, layer), ...)"

    def __init__(self, *branches: Branch, otherwise: Layer | None = None) -> None:
        """Keep the pairs as one field."""
        object.__setattr__(self, "branches", branches)
        object.__setattr__(self, "otherwise", otherwise)
        if not branches:
            raise self.mistake("branches", "leaves nothing to choose", "Write Choose((condition, layer), ...)")

    def _branches(self) -> Sequence[Branch]:
        return self.branches


def _built(layer: Layer, app: ASGIApp, env: Env) -> ASGIApp:
    """One branch in front of the app; at a named place it has a place of its own, so that equal limits count apart."""
    return layer.build(app, env.within("branch")) if isinstance(layer, Composable) else layer(app)


class _Ways:
    def __init__(self, ways: Sequence[tuple[Condition, ASGIApp]], otherwise: ASGIApp | None) -> None:
        self._ways = ways
        self._otherwise = otherwise


class _Fork(_Ways):
    """Answers with the branch whose condition holds; when there is none the ring goes on to the app."""

    def on_request(self, exchange: Exchange) -> ASGIApp | None:
        for condition, app in self._ways:
            if holds(condition, exchange):
                return app
        return self._otherwise


class _AwaitingFork(_Ways):
    """Answers with the branch whose condition holds, where at least one condition is async."""

    async def on_request(self, exchange: Exchange) -> ASGIApp | None:
        for condition, app in self._ways:
            verdict = condition(exchange)
            if await verdict if isawaitable(verdict) else verdict:
                return app
        return self._otherwise
