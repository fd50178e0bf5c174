"""A way to a server: commands go out, replies or errors come back."""

from typing import Any, Protocol

from apim_middleware.errors import StoreError


class Silence(StoreError):
    """The server did not answer in time."""


class Rejected(StoreError):
    """The server answered with an error; ``kind`` is its first word, such as ``READONLY``."""

    def __init__(self, address: str, kind: str) -> None:
        """The rest of what it said may hold anything."""
        super().__init__(address, kind)
        self.kind = kind

    def __str__(self) -> str:
        """The kind only."""
        return f"the store on {self.args[0]} said {self.kind}"


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
