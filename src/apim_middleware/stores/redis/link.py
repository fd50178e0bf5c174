"""A way to a server: commands go out, replies or errors come back."""

from typing import Any, Protocol

from apim_middleware.errors import NotDone, StoreError


class Silence(StoreError):
    """The server did not answer in time."""


class Unreached(Silence, NotDone):
    """The server could not be reached in time."""


class Rejected(StoreError):
    """The server answered with an error; ``kind`` is its first word, such as ``READONLY``."""

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
        "LOADING",
        "MASTERDOWN",
        "MOVED",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "NOSCRIPT",
        "OOM",
        "READONLY",
    )
)


def rejected(address: str, kind: str) -> Rejected:
    """What the server said: some kinds come at the first write of a script, or before it."""
    return Refused(address, kind) if kind in _OUTRIGHT else Rejected(address, kind)


class Link(Protocol):
    """A way to a server that connects when it is first used, and again when it was lost."""

    address: str
    """Where it leads, without names and passwords."""

    async def say(self, *words: bytes) -> Any:  # noqa: ANN401
        """The reply to a command. Raises StoreError, and sends nothing twice."""
        ...

    async def aclose(self) -> None:
        """Close what was opened here."""
        ...
