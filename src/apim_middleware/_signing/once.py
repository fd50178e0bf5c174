"""What may be used once: nonces and signatures, for as long as a message with them would be accepted."""

import logging
from hashlib import blake2b
from weakref import WeakKeyDictionary

from apim_middleware.env import Env
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.policy import Policy, check_place
from apim_middleware.protocols import Counters, Hit, Limit
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.stores.outage import Outage
from apim_middleware.stores.replays import MemoryReplays, ShareTaken

log = logging.getLogger("apim_middleware.signature")

_AWAY = "the store of what was used once cannot answer"
_BACK = "the store of what was used once answers again"
_MOST = 1_000_000
_SPARE = 1.0  # seconds: what counts up to a moment still counts at that moment

_apart: WeakKeyDictionary[MemoryCounters, MemoryReplays] = WeakKeyDictionary()


def check_once(policy: Policy, env: Env) -> None:
    """Counters of several processes need a place with a name."""
    if not isinstance(_counters(env), MemoryCounters):
        check_place(policy, env)


def _counters(env: Env) -> Counters:
    return env.counters(lambda: MemoryCounters(clock=env.clock))


def _beside(counters: MemoryCounters, env: Env) -> MemoryReplays:
    """What was used by all who share these counters."""
    return _apart.setdefault(counters, MemoryReplays(_MOST, env.clock))


class Once:
    """What counters share is used once in all processes, each text as a limit of one use; else in this process.

    Counters in memory make room for new keys, and anybody can make up those of a limit. So what was used is kept apart
    from them, where a million fit that count still, and it is said when there are more.
    """

    def __init__(self, env: Env, seconds: float) -> None:
        """Keep what was used under a place of its own, for as long as it would be accepted."""
        self._counters = counters = _counters(env)
        self._here = _beside(counters, env) if type(counters) is MemoryCounters else None
        self._outage = Outage(log, _AWAY, _BACK)
        self._place, self._seconds = _digest(env.place), seconds + _SPARE
        self._limit = Limit(1, self._seconds, "log", f"once/{self._place}")

    async def first(self, text: str, *, of: str = "") -> bool:
        """Whether this is the first use; it is noted. Raises Refusal when the store cannot say.

        ``of`` is whose it is, where there are several: none of them gets all the room there is in this process.
        """
        try:
            first = await self._used(text, of)
        except StoreError as error:
            if not isinstance(error, ShareTaken):
                self._outage.begins(error)
            detail = "Signatures cannot be checked at the moment."
            raise Refusal(503, "replay-store-unavailable", detail) from error
        self._outage.ends()
        return first

    async def _used(self, text: str, of: str) -> bool:
        if self._here is None:
            return (await self._counters.hit([Hit(_digest(text), self._limit)]))[0].allowed
        whose = _digest(f"{self._place} {of}").encode() if of else b""
        return await self._here.add(_digest(f"{self._place} {text}").encode(), whose, self._seconds)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
