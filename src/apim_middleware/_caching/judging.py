"""What a cache makes of responses: whether and for whom they may be kept, and what clients are told of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from apim_middleware._caching.lookup import CacheLookup, Key
from apim_middleware._caching.marks import route_in, route_tag
from apim_middleware._caching.ownership import Ownership
from apim_middleware._caching.pages import Page, Stored, Variants
from apim_middleware._caching.recordings import Recording, Room, stored_as
from apim_middleware._caching.rules import Caching
from apim_middleware._caching.versions import Versions
from apim_middleware._http.cache_control import Wishes, parse_directives
from apim_middleware._http.cache_status import keyed, passed_on
from apim_middleware._http.cache_validation import freshened, has_validator
from apim_middleware._http.credentials import CREDENTIALS
from apim_middleware._http.headers import NAME
from apim_middleware._http.keeping import TAGS, Keeping, judge, kept_fields, selection
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange, ResponseHead
from apim_middleware.types import RawHeaders

if TYPE_CHECKING:
    from apim_middleware._caching.detached import Detached

_IDENTIFIED, _GUARDED = "identified-behind", "guarded-behind"
FOR_ONE = CREDENTIALS | {_IDENTIFIED, _GUARDED}
"""Reasons that lie in who asked, and not in what was answered."""

_ROUTE = route_tag("")
_AFTERLIFE = 60.0  # seconds a stale response stays to be known as stale, not as unknown


class Judging(ABC):
    """The rules of one cache, applied to one response at a time."""

    def __init__(self, policy: Caching, env: Env, time: Callable[[], float]) -> None:
        """Work out all that does not depend on requests."""
        self._name, self._terms, self._keep_stale = policy.name, policy.terms, policy.keep_stale
        self._time = time  # on which pages are kept; how long responses took is measured on the steady clock
        self.now, self.monotonic = env.clock.now, env.clock.monotonic
        self._ownership = Ownership(policy)
        self._room = Room(policy.max_entry_bytes, policy.max_bytes)
        self._shows_key = policy.show_key
        self._owned = bool(self._ownership.keys)
        self._versions = Versions()
        self._max_variants = policy.max_variants

    def recording(self, keeping: Keeping, status: int, exchange: Exchange) -> Recording:
        """A copy of a response that may be kept, to be made as it passes."""
        route = route_in(exchange.scope)
        if route:
            keeping = keeping._replace(tags=route + keeping.tags)
        after = max(_AFTERLIFE, self._keep_stale if has_validator(keeping.headers) else 0.0)
        return Recording(self._room, keeping, status=status, now=self._time(), received=self.now(), after=after)

    def judged(self, exchange: Exchange, asked: CacheLookup, head: ResponseHead) -> Keeping | str:
        """How the response may be kept, or why not."""
        verdict = self._verdict(exchange, asked, head.status, head.headers)
        if isinstance(verdict, Keeping) and not asked.body_is_known(exchange):
            return "body-unknown"
        return "too-large" if isinstance(verdict, Keeping) and not self._room.fits(head.headers) else verdict

    def _verdict(self, exchange: Exchange, asked: CacheLookup, status: int, headers: RawHeaders) -> Keeping | str:
        shared = exchange.shared
        if asked.principal is not shared.principal or asked.subscription is not shared.subscription:
            return _IDENTIFIED  # who may see it is decided behind the cache, which cannot stand in for that
        if asked.guards != shared.guards:
            return _GUARDED  # and so it is here
        carried = self._ownership.carried(asked)
        user = exchange.scope.get("user")
        if user is not None and user is not asked.principal:
            carried |= self._ownership.named(user)
        delay = self.monotonic() - asked.started
        return judge(status, headers, carried=carried, terms=self._terms, received=self.now(), delay=delay)

    def open_to(self, asked: CacheLookup, found: Keeping | Stored) -> bool:
        """Whether a response may answer a request with these credentials."""
        return found.open_to is CREDENTIALS or self._ownership.carried(asked) <= found.open_to

    def selected_alike(self, asked: CacheLookup, other: CacheLookup, found: Keeping | Stored) -> bool:
        """Whether a response selects both requests."""
        names = found.selecting
        return not names or selection(names, asked.headers) == selection(names, other.headers)

    def good_on_error(self, stored: Stored, wished: Wishes) -> bool:
        """Whether a stored response may be given away because the app fails: it says so, or the request (RFC 5861 §4).

        A request that wants no stored response unconfirmed has said more about that than what it says of errors.
        """
        wish = 0 if wished.no_cache else wished.stale_if_error
        return not stored.strict and self._time() < stored.fresh + max(stored.if_error, wish)

    # what clients are told

    def strip(self, head: ResponseHead) -> None:
        """Keep back from clients what a response shows, unless they may know."""
        if not (TAGS.isdisjoint(map(NAME, head.headers)) or self._terms.show_tags):
            head.headers = [pair for pair in head.headers if pair[0] not in TAGS]

    def told(
        self, asked: CacheLookup, outcome: str | None, *, collapsed: bool, status: int | None = None
    ) -> tuple[bytes, bytes]:
        """The line that says what happened."""
        member = passed_on(self._name, asked.fwd, outcome, status=status, collapsed=collapsed)
        return b"cache-status", member + self._shown(asked.key)

    def _shown(self, key: Key) -> bytes:
        if not self._shows_key:
            return b""
        host, (scheme, root, path, raw, query) = key[0]
        return keyed(scheme, host, raw or (root + path).encode("latin-1", "replace"), query)

    # what is kept

    def _recorded(self, asked: CacheLookup, recording: Recording) -> Stored | None:
        """What was recorded, if the whole has passed and nobody changed the resource meanwhile."""
        resource, owners = asked.key
        if self._versions.changed(resource, since=asked.changes):
            return None
        version = self._versions.of(resource) if owners and self._versioned else None
        return recording.stored(key=asked.key, version=version)

    def _page_with(
        self, asked: CacheLookup, stored: Stored, page: Page | None, max_bytes: int, most_tags: float = math.inf
    ) -> Page:
        """The page with one more response; one whose fields select differently takes the place of the page."""
        selecting = stored.selecting
        if not selecting:
            return stored
        said = selection(selecting, asked.headers)
        if not isinstance(page, Variants) or page.selecting != selecting:
            return Variants(selecting, {said: stored})
        most, now = self._max_variants, self._time()
        return page.joined_by(said, stored, most=most, max_bytes=max_bytes, now=now, most_tags=most_tags)

    async def freshen(self, flight: "Detached", exchange: Exchange, stored: Stored, head: ResponseHead) -> None:
        """The app says that a stored response still holds: from now on it has the fields of that answer (§4.3.4)."""
        asked = flight.asked
        fresh = self.freshened(exchange, asked, stored, head.headers)
        if isinstance(fresh, Stored):
            if not self._versions.changed(asked.key[0], since=asked.changes):
                await self.keep_stored(asked, fresh)
            flight.answer(fresh)
        elif fresh in FOR_ONE:  # the fields may be for that caller, what they confirm is for all
            flight.answer(stored, fresh)
        else:
            await self.forget(asked)
            flight.answer(self._confirmed_once(stored, head.headers), fresh, shared=False)

    def freshened(self, exchange: Exchange, asked: CacheLookup, stored: Stored, said: RawHeaders) -> Stored | str:
        """A stored response with the fields of an answer that confirms it, or why it may not be kept with them."""
        verdict = self._verdict(exchange, asked, stored.status, freshened(stored.headers, said))
        if isinstance(verdict, str):
            return verdict
        after = max(_AFTERLIFE, self._keep_stale)
        version = None if stored.version is None else self._versions.of(asked.key[0])
        routes = [tag for tag in stored.tags if tag.startswith(_ROUTE)]  # which no field says
        verdict = verdict._replace(tags=tuple(dict.fromkeys((*routes, *(verdict.tags or stored.tags)))))
        return stored_as(
            verdict, stored.status, verdict.headers, stored.body,
            born=self._time() - verdict.age, received=self.now(), after=after, key=asked.key, version=version,
        )  # fmt: skip

    def _confirmed_once(self, stored: Stored, said: RawHeaders) -> Stored:
        """A stored response with the fields of a confirmation, for whose request that was, and not to be kept."""
        head = ResponseHead(stored.status, kept_fields(freshened(stored.headers, said), parse_directives([])))
        self.strip(head)
        now = self._time()
        return Stored(
            stored.status, tuple(head.headers), stored.body,
            born=now, fresh=now, received=self.now(), open_to=stored.open_to,
        )  # fmt: skip

    async def keep(self, asked: CacheLookup, recording: Recording) -> None:
        """Keep what was recorded of a flight."""
        stored = self._recorded(asked, recording)
        if stored is not None:
            await self.keep_stored(asked, stored)

    _versioned = False
    """Whether responses that have owners know the state of the resource they show."""

    @abstractmethod
    async def keep_stored(self, asked: CacheLookup, stored: Stored) -> None:
        """Keep a response."""

    @abstractmethod
    async def forget(self, asked: CacheLookup) -> None:
        """Take away what is kept for a request."""
