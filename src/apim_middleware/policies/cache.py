"""The response cache: ``Cache``."""

import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias
from urllib.parse import unquote, urljoin, urlsplit
from weakref import WeakValueDictionary

from apim_middleware import by
from apim_middleware._http.fields import Token, item
from apim_middleware._http.freshness import (
    ANYTHING,
    CREDENTIALS,
    Credential,
    Keeping,
    Wishes,
    carried_in,
    judge,
    not_modified,
    not_modified_fields,
    selection,
    unfit,
    wishes,
)
from apim_middleware._http.paths import BadTarget, canonical_path, canonical_query
from apim_middleware.by import Key
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal, StoreError
from apim_middleware.exchange import Exchange, ResponseHead
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policy import Policy, ring
from apim_middleware.protocols import Entries
from apim_middleware.stores.entries import (
    Headers,
    MemoryEntries,
    Page,
    Shelf,
    Stored,
    Variants,
    Version,
    fingerprint,
    pack,
    unpack,
)
from apim_middleware.stores.keys import ISSUER
from apim_middleware.types import ASGIApp, Receive, Scope, Send, Tap

log = logging.getLogger("apim_middleware")

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
        if not env.place:
            problem = "stands at a place without a name, but its store is seen by others"
            raise ConfigError("Cache", "", problem, 'Write Stack(..., place="orders")')
        return super().build(app, env)


def _elsewhere(env: Env) -> Entries | None:
    """The store others see too, if the environment has one."""
    entries = env.entries(lambda: MemoryEntries(clock=env.clock))
    return None if isinstance(entries, MemoryEntries) else entries


def _keys(private_to: Key | tuple[Key, ...] | None) -> tuple[Key, ...]:
    if private_to is None:
        return ()
    return private_to if isinstance(private_to, tuple) else (private_to,)


# Whom a response belongs to

_COVERED: dict[str, frozenset[Credential]] = {
    "principal": frozenset({"principal", "authorization", "cookie"}),
    "subscription": frozenset({"subscription", "key"}),
}
"""Credentials that matter no more once responses are kept apart by what was established from them."""

_NOTHING: frozenset[Credential] = frozenset()

Owners: TypeAlias = tuple[str | None, ...]


class _Ownership:
    """Tells whom a response belongs to, and which credentials of a request that leaves open."""

    def __init__(self, policy: Cache) -> None:
        self.keys = _keys(policy.private_to)
        self._covered = [_NOTHING.union(*(_COVERED.get(need, _NOTHING) for need in by.needs(key))) for key in self.keys]
        self._minded = CREDENTIALS.difference(policy.regardless_of)

    def owners(self, exchange: Exchange) -> Owners:
        """What ``private_to`` says of this request."""
        return tuple([key(exchange) for key in self.keys])

    def carried(self, exchange: Exchange, owners: Owners) -> frozenset[Credential]:
        """The credentials of the request that could make the response one for this caller only."""
        found = carried_in([name for name, _ in exchange.scope["headers"]])
        principal, subscription = exchange.principal, exchange.subscription
        is_key = principal is not None and subscription is not None and _is_key(principal, subscription)
        if subscription is not None:
            found.add("subscription")
        if principal is not None and not is_key:
            found.add("principal")
        for owner, covered in zip(owners, self._covered, strict=True):
            if owner is not None:
                found -= covered
                if is_key and "principal" in covered:
                    found -= _COVERED["subscription"]
        return (self._minded & found) | self.named(exchange)

    def named(self, exchange: Exchange) -> frozenset[Credential]:
        """The caller, if a middleware that is not ours has named one: ``private_to`` does not know of that."""
        return self._minded & {"principal"} if _is_known_elsewhere(exchange) else _NOTHING


def _is_known_elsewhere(exchange: Exchange) -> bool:
    """Whether a middleware that is not ours has said who is calling, in the way of Starlette; unsure means yes."""
    user = exchange.scope.get("user")
    try:
        return user is not None and user is not exchange.principal and bool(user.is_authenticated)
    except (AttributeError, NotImplementedError):
        return True


def _is_key(principal: Principal, subscription: Subscription) -> bool:
    """Whether the caller is nobody but the holder of the key."""
    return principal.issuer == ISSUER and principal.subject == subscription.id


# Which request a response answers

Resource: TypeAlias = tuple[str, bytes, str, str, bytes, bytes]
"""Scheme, host, root path, path, path as sent, query: all of a request's target that an app can see, exactly."""

Sought: TypeAlias = tuple[Resource, Owners, Wishes]

_TELLING = frozenset(
    b"cache-control pragma range if-match if-unmodified-since if-none-match if-modified-since content-length "
    b"transfer-encoding".split()
)
"""Fields without which a request asks nothing in particular of a cache."""

_BEYOND_THE_KEY = (b"range", b"if-match", b"if-unmodified-since", b"transfer-encoding")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_AFTERLIFE = 60.0  # seconds a stale response stays to be known as stale, not as unknown
_GENERATION = 86_400.0  # seconds a generation lasts in a store elsewhere, and all that is kept under it


def _resource(scope: Scope, host: bytes) -> Resource:
    raw, query = scope.get("raw_path") or b"", scope.get("query_string", b"")
    return scope.get("scheme", "http"), host, scope.get("root_path", ""), scope["path"], raw, query


def _beyond_the_key(exchange: Exchange) -> bool:
    """Whether the answer depends on more than the key covers: a part of it, a precondition, a body."""
    length = exchange.header(b"content-length")
    return (length is not None and length.strip(b"0") != b"") or any(
        exchange.header(name) is not None for name in _BEYOND_THE_KEY
    )


class _Versions:
    """The states of the resources somebody is asking for, or something is kept of: nobody else holds them here."""

    def __init__(self) -> None:
        self._current: WeakValueDictionary[Resource, Version] = WeakValueDictionary()

    def of(self, resource: Resource) -> Version:
        """The state a resource is in."""
        version = self._current.get(resource)
        if version is None:
            version = self._current[resource] = Version()
        return version

    def end(self, resource: Resource) -> None:
        """Take the resource to be in another state from now on."""
        version = self._current.pop(resource, None)
        if version is not None:
            version.current = False


def _neighbour(resource: Resource, reference: bytes) -> Resource | None:
    """The resource a reference leads to; None when it is of another origin, or cannot be read."""
    scheme, host, root, path, raw, _ = resource
    netloc = host.decode("latin-1").lower()
    try:
        there = urlsplit(urljoin(f"{scheme}://{netloc}{raw.decode('latin-1') or path}", reference.decode("latin-1")))
        if there.scheme != scheme or there.netloc.lower() != netloc:
            return None
        path = there.path or "/"
        path, raw = canonical_path(unquote(path, errors="strict"), path.encode("latin-1"))
        return scheme, host, root, path, raw, canonical_query(there.query.encode("latin-1"))
    except (ValueError, BadTarget):
        return None


# What is on its way


def _size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum([len(name) + len(value) for name, value in headers])


@dataclass(frozen=True, slots=True)
class _Passing:
    """A request the cache has no part in: why it goes on, and the resource its success changes, if it may."""

    fwd: str
    changes: Resource | None = None


@dataclass(slots=True)
class _Asked:
    """A request nothing was found for: why, and what is needed to keep the response.

    Everything is as it was when the request passed here, for policies further in may change what it says.
    """

    fwd: str
    method: str
    resource: Resource
    owners: Owners
    wished: Wishes
    page: Page | None
    headers: Headers
    carried: frozenset[Credential]
    identity: tuple[Principal | None, Subscription | None]
    started: float
    version: Version
    generation: bytes | None = None
    recording: "_Recording | None" = None

    @property
    def key(self) -> tuple[Resource, Owners]:
        """What the response will stand under."""
        return self.resource, self.owners


class _Room:
    """Room for the bodies that are being copied, so that slow ones cannot pile up: for each, and for all together."""

    __slots__ = ("_all", "_each", "taken")

    def __init__(self, each: int, together: int) -> None:
        self._each, self._all = each, together
        self.taken = 0

    def take(self, size: int, *, after: int) -> bool:
        """Take so much more for one that has taken some already, if there is as much."""
        if after + size > self._each or self.taken + size > self._all:
            return False
        self.taken += size
        return True


class _Recording:
    """Copies a response body as it passes, while there is room."""

    __slots__ = ("_copied", "_head_size", "_room", "_whole", "born", "keeping", "received", "status")

    def __init__(self, room: _Room, keeping: Keeping, *, status: int, now: float, received: float) -> None:
        self._room = room
        self._head_size = _size(keeping.headers)
        self._copied: bytearray | None = bytearray()
        self._whole = False
        self.status, self.keeping = status, keeping
        self.born, self.received = now - keeping.age, received

    def tap(self, chunk: bytes, last: bool) -> bytes:
        """Copy a chunk, and let go of everything when it becomes too much."""
        if self._copied is not None:
            self._whole = last
            if self._room.take(len(chunk), after=self._head_size + len(self._copied)):
                self._copied += chunk
            else:
                self.give_up()
        return chunk

    def give_up(self) -> None:
        """Let go of what was copied."""
        if self._copied is not None:
            self._room.taken -= len(self._copied)
            self._copied = None

    def body(self) -> bytes | None:
        """The body, if all of it passed: as much as Content-Length says, and none where there can be none."""
        if self._copied is None or not self._whole or (self.status == 204 and self._copied):
            return None
        declared = [value for name, value in self.keeping.headers if name == b"content-length"]
        return None if declared and declared != [b"%d" % len(self._copied)] else bytes(self._copied)

    def stored(self, *, key: object, version: Version | None) -> Stored | None:
        """The response as it may be given to others, if all of it passed."""
        body = self.body()
        if body is None:
            return None
        keeping, headers = self.keeping, self.keeping.headers
        if self.status != 204 and not any(name == b"content-length" for name, _ in headers):
            headers = (*headers, (b"content-length", b"%d" % len(body)))
        return Stored(
            self.status, headers, body,
            born=self.born, until=self.born + keeping.lifetime, received=self.received,
            open_to=keeping.open_to, selecting=keeping.selecting, version=version, key=key,
        )  # fmt: skip


class _Answer:
    """A stored response on its way to one more client."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._status, self._headers, self._body = status, headers, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def _changed_by(asked: _Passing, head: ResponseHead) -> list[Resource]:
    """What an unsafe request changed: its target, and of the same origin what the response names (RFC 9111 §4.4)."""
    if asked.changes is None or head.status >= 400:
        return []
    named = [head.get(b"location"), head.get(b"content-location")]
    others = [_neighbour(asked.changes, reference) for reference in named if reference is not None]
    return [asked.changes, *filter(None, others)]


# What is said about it (RFC 9211)


def _own_name(name: str) -> str:
    """A token where the name can be one, else a string."""
    try:
        item(Token(name))
    except ValueError:
        return name
    return Token(name)


@lru_cache(maxsize=256)
def _passed_on(name: str, fwd: str, outcome: str | None) -> bytes:
    """Why a request went on, and that its response is ``stored``, or why it is not."""
    parameters: dict[str, str | bool] = {"fwd": Token(fwd)}
    if outcome == "stored":
        parameters["stored"] = True
    elif outcome is not None:
        parameters["detail"] = Token(outcome)
    return item(_own_name(name), parameters).encode()


def _not_in_cache() -> Refusal:
    return Refusal(504, "not-in-cache", "No stored response answers the request, and it asks for nothing else.")


# The hooks


class _Keeper:
    """All of the hooks but where pages are kept."""

    taps_body = True

    minds_versions = True
    """Whether pages with owners must be told when their resource has changed: nobody can find them all."""

    def __init__(self, policy: Cache, env: Env, time: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = env.clock
        self._time = time
        self._ownership = _Ownership(policy)
        self._versions = _Versions()
        self._room = _Room(policy.max_entry_bytes, policy.max_bytes)
        self._hit = item(_own_name(policy.name), {"hit": True}).replace("%", "%%").encode() + b";ttl=%d"

    # on the way in

    def _sought(self, exchange: Exchange) -> Sought | None:
        """What to look for, and what the request asks of a cache; None when the cache has no part in it."""
        scope = exchange.scope
        if scope["type"] != "http":
            return None
        method, host = scope["method"], exchange.header(b"host")
        if method != "GET" and method != "HEAD":
            changes = None if host is None or method in _SAFE else _resource(scope, host)
            self._send_on(exchange, _Passing("method", changes))
            return None
        wished = ANYTHING
        if not _TELLING.isdisjoint([name for name, _ in scope["headers"]]):
            wished = wishes(exchange.headers(b"cache-control"), exchange.headers(b"pragma"))
        if host is None or (wished is not ANYTHING and _beyond_the_key(exchange)):
            self._bypass(exchange, wished)
            return None
        owners = self._ownership.owners(exchange) if self._ownership.keys else ()
        return _resource(scope, host), owners, wished

    def _bypass(self, exchange: Exchange, wished: Wishes) -> None:
        if wished.only_if_cached:
            raise _not_in_cache()
        self._send_on(exchange, _Passing("bypass"))

    def _send_on(self, exchange: Exchange, asked: _Passing | _Asked) -> None:
        exchange.state[self] = asked
        exchange.attributes[STATUS] = asked.fwd

    def _answer(self, exchange: Exchange, sought: Sought, page: Page | None) -> ASGIApp | None:
        """The stored response if there is one that may be used; else the request goes on, and is remembered."""
        now = self._time()
        fwd = "uri-miss"
        if page is not None:
            stored = page.choose(exchange.scope["headers"])
            unusable = "vary-miss" if stored is None else self._unusable(exchange, sought, stored, now)
            if stored is not None and unusable is None:
                return self._stored_answer(exchange, sought, stored, now)
            fwd = unusable or fwd
        if sought[2].only_if_cached:
            raise _not_in_cache()
        self._send_on(exchange, self._asked(exchange, sought, page, fwd))
        return None

    def _unusable(self, exchange: Exchange, sought: Sought, stored: Stored, now: float) -> str | None:
        """Why a stored response does not answer this request; None when it does."""
        if stored.version is not None and not stored.version.current:
            return "uri-miss"
        if stored.open_to is not CREDENTIALS and not self._ownership.carried(exchange, sought[1]) <= stored.open_to:
            return "request"
        return unfit(sought[2], now - stored.born, stored.until - stored.born)

    def _stored_answer(self, exchange: Exchange, sought: Sought, stored: Stored, now: float) -> ASGIApp:
        exchange.attributes[STATUS] = "hit"
        status, headers, body = stored.status, stored.headers, stored.body
        if sought[2] is not ANYTHING and status == 200 and self._is_known(exchange, stored):
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

    def _asked(self, exchange: Exchange, sought: Sought, page: Page | None, fwd: str) -> _Asked:
        resource, owners, wished = sought
        return _Asked(
            fwd, exchange.method, resource, owners, wished, page,
            headers=tuple(exchange.scope["headers"]),
            carried=self._ownership.carried(exchange, owners),
            identity=(exchange.principal, exchange.subscription),
            started=self._clock.monotonic(),
            version=self._versions.of(resource),
        )  # fmt: skip

    # on the way out

    def _pass(self, exchange: Exchange, asked: _Passing | _Asked, head: ResponseHead) -> Tap | None:
        """Say in the head what happens to the response, and copy its body if it is to be kept."""
        if isinstance(asked, _Passing):
            head.append(b"cache-status", _passed_on(self._policy.name, asked.fwd, None))
            return None
        verdict = self._verdict(exchange, asked, head)
        outcome = "stored" if isinstance(verdict, Keeping) else verdict
        head.append(b"cache-status", _passed_on(self._policy.name, asked.fwd, outcome))
        if not isinstance(verdict, Keeping):
            return None
        now, received = self._time(), self._clock.now()
        asked.recording = _Recording(self._room, verdict, status=head.status, now=now, received=received)
        return asked.recording.tap

    def _verdict(self, exchange: Exchange, asked: _Asked, head: ResponseHead) -> Keeping | str | None:
        """How the response may be kept, or why not; nothing needs saying of a HEAD."""
        if asked.method == "HEAD":
            return None
        if asked.wished.no_store:
            return "request-no-store"
        if (exchange.principal, exchange.subscription) != asked.identity:
            return "identified-behind"  # who may see it is decided behind the cache, which cannot stand in for that
        verdict = judge(
            head.status, head.headers,
            carried=asked.carried | self._ownership.named(exchange), ttl=self._policy.ttl,
            received=self._clock.now(), delay=self._clock.monotonic() - asked.started,
        )  # fmt: skip
        return "too-large" if isinstance(verdict, Keeping) and self._too_large(head) else verdict

    def _too_large(self, head: ResponseHead) -> bool:
        length = head.get(b"content-length") or b""
        declared = int(length) if length.isdigit() and len(length) < 20 else 0
        return declared + _size(head.headers) > self._policy.max_entry_bytes

    def _recorded(self, exchange: Exchange) -> tuple[_Asked, Stored] | None:
        """What was recorded, if the whole has passed and nobody changed the resource meanwhile."""
        asked = exchange.state.get(self)
        if not isinstance(asked, _Asked) or asked.recording is None or not asked.version.current:
            return None
        version = asked.version if asked.owners and self.minds_versions else None
        stored = asked.recording.stored(key=asked.key, version=version)
        return None if stored is None else (asked, stored)

    def _page_with(self, asked: _Asked, stored: Stored, page: Page | None, max_bytes: int) -> Page:
        """The page with one more response; one whose fields select differently takes the place of the page."""
        selecting = stored.selecting
        if not selecting:
            return stored
        said = selection(selecting, asked.headers)
        if not isinstance(page, Variants) or page.selecting != selecting:
            return Variants(selecting, {said: stored})
        return page.joined_by(said, stored, most=self._policy.max_variants, max_bytes=max_bytes, now=self._time())

    def on_end(self, exchange: Exchange) -> None:
        """Whatever became of the response, nothing of it is on its way any more."""
        asked = exchange.state.get(self)
        if isinstance(asked, _Asked) and asked.recording is not None:
            asked.recording.give_up()


class _MemoryKeeper(_Keeper):
    """Keeps pages in memory, and never waits."""

    def __init__(self, policy: Cache, env: Env) -> None:
        super().__init__(policy, env, env.clock.monotonic)
        self._shelf: Shelf[tuple[Resource, Owners], Page] = Shelf(policy.max_bytes, afterlife=_AFTERLIFE)

    def on_request(self, exchange: Exchange) -> ASGIApp | None:
        sought = self._sought(exchange)
        if sought is None:
            return None
        return self._answer(exchange, sought, self._shelf.find(sought[:2], self._time()))

    def on_response(self, exchange: Exchange) -> Tap | None:
        asked, head = exchange.state.get(self), exchange.response
        if asked is None or head is None:
            return None
        if isinstance(asked, _Passing):
            for resource in _changed_by(asked, head):
                self._versions.end(resource)
                self._shelf.drop((resource, ()))
        return self._pass(exchange, asked, head)

    def on_sent(self, exchange: Exchange) -> None:
        recorded = self._recorded(exchange)
        if recorded is not None:
            asked, stored = recorded
            now = self._time()
            page = self._page_with(asked, stored, self._shelf.find(asked.key, now), self._policy.max_bytes)
            self._shelf.keep(asked.key, page, now)


class _RemoteKeeper(_Keeper):
    """Keeps pages as bytes in a store that others see too, and looks closely at what comes back.

    Where responses have owners, a resource has a generation that is part of every key, so that a change to it can
    take the responses of all of them away at once.
    """

    minds_versions = False

    def __init__(self, policy: Cache, env: Env, entries: Entries) -> None:
        super().__init__(policy, env, env.clock.now)
        self._entries = entries
        self._space = f"{env.place}/{policy.name}:".encode()
        self._troubled = False

    async def on_request(self, exchange: Exchange) -> ASGIApp | None:
        sought = self._sought(exchange)
        if sought is None:
            return None
        try:
            generation, page = await self._fetched(sought)
        except StoreError as error:
            self._trouble("cannot answer", error)
            if self._policy.when_store_fails == "refuse":
                raise Refusal(503, "cache-unavailable", "The response cache cannot be asked at the moment.") from error
            self._bypass(exchange, sought[2])
            return None
        answer = self._answer(exchange, sought, page)
        if answer is None:
            exchange.state[self].generation = generation
        return answer

    async def on_response(self, exchange: Exchange) -> Tap | None:
        asked, head = exchange.state.get(self), exchange.response
        if asked is None or head is None:
            return None
        if isinstance(asked, _Passing):
            for resource in _changed_by(asked, head):
                self._versions.end(resource)
                await self._forget(resource)
        return self._pass(exchange, asked, head)

    async def on_sent(self, exchange: Exchange) -> None:
        recorded = self._recorded(exchange)
        if recorded is None:
            return
        asked, stored = recorded
        page = self._page_with(asked, stored, asked.page, self._policy.max_entry_bytes)
        try:
            await self._put(asked, page)
        except StoreError as error:
            self._trouble("cannot keep a response", error)

    async def _fetched(self, sought: Sought) -> tuple[bytes | None, Page | None]:
        resource, owners, _ = sought
        generation: bytes | None = b""
        if owners:
            generation = await self._entries.get(self._key("generation", resource))
        if generation is None:
            return None, None
        key = self._key("page", resource, owners, generation)
        data = await self._entries.get(key)
        page = None if data is None else unpack(data, key)
        if data is not None and page is None:
            self._trouble("gave back what was never stored")
        else:
            self._troubled = False
        return generation, page

    async def _put(self, asked: _Asked, page: Page) -> None:
        generation = asked.generation
        if generation is None:
            generation = secrets.token_bytes(16)
            await self._entries.set(self._key("generation", asked.resource), generation, _GENERATION)
        key = self._key("page", asked.resource, asked.owners, generation)
        await self._entries.set(key, pack(page, key), page.until - self._time())

    async def _forget(self, resource: Resource) -> None:
        key = self._key("generation", resource) if self._ownership.keys else self._key("page", resource, (), b"")
        try:
            await self._entries.delete(key)
        except StoreError as error:
            self._trouble("cannot forget a response", error)

    def _key(self, kind: str, resource: Resource, owners: Owners = (), generation: bytes = b"") -> bytes:
        """A key no other policy, resource or owner has."""
        return self._space + fingerprint((kind, *resource, generation, *owners)).hex().encode()

    def _trouble(self, problem: str, error: StoreError | None = None) -> None:
        """Say it once, until the store is well again; not what the driver says, which may hold secrets."""
        if not self._troubled:
            cause = "" if error is None else f": {type(error.__cause__ or error).__name__}"
            log.error("the store of the response cache %s%s", problem, cause)
        self._troubled = True
