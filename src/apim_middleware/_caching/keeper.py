"""The hooks of the response cache, all but where pages are kept."""

from collections.abc import Callable

from apim_middleware._caching.answers import Answer, answer_to
from apim_middleware._caching.asking import TELLING, Asked, Passing, beyond_the_key
from apim_middleware._caching.detached import Detached
from apim_middleware._caching.flights import Led
from apim_middleware._caching.flying import Flying
from apim_middleware._caching.pages import Page, Stored, Variants
from apim_middleware._caching.purging import CacheFigures, Purgeable
from apim_middleware._caching.rules import Caching
from apim_middleware._caching.waiting import Waiting
from apim_middleware._http.cache_control import ANYTHING, Wishes, wishes
from apim_middleware._http.cache_status import answered, passed_on
from apim_middleware._http.cache_validation import has_validator
from apim_middleware._http.credentials import CREDENTIALS
from apim_middleware._http.freshness import unfit
from apim_middleware._http.keeping import selection
from apim_middleware._http.targets import SAFE, Resource, changed_with, resource_of
from apim_middleware._loops import running_loop
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange, ResponseHead
from apim_middleware.types import ASGIApp, Tap

STATUS = "apim.cache.status"
"""The attribute of the exchange that says what the cache did: ``hit``, or why the request went on (RFC 9211 §2.2)."""


def not_in_cache() -> Refusal:
    """What a request is told that only a stored response may answer."""
    return Refusal(504, "not-in-cache", "No stored response answers the request, and it asks for nothing else.")


class Keeper(Flying, Purgeable):
    """Decides what answers a request, and what becomes of the response; those below know where pages are."""

    taps_body = True

    def __init__(self, policy: Caching, env: Env, time: Callable[[], float]) -> None:
        """Work out all that does not depend on requests."""
        super().__init__(policy, env, time)
        self._policy, self.place, self.policy = policy, env.place, policy
        self._query = policy.query
        self._rewrites, self._heeds = bool(self._query), not policy.ignore_request_directives
        self._hit = answered(policy.name)
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

    # on the way in

    def _asked(self, exchange: Exchange) -> Asked | None:
        """What to look for, and what the request asks of a cache; None when the cache has no part in it."""
        scope = exchange.scope
        if scope["type"] != "http":
            return None
        fields = exchange.index()
        method, host = scope["method"], fields.get(b"host")
        if method != "GET" and method != "HEAD":
            self._send_on(exchange, Passing("method", changes=self._changes(exchange, method, host)))
            return None
        if self._rewrites:
            scope["query_string"] = self._query.of(scope.get("query_string", b""))
        wished = ANYTHING
        if not TELLING.isdisjoint(fields):
            wished = self._wishes(exchange)
        if host is None or (wished is not ANYTHING and beyond_the_key(fields)):
            self._bypass(exchange, wished)
            return None
        owners = self._ownership.owners(exchange) if self._owned else ()
        return Asked((_resource(exchange, host), owners), wished, self._versions.changes)

    def _wishes(self, exchange: Exchange) -> Wishes:
        if self._heeds:
            return wishes(exchange.headers(b"cache-control"), exchange.headers(b"pragma"))
        return Wishes()

    def _changes(self, exchange: Exchange, method: str, host: bytes | None) -> Resource | None:
        """The resource an unsafe request may change, as its responses are kept."""
        if host is None or method in SAFE:
            return None
        resource = _resource(exchange, host)
        return (*resource[:5], self._query.of(resource[5])) if self._rewrites else resource

    def _bypass(self, exchange: Exchange, wished: Wishes) -> None:
        if wished.only_if_cached:
            raise not_in_cache()
        self._send_on(exchange, Passing("bypass"))

    def _send_on(self, exchange: Exchange, asked: Passing | Asked) -> None:
        exchange.state[self] = asked
        exchange.shared.attributes[STATUS] = asked.fwd

    def _answer(self, exchange: Exchange, asked: Asked, page: Page, now: float) -> ASGIApp | None:
        """The stored response if there is one that may be used; else the request goes on, and is remembered."""
        stored = page.choose(exchange.scope["headers"])
        if stored is None:
            return self._miss(exchange, asked, "vary-miss", page)
        unusable = self._unusable(exchange, asked, stored, now)
        if unusable is None:
            return self._stored_answer(exchange, asked, stored, now)
        if unusable == "stale" or unusable == "request":
            return self._after_all(exchange, asked, stored, unusable, now)
        return self._miss(exchange, asked, unusable, page)

    def _unusable(self, exchange: Exchange, asked: Asked, stored: Stored, now: float) -> str | None:
        """Why a stored response does not answer this request; None when it does."""
        if stored.version is not None and not stored.version.current:
            return "uri-miss"
        if stored.open_to is not CREDENTIALS:
            asked.remember(exchange)
            if not self._ownership.carried(asked) <= stored.open_to:
                return "credential"
        return unfit(asked.wished, now - stored.born, stored.fresh - stored.born)

    def _stored_answer(
        self, exchange: Exchange, asked: Asked, stored: Stored, now: float, detail: bytes = b""
    ) -> ASGIApp:
        exchange.shared.attributes[STATUS] = "hit"
        self._hits += 1
        if asked.wished is not ANYTHING or exchange.scope["method"] == "HEAD":
            status, headers, body = answer_to(exchange, stored)
        else:
            status, headers, body = stored.status, list(stored.headers), stored.body
        told = self._hit % (stored.fresh - now)
        if detail or self._shows_key:
            told += self._key(asked) + detail
        headers.append((b"age", b"%d" % max(0, now - stored.born)))
        headers.append((b"cache-status", told))
        return Answer(status, headers, body)

    # what is stale, or not fresh enough

    def _after_all(self, exchange: Exchange, asked: Asked, stored: Stored, unusable: str, now: float) -> ASGIApp | None:
        """A stored response that is stale, or that this request wants confirmed: given away, or asked about."""
        asked.remember(exchange)
        wished, late = asked.wished, now - stored.fresh
        if unusable == "stale" and not stored.strict and self._heeds_nothing(wished):
            if late < wished.max_stale:
                return self._stored_answer(exchange, asked, stored, now, b";detail=max-stale")
            if late < stored.while_revalidate and self._refreshes(exchange, asked, stored):
                return self._stored_answer(exchange, asked, stored, now, b";detail=stale-while-revalidate")
        if wished.only_if_cached:
            raise not_in_cache()
        if self._may_ask(exchange, asked) and (unusable == "stale" or has_validator(stored.headers)):
            return self._asks_about(exchange, asked, stored, unusable)
        return self._miss(exchange, asked, unusable)

    def _heeds_nothing(self, wished: Wishes) -> bool:
        """Whether the request says nothing that keeps it from a stale response."""
        return not wished.no_cache and wished.max_age is None and not wished.min_fresh

    def _may_ask(self, exchange: Exchange, asked: Asked) -> bool:
        """Whether the app can be asked by ourselves, for this request and others."""
        scope = exchange.scope
        plain = scope["method"] == "GET" and exchange.header(b"range") is None
        return plain and not asked.wished.no_store and self._can_ask(exchange)

    def _can_ask(self, exchange: Exchange) -> bool:
        """Whether a request of our own can be made of this one."""
        return self._inner is not None and running_loop() is not None and _body_is_known(exchange)

    def _refreshes(self, exchange: Exchange, asked: Asked, stored: Stored) -> bool:
        """See that the app is asked anew, once, while the stale response is given away."""
        if asked.wished.no_store or not self._can_ask(exchange):
            return False
        asked.lead(self._flight_key(asked, stored))
        if asked.flight_key not in self._flights:
            asked.stale = stored
            self._launch(Detached(self, exchange, asked, refreshes=True), asked.flight_key)
            self._refreshed += 1
            self._count("refreshed")
        return True

    def _asks_about(self, exchange: Exchange, asked: Asked, stored: Stored, unusable: str) -> ASGIApp:
        """Ask whether the stored response still holds: once for all who wait, unless the request wants it new."""
        asked.fwd = unusable
        exchange.shared.attributes[STATUS] = unusable
        self._misses += 1
        collapses = unusable == "stale" and self._patience is not None
        asked.lead(self._flight_key(asked, stored) if collapses else None)
        asked.stale = stored
        if collapses:
            waiting = self._join(exchange, asked)
            if waiting is not None:
                return waiting
        return Waiting(self, exchange, asked, self._launch(Detached(self, exchange, asked), asked.flight_key))

    def _flight_key(self, asked: Asked, stored: Stored) -> object:
        return (asked.key, selection(stored.selecting, asked.headers)) if stored.selecting else asked.key

    # what is not there

    def _miss(self, exchange: Exchange, asked: Asked, fwd: str, page: Page | None = None) -> ASGIApp | None:
        """Let the request go on, remembered if its response may be kept, or wait for one like it."""
        if fwd == "credential":
            fwd = "request"
        self._misses += 1
        wished, scope = asked.wished, exchange.scope
        if wished is not ANYTHING or scope["method"] != "GET" or scope.get("http_version", "1.1")[:1] > "1":
            going = self._going_past(exchange, wished, fwd)
            if going is not None:
                self._send_on(exchange, going)
                return None
        exchange.shared.attributes[STATUS] = asked.fwd = fwd
        asked.remember(exchange)
        asked.started = self.monotonic()
        asked.carrier = None if self._owned else self._ownership.carrier(asked)
        if asked.carrier is None and wished is ANYTHING and self._patience is not None and self._is_plain(asked):
            waiting = self._leads_or_waits(exchange, asked, page)
            if waiting is not None:
                return waiting
        exchange.state[self] = asked
        return None

    def _leads_or_waits(self, exchange: Exchange, asked: Asked, page: Page | None) -> ASGIApp | None:
        """Be found by those who ask the same meanwhile, or wait for who was first; None to go on to the app."""
        key: object = asked.key
        if isinstance(page, Variants):
            key = (key, selection(page.selecting, asked.headers))
        asked.lead(key)
        if self._flights.setdefault(key, asked) is asked:
            return None
        waiting = self._join(exchange, asked)
        if waiting is None:
            asked.flight_key = None
        return waiting

    def _going_past(self, exchange: Exchange, wished: Wishes, fwd: str) -> Passing | None:
        """How the request goes on when its response is not to be kept, whatever it is."""
        scope = exchange.scope
        if wished is not ANYTHING:
            if wished.only_if_cached:
                raise not_in_cache()
            if scope["method"] == "GET" and exchange.header(b"range") is not None:
                return Passing("bypass" if fwd == "uri-miss" else fwd)
        if scope["method"] == "HEAD":
            return Passing(fwd)
        if scope.get("http_version", "1.1")[:1] > "1" and exchange.header(b"content-length") is None:
            return Passing(fwd, detail="body-unknown")  # HTTP/2 announces none (RFC 9113 §8.1)
        return Passing(fwd, detail="request-no-store") if wished.no_store else None

    def _is_plain(self, asked: Asked) -> bool:
        """Whether nothing in the request speaks against giving its response to others, as far as that is known."""
        nobody = asked.principal is None and asked.subscription is None and asked.user is None
        return (nobody and not self._owned and not asked.certificate) or not self._ownership.carried(asked)

    # on the way out

    def _passed(self, asked: Passing, head: ResponseHead) -> list[Resource]:
        """Say in the head why it went past; what it changed is from now on in another state (RFC 9111 §4.4)."""
        changed: list[Resource] = []
        if asked.changes is not None and head.status < 400:
            changed = changed_with(asked.changes, (head.get(b"location"), head.get(b"content-location")))
        for resource in changed:
            self._versions.end(resource)
        self.strip(head)
        head.append(b"cache-status", passed_on(self._name, asked.fwd, asked.detail))
        return changed

    def _record(self, exchange: Exchange, asked: Asked, head: ResponseHead) -> Tap | None:
        """Copy the body of the response if it is to be kept, and say in the head why not if it is not."""
        reason = self._ownership.plain_reason(asked, exchange.shared, head)
        if reason is not None:  # as for most requests of callers who say who they are
            head.headers.append((b"cache-status", passed_on(self._name, asked.fwd, reason)))
            return None
        verdict = self.judged(exchange, asked, head)
        self.strip(head)
        if isinstance(verdict, str):
            head.headers.append((b"cache-status", passed_on(self._name, asked.fwd, verdict)))
            if asked.flight_key is not None:
                self._end_flight(asked, reason=verdict)
            return None
        head.headers.append((b"cache-status", passed_on(self._name, asked.fwd, "stored") + self._key(asked)))
        recording = asked.recording = self.recording(verdict, head.status, exchange)
        if self._unshared:
            self._unshared.pop(asked.flight_key or asked.key, None)
        if asked.flight_key is not None and isinstance(asked.flight, Led):
            asked.flight.copies(recording)
        return recording.tap


def _body_is_known(exchange: Exchange) -> bool:
    """Whether a request is known to have no body; over HTTP/2 it need not say (RFC 9113 §8.1)."""
    return exchange.scope.get("http_version", "1.1")[:1] <= "1" or exchange.header(b"content-length") is not None


def _resource(exchange: Exchange, host: bytes) -> Resource:
    """What the request is for: of versions of an API one, however it was named, for rules may leave the name out."""
    resource, match = resource_of(exchange.scope, host), exchange.shared.match
    if match is None or not match.route.version:
        return resource
    scheme, name, root, path, raw, query = resource
    return scheme, name, f"{root}\0{match.route.version}", path, raw, query
