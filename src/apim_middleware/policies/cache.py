"""The response cache: ``Cache``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from apim_middleware import by
from apim_middleware._http.cache_control import ANYTHING, Wishes, wishes
from apim_middleware._http.cache_status import answered, passed_on
from apim_middleware._http.credentials import CARRIED, CREDENTIALS, Credential, carried_in
from apim_middleware._http.freshness import not_modified, not_modified_fields, unfit
from apim_middleware._http.keeping import TO_CACHES, Keeping, judge, selection
from apim_middleware._http.targets import SAFE, Resource, changed_with, resource_of
from apim_middleware.by import Key
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.exchange import Exchange, ResponseHead, Shared
from apim_middleware.policy import Policy, check_place, ring
from apim_middleware.protocols import Entries
from apim_middleware.stores.entries import MemoryEntries, Shelf
from apim_middleware.stores.keys import ISSUER
from apim_middleware.stores.pages import Headers, Page, Stored, Variants
from apim_middleware.stores.recordings import Recording, Room
from apim_middleware.stores.shared_pages import Owners, SharedPages
from apim_middleware.stores.versions import Versions
from apim_middleware.types import ASGIApp, Receive, Scope, Send, Tap

STATUS = "apim.cache.status"
"""The attribute of the exchange that says what the cache did: ``hit``, or why the request went on (RFC 9211 §2.2)."""


@dataclass(frozen=True, kw_only=True)
class Cache(Policy):
    """Answer GET and HEAD requests from memory while what the app answered before is fresh (RFC 9111).

    A shared cache that follows what responses say, and keeps to one caller what may be for that caller only.
    A request that may only be answered from the cache (``only-if-cached``) and cannot be is refused with 504
    ``not-in-cache``; with a store elsewhere that is down and ``when_store_fails="refuse"``, 503 ``cache-unavailable``.
    Every response says in ``Cache-Status`` what happened (RFC 9211). Azure: ``cache-lookup`` and ``cache-store``.
    """

    taps_body = True
    answers = True

    ttl: float | None = None
    """Seconds a 200 is fresh that does not say itself; None, the default, keeps only what says so."""

    private_to: Key | tuple[Key, ...] | None = None
    """Whom responses belong to (``by.principal``): each gets only what was answered to the same; default: to all."""

    regardless_of: tuple[Credential, ...] = ()
    """Credentials the app behind does not look at, so that responses may be shared among requests that carry them."""

    max_entry_bytes: int = 1 << 20
    """Largest response kept, head and body together, in bytes; a larger one passes unkept. Default 1 MiB."""

    max_bytes: int = 64 << 20
    """Most memory for all responses kept, in bytes; those on their way may hold as much. Default 64 MiB."""

    max_variants: int = 20
    """Most responses kept for one URL that differ by the request fields in ``Vary``. Default 20."""

    when_store_fails: Literal["bypass", "refuse"] = "bypass"
    """With a store elsewhere that cannot answer: ``"bypass"`` asks the app, ``"refuse"`` protects it from that."""

    name: str = "apim"
    """What this cache calls itself in ``Cache-Status``."""

    def __post_init__(self) -> None:
        """Times and sizes must leave room for something."""
        if self.ttl is not None and not 0 < self.ttl <= 2**31:
            raise self.mistake("ttl", "is no time", "Give a number of seconds above 0, or None")
        for bound in ("max_entry_bytes", "max_variants"):
            if getattr(self, bound) < 1:
                raise self.mistake(bound, "is no bound", "Give a number of at least 1")
        if self.max_bytes < self.max_entry_bytes:
            raise self.mistake("max_bytes", "is less than max_entry_bytes", "Give room for at least one response")
        if not self.name.isascii() or not self.name.isprintable() or not self.name:
            raise self.mistake("name", "cannot stand in a header", "Give printable ASCII characters")

    @property
    def needs(self) -> frozenset[str]:
        """What the keys of ``private_to`` rely on."""
        return frozenset[str]().union(*map(by.needs, _keys(self.private_to)))

    def bind(self, env: Env) -> "_MemoryKeeper | _RemoteKeeper":
        """Keep responses in memory as they are, unless the environment has a store elsewhere."""
        entries = _elsewhere(env)
        return _MemoryKeeper(self, env) if entries is None else _RemoteKeeper(self, env, entries)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A memory of its own for each app it is put in front of: one app's answers are never given for another's."""
        if _elsewhere(env) is None:
            return ring(self, self.bind(env), app, env)
        check_place(self, env)
        return ring(self, self.bind(env.within("Cache")), app, env)


def _elsewhere(env: Env) -> Entries | None:
    """The store others see too, if the environment has one."""
    entries = env.entries(lambda: MemoryEntries(clock=env.clock))
    return None if isinstance(entries, MemoryEntries) else entries


def _keys(private_to: Key | tuple[Key, ...] | None) -> tuple[Key, ...]:
    if private_to is None:
        return ()
    return private_to if isinstance(private_to, tuple) else (private_to,)


# What is remembered of a request


class _Passing:
    """A request the cache has no further part in: why it goes on, what there is to tell, what its success changes."""

    __slots__ = ("changes", "detail", "fwd")

    recording = None

    def __init__(self, fwd: str, *, detail: str | None = None, changes: Resource | None = None) -> None:
        self.fwd, self.detail, self.changes = fwd, detail, changes


class _Asked:
    """A request for a resource: what it asks, and what is needed to keep the response.

    Everything is as it was when the request passed here, for policies further in may change what it says.
    """

    __slots__ = (
        "changes", "fwd", "generation", "guards", "headers", "key", "page", "principal", "recording", "started",
        "subscription", "user", "wished",
    )  # fmt: skip

    page: Page | None  # what was found elsewhere, and the generation it was found under
    generation: bytes | None

    def __init__(self, exchange: Exchange, key: tuple[Resource, Owners], wished: Wishes, changes: int) -> None:
        """What it takes to look for a response, and to judge one."""
        shared, scope = exchange.shared, exchange.scope
        self.key, self.wished = key, wished
        self.changes = changes  # how many there were, of whatever resources
        self.headers: Headers = tuple(scope["headers"])
        self.principal, self.subscription = shared.principal, shared.subscription
        self.user: object = scope.get("user")  # whom another middleware may have named
        self.guards = shared.guards  # met so far
        self.fwd = "uri-miss"
        self.started = 0.0
        self.recording: Recording | None = None


_TELLING = frozenset(
    b"cache-control pragma range if-match if-unmodified-since if-none-match if-modified-since content-length "
    b"transfer-encoding".split()
)
"""Fields without which a request asks nothing in particular of a cache."""

_BEYOND_THE_KEY = frozenset((b"range", b"if-match", b"if-unmodified-since", b"transfer-encoding"))


def _beyond_the_key(fields: Mapping[bytes, bytes]) -> bool:
    """Whether the answer depends on more than the key covers: a part of it, a precondition, a body."""
    return fields.get(b"content-length", b"").strip(b"0") != b"" or not _BEYOND_THE_KEY.isdisjoint(fields)


# Whom a response belongs to

_PRINCIPAL: frozenset[Credential] = frozenset({"principal"})
_SUBSCRIPTION: frozenset[Credential] = frozenset({"subscription"})
_NOTHING: frozenset[Credential] = frozenset()

_COVERED: dict[str, frozenset[Credential]] = {
    "principal": frozenset({"principal", "authorization", "cookie"}),
    "subscription": frozenset({"subscription", "key"}),
}
"""Credentials that matter no more once responses are kept apart by what was established from them."""


class _Ownership:
    """Tells whom a response belongs to, and which credentials of a request that leaves open."""

    def __init__(self, policy: Cache) -> None:
        self.keys = _keys(policy.private_to)
        self._covered = [_NOTHING.union(*(_COVERED.get(need, _NOTHING) for need in by.needs(key))) for key in self.keys]
        self._minded = CREDENTIALS.difference(policy.regardless_of)

    def owners(self, exchange: Exchange) -> Owners:
        """What ``private_to`` says of this request."""
        return tuple([key(exchange) for key in self.keys])

    def carried(self, asked: _Asked) -> frozenset[Credential]:
        """The credentials of the request that could make the response one for this caller only."""
        found = carried_in(asked.headers)
        principal, subscription, user = asked.principal, asked.subscription, asked.user
        is_key = False
        if subscription is not None:
            found |= _SUBSCRIPTION
            # The caller may be nobody but the holder of the key.
            is_key = principal is not None and principal.issuer == ISSUER and principal.subject == subscription.id
        if principal is not None and not is_key:
            found |= _PRINCIPAL
        for place, owner in enumerate(asked.key[1]):
            if owner is not None:
                covered = self._covered[place]
                found -= covered
                if is_key and "principal" in covered:
                    found -= _COVERED["subscription"]
        found &= self._minded
        return found if user is None or user is principal else found | self.named(user)

    def plain_reason(self, asked: _Asked, shared: Shared, head: ResponseHead) -> str | None:
        """The credential that keeps a response from being kept, found at a glance; None when it takes a closer look."""
        if self.keys or asked.principal is not shared.principal or asked.guards != shared.guards:
            return None
        for name, _ in head.headers:
            if name in TO_CACHES:
                return None
        for name, _ in asked.headers:
            credential = CARRIED[name]
            if credential is not None and credential in self._minded:
                return credential
        return None

    def named(self, user: object) -> frozenset[Credential]:
        """The caller a middleware that is not ours has named, if any: ``private_to`` does not know of that."""
        return self._minded & _PRINCIPAL if _is_somebody(user) else _NOTHING


def _is_somebody(user: object) -> bool:
    """Whether a user in the way of Starlette is known; unsure means yes."""
    try:
        return bool(user.is_authenticated)  # type: ignore[attr-defined]
    except (AttributeError, NotImplementedError):
        return True


# The hooks

_AFTERLIFE = 60.0  # seconds a stale response stays to be known as stale, not as unknown


class _Answer:
    """A stored response on its way to one more client."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._status, self._headers, self._body = status, headers, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def _not_in_cache() -> Refusal:
    return Refusal(504, "not-in-cache", "No stored response answers the request, and it asks for nothing else.")


class _Keeper:
    """All of the hooks but where pages are kept."""

    taps_body = True

    def __init__(self, policy: Cache, env: Env, time: Callable[[], float]) -> None:
        self._policy, self._name, self._ttl = policy, policy.name, policy.ttl
        self._time = time  # on which pages are kept; how long responses took is measured on the steady clock
        self._now, self._monotonic = env.clock.now, env.clock.monotonic
        self._ownership = _Ownership(policy)
        self._owned = bool(self._ownership.keys)
        self._versions = Versions()
        self._room = Room(policy.max_entry_bytes, policy.max_bytes)
        self._hit = answered(policy.name)

    # on the way in

    def _asked(self, exchange: Exchange) -> _Asked | None:
        """What to look for, and what the request asks of a cache; None when the cache has no part in it."""
        scope = exchange.scope
        if scope["type"] != "http":
            return None
        fields = exchange.index()
        method, host = scope["method"], fields.get(b"host")
        if method != "GET" and method != "HEAD":
            changes = None if host is None or method in SAFE else resource_of(scope, host)
            self._send_on(exchange, _Passing("method", changes=changes))
            return None
        wished = ANYTHING
        if not _TELLING.isdisjoint(fields):
            wished = wishes(exchange.headers(b"cache-control"), exchange.headers(b"pragma"))
        if host is None or (wished is not ANYTHING and _beyond_the_key(fields)):
            self._bypass(exchange, wished)
            return None
        owners = self._ownership.owners(exchange) if self._owned else ()
        return _Asked(exchange, (resource_of(scope, host), owners), wished, self._versions.changes)

    def _bypass(self, exchange: Exchange, wished: Wishes) -> None:
        if wished.only_if_cached:
            raise _not_in_cache()
        self._send_on(exchange, _Passing("bypass"))

    def _send_on(self, exchange: Exchange, asked: _Passing | _Asked) -> None:
        exchange.state[self] = asked
        exchange.shared.attributes[STATUS] = asked.fwd

    def _answer(self, exchange: Exchange, asked: _Asked, page: Page, now: float) -> ASGIApp | None:
        """The stored response if there is one that may be used; else the request goes on, and is remembered."""
        stored = page.choose(exchange.scope["headers"])
        unusable = "vary-miss" if stored is None else self._unusable(asked, stored, now)
        if stored is not None and unusable is None:
            return self._stored_answer(exchange, asked, stored, now)
        self._miss(exchange, asked, unusable or "uri-miss")
        return None

    def _unusable(self, asked: _Asked, stored: Stored, now: float) -> str | None:
        """Why a stored response does not answer this request; None when it does."""
        if stored.version is not None and not stored.version.current:
            return "uri-miss"
        if stored.open_to is not CREDENTIALS and not self._ownership.carried(asked) <= stored.open_to:
            return "request"
        return unfit(asked.wished, now - stored.born, stored.until - stored.born)

    def _stored_answer(self, exchange: Exchange, asked: _Asked, stored: Stored, now: float) -> ASGIApp:
        exchange.attributes[STATUS] = "hit"
        status, headers, body = stored.status, stored.headers, stored.body
        if asked.wished is not ANYTHING and status == 200 and self._is_known(exchange, stored):
            status, headers, body = 304, not_modified_fields(headers), b""
        elif exchange.scope["method"] == "HEAD":
            body = b""
        age = (b"age", b"%d" % max(0, now - stored.born))
        return _Answer(status, [*headers, age, (b"cache-status", self._hit % (stored.until - now))], body)

    def _is_known(self, exchange: Exchange, stored: Stored) -> bool:
        """Whether the client has this response already."""
        since, tags = exchange.header(b"if-modified-since"), exchange.header(b"if-none-match")
        if since is None and tags is None:
            return False
        return not_modified(exchange.headers(b"if-none-match"), since, stored.headers, stored.received)

    def _miss(self, exchange: Exchange, asked: _Asked, fwd: str) -> None:
        """Let the request go on, remembered if its response may be kept."""
        scope, wished = exchange.scope, asked.wished
        if wished.only_if_cached:
            raise _not_in_cache()
        going: _Passing | _Asked = asked
        if scope["method"] == "HEAD":
            going = _Passing(fwd)
        elif scope.get("http_version", "1.1")[:1] > "1" and exchange.header(b"content-length") is None:
            going = _Passing(fwd, detail="body-unknown")  # HTTP/2 announces none (RFC 9113 §8.1)
        elif wished.no_store:
            going = _Passing(fwd, detail="request-no-store")
        else:
            asked.fwd, asked.started = fwd, self._monotonic()
        exchange.state[self] = going
        exchange.shared.attributes[STATUS] = fwd

    # on the way out

    def _passed(self, asked: _Passing, head: ResponseHead) -> list[Resource]:
        """Say in the head why it went past; what it changed is from now on in another state (RFC 9111 §4.4)."""
        changed: list[Resource] = []
        if asked.changes is not None and head.status < 400:
            changed = changed_with(asked.changes, (head.get(b"location"), head.get(b"content-location")))
        for resource in changed:
            self._versions.end(resource)
        head.append(b"cache-status", passed_on(self._name, asked.fwd, asked.detail))
        return changed

    def _record(self, exchange: Exchange, asked: _Asked, head: ResponseHead) -> Tap | None:
        """Copy the body of the response if it is to be kept, and say in the head why not if it is not."""
        reason = self._ownership.plain_reason(asked, exchange.shared, head)
        if reason is not None:  # as for most requests of callers who say who they are
            head.headers.append((b"cache-status", passed_on(self._name, asked.fwd, reason)))
            return None
        received = self._now()
        verdict = self._verdict(exchange, asked, head, received)
        if isinstance(verdict, str):
            head.headers.append((b"cache-status", passed_on(self._name, asked.fwd, verdict)))
            return None
        head.headers.append((b"cache-status", passed_on(self._name, asked.fwd, "stored")))
        now = self._time()
        asked.recording = Recording(self._room, verdict, status=head.status, now=now, received=received)
        return asked.recording.tap

    def _verdict(self, exchange: Exchange, asked: _Asked, head: ResponseHead, received: float) -> Keeping | str:
        """How the response may be kept, or why not."""
        shared = exchange.shared
        if asked.principal is not shared.principal or asked.subscription is not shared.subscription:
            return "identified-behind"  # who may see it is decided behind the cache, which cannot stand in for that
        if asked.guards != shared.guards:
            return "guarded-behind"  # and so it is here
        carried = self._ownership.carried(asked)
        user = exchange.scope.get("user")
        if user is not None and user is not asked.principal:
            carried |= self._ownership.named(user)
        delay = self._monotonic() - asked.started
        verdict = judge(head.status, head.headers, carried=carried, ttl=self._ttl, received=received, delay=delay)
        return "too-large" if isinstance(verdict, Keeping) and not self._room.fits(head.headers) else verdict

    def _recorded(self, asked: _Asked, recording: Recording, *, versioned: bool) -> Stored | None:
        """What was recorded, if the whole has passed and nobody changed the resource meanwhile.

        Where it is ``versioned``, it can be told when its resource has changed.
        """
        resource, _ = asked.key
        if self._versions.changed(resource, since=asked.changes):
            return None
        version = self._versions.of(resource) if versioned else None
        return recording.stored(key=asked.key, version=version)

    def _page_with(self, asked: _Asked, stored: Stored, page: Page | None, max_bytes: int) -> Page:
        """The page with one more response; one whose fields select differently takes the place of the page."""
        selecting = stored.selecting
        if not selecting:
            return stored
        said = selection(selecting, asked.headers)
        if not isinstance(page, Variants) or page.selecting != selecting:
            return Variants(selecting, {said: stored})
        return page.joined_by(said, stored, most=self._policy.max_variants, max_bytes=max_bytes, now=self._time())


class _MemoryKeeper(_Keeper):
    """Keeps pages in memory, and never waits."""

    def __init__(self, policy: Cache, env: Env) -> None:
        super().__init__(policy, env, env.clock.monotonic)
        self._shelf: Shelf[tuple[Resource, Owners], Page] = Shelf(policy.max_bytes, afterlife=_AFTERLIFE)

    def on_request(self, exchange: Exchange) -> ASGIApp | None:
        asked = self._asked(exchange)
        if asked is None:
            return None
        now = self._time()
        page = self._shelf.find(asked.key, now)
        if page is not None:
            return self._answer(exchange, asked, page, now)
        self._miss(exchange, asked, "uri-miss")
        return None

    def on_response(self, exchange: Exchange) -> Tap | None:
        asked, head = exchange.state.get(self), exchange.shared.response
        if asked is None or head is None:
            return None
        if isinstance(asked, _Asked):
            return self._record(exchange, asked, head)
        for resource in self._passed(asked, head):
            self._shelf.drop((resource, ()))  # what has owners is told by its version: nobody can find it all
        return None

    def on_end(self, exchange: Exchange) -> None:
        """Keep what passed whole; nothing of it is on its way any more."""
        asked = exchange.state.get(self)
        if asked is None or asked.recording is None:
            return
        if exchange.shared.completed:
            stored = self._recorded(asked, asked.recording, versioned=self._owned)
            if stored is not None:
                now = self._time()
                page = self._page_with(asked, stored, self._shelf.find(asked.key, now), self._policy.max_bytes)
                self._shelf.keep(asked.key, page, now)
        asked.recording.give_up()


class _RemoteKeeper(_Keeper):
    """Keeps pages in a store that others see too."""

    def __init__(self, policy: Cache, env: Env, entries: Entries) -> None:
        super().__init__(policy, env, env.clock.now)
        self._pages = SharedPages(entries, f"{env.place}/{policy.name}", owned=self._owned)

    async def on_request(self, exchange: Exchange) -> ASGIApp | None:
        asked = self._asked(exchange)
        if asked is None:
            return None
        try:
            asked.generation, asked.page = await self._pages.find(*asked.key)
        except StoreError as error:
            if self._policy.when_store_fails == "refuse":
                raise Refusal(503, "cache-unavailable", "The response cache cannot be asked at the moment.") from error
            self._bypass(exchange, asked.wished)
            return None
        if asked.page is not None:
            return self._answer(exchange, asked, asked.page, self._time())
        self._miss(exchange, asked, "uri-miss")
        return None

    async def on_response(self, exchange: Exchange) -> Tap | None:
        asked, head = exchange.state.get(self), exchange.shared.response
        if asked is None or head is None:
            return None
        if isinstance(asked, _Asked):
            return self._record(exchange, asked, head)
        for resource in self._passed(asked, head):
            await self._pages.forget(resource)
        return None

    async def on_sent(self, exchange: Exchange) -> None:
        asked = exchange.state.get(self)
        if asked is None or asked.recording is None:
            return
        stored = self._recorded(asked, asked.recording, versioned=False)
        if stored is not None:
            page = self._page_with(asked, stored, asked.page, self._policy.max_entry_bytes)
            resource, owners = asked.key
            seconds = page.until - self._time()
            await self._pages.keep(resource, owners, asked.generation, page, seconds=seconds)

    def on_end(self, exchange: Exchange) -> None:
        """Whatever became of the response, nothing of it is on its way any more."""
        asked = exchange.state.get(self)
        if asked is not None and asked.recording is not None:
            asked.recording.give_up()
