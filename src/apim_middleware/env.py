"""What policies may use besides the request: the clock, stores, the HTTP transport."""

import itertools
import logging
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

from apim_middleware._alike import alike
from apim_middleware._annotations import methods_of
from apim_middleware._config import BUILT_IN, check, check_named
from apim_middleware._http.hygiene import Hygiene, Scrub
from apim_middleware._lifespan import Ending
from apim_middleware.errors import ConfigError
from apim_middleware.protocols import Clock, Counters, Entries, Permits, Transport

if TYPE_CHECKING:
    from apim_middleware.policy import Policy

log = logging.getLogger("apim_middleware")

T = TypeVar("T")
_serial = itertools.count(1)


class SystemClock:
    """The machine's clock."""

    now: Callable[[], float] = staticmethod(time.time)
    monotonic: Callable[[], float] = staticmethod(time.monotonic)


class Listener(Protocol):
    """Who is told of events that are counted, such as the outage of a store."""

    def count(self, event: str, attributes: Mapping[str, str]) -> None:
        """One more of this event, with these attributes."""
        ...


class Env:
    """Clock, stores and transport for the policies of a stack, and the place they stand at.

    Equal policies at the same named ``place`` keep what they counted when the stack is built anew (a reload);
    equal policies at two places count apart. Without a name, one policy object keeps one count wherever it is used.
    """

    def __new__(cls, *args: object, **given: object) -> Self:
        """Check the names of what was given."""
        check_named(cls, given)
        return super().__new__(cls)

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        counters: Counters | None = None,
        entries: Entries | None = None,
        permits: Permits | None = None,
        transport: Transport | None = None,
        hygiene: Hygiene | None = None,
        place: str = "",
    ) -> None:
        """Use what is given; what is not is made when the first policy asks for it. ConfigError for what cannot be.

        ``clock`` is the machine's unless given. Limits count in ``counters``, caches keep their responses in
        ``entries``, and ``permits`` say how many are at work: each in memory unless given. ``transport`` is what
        proxies and policies ask others with. ``hygiene`` judges requests before the first policy does.
        """
        _check_given("clock", clock, Clock)
        _check_given("counters", counters, Counters)
        _check_given("entries", entries, Entries)
        _check_given("permits", permits, Permits)
        _check_given("transport", transport, Transport)
        check("Env", "hygiene", hygiene, Hygiene | None)
        check("Env", "place", place, str, cure='Write Env(place="orders")')
        self.clock: Clock = SystemClock() if clock is None else clock
        self.scrub: Scrub = (hygiene or Hygiene()).compiled()
        self.place = place
        self.named = bool(place)
        """Whether somebody has named the place: no other app has it then, and it is the same after every change."""
        self.given: Mapping[str, Any] = {
            "clock": clock, "counters": counters, "entries": entries, "permits": permits, "transport": transport,
            "hygiene": hygiene,
        }  # fmt: skip
        """What it was given for each but its place; None where it makes its own."""
        self._parts: dict[str, Any] = {**self.given}
        self._made = _Transports()
        self._bound: dict[str | int, list[_Seat]] = {}  # by place; where there is none, by policy
        self._listeners: list[Listener] = []
        self._begin()

    def _begin(self) -> None:
        self._met: list[Policy] = []  # what was bound in this build, to tell equal policies apart
        self._inner = Counter[str]()

    def at(self, place: str, *, named: bool | None = None) -> "Env":
        """The same means at another place, where a build begins; ``named`` unless it lies in one that nobody named."""
        other: Env = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.place = place
        other.named = bool(place) and (self.named or not self.place) if named is None else named
        other._begin()
        return other

    def again(self) -> "Env":
        """The same place at this moment of a build, to build once more what comes next."""
        other = self.at(self.place)
        other._met, other._inner = list(self._met), self._inner.copy()
        return other

    def within(self, name: str) -> "Env":
        """A place within this one, told apart from others of that name; without a name there is nothing to tell."""
        if not self.place:
            return self
        self._inner[name] += 1
        number = self._inner[name]
        return self.at(f"{self.place}/{name}" if number == 1 else f"{self.place}/{name}#{number}")

    def counters(self, default: Callable[[], Counters]) -> Counters:
        """The counters of this environment; made by ``default`` when none were given."""
        return self._resolve("counters", default)

    def entries(self, default: Callable[[], Entries]) -> Entries:
        """The entries of this environment; made by ``default`` when none were given."""
        return self._resolve("entries", default)

    def permits(self, default: Callable[[], Permits]) -> Permits:
        """The permits of this environment; made by ``default`` when none were given."""
        return self._resolve("permits", default)

    def transport(self, default: Callable[[], Transport]) -> Transport:
        """The transport of this environment; made by ``default`` when none was given, and closed by ``aclose`` then."""
        return self._resolve("transport", lambda: self._made.keep(default()))

    def callouts(self, default: Callable[[], Transport], *, public: bool) -> Transport:
        """The transport for documents that policies fetch on their own account, such as an issuer's keys.

        It is the transport that was given, else one made by ``default``: apart from that of the proxy, and one for
        calls that may only reach ``public`` addresses, because the two do not admit the same. ``aclose`` closes it.
        """
        given: Transport | None = self.given["transport"]
        if given is not None:
            return given
        return self._resolve("callouts.public" if public else "callouts", lambda: self._made.keep(default()))

    async def aclose(self) -> None:
        """Close the connections of the transports that were made here, as far as this event loop has them open.

        What was given is closed by whoever gave it. Gateways, proxies, guards and stacks do this when the server's
        lifespan ends; where none of them hears of it, do it yourself. What is asked afterwards connects anew.
        """
        await self.ending()

    @property
    def ending(self) -> Ending:
        """What ``aclose`` does; equal for all places of one environment."""
        return self._made.aclose

    def kept(self, name: str, default: Callable[[], T]) -> T:
        """What policies of this environment keep together under a name of theirs; made by ``default`` at first."""
        return self._resolve(f"kept.{name}", default)

    def count(self, event: str, attributes: Mapping[str, str]) -> None:
        """Count one event for whoever listens; ``Tracing`` makes a metric of it. Both are few and known beforehand."""
        for listener in self._listeners:
            listener.count(event, attributes)

    def listen(self, listener: Listener) -> None:
        """Tell a listener of every event from now on, once however often it is said."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def _resolve(self, name: str, default: Callable[[], T]) -> T:
        found: T | None = self._parts.get(name)
        if found is None:
            found = self._parts[name] = default()
        return found

    def bind(self, policy: "Policy") -> Any:  # noqa: ANN401 - whatever has the hooks
        """The object whose hooks run for this policy here; ``policy.bind`` sees a ``place`` that is its alone.

        Only the stacks keep bound objects alive, so a reload that drops a policy drops what it kept.
        """
        occurrence = self._met.count(policy) + 1 if self.place else 1
        if self.place:
            self._check_counts(policy)
            self._met.append(policy)
        spot = self.place or id(policy)
        for seat in tuple(self._bound.get(spot, ())):
            same = seat.occurrence == occurrence and alike(seat.policy, policy) if self.place else seat.policy is policy
            if same and (hooks := seat.hooks()) is not None:
                return hooks
        name = f"{self.place or f'~{next(_serial)}'}/{type(policy).__name__}"
        hooks = policy.bind(self.at(name if occurrence == 1 else f"{name}#{occurrence}"))
        if hooks is not policy:
            self._remember(spot, occurrence, policy, hooks)
        return hooks

    def _check_counts(self, policy: "Policy") -> None:
        """Refuse a policy that would count together with another one here, in whatever stack within a stack."""
        for other in self._met:
            if type(other) is type(policy) and other != policy and not other.counts.isdisjoint(policy.counts):
                problem = f"would count together with another {type(policy).__name__} at the place {self.place!r}"
                raise ConfigError(type(policy).__name__, "name", problem, "Give one of them another name")

    def _remember(self, spot: str | int, occurrence: int, policy: "Policy", hooks: object) -> None:
        """Find these hooks again for as long as a stack keeps them."""
        bound = self._bound

        def forget(gone: weakref.ref[Any]) -> None:
            bound[spot] = [seat for seat in bound.get(spot, ()) if seat.hooks is not gone]
            if not bound[spot]:
                del bound[spot]

        seat = _Seat(occurrence, policy, _reference(policy, hooks, forget))
        bound.setdefault(spot, []).append(seat)


def _check_given(field: str, given: object, protocol: type) -> None:
    """Refuse what has not the methods, such as the URL of a store or its class: it would fail with each request."""
    if isinstance(given, type):
        cure = f"Write Env({field}={given.__name__}(...))"
    else:
        known = ", ".join(BUILT_IN.get(protocol.__name__, ()))
        own = f"an object with the methods of {protocol.__name__}: {', '.join(methods_of(protocol))}"
        cure = f"Give {known} or {own}" if known else f"Give {own}"
    check("Env", field, given, protocol | None, cure=cure, secret=isinstance(given, str | bytes))


def _reference(policy: "Policy", hooks: object, forget: Callable[[weakref.ref[Any]], None]) -> weakref.ref[Any]:
    try:
        return weakref.ref(hooks, forget)
    except TypeError:
        problem = f"bind gave {type(hooks).__name__}, which cannot be referenced weakly"
        raise ConfigError(type(policy).__name__, "bind", problem, 'Add "__weakref__" to its __slots__') from None


class _Transports:
    """The transports that an environment has made itself, and nobody else could close."""

    def __init__(self) -> None:
        self._kept: list[Transport] = []

    def keep(self, transport: Transport) -> Transport:
        self._kept.append(transport)
        return transport

    async def aclose(self) -> None:
        for transport in self._kept:
            try:
                await transport.aclose()
            except Exception:  # which keeps neither the others nor the server from their end
                log.exception("a transport could not be closed")


class _Seat(NamedTuple):
    occurrence: int
    policy: "Policy"
    hooks: weakref.ref[Any]


default_env: Env = Env()
"""Where policies stand that are given to an app without a stack."""
