"""What may be used once: nonces and signatures, for as long as a message with them would be accepted."""

import logging
from hashlib import blake2b

from apim_middleware.env import Env
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.policy import Policy, check_place
from apim_middleware.protocols import Counters, Hit, Limit
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.stores.outage import Outage

log = logging.getLogger("apim_middleware.signature")

_AWAY = "the store of what was used once cannot answer"
_BACK = "the store of what was used once answers again"
_SPARE = 1.0  # seconds: what counts up to a moment still counts at that moment


def counters_for(policy: Policy, env: Env) -> Counters:
    """The counters in which it is noted; those of several processes need a place with a name."""
    counters = env.counters(lambda: MemoryCounters(env.clock))
    if not isinstance(counters, MemoryCounters):
        check_place(policy, env)
    return counters


class Once:
    """Each text counts as a limit of one use in ``seconds``: what the counters share, is used once in all processes."""

    def __init__(self, counters: Counters, place: str, seconds: float) -> None:
        """Keep what was used under a place of its own."""
        self._counters = counters
        self._outage = Outage(log, _AWAY, _BACK)
        self._limit = Limit(1, seconds + _SPARE, "log", f"once/{_digest(place)}")

    async def first(self, text: str) -> bool:
        """Whether this is the first use; it is noted. Raises Refusal when the store cannot say."""
        try:
            tally = (await self._counters.hit([Hit(_digest(text), self._limit)]))[0]
        except StoreError as error:
            self._outage.begins(error)
            detail = "Signatures cannot be checked at the moment."
            raise Refusal(503, "replay-store-unavailable", detail) from error
        self._outage.ends()
        return tally.allowed


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
