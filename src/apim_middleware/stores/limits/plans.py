"""What is asked of a storage, one call after the other, whether each is awaited or waited for in a thread."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from apim_middleware.protocols import Tally
from apim_middleware.stores.limits.ways import Counter, Plan

T = TypeVar("T")


def driven(plan: Plan[T]) -> T:
    """Carry out a plan whose calls block."""
    try:
        ask = next(plan)
        while True:
            ask = plan.send(ask())
    except StopIteration as end:
        done: T = end.value
        return done


async def awaited(plan: Plan[T]) -> T:
    """Carry out a plan whose calls are awaited."""
    try:
        ask = next(plan)
        while True:
            ask = plan.send(await ask())
    except StopIteration as end:
        done: T = end.value
        return done


class Use(NamedTuple):
    """A counter, and the units a hit costs."""

    counter: Counter
    cost: int


def peek(uses: Sequence[Use]) -> Plan[list[Tally]]:
    """Tell what each hit alone would be told."""
    for counter in {use.counter for use in uses}:
        yield from counter.look()
    return [counter.tally(cost, allowed=counter.has_room(cost)) for counter, cost in uses]


def hit(uses: Sequence[Use]) -> Plan[list[Tally]]:
    """Look at all, count one by one, and give back what was counted when one refuses all the same."""
    tallies = yield from peek(uses)
    if not all(tally.allowed for tally in tallies):
        return tallies
    done: list[Use] = []
    for use in sorted(uses, key=lambda use: not use.counter.gives_back):
        if use.cost and not (yield from use.counter.count(use.cost)):
            for counter, cost in done:
                yield from counter.change(-cost)
            return (yield from _refused(uses, use.counter))
        done.append(use)
    return [counter.tally(cost, allowed=True) for counter, cost in uses]


def _refused(uses: Sequence[Use], refusing: Counter) -> Plan[list[Tally]]:
    """Others came in between: the one that refused says so, whatever it would say now."""
    tallies = yield from peek(uses)
    return [
        tally._replace(allowed=False) if use.counter is refusing else tally
        for use, tally in zip(uses, tallies, strict=True)
    ]


def settle(changes: Sequence[tuple[Counter, int, float]]) -> Plan[None]:
    """Correct what still counts."""
    for counter, units, counted in changes:
        if units and counter.covers(counted):
            yield from counter.change(units)


def assign(uses: Sequence[Use]) -> Plan[None]:
    """Forget, and count anew."""
    for counter, cost in uses:
        yield from counter.forget()
        if cost:
            yield from counter.put(cost)
