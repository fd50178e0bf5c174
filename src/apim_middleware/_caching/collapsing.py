"""Requests under way: who asks the app for all, who waits for whom, and who takes over."""

from collections.abc import Callable
from functools import partial
from typing import Any

from apim_middleware._caching.answers import answer, answer_to
from apim_middleware._caching.detached import Detached
from apim_middleware._caching.flights import Flight, Led
from apim_middleware._caching.judging import FOR_ONE, Judging
from apim_middleware._caching.lookup import CacheLookup
from apim_middleware._caching.marks import too_deep
from apim_middleware._caching.pages import Headers, Stored
from apim_middleware._caching.rules import LONGEST, Caching
from apim_middleware._caching.waiting import Waiting
from apim_middleware._http.headers import get_all
from apim_middleware._http.keeping import Keeping, Terms, judge, selection
from apim_middleware._loops import running_loop
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange, ResponseHead
from apim_middleware.types import ASGIApp

_ALONE = 60.0  # seconds nobody waits for responses that turned out not to be for others
_MOST_ALONE = 4096
_STALLED = 60.0  # seconds after which nobody joins a request that has not been answered


class Collapsing(Judging):
    """Knows the requests that are being answered, by what they ask."""

    def __init__(self, policy: Caching, env: Env, time: Callable[[], float]) -> None:
        """Begin with none."""
        super().__init__(policy, env, time)
        self._env, self._named = env, {"apim.cache.name": policy.name}
        self._patience = policy.collapse_wait or None
        self._flights: dict[Any, CacheLookup | Detached] = {}
        self._unshared: dict[Any, float] = {}  # where nobody waits, and until when
        self._inner: ASGIApp | None = None
        self._collapsed = 0

    def put_before(self, app: ASGIApp) -> None:
        """Know the app that is asked, with the policies further in."""
        self._inner = app

    @property
    def inner(self) -> ASGIApp:
        """The app, with the policies further in."""
        if self._inner is None:
            raise RuntimeError("the cache does not know what it stands in front of")
        return self._inner

    def _count(self, event: str) -> None:
        """Count an event for whoever listens."""
        self._env.count(f"apim.cache.{event}", self._named)

    def judged(self, exchange: Exchange, asked: CacheLookup, head: ResponseHead) -> Keeping | str:
        """How the response may be kept, or why not: so is what could not be taken away by all its names."""
        verdict = super().judged(exchange, asked, head)
        return "too-deep" if isinstance(verdict, Keeping) and too_deep(asked.key[0]) else verdict

    # who waits for whom

    def _join(self, exchange: Exchange, asked: CacheLookup) -> ASGIApp | None:
        """Wait for the response to a request like this one; None when that is known to be of no use."""
        flight = self._joinable(asked.flight_key)
        if flight is None:
            return None
        self._collapsed += 1
        self._count("collapsed")
        return Waiting(self, exchange, asked, flight)

    def _joinable(self, key: object) -> Flight | None:
        """The response under way that a request can read from its beginning on this event loop, if there is one."""
        found = self._flights.get(key)
        home = running_loop()
        if found is None or home is None or self._unshared.get(key, 0.0) > self.monotonic():
            return None
        first = found.asked if isinstance(found, Detached) else found
        if self._versions.changed(first.key[0], since=first.changes):
            return None  # what it will get may be from before the change
        if isinstance(found, Detached):
            stalled = found.verdict is None and self.monotonic() - found.began > _STALLED
            return found if found.home is home and not found.first and not stalled else None
        if self._inner is None or self._patience is None:
            return None
        if found.flight is None:
            led = found.flight = Led(found, home, self._patience)
            if found.recording is not None:
                led.copies(found.recording)
        return found.flight if found.flight.home is home else None

    def _launch(self, flight: Detached, key: object) -> Detached:
        if key is not None:
            self._flights[key] = flight
        flight.start()
        return flight

    def successor(self, flight: Flight, exchange: Exchange, asked: CacheLookup) -> Flight:
        """The flight that takes over from one that left, failed or stalls; the first who needs it begins it."""
        if flight.successor is None:
            taking_over = Detached(self, exchange, asked, after=flight)
            flight.successor = self._launch(taking_over, asked.flight_key)
        return flight.successor

    def flight_of(self, exchange: Exchange, asked: CacheLookup, selecting: tuple[bytes, ...]) -> Flight | bool:
        """The flight of those that say the same in these fields; False when it is of no use to wait."""
        asked.flight_key = (asked.key, selection(selecting, asked.headers))
        if asked.flight_key not in self._flights:
            return self._launch(Detached(self, exchange, asked), asked.flight_key)
        return self._joinable(asked.flight_key) or False

    def landed(self, flight: Detached) -> None:
        """A flight is over: whoever comes next finds what it left."""
        key = flight.asked.flight_key
        if self._flights.get(key) is flight:
            del self._flights[key]

    def disappointed(self, asked: CacheLookup) -> None:
        """Somebody waited for a response that is not for others: for a while nobody waits there."""
        if asked.flight_key is None:
            return
        if len(self._unshared) >= _MOST_ALONE:
            del self._unshared[next(iter(self._unshared))]
        self._unshared[asked.flight_key] = self.monotonic() + _ALONE

    def failure_for(self, asked: CacheLookup, flight: Detached) -> Headers | None:
        """The fields of the app's failure for somebody who waits; None when it may be another one's own.

        It is for others where it could be kept, were it no failure, and neither request says who is calling.
        """
        user = flight._exchange.scope.get("user")
        known = self._ownership.carried(asked) or self._ownership.carried(flight.asked)
        if known or flight.verdict in FOR_ONE or (user is not None and self._ownership.named(user)):
            return None
        terms = Terms(fixed_ttl=LONGEST, statuses=frozenset((flight.status,)))
        keeping = judge(flight.status, flight.own_headers, terms=terms, received=self.now())
        if isinstance(keeping, str) or not self.selected_alike(asked, flight.asked, keeping):
            return None
        return (*keeping.headers, *((b"retry-after", value) for value in get_all(flight.own_headers, b"retry-after")))

    def _end_flight(
        self, asked: CacheLookup, *, whole: bool = False, reason: str | None = None, status: int = 0
    ) -> None:
        """The request that passed here first is over, or its response is not for others."""
        if self._flights.get(asked.flight_key) is asked:
            del self._flights[asked.flight_key]
        flight = asked.flight
        if flight is not None:
            if reason is not None:
                flight.verdict, flight.status = reason, status
            flight.end(whole=whole)

    # asking the app

    async def at_work_on(self, flight: Detached) -> None:
        """Ask the app for a flight."""
        await flight.ask()

    async def completed(self, flight: Detached) -> None:
        """A flight has come to its end, and what is to be kept of it is kept."""
        self.landed(flight)

    def given(
        self, exchange: Exchange, asked: CacheLookup, flight: Flight, stored: Stored, *, collapsed: bool
    ) -> ASGIApp:
        """A stored response that the app has confirmed, or that stands in for its failure."""
        status, headers, body = answer_to(exchange, stored)
        said = flight.status if flight.status not in (0, status) else None
        reason = flight.reason if isinstance(flight, Detached) else None
        age = b"age", b"%d" % max(0, self._time() - stored.born)
        by_others = not flight.status and reason is None  # another process has stored it meanwhile
        told = self.told(asked, reason, collapsed=collapsed or by_others, status=said)
        return partial(answer, status, [*headers, age, told], body)
