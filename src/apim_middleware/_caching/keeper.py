"""The hooks of the response cache, all but where pages are kept."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TypeAlias

from apim_middleware._caching.answers import answer, answer_to
from apim_middleware._caching.collapsing import Collapsing
from apim_middleware._caching.detached import Detached
from apim_middleware._caching.flights import Led
from apim_middleware._caching.judging import FOR_ONE
from apim_middleware._caching.lookup import TELLING, CacheLookup, Key, Noted, Passing, beyond_the_key
from apim_middleware._caching.pages import Page, Stored, Variants
from apim_middleware._caching.purging import CacheFigures, Purgeable
from apim_middleware._caching.rules import Caching
from apim_middleware._caching.waiting import FAILURE, Waiting
from apim_middleware._http.cache_control import ANYTHING, Wishes, wishes
from apim_middleware._http.cache_status import answered, passed_on
from apim_middleware._http.cache_validation import has_validator, shows
from apim_middleware._http.client_certificate import is_shown
from apim_middleware._http.credentials import CREDENTIALS
from apim_middleware._http.freshness import unfit
from apim_middleware._http.headers import NAME
from apim_middleware._http.keeping import OPENING, Keeping, selection
from apim_middleware._http.targets import SAFE, Resource, changed_with, resource_of
from apim_middleware._loops import running_loop
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange, ResponseHead
from apim_middleware.match import Match
from apim_middleware.types import ASGIApp, Scope, Tap

STATUS, DETAIL = "apim.cache.status", "apim.cache.detail"
"""The attribute of the exchange that says what the cache did: ``hit``, or why the request went on (RFC 9211 §2.2)."""

_REMEMBERED = 1024

_NOTHING_SAID = Wishes()
"""What a request wishes that asks something in particular, but not of caches: a part, or whether it has changed."""

Line: TypeAlias = tuple[bytes, bytes]


def not_in_cache() -> Refusal:
    """What a request is told that only a stored response may answer."""
    return Refusal(504, "not-in-cache", "No stored response answers the request, and it asks for nothing else.")


class Keeper(Collapsing, Purgeable):
    """Decides what answers a request, and what becomes of the response; those below know where pages are."""

    taps_body = True

    def __init__(self, policy: Caching, env: Env, time: Callable[[], float]) -> None:
        """Work out all that does not depend on requests."""
        super().__init__(policy, env, time)
        self._policy, self.place, self.policy = policy, env.place, policy
        self._query = policy.query
        self._rewrites, self._heeds = bool(self._query), not policy.ignore_request_directives
        self._hit = lru_cache(maxsize=_REMEMBERED)(partial(_hit, answered(policy.name)))
        self._hits = self._misses = self._refreshed = self._stored = 0

    def figures(self) -> CacheFigures:
        """What this cache has done in this process."""
        return CacheFigures(
            self.place,
            self._hits,
            self._misses,
            self._collapsed,
            self._refreshed,
            self._stored,
            self._evicted,
            self._held,
        )

    @property
    def _evicted(self) -> int:
        return 0

    @property
    def _held(self) -> int:
        return 0

    def _unkept(self, fwd: str, reason: str) -> Line:
        """The line that says why a request went on, and why its response is not kept."""
        return b"cache-status", passed_on(self._name, fwd, reason)

    # on the way in

    def _wished(self, exchange: Exchange, fields: Mapping[bytes, bytes]) -> Wishes | None:
        """What the request asks of a cache; None when the cache has no part in it."""
        scope = exchange.scope
        if scope["type"] != "http":
            return None
        method, host = scope["method"], fields.get(b"host")
        if method != "GET" and method != "HEAD":
            self._send_on(exchange, Passing("method", changes=self._changes(exchange, method, host)))
            return None
        if method == "GET" and TELLING.isdisjoint(fields) and host is not None:
            return ANYTHING
        wished = self._wishes(exchange, fields)
        if host is None or beyond_the_key(fields):
            if self._rewrites:
                self._rewrite(scope)
            self._bypass(exchange, wished)
            return None
        return wished

    def _key(self, exchange: Exchange, host: bytes) -> Key:
        """What a response to the request is kept under."""
        if self._rewrites:
            self._rewrite(exchange.scope)
        owners = self._ownership.owners(exchange) if self._owned else ()
        match = exchange.shared.match
        return resource_of(exchange.scope, host), owners if match is None else owners + _edition(match)

    def _rewrite(self, scope: Scope) -> None:
        scope["query_string"] = self._query.of(scope.get("query_string", b""))

    def as_kept(self, query: bytes) -> bytes:
        """What a query is in the keys of responses."""
        return self._query.of(query) if self._rewrites else query

    def _noted(self, exchange: Exchange, key: Key, now: float) -> Noted:
        """The request as it is now."""
        scope, shared = exchange.scope, exchange.shared
        return (
            key, now, self._versions.changes, tuple(scope["headers"]), scope.get("user"), is_shown(scope),
            shared.principal, shared.subscription, shared.guards,
        )  # fmt: skip

    def _wishes(self, exchange: Exchange, fields: Mapping[bytes, bytes]) -> Wishes:
        if self._heeds and (b"cache-control" in fields or b"pragma" in fields):
            return wishes(exchange.headers(b"cache-control"), exchange.headers(b"pragma"))
        return _NOTHING_SAID

    def _changes(self, exchange: Exchange, method: str, host: bytes | None) -> Resource | None:
        """The resource an unsafe request may change, as its responses are kept."""
        if host is None or method in SAFE:
            return None
        scope = exchange.scope
        if self._rewrites:
            scope = {**scope, "query_string": self._query.of(scope.get("query_string", b""))}
        return resource_of(scope, host)

    def _bypass(self, exchange: Exchange, wished: Wishes) -> None:
        if wished.only_if_cached:
            raise not_in_cache()
        self._send_on(exchange, Passing("bypass"))

    def _send_on(self, exchange: Exchange, asked: Passing | CacheLookup) -> None:
        exchange.state[self] = asked
        exchange.shared.attributes[STATUS] = asked.fwd

    def _answer(self, exchange: Exchange, asked: CacheLookup, page: Page, now: float) -> ASGIApp | None:
        """The stored response if there is one that may be used; else the request goes on, and is remembered."""
        stored = page.choose(asked.headers)
        if stored is None:
            return self._miss(exchange, asked, "vary-miss", page)
        unusable = self._unusable(asked, stored, now)
        if unusable is None:
            return self._stored_answer(exchange, asked.key, asked.wished, stored, now)
        if unusable == "stale" or unusable == "request":
            return self._after_all(exchange, asked, stored, unusable, now)
        return self._miss(exchange, asked, "request" if unusable == "credential" else unusable, page)

    def _unusable(self, asked: CacheLookup, stored: Stored, now: float) -> str | None:
        """Why a stored response does not answer this request; None when it does."""
        if stored.version is not None and not stored.version.current:
            return "uri-miss"
        if stored.open_to is not CREDENTIALS and not self._ownership.carried(asked) <= stored.open_to:
            return "credential"
        return unfit(asked.wished, now - stored.born, stored.fresh - stored.born)

    def _stored_answer(
        self, exchange: Exchange, key: Key, wished: Wishes, stored: Stored, now: float, detail: bytes = b""
    ) -> ASGIApp:
        """A stored response, or what the request asks of it."""
        exchange.shared.attributes[STATUS] = "hit"
        self._hits += 1
        status, headers, body = stored.status, stored.headers, stored.body
        if wished is not ANYTHING:
            status, headers, body = answer_to(exchange, stored)
        age, (name, told) = self._hit(int(now - stored.born), int(stored.fresh - now))
        return partial(answer, status, [*headers, age, (name, told + self._shown(key) + detail)], body)

    # what is stale, or not fresh enough

    def _after_all(
        self, exchange: Exchange, asked: CacheLookup, stored: Stored, unusable: str, now: float
    ) -> ASGIApp | None:
        """A stored response that is stale, or that this request wants confirmed: given away, or asked about."""
        wished, late = asked.wished, now - stored.fresh
        if unusable == "stale" and not stored.strict and self._heeds_nothing(wished):
            if late < wished.max_stale:
                return self._stored_answer(exchange, asked.key, wished, stored, now, b";detail=max-stale")
            if late < stored.while_revalidate and self._refreshes(exchange, asked, stored):
                return self._stored_answer(exchange, asked.key, wished, stored, now, b";detail=stale-while-revalidate")
        if wished.only_if_cached:
            raise not_in_cache()
        if self._may_ask(exchange, asked) and (unusable == "stale" or has_validator(stored.headers)):
            return self._asks_about(exchange, asked, stored, unusable)
        return self._miss(exchange, asked, unusable)

    def _heeds_nothing(self, wished: Wishes) -> bool:
        """Whether the request does not say how new a response must be: a stale one may do, or what others wait for."""
        return not wished.no_cache and wished.max_age is None and not wished.min_fresh

    def _may_ask(self, exchange: Exchange, asked: CacheLookup) -> bool:
        """Whether the app can be asked by ourselves, for this request and others."""
        scope = exchange.scope
        plain = scope["method"] == "GET" and exchange.header(b"range") is None
        return plain and not asked.wished.no_store and self._can_ask(exchange, asked)

    def _can_ask(self, exchange: Exchange, asked: CacheLookup) -> bool:
        """Whether a request of our own can be made of this one."""
        return self._inner is not None and running_loop() is not None and asked.body_is_known(exchange)

    def _refreshes(self, exchange: Exchange, asked: CacheLookup, stored: Stored) -> bool:
        """See that the app is asked anew, once, while the stale response is given away."""
        if asked.wished.no_store or not self._can_ask(exchange, asked):
            return False
        asked.flight_key = self._flight_key(asked, stored)
        if asked.flight_key not in self._flights:
            asked.stale = stored
            self._launch(Detached(self, exchange, asked, refreshes=True), asked.flight_key)
            self._refreshed += 1
            self._count("refreshed")
        return True

    def _asks_about(self, exchange: Exchange, asked: CacheLookup, stored: Stored, unusable: str) -> ASGIApp:
        """Ask whether the stored response still holds: once for all who do not say how new it must be."""
        asked.fwd = unusable
        exchange.shared.attributes[STATUS] = unusable
        self._misses += 1
        collapses = unusable == "stale" and self._patience is not None and self._heeds_nothing(asked.wished)
        collapses = collapses and not asked.wished.stale_if_error  # which is not what the others wish
        asked.flight_key = self._flight_key(asked, stored) if collapses else None
        asked.stale = stored
        if collapses:
            waiting = self._join(exchange, asked)
            if waiting is not None:
                return waiting
        return Waiting(self, exchange, asked, self._launch(Detached(self, exchange, asked), asked.flight_key))

    def _flight_key(self, asked: CacheLookup, stored: Stored) -> object:
        return (asked.key, selection(stored.selecting, asked.headers)) if stored.selecting else asked.key

    # what is not there

    def _miss(
        self, exchange: Exchange, asked: CacheLookup, fwd: str = "uri-miss", page: Page | None = None
    ) -> ASGIApp | None:
        """Let the request go on, remembered if its response may be kept, or wait for one like it."""
        self._misses += 1
        if asked.wished is not ANYTHING:
            going = self._going_past(exchange, asked, fwd)
            if going is not None:
                self._send_on(exchange, going)
                return None
        exchange.shared.attributes[STATUS] = asked.fwd = fwd
        asked.carrier = self._ownership.carrier(exchange.index())
        may_lead = asked.carrier is None and asked.wished is ANYTHING and self._patience is not None
        if may_lead and not self._ownership.carried(asked) and asked.body_is_known(exchange):
            waiting = self._leads_or_waits(exchange, asked, page)
            if waiting is not None:
                return waiting
        exchange.state[self] = asked
        return None

    def _leads_or_waits(self, exchange: Exchange, asked: CacheLookup, page: Page | None) -> ASGIApp | None:
        """Be found by those who ask the same meanwhile, or wait for who was first; None to go on to the app."""
        key: object = asked.key
        if isinstance(page, Variants):
            key = (key, selection(page.selecting, asked.headers))
        asked.flight_key = key
        if self._flights.setdefault(key, asked) is asked:
            return None
        waiting = self._join(exchange, asked)
        if waiting is None:
            asked.flight_key = None
        return waiting

    def _going_past(self, exchange: Exchange, asked: CacheLookup, fwd: str) -> Passing | None:
        """How the request goes on when its response is not to be kept, whatever it is."""
        if asked.wished.only_if_cached:
            raise not_in_cache()
        if exchange.scope["method"] == "HEAD":
            return Passing(fwd, shown=None if asked.wished.no_store else asked)
        if exchange.header(b"range") is not None:
            return Passing("bypass" if fwd == "uri-miss" else fwd)
        return Passing(fwd, detail="request-no-store") if asked.wished.no_store else None

    # on the way out

    def _passed(self, asked: Passing, head: ResponseHead) -> list[Resource]:
        """Say in the head why it went past; what it changed is from now on in another state (RFC 9111 §4.4)."""
        changed: list[Resource] = []
        if asked.changes is not None and head.status < 400:
            references = head.get(b"location"), head.get(b"content-location")
            changed = changed_with(asked.changes, references, self.as_kept)
        for resource in changed:
            self._versions.end(resource)
        self.strip(head)
        head.append(b"cache-status", passed_on(self._name, asked.fwd, asked.detail))
        return changed

    def _shown_by_head(
        self, exchange: Exchange, asked: CacheLookup, page: Page | None, head: ResponseHead
    ) -> Stored | None:
        """What the answer to HEAD makes of the stored response that could have been chosen (RFC 9111 §4.3.5).

        None when it leaves it as it is. What it contradicts is stale from now on; what it does not name by a validator
        is no fresher than before.
        """
        stored = None if page is None else page.choose(asked.headers)
        if stored is None or head.status != 200 or not self.open_to(asked, stored):
            return None
        if self._is_outdated(asked, stored):
            return None
        verdict: Stored | Keeping | str
        if stored.status != 200 or not shows(head.headers, stored.headers, len(stored.body)):
            verdict = self._verdict(exchange, asked, head.status, head.headers)
        elif has_validator(head.headers):
            verdict = self.freshened(exchange, asked, stored, head.headers)
        else:
            return None
        if isinstance(verdict, Stored):
            return verdict
        if verdict in FOR_ONE:  # it is that caller's affair
            return None
        stored.fresh = min(stored.fresh, self._time())
        return stored

    def _is_outdated(self, asked: CacheLookup, stored: Stored) -> bool:
        """Whether the resource has changed since the request was made, or since the stored response was."""
        ended = stored.version is not None and not stored.version.current
        return ended or self._versions.changed(asked.key[0], since=asked.changes)

    def _record(self, exchange: Exchange, asked: CacheLookup, head: ResponseHead) -> Tap | None:
        """Copy the body of the response if it is to be kept, and say in the head why not if it is not."""
        if asked.carrier is not None and OPENING.isdisjoint(map(NAME, head.headers)):
            verdict: Keeping | str = asked.carrier  # as most responses to callers who say who they are
        else:
            verdict = self.judged(exchange, asked, head)
            self.strip(head)
        if isinstance(verdict, str):
            exchange.shared.attributes[DETAIL] = verdict
            head.headers.append(self._unkept(asked.fwd, verdict))
            if asked.flight_key is not None:
                self._end_flight(asked, reason=verdict, status=head.status)
                if head.status >= FAILURE:
                    asked.flight_key = None  # it tells nothing of the responses to come
            return None
        head.headers.append(self.told(asked, "stored", collapsed=False))
        recording = asked.recording = self.recording(verdict, head.status, exchange)
        if self._unshared:
            self._unshared.pop(asked.flight_key or asked.key, None)
        if asked.flight_key is not None and isinstance(asked.flight, Led):
            asked.flight.copies(recording)
        return recording.tap


def _edition(match: Match) -> tuple[str, ...]:
    """Which version and revision of its API answers: responses of each are apart, and change together."""
    route = match.route
    return (f"{route.revision} {route.version}",) if route.version or route.revision != 1 else ()


def _hit(member: bytes, age: int, ttl: int) -> tuple[Line, Line]:
    """The lines that tell of a stored response: the same ones for all of its age."""
    return (b"age", b"%d" % max(0, age)), (b"cache-status", b"%b%d" % (member, ttl))
