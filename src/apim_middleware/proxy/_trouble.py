"""What the log says of an upstream that fails: at once when it begins, and rarely while it goes on."""

import logging
from typing import Protocol

from apim_middleware.errors import TransportError, refusal_of
from apim_middleware.protocols import Clock

log = logging.getLogger("apim_middleware")

_EVERY = 60.0
"""Seconds in which the same is told once."""

_WELL = "well"


class Trouble:
    """What goes wrong with one upstream; each kind of failure is told at once, and then once a minute with how many."""

    __slots__ = ("_clock", "_name", "_told", "_untold", "lasting")

    def __init__(self, name: str, clock: Clock) -> None:
        """``name`` is what the log calls the upstream."""
        self._name, self._clock = name, clock
        self._told: dict[str, float] = {}
        self._untold: dict[str, int] = {}
        self.lasting = False
        """Whether something has failed since all was well."""

    def failed(self, error: TransportError) -> None:
        """A request has failed."""
        code = refusal_of(error).code
        self.lasting = True
        if not self._is_due(code):
            self._untold[code] = self._untold.get(code, 0) + 1
            return
        more = self._untold.pop(code, 0)
        log.warning("%s: %s: %s%s", code, self._name, error, f" ({more} more before)" if more else "")

    def ended(self) -> None:
        """A request has not failed, after some that have."""
        if not self._is_due(_WELL):
            return
        self.lasting = False
        more = sum(self._untold.values())
        self._untold.clear()
        self._told = {_WELL: self._told[_WELL]}  # what fails from now on is news
        log.warning("%s answers again%s", self._name, f" ({more} more had failed)" if more else "")

    def _is_due(self, what: str) -> bool:
        now = self._clock.monotonic()
        if now < self._told.get(what, now):
            return False
        self._told[what] = now + _EVERY
        return True


class Troubled(Protocol):
    """Who stands for an upstream, which may be another one later."""

    @property
    def trouble(self) -> Trouble:
        """What goes wrong with it."""
        ...
