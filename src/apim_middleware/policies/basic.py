"""Names and passwords (RFC 7617), checked against salted scrypt hashes."""

import hashlib
import itertools
import logging
import math
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any

from anyio import CapacityLimiter, Semaphore
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync

from apim_middleware._http.basic import BadCredentials, read
from apim_middleware._http.challenges import is_quotable
from apim_middleware.documentation import Answer, Documentation, Scheme, challenged
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.stores.outage import Outage
from apim_middleware.stores.users import Scrypt, UserRecord, UserStore

log = logging.getLogger("apim_middleware.basic")

_serial = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class BasicAuth(Policy):
    """Let in who knows the password of an active user (RFC 7617).

    The user becomes ``exchange.principal``, which apps find as ``request.user``: its subject is the user's name, its
    issuer ``urn:apim-middleware:user``. The credentials are taken out of the request.

    Passwords are hashed in threads, ``at_once`` at a time; a name nobody has costs as much work as a wrong password.

    Refusals: 401 ``credentials-missing`` and ``credentials-invalid`` with a ``Basic`` challenge, the same for a wrong
    password, a user who is not there and one who is suspended; 503 ``authentication-busy`` with ``Retry-After`` when
    too many passwords wait to be hashed; 503 ``user-store-unavailable`` when the store cannot answer.
    """

    provides = frozenset({"principal"})
    guards = True

    users: UserStore = field(repr=False)
    """Where users are looked up, on every request: a ``MemoryUsers``, or anything with its ``find`` and ``cost``."""

    realm: str = "api"
    """The ``realm`` of the challenge."""

    optional: bool = False
    """Whether a request without Basic credentials goes on, without a principal; one with bad ones never does."""

    forward_credentials: bool = False
    """Whether the credentials go on to the app or the upstream; a password that goes no further cannot leak there."""

    at_once: int = 2
    """How many passwords are hashed at the same time; each takes a thread and, by default, 16 MiB for a moment."""

    queue: int = 32
    """How many more may wait for that; further ones are refused."""

    max_remembered: int = 1024
    """How many good credentials are remembered, by a keyed digest, so that not each request is hashed; 0 for none."""

    remember_for: float = 300
    """Seconds for which they are remembered. A changed password and a suspended user count at once all the same."""

    @stated
    def documentation(self) -> Documentation:
        """Basic credentials."""
        basic = Scheme("BasicAuth", {"type": "http", "scheme": "basic"})
        missing = () if self.optional else ("credentials-missing",)
        busy = Answer(503, ("authentication-busy",), ("retry-after",))
        down = Answer(503, ("user-store-unavailable",))
        answers = (challenged(401, *missing, "credentials-invalid"), busy, down)
        found = Documentation(security=((basic,),), answers=answers)
        return found.optional() if self.optional else found

    def __post_init__(self) -> None:
        """Numbers must be numbers of something, and the realm fit a challenge."""
        if not is_quotable(self.realm):
            cure = "Use printable ASCII without quotes and backslashes"
            raise self.mistake("realm", "cannot stand in a challenge", cure)
        for name, least in {"at_once": 1, "queue": 0, "max_remembered": 0}.items():
            if getattr(self, name) < least:
                raise self.mistake(name, "is too small", f"Give at least {least}")
        if not 0 <= self.remember_for < math.inf:
            raise self.mistake("remember_for", "is no time", "Give seconds, 0 or more")

    def bind(self, env: Env) -> "_Gate":
        """The gate, with its memory of good credentials."""
        return _Gate(self, env)


class _Gate:
    """Takes the credentials out, and lets in the user they belong to."""

    def __init__(self, policy: BasicAuth, env: Env) -> None:
        self._lookup: Any = policy.users.find
        self._optional = policy.optional
        self._forward = policy.forward_credentials
        self._nobody = Scrypt.nobodys(policy.users.cost)
        self._memory = _Memory(policy.max_remembered, policy.remember_for, env)
        self._mill = _Mill(policy.at_once, policy.queue)
        self._outage = Outage(log, "the user store cannot answer", "the user store answers again")
        self._challenge = {"www-authenticate": f'Basic realm="{policy.realm}", charset="UTF-8"'}

    async def on_request(self, exchange: Exchange) -> None:
        credentials = self._credentials(exchange)
        if credentials is None:
            return
        user = await self._user(credentials[0])
        right = await self._right(user, *credentials)
        if user is None or not right or not user.active:
            raise self._invalid()
        exchange.principal = user.principal

    def _credentials(self, exchange: Exchange) -> tuple[str, str] | None:
        """The name and the password that came, if any did; they are taken out of the request."""
        value = exchange.header(b"authorization")
        try:
            found = None if value is None else read(value)
        except BadCredentials:
            self._take(exchange)
            raise self._invalid() from None
        if found is not None:
            self._take(exchange)
        elif not self._optional:
            raise Refusal(401, "credentials-missing", "A name and a password are required.", headers=self._challenge)
        return found

    def _take(self, exchange: Exchange) -> None:
        if not self._forward:
            exchange.take_header(b"authorization")

    async def _user(self, name: str) -> UserRecord | None:
        try:
            user = self._lookup(name)
            if isawaitable(user):
                user = await user
        except StoreError as error:
            self._outage.begins(error)
            detail = "Names and passwords cannot be checked at the moment."
            raise Refusal(503, "user-store-unavailable", detail) from error
        self._outage.ends()
        if user is not None and not isinstance(user, UserRecord):
            raise TypeError("a user store gave back what is no UserRecord")
        return user

    async def _right(self, user: UserRecord | None, name: str, password: str) -> bool:
        """Whether it is the user's password; for nobody it takes as long to say no."""
        hashed = self._nobody if user is None else user.scrypt
        digest = self._memory.digest(name, password)
        if self._memory.knows(digest, hashed):
            return True
        async with self._mill:
            if self._memory.knows(digest, hashed):  # somebody with the same credentials was before us in the line
                return True
            right = await self._mill.hash(hashed, password)
        if right:
            self._memory.keep(digest, hashed)
        return right

    def _invalid(self) -> Refusal:
        detail = "The name or the password is wrong."
        return Refusal(401, "credentials-invalid", detail, headers=self._challenge)


class _Memory:
    """Good credentials by a digest under a key of this process; the oldest makes room."""

    def __init__(self, room: int, life: float, env: Env) -> None:
        self._room, self._life, self._now = room, life, env.clock.monotonic
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[Scrypt, float]] = OrderedDict()

    def digest(self, name: str, password: str) -> bytes:
        return hashlib.blake2b(f"{len(name)}:{name}{password}".encode(), key=self._key, digest_size=32).digest()

    def knows(self, digest: bytes, hashed: Scrypt) -> bool:
        """Whether these credentials were found good, not long ago, for the hash the user still has."""
        known = self._known.get(digest)
        if known is None:
            return False
        if known[0] == hashed and self._now() < known[1]:
            return True
        del self._known[digest]
        return False

    def keep(self, digest: bytes, hashed: Scrypt) -> None:
        self._known[digest] = (hashed, self._now() + self._life)
        if len(self._known) > self._room:
            self._known.popitem(last=False)


class _Room:
    """Who hashes and who waits on one event loop."""

    def __init__(self, at_once: int) -> None:
        self.turns = Semaphore(at_once)
        self.threads = CapacityLimiter(at_once)


class _Mill:
    """Hashes passwords in threads, a few at a time, with a line in front that is never long."""

    def __init__(self, at_once: int, queue: int) -> None:
        self._at_once, self._queue = at_once, queue
        self._rooms: RunVar[_Room] = RunVar(f"apim_middleware.basic.{next(_serial)}")

    def _room(self) -> _Room:
        room = self._rooms.get(None)
        if room is None:
            room = _Room(self._at_once)
            self._rooms.set(room)
        return room

    async def __aenter__(self) -> None:
        turns = self._room().turns
        if turns.value == 0 and turns.statistics().tasks_waiting >= self._queue:
            detail = "Too many passwords are being checked. Try again later."
            raise Refusal(503, "authentication-busy", detail, headers={"retry-after": "1"})
        await turns.acquire()

    async def __aexit__(self, *raised: object) -> None:
        self._room().turns.release()

    async def hash(self, hashed: Scrypt, password: str) -> bool:
        """Whether a password is the one, found out in a thread; who leaves meanwhile waits for its end."""
        return await run_sync(hashed.matches, password, limiter=self._room().threads)
