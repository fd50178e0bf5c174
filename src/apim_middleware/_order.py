"""Whether policies can work in the order they were written in."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from apim_middleware.errors import ConfigError


class Ordered(Protocol):
    """What is looked at of each policy."""

    @property
    def provides(self) -> frozenset[str]:
        """What it establishes for those further in."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What must be established further out."""
        ...

    @property
    def guards(self) -> bool | None:
        """Whether it decides who may come in; None where it does not say."""
        ...

    @property
    def answers(self) -> bool:
        """Whether it may answer from memory, or by another app."""
        ...

    @property
    def leads_to(self) -> tuple[object, ...]:
        """Other apps that it sends requests to."""
        ...

    @property
    def counts(self) -> frozenset[str]:
        """What its counters are called."""
        ...


def guarding(policies: Iterable[Ordered]) -> bool | None:
    """Whether one of these decides who may come in; None where it cannot be told."""
    said = {policy.guards for policy in policies}
    return True if True in said else None if None in said else False


def unmet(policies: Sequence[Ordered]) -> frozenset[str]:
    """What these policies, outermost first, rely on and those before them do not establish."""
    needs, met = frozenset[str](), frozenset[str]()
    for policy in policies:
        needs |= policy.needs - met
        met |= policy.provides
    return needs


def check_needs(policies: Sequence[Ordered]) -> None:
    """Refuse an order in which what a policy needs is established only further in."""
    for place, policy in enumerate(policies):
        outside = frozenset[str]().union(*(each.provides for each in policies[:place]))
        for later in policies[place + 1 :]:
            if unmet := sorted((policy.needs - outside) & later.provides):
                needy, provider = type(policy).__name__, type(later).__name__
                problem = f"relies on the {unmet[0]}, which {provider} establishes only behind it"
                raise ConfigError(needy, "", problem, f"Write {provider} before {needy}")


_ESTABLISHED_BY = {"body": "ReadBody()"}
"""What is nowhere unless a policy establishes it, and which does; of a client or caller a server may know as well."""


def check_met(policies: Sequence[Ordered]) -> None:
    """Refuse a whole, outermost first, in which nothing establishes what one of its policies cannot do without."""
    met = frozenset[str]()
    for policy in policies:
        for fact in sorted((policy.needs - met) & _ESTABLISHED_BY.keys()):
            needy, provider = type(policy).__name__, _ESTABLISHED_BY[fact]
            problem = f"relies on the {fact}, which nothing before it establishes"
            raise ConfigError(needy, "", problem, f"Write {provider} before {needy}")
        met |= policy.provides


_CALLERS = frozenset({"principal", "subscription"})


def check_readers(policies: Sequence[Ordered]) -> None:
    """Refuse to read the bodies of whoever comes, outermost first, where only a policy behind knows the callers."""
    for place, policy in enumerate(policies):
        if policy.guards:
            return
        for later in policies[place + 1 :] if "body" in policy.provides else ():
            if later.guards and "body" not in later.needs and not _CALLERS.isdisjoint(later.provides):
                guard, reader = type(later).__name__, type(policy).__name__
                problem = f"reads the bodies of callers whom {guard} would turn away"
                by_it = f'or say needs = frozenset({{"body"}}) in {guard} if it goes by them'
                raise ConfigError(reader, "", problem, f"Write {guard} before {reader}, {by_it}")


def check_guards(policies: Sequence[Ordered]) -> None:
    """Refuse a guard behind a policy that answers from memory or by another app, for it would not be asked."""
    for place, policy in enumerate(policies):
        for earlier in () if policy.guards is False else policies[:place]:
            if earlier.answers:
                guard, front = type(policy).__name__, type(earlier).__name__
                how = "" if earlier.leads_to else " from memory"
                problem = f"stands behind {front}, which would answer{how} without asking it"
                unsaid = "" if policy.guards else f', or say "guards = False" in {guard} if it keeps nobody out'
                raise ConfigError(guard, "", problem, f"Write {guard} before {front}{unsaid}")


def check_counts(policies: Sequence[Ordered]) -> None:
    """Refuse two policies at one place that differ, but not in what they would be told apart by in a store."""
    seen: dict[tuple[type[Ordered], str], Ordered] = {}
    for policy in policies:
        for name in policy.counts:
            if seen.setdefault((type(policy), name), policy) != policy:
                problem = f"would count together with another {type(policy).__name__} of the stack"
                raise ConfigError(type(policy).__name__, "name", problem, "Give one of them another name")
