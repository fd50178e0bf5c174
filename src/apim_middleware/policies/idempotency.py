"""Requests that may be sent again without being carried out again: ``Idempotency``."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from secrets import token_bytes
from typing import Literal

from anyio import Event, Lock, move_on_after, sleep

from apim_middleware import by as keys
from apim_middleware._alongside import alongside
from apim_middleware._functions import needs as needs_of
from apim_middleware._http.client_certificate import certificate, is_shown
from apim_middleware._http.credentials import CARRIED, Credential, speaks_for_another
from apim_middleware._http.headers import get, is_token
from apim_middleware._http.idempotency import Record, digest_of, pack_response, parse_key, unpack, unpack_response
from apim_middleware._http.targets import SAFE
from apim_middleware._ring import refuse, seats_of
from apim_middleware.bodies import Collected, read_body
from apim_middleware.by import Key
from apim_middleware.documentation import Answer, Asked, Documentation, Told
from apim_middleware.env import Env
from apim_middleware.errors import ClientLeft, Refusal, StoreError
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.policy import Policy, check_place, ring, stated
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.keys import ISSUER
from apim_middleware.stores.outage import Outage
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

log = logging.getLogger("apim_middleware")

_FIELD = b"idempotency-key"
_ASKED = "apim_middleware.idempotency"
_OUTCOME = "apim.idempotency"
_REPLAYED = (b"idempotent-replayed", b"true")
_RETRY = {"retry-after": "1"}
_TRY_AGAIN = frozenset((401, 407, 408, 425, 429))
"""Statuses that tell the client to send the request again, so nothing was done."""

_EVENTS = b"text/event-stream"
_FOREVER = 2.0**31
_GRACE = 5.0  # seconds a note may take when the request itself was cancelled
_SENDER = keys.either(keys.principal, keys.subscription, keys.client)
_serial = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Idempotency(Policy):
    """Carry out a request with an ``Idempotency-Key`` once, however often it is sent; repetitions get its response.

    The first response is kept for ``ttl`` seconds and replayed with ``Idempotent-Replayed: true``. Keys belong to the
    caller and to the place where the policy stands; what is compared is host, method, path, query, content type and
    body, and who sent it: the principal and subscription where they are known, else the credentials as they came.

    The work goes on to its end when the client leaves, and its response waits for the repetition. A response of 500 or
    more, 401, 407, 408, 425 or 429, a refusal of a policy behind, and an app that fails before its head free the key:
    the next request is carried out. What was broken off after its head, is larger than ``max_response_bytes`` or an
    event stream was carried out and cannot be replayed. A process that dies frees its keys after ``lease`` seconds.

    Refused: 400 ``idempotency-key-missing`` and ``idempotency-key-invalid``; 409 ``idempotency-in-progress`` with
    ``Retry-After``, and ``idempotency-response-lost``; 413 ``body-too-large``; 422 ``idempotency-key-reused``; 403
    ``caller-unknown``; 503 ``idempotency-unavailable``. WebSockets pass.
    Follows draft-ietf-httpapi-idempotency-key-header-07; Azure has none.
    """

    guards = False

    answers = True

    methods: tuple[str, ...] = ("POST", "PATCH")
    """Methods this is about; the others pass."""

    required: bool = False
    """Whether a request without a key is refused; by default it passes, and is carried out as often as it is sent."""

    by: Key = _SENDER
    """Whose keys are one's own; by default the principal's, else the subscription's, else the client's."""

    ttl: float = 86_400.0
    """Seconds a response is kept for repetitions. Default a day."""

    lease: float = 60.0
    """Seconds until another may begin what a process began that was killed; renewed as long as it works. Default 60."""

    max_request_bytes: int = 1 << 20
    """Largest body of a request with a key, in bytes, for it is read before the app is asked. Default 1 MiB."""

    max_response_bytes: int = 1 << 18
    """Largest body of a response that is kept, in bytes. Default 256 KiB."""

    regardless_of: tuple[Credential, ...] = ()
    """Credentials that do not tell who sent a request, such as ``"cookie"``, and may differ in its repetition."""

    when_store_fails: Literal["refuse", "allow"] = "refuse"
    """With a store that cannot answer: refused with 503, or carried out without protection."""

    @stated
    def documentation(self) -> Documentation:
        """The key, and what becomes of repetitions."""
        missing = ("idempotency-key-missing",) if self.required else ()
        answers = [
            Answer(400, (*missing, "idempotency-key-invalid")),
            Answer(403, ("caller-unknown",)),
            Answer(409, ("idempotency-in-progress", "idempotency-response-lost"), ("retry-after",)),
            Answer(413, ("body-too-large",)),
            Answer(422, ("idempotency-key-reused",)),
            Answer(503, ("idempotency-unavailable",)),
        ]
        asks = (Asked("Idempotency-Key", required=self.required),)
        found = Documentation(answers=tuple(answers), headers=(Told("idempotent-replayed"),), asks=asks)
        return found.only(*self.methods)

    @stated
    def needs(self) -> frozenset[str]:
        """What the key relies on."""
        return needs_of(self.by)

    def __post_init__(self) -> None:
        """Methods must be some that change things, and times and sizes must leave room."""
        for method in self.methods:
            if not is_token(method.encode("latin-1", "replace")) or method != method.upper():
                raise self.mistake("methods", f"holds {method!r}, which is no method", 'Write ("POST", "PATCH")')
            if method in SAFE:
                raise self.mistake("methods", f"holds {method}, which changes nothing", "Leave it out")
        if not self.methods:
            raise self.mistake("methods", "is about nothing", 'Write ("POST", "PATCH"), or leave it out')
        for credential in self.regardless_of:
            if credential in ("principal", "subscription"):
                cure = "Leave it out: whom a policy in front knows always tells who sent a request"
                raise self.mistake("regardless_of", f"holds {credential!r}, which is no field", cure)
        for name in ("ttl", "lease"):
            if not 0 < getattr(self, name) <= 2**31:
                raise self.mistake(name, "is no time", "Give a number of seconds above 0")
        for name in ("max_request_bytes", "max_response_bytes"):
            if getattr(self, name) < 0:
                raise self.mistake(name, "is no size", "Give a number of bytes")

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring that reads keys, and behind it what remembers: apart for each app that it is put in front of."""
        once = _Once(self, app, env, env.within("Idempotency").place or f"~{next(_serial)}")
        if once.shared:
            check_place(self, env)
        return ring(self, once, once, env)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request with a key: the name of its record, and who sent it."""

    name: bytes
    sender: Sequence[str | bytes]


class _Once:
    """Asks for the record of each request with a key, and lets the first one through."""

    taps_body = True  # a body that the server would send itself could not be kept

    def __init__(self, policy: Idempotency, app: ASGIApp, env: Env, place: str) -> None:
        self.policy, self.env = policy, env
        self.entries = env.entries(lambda: MemoryEntries(clock=env.clock))
        self._app, self._place = app, place
        self.seats = seats_of(app)
        self._methods = frozenset(policy.methods)
        self.shared = not isinstance(self.entries, MemoryEntries)
        self._lease = policy.lease if self.shared else _FOREVER  # memory ends with the process that works
        self._outage = Outage(log, f"{policy!r} cannot use its store", f"{policy!r} uses its store again")
        self.under_way: dict[bytes, Record] = {}
        """What is carried out in this process, whatever the store has forgotten to make room."""

    def on_request(self, exchange: Exchange) -> None:
        if exchange.scope.get("method") not in self._methods:  # a WebSocket has none
            return
        lines = exchange.headers(_FIELD)
        if lines:
            exchange.scope[_ASKED] = self._asked(exchange, lines)
        elif self.policy.required:
            raise Refusal(400, "idempotency-key-missing", "The request needs an Idempotency-Key.")

    def _asked(self, exchange: Exchange, lines: Sequence[bytes]) -> _Asked:
        try:
            (line,) = lines
            key = parse_key(line)
        except ValueError:
            raise Refusal(400, "idempotency-key-invalid", "The Idempotency-Key is not one string.") from None
        caller = self.policy.by(exchange)
        if caller is None:
            raise Refusal(403, "caller-unknown", "The request does not say who is calling.")
        return _Asked(digest_of([self._place, caller, key]), list(self._sender(exchange)))

    def _sender(self, exchange: Exchange) -> Iterator[str | bytes]:
        """Who is known to have sent it, and the credentials that does not cover."""
        principal, subscription = exchange.principal, exchange.subscription
        covered = set[str](self.policy.regardless_of)
        if subscription is not None:
            covered.add("key")
            yield from ("subscription", subscription.id)
        if principal is not None and principal.issuer != ISSUER:  # else it is nobody but the holder of a key
            covered |= {"authorization", "certificate", "cookie", "key", "principal"}
            yield from ("principal", principal.identity)
        for name, value in exchange.scope["headers"]:
            carried = CARRIED[name]
            if carried is not None and (carried not in covered or speaks_for_another(name)):
                yield from (name, value)
        if "certificate" not in covered and is_shown(exchange.scope):
            yield from ("certificate", certificate(exchange.scope) or b"?")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked: _Asked | None = scope.pop(_ASKED, None)
        if asked is None:
            await self._app(scope, receive, send)
            return
        try:
            body = await read_body(receive, self.policy.max_request_bytes)
            record = Record("working", _request(scope, asked.sender, body), token_bytes(16))
            found = await self._begin(asked.name, record)
            if found is not None:
                await self._replay(scope, found, record.request, send)
                return
        except ClientLeft:
            return  # there is nobody to answer, and nothing was begun
        except Refusal as refusal:
            await refuse(refusal, scope, send)
            return
        _note(scope, "first")
        self.under_way[asked.name] = record
        work = _Work(self, asked, record, scope[KEY])
        await work.run(self._app, scope, work.telling(body, receive), work.keeping(send))

    async def _begin(self, name: bytes, record: Record) -> Record | None:
        """Take the key for this request, or the record of who has it. Raises Refusal."""
        if working := self.under_way.get(name):
            return working
        try:
            for _ in range(3):  # what is there may be gone when one asks for it
                if await self.entries.add(name, record.pack(), self._lease):
                    self._outage.ends()
                    return None
                found = await self.entries.get(name)
                if found is not None:
                    return unpack(found)
        except (StoreError, ValueError) as error:
            self.failed("begin", error)
            if self.policy.when_store_fails == "allow":
                return None
            raise Refusal(503, "idempotency-unavailable", "It cannot be told if this was done already.") from error
        return Record("working", record.request)

    async def _replay(self, scope: Scope, found: Record, request: bytes, send: Send) -> None:
        """Answer a repetition. Raises Refusal."""
        if found.request != request:
            _note(scope, "reused")
            raise Refusal(422, "idempotency-key-reused", "This Idempotency-Key came with another request before.")
        if found.phase == "working":
            _note(scope, "in-progress")
            detail = "The first request with this Idempotency-Key is being carried out."
            raise Refusal(409, "idempotency-in-progress", detail, headers=_RETRY)
        if found.phase == "lost":
            _note(scope, "lost")
            detail = "The request was carried out, and its response could not be kept."
            raise Refusal(409, "idempotency-response-lost", detail)
        try:
            status, headers, body = unpack_response(found.content)
        except ValueError as error:
            self.failed("replay", error)
            raise Refusal(503, "idempotency-unavailable", "The response cannot be read.") from error
        _note(scope, "replayed")
        await send({"type": "http.response.start", "status": status, "headers": [*headers, _REPLAYED]})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def lost(self) -> None:
        """Tell of a key that the store forgot while its request was carried out."""
        self.env.count("apim.idempotency.lost", {})
        log.error("%r lost a key under way and took it again: its store makes room, or is too slow", self.policy)

    def failed(self, doing: str, error: Exception) -> None:
        """Tell of a store that does not work: each time in the count, and in the log when it begins."""
        self.env.count("apim.idempotency.unavailable", {"apim.idempotency.doing": doing})
        self._outage.begins(error)


def _note(scope: Scope, outcome: str) -> None:
    exchange: Exchange = scope[KEY]
    exchange.attributes[_OUTCOME] = outcome


def _request(scope: Scope, sender: Sequence[str | bytes], body: bytes) -> bytes:
    """What must be equal in a repetition."""
    headers: RawHeaders = scope["headers"]
    described = [get(headers, name) or b"" for name in (b"host", b"content-type", b"content-encoding")]
    target = [scope["method"], scope.get("root_path", ""), scope["path"], scope.get("query_string", b"")]
    return digest_of([*target, *described, body, *sender])


async def _plainly(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


class _Work:
    """A request that is carried out: its app hears nothing of the client's leaving while its response can be kept."""

    def __init__(self, once: _Once, asked: _Asked, record: Record, exchange: Exchange) -> None:
        self._once, self._policy, self._entries = once, once.policy, once.entries
        self._name, self._record = asked.name, record
        self._exchange, self._refusal = exchange, exchange.refusal
        self._hears = Event()  # from then on the app hears of the client's leaving
        self._status = 0
        self._headers: RawHeaders = []
        self._done = False  # whether the request was carried out, by what its response says
        self._body: Collected | None = Collected()  # None when the response cannot be kept
        self._noted = False
        self._noting = Lock(fast_acquire=True)

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry it out, and note what became of it."""
        try:
            await (self._renewing if self._once.shared else _plainly)(app, scope, receive, send)
        except Exception:
            await self._conclude()
            raise
        except BaseException:
            with move_on_after(_GRACE, shield=True):
                await self._conclude(cancelled=True)
            raise
        else:
            await self._conclude()
        finally:
            self._leave()

    async def _renewing(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry it out while the lease is renewed."""
        async with alongside() as tasks:
            tasks.start_soon(self._renew)
            await app(scope, receive, send)

    def telling(self, body: bytes, receive: Receive) -> Receive:
        """The ``receive`` of the app, which begins with the body that was read."""
        told = False

        async def tell() -> Message:
            nonlocal told
            if told:
                await self._hears.wait()
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        return tell

    def keeping(self, send: Send) -> Send:
        """The ``send`` of the app: the response is kept for others before the client has it whole."""

        async def keep(message: Message) -> None:
            await self._take(message)
            try:
                await send(message)
            except OSError:  # the client left, and its response is for when it comes back
                if self._body is None:
                    raise

        return keep

    async def _take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
        elif message["type"] == "http.response.body":
            self._add(message.get("body", b""))
            if not message.get("more_body", False):
                await self._finish()

    def _begin(self, head: Message) -> None:
        self._status = head["status"]
        self._headers = [(name.lower(), value) for name, value in head.get("headers") or ()]
        streams = (get(self._headers, b"content-type") or b"").lower().startswith(_EVENTS)
        refused_behind = self._exchange.refusal is not self._refusal
        self._done = self._status < 500 and self._status not in _TRY_AGAIN and not refused_behind
        if streams or head.get("trailers", False) or not self._done:
            self._give_up()

    def _add(self, chunk: bytes) -> None:
        if self._body is None:
            return
        if len(self._body) + len(chunk) > self._policy.max_response_bytes:
            self._give_up()
        else:
            self._body.add(chunk)

    def _give_up(self) -> None:
        """Keep nothing of this response, so that the app may as well hear of the client's leaving."""
        self._body = None
        self._hears.set()

    # What is noted

    async def _finish(self) -> None:
        """The response is whole."""
        if not self._done:
            await self._note(None)
        elif self._body is None:
            await self._note(Record("lost", self._record.request, b"."))
        else:
            content = pack_response(self._status, self._headers, bytes(self._body))
            await self._note(Record("done", self._record.request, content))
        self._hears.set()

    async def _conclude(self, *, cancelled: bool = False) -> None:
        """The app is at its end, and so is the response, whole or not."""
        if self._done:
            await self._note(Record("lost", self._record.request, b"."))
        else:  # when it was cancelled, nobody knows what was done
            await self._note(self._record if cancelled else None)

    async def _note(self, record: Record | None) -> None:
        """Note once what became of the request; None frees its key, and working lasts as long as a lease."""
        async with self._noting:
            if self._noted:
                return
            self._noted = True
            try:
                if record is None:
                    await self._entries.delete(self._name, value=self._record.pack())
                else:
                    seconds = self._policy.lease if record.phase == "working" else self._policy.ttl
                    await self._entries.set(self._name, record.pack(), seconds)
            except StoreError as error:
                self._once.failed("note", error)
            self._leave()

    def _leave(self) -> None:
        """It is under way no more; whoever took the key when it was free may be."""
        if self._once.under_way.get(self._name) is self._record:
            del self._once.under_way[self._name]

    async def _renew(self) -> None:
        """Renew the lease until there is something to note, or somebody else has it."""
        while not self._noted:
            await sleep(self._policy.lease / 3)
            async with self._noting:
                try:
                    if self._noted or not await self._renewed():
                        return
                except StoreError as error:
                    self._once.failed("renew", error)

    async def _renewed(self) -> bool:
        """Whether the key is still this request's; one that the store forgot meanwhile is taken again."""
        mark, lease = self._record.pack(), self._policy.lease
        found = await self._entries.get(self._name)
        if found == mark:
            await self._entries.set(self._name, mark, lease)
        elif found is None and await self._entries.add(self._name, mark, lease):
            self._once.lost()
        else:
            return False
        return True
