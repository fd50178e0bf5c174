"""Keys that an issuer publishes at a URL: fetched once for all who wait, kept, renewed, never asked for in a hurry."""

import logging
import re
from collections.abc import Collection
from urllib.parse import urlsplit

import anyio

from apim_middleware._http.headers import get, list_members
from apim_middleware._jose.keys import BadKey, KeySet, keys_from_jwks
from apim_middleware.protocols import Clock, Transport, UpstreamRequest, UpstreamResponse
from apim_middleware.types import RawHeaders

log = logging.getLogger("apim_middleware.jwt")

LARGEST_DOCUMENT = 512 * 1024
SHORTEST_LIFE = 60.0
RETRY = 5.0
MOST_WAITING = 256

_ASKED_FOR = [(b"accept", b"application/jwk-set+json, application/json"), (b"accept-encoding", b"identity")]
_MAX_AGE = re.compile(rb"max-age=\"?(\d{1,10})\"?")


class KeysUnavailable(Exception):
    """No key is known and none can be had now; ``retry_after`` seconds later it may be tried again."""

    def __init__(self, retry_after: float) -> None:
        """Keep when to try again."""
        super().__init__(retry_after)
        self.retry_after = retry_after


class RemoteKeys:
    """The keys at a URL, and how long they are good for.

    Fresh keys are used as they are. Stale ones are renewed by the first exchange that comes, while the others go on
    with the keys known; so do all while the issuer cannot be reached, for ``keep`` seconds after the keys went stale.
    One fetch runs at a time, and none within ``cooldown`` seconds of another, however many tokens name unknown keys.
    """

    def __init__(
        self,
        url: str,
        algorithms: Collection[str],
        *,
        transport: Transport,
        clock: Clock,
        life: float,
        keep: float,
        cooldown: float,
        timeout: float,
    ) -> None:
        """Know where to ask; nothing is fetched before a token asks for it."""
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._target = (parts.path or "/").encode() + (f"?{parts.query}".encode() if parts.query else b"")
        self._headers = [(b"host", parts.netloc.encode()), *_ASKED_FOR]
        self._algorithms = frozenset(algorithms)
        self._transport = transport
        self._now = clock.monotonic
        self._life, self._keep, self._cooldown, self._timeout = life, keep, cooldown, timeout
        self._quiet_until = self._dead_at = self.stale_at = float("-inf")
        self.keys = KeySet(())
        self._fetching: anyio.Event | None = None
        self._waiting = 0

    async def current(self) -> KeySet:
        """The keys as far as known, fetched first when there are none. Raises KeysUnavailable."""
        while True:
            now = self._now()
            if now < self._dead_at:
                if now < self.stale_at or now < self._quiet_until or self._fetching is not None:
                    return self.keys
            elif now < self._quiet_until:
                raise KeysUnavailable(self._quiet_until - now)
            await self._fetched()

    async def other_than(self, keys: KeySet) -> KeySet | None:
        """The keys published now, if they are others than these and the issuer was not asked lately.

        Raises KeysUnavailable when too many are waiting for them.
        """
        if self.keys is keys and (self._fetching is not None or self._now() >= self._quiet_until):
            await self._fetched()
        return None if self.keys is keys else self.keys

    async def _fetched(self) -> None:
        """A fetch has come to its end: the one that is under way, or else our own."""
        if self._fetching is None:
            await self._lead()
            return
        if self._waiting >= MOST_WAITING:
            raise KeysUnavailable(1.0)
        self._waiting += 1
        try:
            await self._fetching.wait()
        finally:
            self._waiting -= 1

    async def _lead(self) -> None:
        """Fetch, and let those who wait go on whatever becomes of it; when it is cancelled, another of them leads."""
        done = self._fetching = anyio.Event()
        known = self._now() < self._dead_at
        if known:
            self._quiet_until = self._now() + self._cooldown
        try:
            self._take(*await self._fetch())
        except Exception as error:  # whatever went wrong, there are no new keys
            self._quiet_until = self._now() + (self._cooldown if known else min(RETRY, self._cooldown))
            log.warning("no keys from %s: %s", self._origin, ascii(str(error) or type(error).__name__)[:200])
        finally:
            self._fetching = None
            done.set()

    def _take(self, keys: KeySet, life: float) -> None:
        """Keep these keys; the same again are the same object, so that what was verified with them stays verified."""
        now = self._now()
        self.stale_at, self._dead_at, self._quiet_until = now + life, now + life + self._keep, now + self._cooldown
        if not len(keys):
            log.warning("%s publishes no key that can verify %s", self._origin, ", ".join(sorted(self._algorithms)))
        if not keys.same_as(self.keys):
            self.keys = keys

    async def _fetch(self) -> tuple[KeySet, float]:
        wait, headers = self._timeout, list(self._headers)
        with anyio.fail_after(wait):
            request = UpstreamRequest("GET", self._origin, self._target, headers, connect=wait, read=wait)
            response = await self._transport.send(request)
            try:
                document = await _document(response)
            finally:
                with anyio.move_on_after(1.0, shield=True):
                    await response.aclose()
        return keys_from_jwks(document, self._algorithms), lifetime(response.headers, self._life)


async def _document(response: UpstreamResponse) -> bytes:
    """The body of a plain 200: no redirect is followed, nothing decompressed, nothing large read. Raises BadKey."""
    if response.status != 200:
        raise BadKey(f"the answer was {response.status}")
    if get(response.headers, b"content-encoding") not in (None, b"identity"):
        raise BadKey("the answer is compressed, which was not asked for")
    received = bytearray()
    async for chunk in response:
        received += chunk
        if len(received) > LARGEST_DOCUMENT:
            raise BadKey("the answer is too large")
    return bytes(received)


def lifetime(headers: RawHeaders, longest: float) -> float:
    """Seconds an answer stays fresh: its ``max-age`` (RFC 9111 §5.2.2.1) within bounds, else the longest."""
    for member in list_members(headers, b"cache-control"):
        if match := _MAX_AGE.fullmatch(member):
            return max(SHORTEST_LIFE, min(float(match[1]), longest))
    return longest
