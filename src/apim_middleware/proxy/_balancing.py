"""Whose turn it is: one of several members, by their weights and by what they have to do. No clock, no I/O."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, TypeVar

from apim_middleware._digest import digest

Draw: TypeAlias = Callable[[], float]
"""A number from 0 up to 1, another one each time."""

_ALL = (1 << 64) - 1


class Candidate(Protocol):
    """A member as those see it who choose."""

    weight: float
    """How much it takes just now, above 0."""

    share: float
    """How much it takes when it has come in for good."""

    load: int
    """How many requests are under way there."""

    turn: float
    """What round-robin keeps of it."""

    seed: int
    """64 bits that stand for it, the same in every process."""


C = TypeVar("C", bound=Candidate)


class Balance(Protocol):
    """Chooses one of at least one candidate."""

    def pick(self, candidates: Sequence[C], key: str | None) -> C:
        """The one whose turn it is; ``key`` is what the request belongs to."""
        ...


class RoundRobin:
    """Each in turn, as often as its weight says and never in bursts (smooth weighted round-robin)."""

    def pick(self, candidates: Sequence[C], key: str | None) -> C:
        best, total = candidates[0], 0.0
        for each in candidates:
            total += each.weight
            each.turn += each.weight
            if each.turn > best.turn:
                best = each
        best.turn -= total
        return best


class LeastConnections(RoundRobin):
    """The one with the fewest requests under way for its weight; among equals each in turn."""

    def pick(self, candidates: Sequence[C], key: str | None) -> C:
        least = min(each.load / each.weight for each in candidates)
        return super().pick([each for each in candidates if each.load / each.weight == least], key)


class PowerOfTwo:
    """The one with fewer requests under way of two that are drawn by weight.

    Nearly as even as looking at all, and many gateways that know nothing of each other do not all run to the same one.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def pick(self, candidates: Sequence[C], key: str | None) -> C:
        one = drawn(candidates, self._draw())
        if len(candidates) == 1:
            return one
        other = drawn([each for each in candidates if each is not one], self._draw())
        return other if other.load / other.weight < one.load / one.weight else one


class ConsistentHash:
    """The same member for the same key (weighted rendezvous hashing): when one goes, only its keys go elsewhere.

    Requests without a key are given to each in turn.
    """

    def __init__(self) -> None:
        self._otherwise = RoundRobin()

    def pick(self, candidates: Sequence[C], key: str | None) -> C:
        if key is None:
            return self._otherwise.pick(candidates, None)
        hashed = digest(key)
        return max(candidates, key=lambda each: _score(hashed ^ each.seed, each.share))


def drawn(candidates: Sequence[C], number: float) -> C:
    """The one a number from 0 up to 1 falls on when each has a part as large as its weight."""
    left = number * sum(each.weight for each in candidates)
    for each in candidates:
        left -= each.weight
        if left < 0:
            return each
    return candidates[-1]


def _score(bits: int, weight: float) -> float:
    return -weight / math.log((_mixed(bits) + 1) / (_ALL + 2))


def _mixed(bits: int) -> int:
    """Bits in which each depends on all of the given ones (the finalizer of SplitMix64)."""
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & _ALL
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & _ALL
    return bits ^ (bits >> 31)
