"""Asking members of a pool how they are: ``HealthCheck``, and the count of what they said."""

import re
from dataclasses import dataclass

from apim_middleware._config import Configured
from apim_middleware._http.headers import is_token
from apim_middleware.proxy._statuses import statuses_of

_TARGET = re.compile(r"/[!-\"$-~]*")
_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class HealthCheck(Configured):
    """Ask every member of a pool how it is, again and again, and send nothing to those that are not well.

    A member is taken for well until ``down`` checks one after the other have failed; then until ``up`` have succeeded
    it is not. The checks begin when the server starts, or with the first request where no lifespan comes to the proxy,
    and end with the server or the event loop. Every process makes its own. Each member is asked on its own, whatever
    the others do, over a connection that requests do not use: one that is busy is not taken for unwell.
    """

    path: str = "/"
    """The path that is asked for, behind that of the member's URL, with or without a query."""

    every: float = 5.0
    """Seconds between two checks of a member, give or take a tenth, so that processes do not ask all at once."""

    timeout: float = 2.0
    """Seconds a check may take, answer and all."""

    up: int = 2
    """How many checks one after the other must succeed to bring a member back."""

    down: int = 3
    """How many checks one after the other must fail to put a member out."""

    statuses: tuple[int | str, ...] = ("2xx",)
    """Statuses of a member that is well: ``200``, ``"2xx"``, ``"200-399"``."""

    method: str = "GET"
    """The method that is asked with, such as ``"HEAD"``."""

    def __post_init__(self) -> None:
        """The numbers must make sense, and the path must be one."""
        if _TARGET.fullmatch(self.path) is None:
            raise self.mistake("path", "is no path", 'Write path="/healthz"')
        if not is_token(self.method.encode("latin-1", "replace")):
            raise self.mistake("method", "is no method", 'Write method="HEAD"')
        for name in ("every", "timeout"):
            if not 0 < getattr(self, name) <= _DAY:
                raise self.mistake(name, "is out of range", f"Give seconds above 0, up to {_DAY:g}")
        for name in ("up", "down"):
            if getattr(self, name) < 1:
                raise self.mistake(name, "is too few", "Give a number of at least 1")
        if not statuses_of(self, "statuses"):
            raise self.mistake("statuses", "leaves nobody well", 'Write statuses=("2xx",)')


class Pulse:
    """What the latest checks of one member have said."""

    __slots__ = ("_row", "_rule", "well")

    def __init__(self, rule: HealthCheck) -> None:
        """A member that is taken to be well."""
        self.well: bool = True
        self._rule = rule
        self._row = 0  # of checks that contradict ``well``

    def turns(self, *, well: bool) -> bool:
        """Take in what a check said; whether that changes anything."""
        self._row = self._row + 1 if well != self.well else 0
        if self._row < (self._rule.up if well else self._rule.down):
            return False
        self.well, self._row = well, 0
        return True
