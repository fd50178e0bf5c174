"""A way to a server: commands go out, replies or errors come back."""

import re
from typing import Any, Protocol

from apim_middleware.errors import NotDone, Spoiled, StoreError


class Silence(StoreError):
    """The server did not answer in time."""


class Unreached(Silence, NotDone):
    """The server could not be reached in time."""


class Rejected(StoreError):
    """The server cannot serve as it is; ``kind`` is the first word of what it said, such as ``READONLY``."""

    def __init__(self, address: str, kind: str) -> None:
        """The rest of what it said may hold anything."""
        super().__init__(address, kind)
        self.kind = kind

    def __str__(self) -> str:
        """The kind only."""
        return f"the store on {self.args[0]} said {self.kind}"


class Refused(Rejected, NotDone):
    """The server answered with an error before it did anything."""


_OUTRIGHT = frozenset(
    (
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "CROSSSLOT",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "NOSCRIPT",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "WRONGPASS",
    )
)
"""What is said at the first write of a script, or before it."""

_ELSEWHERE = frozenset(("MASTERDOWN", "NOAUTH", "READONLY"))
"""What a new connection may mend: the name may lead to another server by now, or the password may be another."""

_OF_ONE_KEY = frozenset(("ERR", "WRONGTYPE"))
"""What may be wrong with a key; all else that a server says is wrong with the server, or with who we are there."""

_UNSAID: dict[str, re.Pattern[str]] = {
    "NOAUTH": re.compile("unauthenticated"),
    "NOPERM": re.compile("user executing the script|not allowed from script|unknown .*command", re.I),
}
"""Of errors that begin with ``ERR`` those that some versions of the server give a kind of their own."""


def kind_of(told: str) -> str:
    """The kind of an error of the server; nothing when it has none, as errors of a script."""
    kind = told.partition(" ")[0]
    if not kind.isupper():
        return ""
    return next((each for each, said in _UNSAID.items() if kind == "ERR" and said.search(told)), kind)


def rejected(address: str, kind: str, told: str) -> Rejected:
    """What the server said of a command, or of one call in a script."""
    halfway = kind == "NOPERM" and "script" in told  # not every command of it need be forbidden
    return Refused(address, kind) if kind in _OUTRIGHT and not halfway else Rejected(address, kind)


def failed(address: str, told: bytes | str) -> StoreError:
    """What the server said of one call in a script: the kind only."""
    text = told.decode("utf-8", "replace") if isinstance(told, bytes) else told
    kind = kind_of(text)
    if not kind or kind in _OF_ONE_KEY:
        return Spoiled(f"the store could not do this ({kind or 'script error'})")
    return rejected(address, kind, text)


def is_elsewhere(error: StoreError) -> bool:
    """Whether a new connection may lead to a server that can do it."""
    return isinstance(error, Rejected) and error.kind in _ELSEWHERE


class Link(Protocol):
    """A way to a server that connects when it is first used, and again when it was lost."""

    address: str
    """Where it leads, without names and passwords."""

    async def say(self, *words: bytes) -> Any:  # noqa: ANN401
        """The reply to a command. Raises StoreError, and sends nothing twice."""
        ...

    def leave(self) -> None:
        """Let who asks from now on have another connection; what is on its way comes back on the old one."""
        ...

    async def aclose(self) -> None:
        """Close what was opened here."""
        ...
