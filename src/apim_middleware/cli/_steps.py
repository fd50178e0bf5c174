"""What each policy did to one request, read from what was seen before it and behind it."""

from collections.abc import Iterator
from typing import NamedTuple

from apim_middleware.cli._journal import Journal, Sight
from apim_middleware.cli._veil import Veil


class Step(NamedTuple):
    """What one policy did."""

    policy: str
    took: float
    """Seconds on the way in, what it waited for included."""

    request: list[str]
    """What it changed of the request."""

    response: list[str]
    """What it changed of the response."""

    answered: bool
    """Whether nobody behind it was asked."""


def steps(journal: Journal, veil: Veil) -> list[Step]:
    """What each policy did that the request came to, outermost first."""
    found = [*_at_the_gate(journal)]
    for sight, behind, inner, outer in _sights(journal):
        found.append(
            Step(
                policy=journal.names[sight.place],
                took=(behind.moment - sight.moment) if behind is not None else _until_answer(sight, outer),
                request=[] if behind is None else _differences(sight.request, behind.request, veil),
                response=_differences(inner.response, outer.response, veil) if inner and outer else [],
                answered=behind is None,
            )
        )
    seen = journal.inward
    if seen and seen[-1].refusal and not (found and found[-1].answered):
        found.append(Step("the gateway itself", 0.0, [], [f"code: {seen[-1].refusal}"], answered=True))
    return found


def veil_of(journal: Journal) -> Veil:
    """What hides the secrets of this request: wherever it was, what a policy has put there out of a secret."""
    hidden: set[str] = set()
    for sight, behind, inner, outer in _sights(journal):
        if sight.place in journal.secret:
            hidden |= _named(behind.request - sight.request) if behind is not None else set()
            hidden |= _named(outer.response - inner.response) if inner and outer else set()
    return Veil(hidden)


def _at_the_gate(journal: Journal) -> Iterator[Step]:
    """The check of the key, which comes before the first policy."""
    facts = journal.inward[0].request if journal.inward else ()
    if journal.gate:
        for name, value in sorted(facts):
            if name == "subscription" and value:
                yield Step(journal.gate, 0.0, [f"{name}: {value}"], [], answered=False)


def _sights(journal: Journal) -> Iterator[tuple[Sight, Sight | None, Sight | None, Sight | None]]:
    """Of each policy: the request before and behind it, and the response behind and before it."""
    seen = journal.inward
    out = {sight.place: sight for sight in journal.outward}
    for at, sight in enumerate(seen):
        behind = seen[at + 1] if at + 1 < len(seen) else None
        if journal.names[sight.place]:
            yield sight, behind, out.get(behind.place) if behind is not None else None, out.get(sight.place)


def _until_answer(sight: Sight, outer: Sight | None) -> float:
    return 0.0 if outer is None else outer.moment - sight.moment


def _named(facts: frozenset[tuple[str, str]]) -> set[str]:
    return {name for name, _ in facts}


def _differences(before: frozenset[tuple[str, str]], after: frozenset[tuple[str, str]], veil: Veil) -> list[str]:
    gone, new = sorted(before - after), sorted(after - before)
    changed = {name for name, _ in gone} & {name for name, _ in new}
    lines = [f"{name}: {veil(name, value)}" for name, value in new]
    return lines + [f"{name}: (removed)" for name, _ in gone if name not in changed]
